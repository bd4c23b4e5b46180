"""What pgBackRest is on this machine, whether it can back up this server, and how safely."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from postgres.backup.engine import Finding, Probe
from postgres.backup.facts import BackupKind
from postgres.backup.pgbackrest_json import (
    OLDEST,
    USABLE,
    Stanza,
    parse_info,
    parse_version,
    too_old_for,
)
from postgres.backup.pgbackrest_program import PgBackRest
from postgres.backup.pgbackrest_settings import weaknesses
from postgres.backup.source import look_at
from postgres.dsn import Target
from postgres.errors import PostgresError

KINDS: Final[tuple[BackupKind, ...]] = ("full", "incremental")


async def probe_pgbackrest(
    program: PgBackRest, target: Target, *, rate_max_bytes: int | None
) -> Probe:
    """Everything that keeps it from working, and everything that it leaves open."""
    try:
        said = await program.version()
        version = parse_version(said)
    except PostgresError as error:
        return Probe(name="pgbackrest", version="", kinds=(), findings=(_finding(error),))
    findings = list(_about_version(version))
    findings += await _about_server(version, target)
    findings += await _about_settings(program)
    findings += await _about_repository(program)
    if rate_max_bytes is not None:
        findings.append(
            Finding(
                problem="pgBackRest cannot limit its rate, so `rate_max` has no effect.",
                next_step="Remove `rate_max`, or use the native engine.",
            )
        )
    text = ".".join(map(str, version))
    return Probe(name="pgbackrest", version=text, kinds=KINDS, findings=tuple(findings))


def _about_version(version: tuple[int, int]) -> Iterator[Finding]:
    if version < OLDEST:
        yield Finding(
            problem=f"pgBackRest {_text(version)} is older than {_text(OLDEST)}.",
            next_step="Install a newer one, as from PostgreSQL's own package repository.",
        )


async def _about_server(version: tuple[int, int], target: Target) -> list[Finding]:
    try:
        source = await look_at(target)
    except PostgresError:  # the look at the database itself says so, with what to do
        return []
    needed = too_old_for(version, source.major)
    if needed is None:
        return []
    return [
        Finding(
            problem=f"pgBackRest {_text(version)} cannot back up PostgreSQL {source.major}.",
            next_step=f"Install pgBackRest {_text(needed)} or later, as from PostgreSQL's own "
            "package repository, or use the native engine.",
        )
    ]


async def _about_settings(program: PgBackRest) -> list[Finding]:
    try:
        options, mode = await asyncio.to_thread(program.options)
    except PostgresError as error:
        return [_finding(error)]
    return list(weaknesses(options, mode))


async def _about_repository(program: PgBackRest) -> list[Finding]:
    try:
        stanza = parse_info(await program.ask("info", "--output=json", "--repo=1"))
    except PostgresError as error:
        return [_finding(error)]
    return list(_about_stanza(program.stanza, stanza))


def _about_stanza(name: str, stanza: Stanza) -> Iterator[Finding]:
    if stanza.status not in USABLE:
        yield Finding(
            problem=f"The repository of the stanza {name} cannot be used: {stanza.message}.",
            next_step=f"As the account that runs PostgreSQL: pgbackrest --stanza={name} "
            "stanza-create; then see whether its storage can be reached.",
        )
    if refused := [taken for taken in stanza.backups if taken.error]:
        labels = ", ".join(taken.label for taken in refused)
        yield Finding(
            problem=f"The repository has backups with damaged pages, which do not count: {labels}.",
            next_step="Mend the server's pages first. Then remove each: pgbackrest "
            f"--stanza={name} expire --set=LABEL",
        )


def _finding(error: PostgresError) -> Finding:
    return Finding(problem=error.problem, next_step=error.next_step)


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
