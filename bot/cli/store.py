"""`twokey store`: our own database."""

from __future__ import annotations

import os

import typer

from approvals.words import BadInputError
from bot.cli.output import JsonOption, run, say, say_json
from bot.settings import Settings, load_settings
from bot.storage import open_dsn
from jobs.away import is_away
from store.upgrade import upgrade as upgrade_schema

store_app = typer.Typer(help="Look after Twokey's own database.", no_args_is_help=True)


@store_app.callback()
def store() -> None:
    """Twokey's own database."""


@store_app.command()
def upgrade(as_json: JsonOption = False) -> None:
    """Bring the schema up to date; does nothing when it is. Uses TWOKEY_STORE_OWNER if set."""
    try:
        run(_upgrade(load_settings()))
    except Exception as error:
        if not is_away(error):
            raise
        raise BadInputError(
            f"The store cannot be reached: {error}.",
            next_step="Check TWOKEY_STORE_OWNER or TWOKEY_STORE, and that its server is up.",
        ) from error
    if as_json:
        say_json({"ok": True, "schema": "current"})
    else:
        say("The store's schema is current.")


async def _upgrade(settings: Settings) -> None:
    if settings.store_owner is not None:
        await upgrade_schema(settings.store_owner)
        return
    async with open_dsn(settings, os.environ) as dsn:
        await upgrade_schema(dsn)
