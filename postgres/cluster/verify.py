"""Whether applications can write through the door that they use, and every standby has it.

An agent that says 200 proves nothing (its node may still be finishing its promotion), and our own
connection proves little: so a row is written and read back with the application's role through
its own endpoint, the server that took it is compared with the one that should have, and then
every standby is asked for that row.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from postgres.cluster.look import look_at
from postgres.cluster.words import NodeSeen, NodeSpec
from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.health.connecting import FAILURES
from postgres.migrate.own_schema import ensure_schema

DRILL_SCHEMA: Final = "twokey_drill"
_TIMES: Final = 3
_TRY_SECONDS_MAX: Final = 3
_LOOK_SECONDS: Final = 0.1
_LOOK_LIMIT: Final = timedelta(seconds=3)

_TABLE: Final = f"""
    CREATE TABLE IF NOT EXISTS {DRILL_SCHEMA}.proofs (
        id text PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""
_GRANTS: Final = """
    SELECT format('GRANT USAGE ON SCHEMA %I TO %I; GRANT SELECT, INSERT ON %I.proofs TO %I',
                  $1::text, $2::text, $1::text, $2::text) AS sql
"""
# One transaction, as a pooler may hand the next one to another server.
_WRITE: Final = f"INSERT INTO {DRILL_SCHEMA}.proofs (id) VALUES ($1)"  # noqa: S608 - a constant
_READ: Final = f"""
    SELECT (SELECT s.system_identifier::text FROM pg_control_system() AS s) AS system_identifier,
           pg_postmaster_start_time()                                       AS started_at,
           EXISTS (SELECT FROM {DRILL_SCHEMA}.proofs WHERE id = $1)         AS is_there
"""  # noqa: S608 - a constant
_SEEN: Final = f"SELECT EXISTS (SELECT FROM {DRILL_SCHEMA}.proofs WHERE id = $1)"  # noqa: S608
_SWEEP: Final = f"DELETE FROM {DRILL_SCHEMA}.proofs WHERE starts_with(id, $1)"  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Whether applications can work. `tries`: connections until so many in a row had worked.

    `server`: the node that took the rows. `behind`: standbys that have not shown them in time.
    """

    is_proven: bool
    found: str
    next_step: str = ""
    server: str = ""
    tries: int = 0
    seconds: float = 0.0
    behind: tuple[str, ...] = ()


async def verify(
    nodes: Sequence[NodeSpec],
    *,
    primary: str,
    endpoint: Target | None,
    key: str,
    limit: timedelta,
    clock: Callable[[], datetime],
    times: int = _TIMES,
) -> Proof:
    """Write and read back `times` in a row through `endpoint`, and find the rows on every standby.

    `key` makes the rows' names: those of an earlier try of the same are swept. `endpoint` None:
    straight to the primary, which proves less, and says so. Never raises for what it looks at.

    Raises:
        PostgresError: the table that it writes to cannot be made on the primary.
    """
    began = time.monotonic()
    end = began + limit.total_seconds()
    seen = await look_at(nodes, clock=clock, limit=_LOOK_LIMIT)
    writable = [each for each in seen if each.is_writable]
    if [each.name for each in writable] != [primary]:
        return _not_alone(writable, primary)
    spec = next(each for each in nodes if each.name == primary)
    await _prepare(spec.target, endpoint, key)
    door = endpoint or spec.target
    tries, problem = await _write(door, writable[0], key, times=times, end=end)
    seconds = time.monotonic() - began
    if problem:
        return Proof(
            is_proven=False,
            found=f"Through the application's endpoint: {problem}.",
            next_step="See where it leads (HAProxy, pgbouncer, DNS), and whether this role may"
            " connect and write.",
            tries=tries,
            seconds=seconds,
        )
    others = [each for each in nodes if each.name != primary]
    behind = await _await_everywhere(others, f"{key}/{tries}", end=end)
    await _sweep(spec.target, key)
    door_text = "the application's endpoint" if endpoint else "its own address alone"
    everywhere = f" Every standby has it ({len(others)})." if others and not behind else ""
    missing = f" Not yet on {', '.join(behind)}." if behind else ""
    return Proof(
        is_proven=not behind,
        found=f"Writes and reads back through {door_text}, on {primary}.{everywhere}{missing}",
        next_step="Wait until it follows, else bring it back: /db replication says what it lacks."
        if behind
        else "",
        server=primary,
        tries=tries,
        seconds=time.monotonic() - began,
        behind=behind,
    )


def _not_alone(writable: Sequence[NodeSeen], primary: str) -> Proof:
    names = " and ".join(each.name for each in writable)
    return Proof(
        is_proven=False,
        found=f"{names or 'Nobody'} takes writes, and not {primary} alone.",
        next_step="Look at /db replication before anybody does anything.",
    )


async def _prepare(target: Target, endpoint: Target | None, key: str) -> None:
    role = endpoint.words.get("user", "") if endpoint else ""
    async with connection(target) as conn:
        await ensure_schema(conn, DRILL_SCHEMA)
        await conn.execute(_TABLE)
        if role and role != await conn.fetchval("SELECT current_user"):
            await conn.execute(await conn.fetchval(_GRANTS, DRILL_SCHEMA, role))
        await conn.execute(_SWEEP, key + "/")


async def _write(
    door: Target, primary: NodeSeen, key: str, *, times: int, end: float
) -> tuple[int, str]:
    """How many tries it took until `times` in a row worked; and why it did not, or ''."""
    tries, row, problem = 0, 0, "there was no time left"
    while time.monotonic() < end:
        tries += 1
        problem = await _write_once(door, primary, f"{key}/{tries}")
        row = 0 if problem else row + 1
        if row == times:
            return tries, ""
        if problem:
            await asyncio.sleep(_LOOK_SECONDS)
    return tries, problem


async def _write_once(door: Target, primary: NodeSeen, row: str) -> str:
    try:
        async with asyncio.timeout(_TRY_SECONDS_MAX):
            conn = await asyncpg.connect(
                door.url(),
                timeout=_TRY_SECONDS_MAX,
                statement_cache_size=0,  # a pooler of transactions keeps none of them
                server_settings={"application_name": "twokey"},
            )
            try:
                async with conn.transaction():
                    await conn.execute(_WRITE, row)
                    found = await conn.fetchrow(_READ, row)
            finally:
                conn.terminate()
    except FAILURES as error:
        return str(error).strip().splitlines()[0] if str(error).strip() else "no answer in time"
    return _judged(found, primary)


def _judged(found: Any, primary: NodeSeen) -> str:
    if not found["is_there"]:
        return "what was written could not be read back"
    if found["system_identifier"] != primary.system_identifier:
        return "it leads to another cluster"
    if found["started_at"] != primary.started_at:
        return f"it leads to another server than {primary.name}"
    return ""


async def _await_everywhere(nodes: Sequence[NodeSpec], row: str, *, end: float) -> tuple[str, ...]:
    """The standbys on which the row has not come up in time."""
    found = await asyncio.gather(*(_comes_up(each.target, row, end=end) for each in nodes))
    return tuple(node.name for node, is_there in zip(nodes, found, strict=True) if not is_there)


async def _comes_up(target: Target, row: str, *, end: float) -> bool:
    while True:
        try:
            async with asyncio.timeout(_TRY_SECONDS_MAX), connection(target) as conn:
                while not await conn.fetchval(_SEEN, row):
                    if time.monotonic() > end:
                        return False
                    await asyncio.sleep(_LOOK_SECONDS)
                return True
        except (*FAILURES, PostgresError):
            if time.monotonic() > end:
                return False
            await asyncio.sleep(_LOOK_SECONDS)


async def _sweep(target: Target, key: str) -> None:
    """Rows that stay are swept by the next try of the same key: no reason to fail."""
    try:
        async with connection(target) as conn:
            await conn.execute(_SWEEP, key + "/")
    except (*FAILURES, PostgresError):
        return
