"""A ledger of rows that a cluster acknowledged, to know to the row what a failover lost.

While it is open a row is written every 10 ms as an application would write it, and what was
acknowledged is written down where it survives us. Afterwards the new primary is asked which of
them it has (loss.py says what that means). Beside it goes a heartbeat every 100 ms, which can be
read on standbys and says the same more roughly, by another way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import asyncpg

from postgres.cluster.ledger_door import doors
from postgres.cluster.ledger_file import LedgerFile, is_begun, read
from postgres.cluster.ledger_writer import Standing, Writer
from postgres.cluster.look import look_at
from postgres.cluster.loss import Loss, Present, weigh
from postgres.cluster.verify import DRILL_SCHEMA
from postgres.cluster.words import NodeSpec
from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.health.connecting import FAILURES
from postgres.migrate.own_schema import ensure_schema

EVERY: Final = timedelta(milliseconds=10)
LIMIT: Final = timedelta(hours=2)
_ASK_LIMIT: Final = timedelta(seconds=30)
_LOOK_LIMIT: Final = timedelta(seconds=3)
_STOP_SECONDS_MAX: Final = 0.4
_LOOK_SECONDS: Final = 0.02
_BATCH: Final = 20_000

# The server's own words are in `at`; what counts is what the writer wrote down.
_TABLES: Final = f"""
    CREATE TABLE IF NOT EXISTS {DRILL_SCHEMA}.ledger (
        key text        NOT NULL,
        seq bigint      NOT NULL,
        at  timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (key, seq)
    );
    CREATE TABLE IF NOT EXISTS {DRILL_SCHEMA}.heartbeats (
        key    text        NOT NULL,
        server bigint      NOT NULL,
        at     timestamptz NOT NULL,
        PRIMARY KEY (key, server)
    )
"""
_GRANTS: Final = """
    SELECT format('GRANT USAGE ON SCHEMA %I TO %I; GRANT SELECT, INSERT ON %I.ledger TO %I;'
                  'GRANT SELECT, INSERT, UPDATE ON %I.heartbeats TO %I',
                  $1::text, $2::text, $1::text, $2::text, $1::text, $2::text)
"""
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7203))"  # as ensure_schema's
# Server 0 beats for whoever has begun and has not written yet, so that nobody drops the tables.
_CLAIM: Final = f"""
    INSERT INTO {DRILL_SCHEMA}.heartbeats VALUES ($1, 0, clock_timestamp()) ON CONFLICT DO NOTHING
"""  # noqa: S608 - a constant
# A range for all rows without a gap between their numbers: few, however many rows there are.
_PRESENT: Final = f"""
    SELECT min(seq) AS first, max(seq) AS last
      FROM (SELECT seq, seq - row_number() OVER (ORDER BY seq) AS island
              FROM {DRILL_SCHEMA}.ledger WHERE key = $1) AS s
     GROUP BY island
     ORDER BY 1
"""  # noqa: S608 - a constant
_BEATS: Final = f"""
    SELECT server, extract(epoch FROM at)::float8 AS at
      FROM {DRILL_SCHEMA}.heartbeats WHERE key = $1 AND server <> 0
"""  # noqa: S608 - a constant
_OTHERS: Final = f"""
    SELECT (SELECT min(key) <> $1 OR max(key) <> $1 FROM {DRILL_SCHEMA}.ledger) IS TRUE
        OR (SELECT min(key) <> $1 OR max(key) <> $1 FROM {DRILL_SCHEMA}.heartbeats) IS TRUE
"""  # noqa: S608 - a constant
_DROP: Final = f"DROP TABLE {DRILL_SCHEMA}.ledger, {DRILL_SCHEMA}.heartbeats"
_FORGET: Final = f"""
    DELETE FROM {DRILL_SCHEMA}.ledger
     WHERE key = $1 AND seq <= (
           SELECT max(seq) FROM (SELECT seq FROM {DRILL_SCHEMA}.ledger
                                  WHERE key = $1 ORDER BY seq LIMIT $2) AS s)
"""  # noqa: S608 - a constant
_FORGET_BEATS: Final = f"DELETE FROM {DRILL_SCHEMA}.heartbeats WHERE key = $1"  # noqa: S608
_MISSING: Final = (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError)


class Ledger:
    """Writes while it is open: `async with Ledger(...) as ledger`. Nothing of it outlives that.

    `endpoint`: as the application connects, its role included; None: straight to the one node of
    `nodes` that takes writes, with our own role, which proves less. `key`: the rows' name, one
    per run. `folder`: the run's, where what was acknowledged is written down; a ledger that was
    begun there before is gone on with. `limit`: after which it writes no more by itself.
    """

    def __init__(
        self,
        endpoint: Target | None,
        nodes: Sequence[NodeSpec],
        key: str,
        folder: Path,
        *,
        clock: Callable[[], datetime],
        every: timedelta = EVERY,
        limit: timedelta = LIMIT,
    ) -> None:
        self._endpoint = endpoint
        self._nodes = tuple(nodes)
        self._key = key
        self._folder = folder
        self._clock = clock
        self._every = every
        self._limit = limit
        self._writer: Writer | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended_at: datetime | None = None

    async def __aenter__(self) -> Self:
        """Begin to write.

        Raises:
            PostgresError: its tables cannot be made, or nothing can be written to the folder.
                A run that goes on needs no server to begin with.
        """
        if not await asyncio.to_thread(is_begun, self._folder):
            await _prepare(self._nodes, self._endpoint, self._key, clock=self._clock)
        try:
            file = await asyncio.to_thread(LedgerFile.open, self._folder)
        except OSError as error:
            raise PostgresError(
                f"The ledger cannot be written to {self._folder}: {error}.",
                next_step="Make room there, and let our user write.",
            ) from error
        # Steps of the clock are nothing that a server did.
        offset = self._clock().timestamp() - time.monotonic()
        self._writer = Writer(
            doors(self._endpoint, self._nodes),
            self._nodes,
            file,
            key=self._key,
            now=lambda: time.monotonic() + offset,
            every=self._every,
            limit=self._limit,
        )
        self._task = asyncio.create_task(self._writer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End within a second, whatever the servers do."""
        await self.stop()

    @property
    def standing(self) -> Standing:
        """How far it is now."""
        return self._writer.standing if self._writer else Standing()

    async def until(self, holds: Callable[[Standing], bool], *, limit: timedelta) -> bool:
        """Whether `holds` of the standing came true in time; not when it writes no more."""
        end = time.monotonic() + limit.total_seconds()
        while not holds(self.standing):
            if time.monotonic() > end or self._task is None or self._task.done():
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    async def measure(self, primary: Target, *, injected_at: datetime) -> Loss:
        """What is lost so far; it may go on writing. See `measure`."""
        return await measure(
            primary,
            key=self._key,
            folder=self._folder,
            injected_at=injected_at,
            until=self._ended_at or self._clock(),
            is_writing=self._task is not None and not self._task.done(),
        )

    async def stop(self) -> None:
        """Write no more. The last row is waited for, but not for long; again does nothing."""
        task, writer = self._task, self._writer
        if task is None or writer is None:
            return
        writer.stop()
        try:
            await asyncio.wait({task}, timeout=_STOP_SECONDS_MAX)
        finally:
            task.cancel()
        await asyncio.wait({task}, timeout=2 * _STOP_SECONDS_MAX)
        self._task, self._ended_at = None, self._clock()
        if task.done() and not task.cancelled():
            task.result()  # nothing that servers did: a bug


async def measure(
    primary: Target,
    *,
    key: str,
    folder: Path,
    injected_at: datetime,
    until: datetime,
    is_writing: bool = False,
    limit: timedelta = _ASK_LIMIT,
) -> Loss:
    """What was written down in `folder` against what the new primary has.

    `until`: when the ledger ended, or now. `is_writing`: it goes on, so that the rows on their
    way are not yet ambiguous. A primary without our tables has lost everything.

    Raises:
        PostgresError: what was written down cannot be read, or the new primary cannot.
    """
    kept = await asyncio.to_thread(read, folder)  # first: what was acknowledged by now is there
    try:
        async with asyncio.timeout(limit.total_seconds()), connection(primary) as conn:
            present, beats = await _ask(conn, key)
    except FAILURES as error:
        raise PostgresError(
            f"The rows on {primary.place} cannot be counted: {str(error) or 'no answer in time'}.",
            next_step="What was lost is not known. It can be asked again while the run's rows are"
            " there.",
        ) from error
    return await asyncio.to_thread(
        weigh,
        kept,
        present,
        injected_at=injected_at,
        until=until,
        beats=beats,
        settled=kept.last if is_writing else None,
    )


async def heartbeat_ages(
    nodes: Sequence[NodeSpec], key: str, *, clock: Callable[[], datetime]
) -> Mapping[str, float | None]:
    """How old the newest heartbeat on each node is, in seconds by our clock; None: it has none.

    All are asked at once. Never raises.
    """
    found = await asyncio.gather(*(_newest_beat(each.target, key) for each in nodes))
    now = clock().timestamp()
    return {
        node.name: None if at is None else now - at for node, at in zip(nodes, found, strict=True)
    }


async def remove(primary: Target, key: str, *, limit: timedelta = _ASK_LIMIT) -> None:
    """Remove a ledger's rows, and its tables when nobody else's rows are there.

    What was written down in its folder stays. Nothing happens where there are no tables.

    Raises:
        PostgresError: the server cannot be reached, or took too long; it can be done again.
    """
    try:
        async with asyncio.timeout(limit.total_seconds()), connection(primary) as conn:
            if not await _drop(conn, key):
                await _forget(conn, key)
    except _MISSING:
        return
    except FAILURES as error:
        raise PostgresError(
            f"The ledger's rows on {primary.place} cannot be removed:"
            f" {str(error) or 'no answer in time'}.",
            next_step=f"Remove those of {key} in {DRILL_SCHEMA} once it answers.",
        ) from error


async def _prepare(
    nodes: Sequence[NodeSpec],
    endpoint: Target | None,
    key: str,
    *,
    clock: Callable[[], datetime],
) -> None:
    seen = await look_at(nodes, clock=clock, limit=_LOOK_LIMIT)
    writable = [each.name for each in seen if each.is_writable]
    if len(writable) != 1:
        raise PostgresError(
            f"{' and '.join(writable) or 'No node'} takes writes: no ledger can begin.",
            next_step="Look at /db replication first.",
        )
    spec = next(each for each in nodes if each.name == writable[0])
    role = endpoint.words.get("user", "") if endpoint else ""
    try:
        async with asyncio.timeout(_ASK_LIMIT.total_seconds()), connection(spec.target) as conn:
            await ensure_schema(conn, DRILL_SCHEMA)
            async with conn.transaction():
                await conn.execute(_LOCK, DRILL_SCHEMA)
                await conn.execute(_TABLES)
                if role and role != await conn.fetchval("SELECT current_user"):
                    await conn.execute(await conn.fetchval(_GRANTS, DRILL_SCHEMA, role))
                await conn.execute(_CLAIM, key)
    except FAILURES as error:
        raise PostgresError(
            f"The ledger's tables on {spec.name} cannot be made: {str(error) or 'no answer'}.",
            next_step=f"See whether our user may create in {DRILL_SCHEMA}, and whether the"
            " application's role exists.",
        ) from error


async def _ask(conn: Any, key: str) -> tuple[Present, Mapping[str, float]]:
    try:
        rows = await conn.fetch(_PRESENT, key)
        beats = await conn.fetch(_BEATS, key)
    except _MISSING:
        return Present(()), {}
    ranges = tuple((row["first"], row["last"]) for row in rows)
    return Present(ranges), {str(row["server"]): row["at"] for row in beats}


async def _newest_beat(target: Target, key: str) -> float | None:
    try:
        async with asyncio.timeout(_LOOK_LIMIT.total_seconds()), connection(target) as conn:
            beats = await conn.fetch(_BEATS, key)
    except (*FAILURES, PostgresError):
        return None
    return max((row["at"] for row in beats), default=None)


async def _drop(conn: Any, key: str) -> bool:
    """Whether the tables are gone: not while somebody else's rows are there, or looked at."""
    try:
        async with conn.transaction():
            await conn.execute("SET LOCAL lock_timeout = '500ms'")
            await conn.execute(_LOCK, DRILL_SCHEMA)
            if await conn.fetchval(_OTHERS, key):
                return False
            await conn.execute(_DROP)
            return True
    except asyncpg.LockNotAvailableError:
        return False


async def _forget(conn: Any, key: str) -> None:
    await conn.execute(_FORGET_BEATS, key)
    while await conn.execute(_FORGET, key, _BATCH) != "DELETE 0":
        pass
