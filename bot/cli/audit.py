"""`twokey audit`: verify the chains, and take them out of the database."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO

import typer

from approvals import audit
from approvals.audit import Entry, Finding, Head
from approvals.words import BadInputError
from bot.cli.output import JsonOption, run, say, say_json
from bot.settings import Settings, load_settings
from bot.storage import open_store

audit_app = typer.Typer(help="Verify and export the audit.", no_args_is_help=True)

Chain = Annotated[
    str | None,
    typer.Option(help="One database's chain; '' for what belongs to none. All when left out."),
]


@audit_app.command()
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(help="An exported file, checked without the database; else the store."),
    ] = None,
    chain: Chain = None,
    heads: Annotated[
        Path | None,
        typer.Option(help="Heads that were kept elsewhere, written by `audit export --heads`."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every hash; ends with 1 when something was edited, removed, added or cut."""
    known = _read_heads(heads) if heads else None
    if file is not None:
        findings, count = _verify_file(file, chain, known or [])
    else:
        findings, count = run(_verify_store(load_settings(), chain, known))
    if as_json:
        say_json({"ok": not findings, "entries": count, "findings": [asdict(f) for f in findings]})
    else:
        for finding in findings:
            say(f"{finding.chain or '(general)'}, entry {finding.seq}: {finding.problem}")
        say(f"{count} entries: {f'{len(findings)} finding(s)' if findings else 'all in order'}.")
    if findings:
        raise typer.Exit(1)


@audit_app.command()
def export(
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; standard output when left out.")
    ] = None,
    chain: Chain = None,
    heads: Annotated[
        bool, typer.Option("--heads", help="Only where the chains end: keep that elsewhere.")
    ] = False,
) -> None:
    """Write all entries as lines of JSON, which `audit verify FILE` checks offline."""
    with _target(out) as file:
        run(_export(load_settings(), file, chain, heads_only=heads))


async def _verify_store(
    settings: Settings, chain: str | None, known: list[Head] | None
) -> tuple[list[Finding], int]:
    # One snapshot for entries and heads, or an entry between the two would be a finding.
    async with open_store(settings, os.environ) as store, store.begin() as conn:
        await conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        ends = known if known is not None else await audit.heads(conn, chain=chain)
        entries = [entry async for entry in audit.read(conn, chain=chain)]
    return audit.verify(entries, ends), len(entries)


def _verify_file(file: Path, chain: str | None, known: Iterable[Head]) -> tuple[list[Finding], int]:
    count = 0

    def entries(lines: Iterable[str]) -> Iterator[Entry]:
        nonlocal count
        for line in lines:
            entry = audit.from_line(line)
            if chain is None or entry.chain == chain:
                count += 1
                yield entry

    with _source(file) as lines:
        findings = audit.verify(entries(lines), known)
    return findings, count


async def _export(settings: Settings, file: TextIO, chain: str | None, *, heads_only: bool) -> None:
    async with open_store(settings, os.environ) as store, store.begin() as conn:
        if heads_only:
            ends = await audit.heads(conn, chain=chain)
            file.writelines(f"{json.dumps(asdict(head))}\n" for head in ends)
            return
        async for line in audit.export(conn, chain=chain):
            file.write(line + "\n")


def _read_heads(path: Path) -> list[Head]:
    try:
        with _source(path) as lines:
            return [Head(**json.loads(line)) for line in lines]
    except (ValueError, TypeError):
        raise BadInputError(
            f"{path} holds no heads of chains.",
            next_step="Use a file that `twokey audit export --heads` wrote.",
        ) from None


@contextmanager
def _source(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read: {error.strerror}.", next_step="Check the path."
        ) from None


@contextmanager
def _target(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        with path.open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be written: {error.strerror}.", next_step="Check the path."
        ) from None
