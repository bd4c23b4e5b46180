"""`twokey runs`: what is at work, and what waits for a person's finding."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import sqlalchemy as sa
import typer

from approvals.counting import count_text
from approvals.words import BadInputError, RunId
from bot.app import assembled
from bot.cli.output import JsonOption, run, say, say_json
from bot.inventory import load_inventory
from bot.settings import load_settings
from bot.storage import open_store
from jobs.recover import Finding, resolve

runs_app = typer.Typer(help="Look at runs, and settle those in doubt.", no_args_is_help=True)

OPEN_RUNS: Final = sa.text("""
    SELECT id, request_id, operation, database, state, worker, queued_at, heartbeat_at,
           coalesce(outcome ->> 'problem', progress ->> 'text', '') AS says
      FROM runs
     WHERE state IN ('queued', 'running', 'needs_attention')
  ORDER BY state = 'needs_attention' DESC, id
     LIMIT 50
""")


@runs_app.callback()
def runs() -> None:
    """Runs of granted requests."""


@runs_app.command("list")
def list_open(as_json: JsonOption = False) -> None:
    """List runs that have not ended, those that need attention first."""
    found = run(_open_runs())
    if as_json:
        say_json([{name: _plain(value) for name, value in row.items()} for row in found])
        return
    for row in found:
        where = f" on {row['worker']}" if row["worker"] else ""
        says = f": {row['says']}" if row["says"] else ""
        say(f"{row['id']}  {row['state']}  {row['operation']} {row['database']}{where}{says}")
    say(f"{count_text(len(found), 'open run')}.")


@runs_app.command("resolve")
def settle(
    run_id: Annotated[int, typer.Argument(metavar="RUN", help="Number of the run.")],
    happened: Annotated[
        bool, typer.Option("--happened", help="The step took effect: go on after it.")
    ] = False,
    did_not_happen: Annotated[
        bool, typer.Option("--did-not-happen", help="It did not: begin it again.")
    ] = False,
    abort: Annotated[bool, typer.Option("--abort", help="End the run as failed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what you found out about the step whose outcome nobody knew."""
    said = [
        finding
        for finding, given in (
            (Finding.HAPPENED, happened),
            (Finding.DID_NOT_HAPPEN, did_not_happen),
            (Finding.ABORT, abort),
        )
        if given
    ]
    if len(said) != 1:
        raise BadInputError(
            f"It takes one finding, and {len(said)} were given.",
            next_step="Give --happened, --did-not-happen or --abort.",
        )
    if not run(_resolve(RunId(run_id), said[0])):
        raise BadInputError(
            f"Run {run_id} does not wait for a person's finding.",
            next_step="See those that do: twokey runs list",
        )
    if as_json:
        say_json({"ok": True, "run": run_id, "finding": str(said[0])})
    else:
        say(f"Run {run_id}: {said[0]}. It is in the audit.")


async def _open_runs() -> Sequence[dict[str, Any]]:
    settings = load_settings()
    async with open_store(settings, os.environ) as store, store.begin() as conn:
        return [dict(row) for row in (await conn.execute(OPEN_RUNS)).mappings()]


async def _resolve(run_id: RunId, finding: Finding) -> bool:
    settings = load_settings()
    inventory = load_inventory(settings.config)
    async with (
        open_store(settings, os.environ) as store,
        assembled(settings, inventory, store=store) as twokey,
    ):
        who = f"{getpass.getuser()}@{socket.gethostname()}"
        return await resolve(twokey.worker.given, run_id, finding, by=who)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
