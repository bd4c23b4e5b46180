"""Where a ledger's rows go: through the application's endpoint, or to the newest primary.

No statement of a ledger is ever cancelled: a cancel ends the wait for a synchronous standby, and
the server then calls a row committed that no standby has. Who does not answer is hung up on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import asyncpg

from postgres.cluster.words import NodeSpec
from postgres.dsn import Target
from postgres.health.connecting import FAILURES

APPLICATION: Final = "twokey-ledger"
CONNECT_SECONDS_MAX: Final = 2
ANSWER_SECONDS_MAX: Final = 2.0
OTHERS_SECONDS_MAX: Final = 1.0
WAITING_MAX: Final = 4
_HANG_UP_SECONDS_MAX: Final = 0.3
_LOOK_SECONDS: Final = 0.02

# Which server this is: no two of a cluster were started in the same microsecond.
SERVER: Final = "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"
# Connections that we hung up on wait at the server for as long as it waits: not too many of them.
_HELLO: Final = f"""
    SELECT {SERVER} AS server,
           NOT pg_is_in_recovery()
               AND current_setting('transaction_read_only') = 'off' AS is_writable,
           CASE WHEN pg_is_in_recovery() THEN 0
                ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
           END AS timeline,
           (SELECT count(*)
              FROM pg_stat_activity
             WHERE usename = current_user AND application_name = $2 AND state = 'active'
               AND pid <> pg_backend_pid()) AS waiting,
           quote_literal($1::text) AS key
"""  # noqa: S608 - a constant

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Somewhere to knock. `is_node`: it leads to the same server each time."""

    name: str
    target: Target
    is_node: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A connection to a server that takes writes. `key`: as a literal of SQL."""

    conn: Any
    server: int
    timeline: int
    key: str


def doors(endpoint: Target | None, nodes: Sequence[NodeSpec]) -> tuple[Door, ...]:
    """Each place that may lead to the primary: one for an endpoint that finds it by itself.

    An endpoint that lists several hosts is several doors, as asyncpg's limit is for the whole
    list: a first host that hangs would keep it from the second.
    """
    if endpoint is None:
        return tuple(Door(name=each.name, target=each.target, is_node=True) for each in nodes)
    hosts = endpoint.words.get("host", "").split(",")
    if len(hosts) == 1:
        return (Door(name=endpoint.place, target=endpoint, is_node=False),)
    ports = endpoint.words.get("port", "").split(",")
    words = {k: v for k, v in endpoint.words.items() if k != "target_session_attrs"}
    places = zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=True)
    targets = [Target(words={**words, "host": host, "port": port}) for host, port in places]
    return tuple(Door(name=each.place, target=each, is_node=True) for each in targets)


def choose(
    found: Sequence[Session], *, silent: int, waited: float, newest: int | None
) -> Session | None:
    """Whom to write to, None: to nobody yet. Pure.

    `silent`: doors that have not answered in `waited` seconds. `newest`: the newest timeline that
    was written to before, None: nothing was. An older one is a primary that was left behind.
    """
    best = max(
        (each for each in found if each.timeline >= (newest or 0)),
        key=lambda each: each.timeline,
        default=None,
    )
    if best is None or not silent or waited >= OTHERS_SECONDS_MAX:
        return best
    # Never the first that answers, but one that has been promoted since.
    return best if newest is not None and best.timeline > newest else None


async def find(places: Sequence[Door], key: str, *, newest: int | None) -> Session:
    """A connection to where rows are to be written, as soon as there is one. A cancel ends it."""
    heard: set[str] = set()
    began = time.monotonic()
    tasks = [asyncio.create_task(_watch(each, key, heard)) for each in places]
    chosen: Session | None = None
    try:
        while chosen is None:
            found = [task.result() for task in tasks if task.done()]
            chosen = choose(
                found,
                silent=len(places) - len(heard),
                waited=time.monotonic() - began,
                newest=newest if len(places) > 1 else None,
            )
            if chosen is None:
                await asyncio.sleep(_LOOK_SECONDS / 2)
        return chosen
    finally:
        for task in tasks:
            task.cancel()
        ended, _ = await asyncio.wait(tasks, timeout=2 * _HANG_UP_SECONDS_MAX)
        for task in ended:
            if not task.cancelled() and task.exception() is None and task.result() is not chosen:
                task.result().conn.terminate()


async def _watch(door: Door, key: str, heard: set[str]) -> Session:
    """Knock until the server behind a door takes writes. `heard`: doors that said something."""
    while True:
        try:
            session = await _knock(door, key, heard)
        except TimeoutError:
            heard.discard(door.name)
        except FAILURES:
            heard.add(door.name)
        else:
            if session:
                heard.add(door.name)
                return session
        await asyncio.sleep(_LOOK_SECONDS)


async def _knock(door: Door, key: str, heard: set[str]) -> Session | None:
    """None: the one who answered takes no writes, and another may answer next time."""
    conn: Any = await asyncpg.connect(
        door.target.url(),
        timeout=CONNECT_SECONDS_MAX,
        statement_cache_size=0,  # a pooler of transactions keeps none of them
        server_settings={"application_name": APPLICATION},
    )
    session: Session | None = None
    try:
        while session is None:
            session = await answered(conn, _hello(conn, key))
            heard.add(door.name)
            if session is None and not door.is_node:
                return None
            if session is None:  # a standby keeps its connections when it is promoted
                await asyncio.sleep(_LOOK_SECONDS)
        return session
    finally:
        if session is None:
            conn.terminate()


async def _hello(conn: Any, key: str) -> Session | None:
    async with conn.transaction():
        row = await conn.fetchrow(_HELLO, key, APPLICATION)
    if not row["is_writable"] or row["waiting"] >= WAITING_MAX:
        return None
    return Session(conn=conn, server=row["server"], timeline=row["timeline"], key=row["key"])


async def answered(conn: Any, work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` on the connection returns; it is hung up on when that takes too long.

    Raises:
        TimeoutError: there was no answer within `ANSWER_SECONDS_MAX`.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=ANSWER_SECONDS_MAX)
        if task.done():
            return task.result()
    finally:
        if not task.done():
            conn.terminate()
            await asyncio.wait({task}, timeout=_HANG_UP_SECONDS_MAX)
            with suppress(*FAILURES, asyncio.InvalidStateError, asyncio.CancelledError):
                task.result()
    raise TimeoutError(f"no answer within {ANSWER_SECONDS_MAX:g} s")
