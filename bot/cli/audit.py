"""`twokey audit`: verify the chains, and take them out of the database."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer

from approvals import audit
from approvals.anchor_file import AnchorFileError, append_anchor
from approvals.anchoring import Taken
from approvals.anchors import Anchors
from approvals.counting import count_text
from approvals.exports import Filters
from approvals.offline import Report, check_files, load_anchors
from approvals.words import BadInputError
from bot.anchoring import AnchorPlace, take_now
from bot.cli.evidence import evidence
from bot.cli.moments import moment
from bot.cli.output import JsonOption, run, say, say_json
from bot.inventory import load_inventory
from bot.settings import Settings, load_settings
from bot.storage import open_store

audit_app = typer.Typer(help="Verify, export and anchor the audit.", no_args_is_help=True)
audit_app.command()(evidence)

Chain = Annotated[
    str | None,
    typer.Option(
        "--chain",
        "--database",
        help="One database's chain; '' for what belongs to none. All when left out.",
    ),
]


class Format(StrEnum):
    """How an export is written."""

    JSONL = "jsonl"
    CSV = "csv"


@audit_app.command()
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(help="An exported file, checked offline and alone; else the store."),
    ] = None,
    chain: Annotated[
        str | None,
        typer.Option(
            "--chain", "--database", help="Of the store: one chain. An export says what it holds."
        ),
    ] = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchors",
            "--heads",
            help="Anchors that were kept elsewhere: the file, or text copied from the channel. "
            "May be given again.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every hash; ends with 1 when something was edited, removed, added or cut."""
    if file is not None:
        if chain is not None:
            raise BadInputError(
                "An export is checked as what it says it holds.",
                next_step=f"Leave --chain out, or: twokey audit export --chain {chain}",
            )
        report = check_files(file, anchors or [])
    else:
        report = run(_verify_store(load_settings(), chain, load_anchors(anchors or [])))
    tell(report, as_json=as_json)


def tell(report: Report, *, as_json: bool) -> None:
    """Print a report; ends with 1 when something is wrong."""
    if as_json:
        say_json(report.to_json())
    else:
        for sentence in report.sentences():
            say(sentence)
    if not report.ok:
        raise typer.Exit(1)


@audit_app.command()
def export(  # noqa: PLR0917 - each is an option
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; standard output when left out.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="JSON Lines, or CSV.")] = Format.JSONL,
    chain: Chain = None,
    since: Annotated[str, typer.Option(help="From this time on: 2026-01-01, UTC.")] = "",
    until: Annotated[str, typer.Option(help="Up to this time, not included.")] = "",
    actor: Annotated[str | None, typer.Option(help="Only what this person did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, such as vote.")] = None,
    request: Annotated[int | None, typer.Option(help="Only about this request.")] = None,
    heads: Annotated[
        bool, typer.Option("--heads", help="Only where the chains end now, as bare lines.")
    ] = False,
) -> None:
    """Write entries, which `audit verify FILE` checks offline; the first line says which."""
    filters = Filters(
        chain=chain,
        since=moment(since) if since else None,
        until=moment(until) if until else None,
        actor=actor,
        action=action,
        request=request,
    )
    with _target(out) as file:
        run(_export(load_settings(), file, filters, form, heads_only=heads))


@audit_app.command()
def anchor(as_json: JsonOption = False) -> None:
    """Take an anchor now: into the audit, the channel, and this host's file; 1 without the file."""
    settings = load_settings()
    inventory = load_inventory(settings.config)
    if inventory.anchors is None:
        raise BadInputError(
            f"{inventory.path} does not say where anchors are kept.",
            next_step="anchors: {channel: C0123ABCD, file: /var/lib/twokey/anchors}",
        )
    taken = run(_anchor(settings, inventory.anchors))
    trouble = ""
    if inventory.anchors.file is not None:
        try:
            append_anchor(inventory.anchors.file, taken.heads, at=taken.at)
        except AnchorFileError as error:
            trouble = f"{error.problem} {error.next_step}"
    if as_json:
        say_json({"ok": not trouble, "problem": trouble, **taken.to_json()})
    else:
        say(f"Anchored {count_text(len(taken.heads), 'chain')}, combined hash {taken.root}.")
        say(trouble or f"Kept in {inventory.anchors.file or 'the channel and the audit'}.")
    if trouble:
        raise typer.Exit(1)


async def _anchor(settings: Settings, place: AnchorPlace) -> Taken:
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    async with open_store(settings, os.environ) as store:
        return await take_now(store, place, by=who, clock=lambda: datetime.now(UTC))


async def _verify_store(settings: Settings, chain: str | None, anchors: Anchors | None) -> Report:
    # One snapshot for entries and heads, or an entry between the two would be a finding.
    async with open_store(settings, os.environ) as store, store.begin() as conn:
        await conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return await audit.check_store(conn, chain=chain, anchors=anchors)


async def _export(
    settings: Settings, file: TextIO, filters: Filters, form: Format, *, heads_only: bool
) -> None:
    async with open_store(settings, os.environ) as store, store.begin() as conn:
        await conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if heads_only:
            ends = await audit.heads(conn, chain=filters.chain)
            file.writelines(f"{json.dumps(asdict(head))}\n" for head in ends)
            return
        async for line in audit.export_lines(conn, filters, form.value):
            file.write(line + "\n")


@contextmanager
def _target(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be written: {error.strerror}.", next_step="Check the path."
        ) from None
