"""`twokey audit evidence`: what happened in a period, as one archive that proves itself."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from approvals import evidence as packs
from approvals.evidence import Period
from approvals.evidence_check import check_pack
from approvals.evidence_text import Population
from approvals.offline import load_anchors
from approvals.words import BadInputError
from bot.cli.moments import moment
from bot.cli.output import JsonOption, run, say, say_json
from bot.settings import Settings, load_settings
from bot.storage import open_store

_MODE = 0o600


def evidence(
    since: Annotated[str, typer.Option(help="From this time on: 2026-01-01, UTC.")] = "",
    until: Annotated[str, typer.Option(help="Up to this time, not included.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="The archive to write.")] = None,
    pack: Annotated[
        Path | None, typer.Option("--verify", help="Check this archive instead, offline.")
    ] = None,
    manifest: Annotated[
        str | None, typer.Option("--hash", help="With --verify: what its manifest's hash was.")
    ] = None,
    anchors: Annotated[
        list[Path] | None, typer.Option(help="With --verify: anchors that were kept elsewhere.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pack all requests of a period with votes, runs, policies and audit; or check such a pack."""
    if pack is not None:
        _verify(pack, manifest, anchors or [], as_json=as_json)
        return
    if not since or not until or out is None:
        raise BadInputError(
            "An evidence pack needs --since, --until and --out.",
            next_step="twokey audit evidence --since 2026-01-01 --until 2026-04-01 --out q1.zip",
        )
    period = _period(since, until, now=datetime.now(UTC))
    digest, population = run(_make(load_settings(), period, out))
    if as_json:
        say_json({"ok": True, "manifest": digest, "out": str(out), **population.to_json()})
    else:
        say(f"{out}: {population.statement}")
        say(f"Hash of its manifest, which the audit keeps too: {digest}")


def _verify(pack: Path, manifest: str | None, anchors: list[Path], *, as_json: bool) -> None:
    report = check_pack(pack, anchors=load_anchors(anchors), manifest=manifest)
    if as_json:
        say_json(report.to_json())
    else:
        for sentence in report.sentences():
            say(sentence)
    if not report.ok:
        raise typer.Exit(1)


def _period(since: str, until: str, *, now: datetime) -> Period:
    period = Period(since=moment(since), until=moment(until))
    if period.since >= period.until:
        raise BadInputError(
            f"The period from {since} to {until} is empty.", next_step="Exchange the two."
        )
    if period.until > now:
        raise BadInputError(
            f"The period up to {until} has not ended, so its evidence would not be all of it.",
            next_step=f"Name a time up to now, such as --until {now:%Y-%m-%dT%H:%M}.",
        )
    return period


async def _make(settings: Settings, period: Period, out: Path) -> tuple[str, Population]:
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    async with open_store(settings, os.environ) as store:
        with _target(out) as file:
            async with store.begin() as conn:
                await conn.exec_driver_sql(
                    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
                )
                digest, population = await packs.write_pack(conn, file, period)
        async with store.begin() as conn:
            await packs.note(conn, population, manifest=digest, by=who, at=datetime.now(UTC))
    return digest, population


@contextmanager
def _target(path: Path) -> Iterator[BinaryIO]:
    """A file that stands under its name only when all of it is on the disk."""
    part = path.with_name(f"{path.name}.part")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be written: {error.strerror}.", next_step="Check the path."
        ) from None
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
