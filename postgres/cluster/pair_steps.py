"""What the changes of a pair's roles are made of: sessions on its nodes, and their SQL."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg

from postgres.cluster.candidates import STREAMING, sender_of
from postgres.cluster.follow import Following
from postgres.cluster.host_words import lsn_of, lsn_text
from postgres.cluster.words import ClusterSeen, NodeSpec, Promotion, Role
from postgres.connect import close
from postgres.errors import PostgresError
from postgres.health.connecting import FAILURES

APPLICATION: Final = "twokey-pair"
ANSWER_LIMIT: Final = timedelta(seconds=5)
_CLOSE_SECONDS_MAX: Final = 1.0

_FACTS: Final = """
    SELECT current_setting('primary_conninfo')          AS conninfo,
           current_setting('primary_slot_name')         AS slot,
           current_setting('synchronous_standby_names') AS sync_names,
           pg_backend_pid()                             AS pid
"""
# Its WAL is kept from here on, also on a standby: what follows later needs no rewind for it.
_CREATE_SLOT: Final = """
    SELECT pg_create_physical_replication_slot($1, true)
     WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = $1)
"""
_DROP_SLOT: Final = """
    SELECT pg_drop_replication_slot(slot_name)
      FROM pg_replication_slots
     WHERE slot_name = $1 AND slot_type = 'physical' AND NOT active
"""
_DROP_LOST_SLOT: Final = _DROP_SLOT + " AND wal_status = 'lost'"
# PostgreSQL quotes: no text of ours gets into a statement by itself.
_ALTER: Final = "SELECT format('ALTER SYSTEM SET %I = %L', $1::text, $2::text)"
_RESET: Final = "SELECT format('ALTER SYSTEM RESET %I', $1::text)"
# `below`: what stands in the files that ALTER SYSTEM does not write.
_SYNC: Final = """
    SELECT current_setting('synchronous_standby_names') AS now,
           (SELECT setting FROM pg_file_settings
             WHERE name = 'synchronous_standby_names'
               AND sourcefile NOT LIKE '%postgresql.auto.conf'
             ORDER BY seqno DESC LIMIT 1)               AS below
"""
# Greater, not equal: the position is where the checkpoint's record begins.
_HAS_REPLAYED: Final = """
    SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), $1::text::pg_lsn) > 0
"""
_REPLAYED: Final = "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint"
_HISTORIES: Final = """
    SELECT pg_read_file('pg_wal/' || name) AS text, modification,
           ('x' || left(name, 8))::bit(32)::int AS timeline
      FROM pg_ls_waldir()
     WHERE name ~ '^[0-9A-F]{8}\\.history$'
     ORDER BY name DESC
     LIMIT 200
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A node's settings that decide how roles change; `pid`: of the session that read them."""

    conninfo: str
    slot: str
    sync_names: str
    pid: int


class Deadline:
    """A limit that counts down."""

    def __init__(self, limit: timedelta) -> None:
        self._began = time.monotonic()
        self._limit = limit.total_seconds()

    @property
    def passed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    @property
    def left(self) -> timedelta:
        """What is left, never less than nothing."""
        return timedelta(seconds=max(self._limit - self.passed, 0))

    def part(self, share: float) -> timedelta:
        """What is left of this share of the whole."""
        return timedelta(seconds=max(self._limit * share - self.passed, 0))


class Session:
    """A connection to one node, whose failures are `PostgresError`."""

    def __init__(self, node: NodeSpec, conn: Any) -> None:
        self.name = node.name
        self._conn = conn

    async def facts(self) -> NodeFacts:
        """Its settings.

        Raises:
            PostgresError: it does not answer, or hides them from us.
        """
        row = await self._ask(self._conn.fetchrow, _FACTS)
        return NodeFacts(**dict(row))

    async def checkpoint(self, limit: timedelta) -> None:
        """Write everything to disk now, so that the next one has little to do.

        Raises:
            PostgresError: it took longer than `limit`.
        """
        await self._ask(self._conn.execute, "CHECKPOINT", limit=limit)

    async def set(self, name: str, value: str | None) -> None:
        """ALTER SYSTEM; None resets it. It holds after `reload`."""
        if value is None:
            statement = await self._ask(self._conn.fetchval, _RESET, name)
        else:
            statement = await self._ask(self._conn.fetchval, _ALTER, name, value)
        await self._ask(self._conn.execute, statement)

    async def reload(self) -> None:
        """Have the server read its configuration again."""
        await self._ask(self._conn.fetchval, "SELECT pg_reload_conf()")

    async def follow(self, plan: Following) -> None:
        """Tell it whom to follow while it is a standby: nothing to a primary.

        `primary_conninfo` and the slot's name are read by a reload since PostgreSQL 13.
        """
        # A conninfo may hold a password, which belongs in nobody's log.
        await self._ask(self._conn.execute, "SET log_statement = 'none'")
        for name, value in plan.settings.items():
            await self.set(name, value)
        await self.reload()

    async def create_slot(self, slot: str) -> None:
        """A slot for who will follow; one that has lost its WAL is made anew."""
        if slot:
            await self._ask(self._conn.fetchval, _DROP_LOST_SLOT, slot)
            await self._ask(self._conn.fetchval, _CREATE_SLOT, slot)

    async def drop_slot(self, slot: str) -> None:
        """Nobody uses it any more: it would keep WAL for ever."""
        if slot:
            await self._ask(self._conn.fetchval, _DROP_SLOT, slot)

    async def restore_sync_names(self, mirrored: str) -> None:
        """Wait for standbys again, where it does not since it lost its only one.

        What its configuration says is uncovered; where that is nothing, `mirrored` is set: what
        the other side has.
        """
        row = await self._ask(self._conn.fetchrow, _SYNC)
        if row["now"]:
            return
        if row["below"]:
            await self.set("synchronous_standby_names", None)
        elif mirrored:
            await self.set("synchronous_standby_names", mirrored)
        await self.reload()

    async def has_replayed(self, lsn: int) -> bool:
        """Whether a standby has replayed the record that begins there."""
        return bool(await self._ask(self._conn.fetchval, _HAS_REPLAYED, lsn_text(lsn)))

    async def replayed(self) -> int:
        """Up to where a standby has replayed."""
        return int(await self._ask(self._conn.fetchval, _REPLAYED))

    async def is_primary(self) -> bool:
        """Whether it takes writes by now."""
        return not await self._ask(self._conn.fetchval, "SELECT pg_is_in_recovery()")

    async def promote(self) -> None:
        """Tell a standby to become a primary, and do not wait for it."""
        await self._ask(self._conn.fetchval, "SELECT pg_promote(false)")

    async def histories(self) -> tuple[Promotion, ...]:
        """The promotions of its timeline's history, oldest first."""
        rows = await self._ask(self._conn.fetch, _HISTORIES)
        if not rows:
            return ()
        # A file is written when its timeline begins.
        times = {row["timeline"]: row["modification"] for row in rows}
        return promotions(rows[0]["text"], of=rows[0]["timeline"], times=times)

    async def rows(self, query: str) -> list[Any]:
        """What a query says."""
        return list(await self._ask(self._conn.fetch, query))

    async def _ask(
        self,
        how: Callable[..., Awaitable[Any]],
        query: str,
        *words: object,
        limit: timedelta = ANSWER_LIMIT,
    ) -> Any:
        try:
            return await how(query, *words, timeout=max(limit.total_seconds(), 0.1))
        except FAILURES as error:
            raise PostgresError(
                f"{self.name} was asked ({query.split(maxsplit=1)[0]}) and did not do it: "
                f"{str(error).strip().rstrip('.') or 'no answer in time'}.",
                next_step=f"See {self.name}'s log, and whether the login may do this "
                "(a pair's nodes are changed as a superuser).",
            ) from error


@asynccontextmanager
async def session(node: NodeSpec, limit: timedelta = ANSWER_LIMIT) -> AsyncIterator[Session]:
    """A session on this node, ended at the end.

    Raises:
        PostgresError: it cannot be reached.
    """
    try:
        async with asyncio.timeout(limit.total_seconds()):
            conn: Any = await asyncpg.connect(
                node.target.url(),
                timeout=math.ceil(limit.total_seconds()) + 1,  # ours comes first
                server_settings={
                    "application_name": APPLICATION,
                    # A commit of ours must never wait for a standby that is gone.
                    "synchronous_commit": "local",
                },
            )
    except FAILURES as error:
        raise PostgresError(
            f"{node.name} cannot be reached at {node.target.place}: "
            f"{str(error).strip().rstrip('.') or 'no answer'}.",
            next_step="See whether the server runs and accepts this user from here.",
        ) from error
    try:
        yield Session(node, conn)
    finally:
        await close(conn, seconds=_CLOSE_SECONDS_MAX)


def promotions(
    history: str, *, of: int, times: dict[int, Any] | None = None
) -> tuple[Promotion, ...]:
    """What a timeline's history file says. Pure. `of`: its own number; `times`: of each's begin.

    Lines are `timeline TAB lsn TAB reason`: where each of its ancestors ended.
    """
    lines = [line.split("\t") for line in history.splitlines() if line[:1].isdigit()]
    ends = [(int(line[0]), lsn_of(line[1]), " ".join(line[2:]).strip()) for line in lines]
    begun = [timeline for timeline, _, _ in ends[1:]] + [of]
    return tuple(
        Promotion(timeline=timeline, lsn=lsn, reason=reason, at=(times or {}).get(next_one))
        for (timeline, lsn, reason), next_one in zip(ends, begun, strict=True)
    )


def fork_of(history: tuple[Promotion, ...], timeline: int) -> int | None:
    """Up to where a timeline is part of this history; None: it is its last, or no part of it."""
    return next((each.lsn for each in history if each.timeline == timeline), None)


def follows(seen: ClusterSeen, node: str, primary: str) -> str:
    """Why `node` does not stream from `primary`; '' when it does. Pure."""
    own, above = seen.node(node), seen.node(primary)
    if above is None or not above.is_reached or above.role is not Role.PRIMARY:
        return f"{primary} is no primary that answers"
    if own is None or not own.is_reached:
        return f"it does not answer ({own.problem if own else 'unknown'})"
    if own.role is not Role.STANDBY:
        return "it is a primary itself"
    if own.timeline != above.timeline:
        return f"it is on timeline {own.timeline}, not {above.timeline}"
    sender = sender_of(above, node)
    if sender is None or sender.state != STREAMING or own.receiver != STREAMING:
        return "it does not stream"
    return ""
