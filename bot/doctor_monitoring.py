"""Doctor's look at what monitoring needs: statistics of statements, every node, the disk.

That the login has pg_monitor is looked at with its other privileges, in `bot.doctor`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from approvals.words import ExplainedError
from bot.finding import Finding
from jobs.health_settings import Node
from jobs.operation import Database, Reader
from jobs.reader import Readers
from postgres.errors import PostgresError
from postgres.health.pgbouncer import waiting_pools

LIMIT: Final = timedelta(seconds=10)
DISK_SECONDS_MAX: Final = 5.0
LIBRARY: Final = "pg_stat_statements"

# Whoever may not see the libraries (without pg_monitor) gets NULL for them.
SETTINGS: Final = """
    SELECT current_database()                                       AS database,
           (SELECT setting FROM pg_settings
             WHERE name = 'shared_preload_libraries')               AS libraries,
           (SELECT extversion FROM pg_extension
             WHERE extname = 'pg_stat_statements')                  AS version,
           current_setting('pg_stat_statements.track', true)        AS track,
           current_setting('track_io_timing') = 'on'                AS times_io
"""
IS_STANDBY: Final = "SELECT pg_is_in_recovery() AS standby"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a server counts. `libraries` None: hidden from us; `version` None: not created here."""

    database: str
    libraries: str | None
    version: str | None
    track: str | None
    times_io: bool


async def examine_monitoring(database: Database, readers: Readers) -> AsyncIterator[Finding]:
    """What stands in the way of each number that could be had; nothing where nobody looks."""
    if not database.monitoring.is_on:
        return
    for finding in await _statements(database, readers.of(database)):
        yield finding
    for node in database.replicas:
        yield await _replica(database, node, readers)
    for finding in await _volumes(database):
        yield finding
    if (console := database.monitoring.pgbouncer) is not None:
        name = f"pgbouncer of {database.name}"
        try:
            await waiting_pools(console)
        except PostgresError as error:
            yield Finding(name=name, ok=False, says=error.problem, fix=error.next_step)
        else:
            yield Finding(name=name, ok=True, says="its console tells what waits")


async def _statements(database: Database, reader: Reader) -> list[Finding]:
    row = await _row(reader, SETTINGS)
    if row is None:
        return []  # that it cannot be reached is a finding of its own
    name = f"monitoring of {database.name}"
    found = Statistics(**{field: row[field] for field in Statistics.__slots__})
    wrong = [Finding(name=name, ok=False, says=says, fix=fix) for says, fix in what_lacks(found)]
    if wrong:
        return wrong
    note = "" if found.times_io else (
        "; track_io_timing is off, so nobody knows how long reading takes"
        " (ALTER SYSTEM SET track_io_timing = on; SELECT pg_reload_conf();)"
    )  # fmt: skip
    return [Finding(name=name, ok=True, says=f"statements are measured{note}")]


def what_lacks(found: Statistics) -> Iterator[tuple[str, str]]:
    """What keeps statements from being measured, and how to mend it. Pure."""
    libraries = [each.strip().strip('"') for each in (found.libraries or "").split(",")]
    create = f"in the database {found.database}: CREATE EXTENSION {LIBRARY};"
    if found.libraries is not None and LIBRARY not in libraries:
        # One literal for each: ALTER SYSTEM takes 'a, b' for one library of that name.
        wanted = ", ".join(f"'{each}'" for each in (*filter(None, libraries), LIBRARY))
        yield (
            f"{LIBRARY} is not loaded there: nobody knows which statements are slow.",
            f"ALTER SYSTEM SET shared_preload_libraries = {wanted}; restart the server"
            + (f"; then, {create}" if found.version is None else "."),
        )
    elif found.version is None:
        yield (
            f"The extension {LIBRARY} is not in the database {found.database}.",
            f"As a superuser, {create}",
        )
    elif found.track == "none":
        yield (
            f"{LIBRARY}.track is none there: no statement is measured.",
            f"ALTER SYSTEM SET {LIBRARY}.track = 'top'; SELECT pg_reload_conf();",
        )


async def _replica(database: Database, node: Node, readers: Readers) -> Finding:
    name = f"replica {node.name} of {database.name}"
    # A reader is known by its database's name, which cannot have a slash.
    place = replace(database, name=f"{database.name}/{node.name}", dsn=node.dsn)
    try:
        async with asyncio.timeout(LIMIT.total_seconds()):
            [row] = await readers.of(place).rows(IS_STANDBY)
    except ExplainedError as error:
        return Finding(name=name, ok=False, says=error.problem, fix=error.next_step)
    except TimeoutError:
        return Finding(
            name=name, ok=False, says="It does not answer.",
            fix="Check its server and the way to it, or take it out of `replicas:`.",
        )  # fmt: skip
    if row["standby"]:
        return Finding(name=name, ok=True, says="a standby, and can be looked at")
    return Finding(name=name, ok=True, says="can be looked at; it takes writes, so it is a primary")


async def _volumes(database: Database) -> list[Finding]:
    name, volume = f"disk of {database.name}", database.monitoring.volume
    paths = [path for path in (volume.path, volume.wal_path) if path is not None]
    lost = []
    for path in paths:
        try:
            async with asyncio.timeout(DISK_SECONDS_MAX):
                await asyncio.to_thread(os.statvfs, path)
        except (OSError, TimeoutError) as error:
            why = getattr(error, "strerror", None) or "no answer in time"
            lost.append(
                Finding(
                    name=name,
                    ok=False,
                    says=f"{path} cannot be looked at from here: {why}.",
                    fix="Let the worker's host and user see it, or say `volume: {total: 500GB}`. "
                    "A bot alone does not need it.",
                )
            )
    if lost:
        return lost
    if paths:
        return [Finding(name=name, ok=True, says=f"{' and '.join(map(str, paths))} can be seen")]
    if volume.total_bytes is not None:
        return [Finding(name=name, ok=True, says="its size is as the inventory says")]
    return [
        Finding(
            name=name,
            ok=True,
            says="not known: say `monitoring: {volume: {path: …}}` or `{volume: {total: 500GB}}` "
            "to be told before it is full",
        )
    ]


async def _row(reader: Reader, query: str) -> Mapping[str, Any] | None:
    try:
        async with asyncio.timeout(LIMIT.total_seconds()):
            [row] = await reader.rows(query)
    except (ExplainedError, TimeoutError):
        return None
    return row
