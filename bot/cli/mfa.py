"""`twokey mfa`: second factors, for operators."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Annotated

import typer

from approvals.sealing import SecretBox
from approvals.second_factors import SecondFactors
from approvals.signing import VoteKeys
from approvals.words import BadInputError, PersonId
from bot.cli.output import JsonOption, run, say, say_json
from bot.process import utc_now
from bot.settings import load_settings
from bot.storage import open_store, vote_keys

mfa_app = typer.Typer(help="Second factors that somebody has lost.", no_args_is_help=True)


@mfa_app.callback()
def mfa() -> None:
    """Second factors of people."""


@mfa_app.command("reset")
def reset(
    person: Annotated[
        str, typer.Argument(metavar="PERSON", help="Confirmed e-mail address of the person.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Remove somebody's second factor without a code. They are told, and the audit keeps it."""
    name = PersonId(person.strip().lower())
    run(_reset(name))
    if as_json:
        say_json({"person": name, "reset": True})
        return
    say(f"The second factor of {name} is removed. /db mfa enroll sets a new one up.")


async def _reset(person: PersonId) -> None:
    """Remove it.

    Raises:
        BadInputError: this person has none.
    """
    settings = load_settings()
    current, previous = vote_keys(settings)
    async with open_store(settings, os.environ) as store:
        factors = SecondFactors(
            store=store,
            box=SecretBox(VoteKeys(current=current, previous=previous)),
            clock=utc_now,
        )
        if not await factors.reset(
            person, by=f"operator {getpass.getuser()}@{socket.gethostname()}"
        ):
            raise BadInputError(
                f"{person} has no second factor.",
                next_step="Name them by their confirmed e-mail address, as the audit does.",
            )
