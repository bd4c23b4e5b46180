"""`twokey drills`: what was rehearsed, and a report as the very bytes that were hashed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from approvals.counting import count_text
from approvals.words import BadInputError
from bot.cli.output import JsonOption, complain, run, say, say_json
from bot.settings import load_settings
from bot.storage import open_store
from store.drills import StoredDrill, canonical_report, drill_of, drills

drills_app = typer.Typer(help="List rehearsed disasters, and export reports.", no_args_is_help=True)
LISTED_MAX: Final = 100
_MODE: Final = 0o600


@drills_app.command("list")
def list_newest(
    database: Annotated[str, typer.Option(help="Of this database; all when left out.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List drills, the newest first."""
    found = run(_listed(database))
    if as_json:
        say_json([_row(each) for each in found])
        return
    for each in found:
        said = "CHANGED" if not each.is_intact else each.end or f"running: {each.phase}"
        say(
            f"{each.request_id}  {each.started_at:%Y-%m-%d %H:%M} UTC  {each.kind} {each.database}"
            f"  {said}"
        )
    say(f"{count_text(len(found), 'drill')}.")


@drills_app.command("export")
def export(
    request_id: Annotated[int, typer.Argument(metavar="REQUEST", help="Number of the request.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; standard output when left out.")
    ] = None,
) -> None:
    """Write a report as JSON, in the bytes that were hashed; 1 when it is not as it was stored.

    Its SHA-256 goes to standard error: the same that `sha256sum` says of the output.
    """
    drill = run(_drill(request_id))
    if drill is None or drill.report is None:
        raise BadInputError(
            f"There is no report of request {request_id}.",
            next_step="See which drills there are: twokey drills list",
        )
    data = canonical_report(drill.report).encode()
    _write(data, out)
    if not drill.is_intact:
        complain(
            f"The report of request {request_id} is not the one whose hash was stored with it.",
            "Check the audit: twokey audit verify. Hold it against an evidence pack of that time.",
        )
        raise typer.Exit(1)
    sys.stderr.write(f"SHA-256 {drill.sha256}, as it was stored.\n")


def _write(data: bytes, out: Path | None) -> None:
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise BadInputError(
            f"{out} cannot be written: {error.strerror}.", next_step="Check the path."
        ) from None


def _row(drill: StoredDrill) -> dict[str, object]:
    return {
        "request": drill.request_id,
        "database": drill.database,
        "environment": drill.environment,
        "kind": drill.kind,
        "started_at": drill.started_at.isoformat(),
        "ended_at": drill.ended_at.isoformat() if drill.ended_at else None,
        "phase": drill.phase,
        "end": drill.end,
        "sha256": drill.sha256,
        "intact": drill.is_intact,
    }


async def _listed(database: str) -> Sequence[StoredDrill]:
    settings = load_settings()
    async with open_store(settings, os.environ) as store, store.begin() as conn:
        return await drills(conn, database or None, limit=LISTED_MAX)


async def _drill(request_id: int) -> StoredDrill | None:
    settings = load_settings()
    async with open_store(settings, os.environ) as store, store.begin() as conn:
        return await drill_of(conn, request_id)
