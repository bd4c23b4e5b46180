"""Looks at the servers of a cluster, all at once: one statement each, and a limit for all.

Every node is asked over a connection of its own that ends with the look, so that who answers
is also who can be connected to. Runs on PostgreSQL 13 to 18, on primaries and standbys.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from postgres.cluster.words import NodeSeen, NodeSpec, Role, Sender, Slot
from postgres.connect import close
from postgres.health.connecting import FAILURES

LIMIT: Final = timedelta(seconds=3)
APPLICATION: Final = "twokey-look"
HIDDEN: Final = "hidden"  # what PostgreSQL tells only to members of pg_monitor
_CLOSE_SECONDS_MAX: Final = 1.0
_PROBLEM_CHARS_MAX: Final = 200

# A primary is never in recovery again while it runs, so what is asked after the CASE holds.
# The timeline of a checkpoint is stale until the first one after a promotion: on a primary the
# name of its WAL file is not, and on a standby what it receives is newer. A setting that holds
# for our own login alone does not keep others from writing.
_LOOK: Final = """
    WITH /* twokey-monitor */ here AS MATERIALIZED (
        SELECT pg_is_in_recovery() AS standby
    ), at AS MATERIALIZED (
        SELECT here.standby,
               CASE WHEN here.standby THEN pg_last_wal_replay_lsn()
                    ELSE pg_current_wal_lsn() END AS lsn,
               CASE WHEN here.standby
                    THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                    ELSE pg_current_wal_lsn() END AS sent_from
          FROM here
    ), receiver AS MATERIALIZED (
        SELECT * FROM pg_stat_wal_receiver LIMIT 1
    ), senders AS (
        SELECT jsonb_agg(jsonb_build_object(
                   'name', application_name,
                   'address', coalesce(host(client_addr), ''),
                   'state', state,
                   'sync_state', sync_state,
                   'flush_behind', pg_wal_lsn_diff(at.sent_from, flush_lsn),
                   'replay_behind', pg_wal_lsn_diff(at.sent_from, replay_lsn),
                   'replay_lag', extract(epoch FROM replay_lag),
                   'reply_age', extract(epoch FROM clock_timestamp() - reply_time))
                   ORDER BY application_name, client_addr) AS list
          FROM at, (SELECT * FROM pg_stat_replication ORDER BY application_name LIMIT 64) AS r
    ), slots AS (
        SELECT jsonb_agg(jsonb_build_object(
                   'name', slot_name, 'kind', slot_type, 'active', active,
                   'retained', pg_wal_lsn_diff(at.sent_from, restart_lsn),
                   'wal_status', wal_status) ORDER BY slot_name) AS list
          FROM at,
               (SELECT * FROM pg_replication_slots
                 WHERE NOT temporary ORDER BY slot_name LIMIT 100) AS s
    )
    SELECT jsonb_build_object(
        'standby', at.standby,
        'now', extract(epoch FROM clock_timestamp()),
        'started', extract(epoch FROM pg_postmaster_start_time()),
        'version', current_setting('server_version_num')::int,
        'read_only', (SELECT setting = 'on'
                             AND source NOT IN ('user', 'database user', 'client', 'session')
                        FROM pg_settings WHERE name = 'default_transaction_read_only'),
        {control}
        'position', pg_wal_lsn_diff(at.lsn, '0/0'),
        'received', CASE WHEN at.standby
                         THEN pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0') END,
        'replay_age', CASE WHEN at.standby THEN extract(
            epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END,
        'paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
        'receiver', (SELECT coalesce(status, 'hidden') FROM receiver),
        'message_age', (SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time)
                          FROM receiver),
        'senders', senders.list,
        'slots', slots.list,
        'base_backups', (SELECT count(*) FROM pg_stat_progress_basebackup),
        'oldest_transaction', (
            SELECT extract(epoch FROM clock_timestamp() - min(xact_start))
              FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
        'prepared_transactions', (SELECT count(*) FROM pg_prepared_xacts),
        'sync_names', current_setting('synchronous_standby_names')
    )::text
      FROM at, senders, slots
"""
# Who takes writes, on which timeline, and whether it is the same server: of the above no more. What
# finds the primary before each plan costs half of a whole look.
_PROBE: Final = """
    WITH /* twokey-monitor */ at AS MATERIALIZED (
        SELECT pg_is_in_recovery() AS standby,
               CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() END AS lsn
    ), receiver AS MATERIALIZED (
        SELECT * FROM pg_stat_wal_receiver LIMIT 1
    )
    SELECT jsonb_build_object(
        'standby', at.standby,
        'now', extract(epoch FROM clock_timestamp()),
        'started', extract(epoch FROM pg_postmaster_start_time()),
        'version', current_setting('server_version_num')::int,
        {control}
        'read_only', (SELECT setting = 'on'
                             AND source NOT IN ('user', 'database user', 'client', 'session')
                        FROM pg_settings WHERE name = 'default_transaction_read_only')
    )::text
      FROM at
"""
_CONTROL: Final = """
        'system', (SELECT system_identifier::text FROM pg_control_system()),
        'timeline', CASE
            WHEN at.standby THEN greatest(
                (SELECT received_tli FROM receiver),
                (SELECT timeline_id FROM pg_control_checkpoint()),
                (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
            ELSE ('x' || left(pg_walfile_name(at.lsn), 8))::bit(32)::int END,
"""
# Where our login may not look into the control file: some clouds keep it to themselves.
_WITHOUT_CONTROL: Final = """
        'system', NULL,
        'timeline', CASE
            WHEN at.standby THEN (SELECT received_tli FROM receiver)
            ELSE ('x' || left(pg_walfile_name(at.lsn), 8))::bit(32)::int END,
"""


async def look_at(
    nodes: Sequence[NodeSpec], *, clock: Callable[[], datetime], limit: timedelta = LIMIT
) -> tuple[NodeSeen, ...]:
    """All nodes as they are now, in the order of `nodes`.

    They are asked at the same time, and one that hangs costs `limit`, no more. Never raises: why
    a node did not answer is its `problem`, a phrase without a full stop.
    """
    return await _all(nodes, _LOOK, clock=clock, limit=limit)


async def probe(
    nodes: Sequence[NodeSpec], *, clock: Callable[[], datetime], limit: timedelta = LIMIT
) -> tuple[NodeSeen, ...]:
    """As `look_at`, but only who takes writes and on which timeline: the rest is not known."""
    return await _all(nodes, _PROBE, clock=clock, limit=limit)


async def _all(
    nodes: Sequence[NodeSpec], query: str, *, clock: Callable[[], datetime], limit: timedelta
) -> tuple[NodeSeen, ...]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_look(node, query, clock=clock, limit=limit)) for node in nodes]
    return tuple(task.result() for task in tasks)


async def _look(
    node: NodeSpec, query: str, *, clock: Callable[[], datetime], limit: timedelta
) -> NodeSeen:
    try:
        async with asyncio.timeout(limit.total_seconds()):
            return parse(node, await _ask(node, query, limit), now=clock())
    except TimeoutError:
        problem = f"no answer within {limit.total_seconds():g} s from {node.target.place}"
    except (*FAILURES, ValueError) as error:
        problem = _said(error, node.target.place)
    return NodeSeen(name=node.name, region=node.region, problem=problem)


async def _ask(node: NodeSpec, query: str, limit: timedelta) -> str:
    conn: Any = await asyncpg.connect(
        node.target.url(),
        timeout=math.ceil(limit.total_seconds()),  # ours comes first
        server_settings={
            "application_name": APPLICATION,
            "statement_timeout": str(int(limit.total_seconds() * 1000) + 1000),
        },
    )
    try:
        text = await _answer(conn, query)
        await close(conn, seconds=_CLOSE_SECONDS_MAX)
    finally:
        conn.terminate()  # nothing where it has been closed
    return text


async def _answer(conn: Any, query: str) -> str:
    try:
        return str(await conn.fetchval(query.format(control=_CONTROL)))
    except asyncpg.InsufficientPrivilegeError:
        again = query.format(control=_WITHOUT_CONTROL)
    except asyncpg.ObjectNotInPrerequisiteStateError:  # promoted while it was asked
        again = query.format(control=_CONTROL)
    return str(await conn.fetchval(again))


def _said(error: BaseException, place: str) -> str:
    """One line about why. A refused connection has a name of its own: a server that is down."""
    if isinstance(error, ConnectionRefusedError):
        return f"connection refused by {place}"
    lines = str(error).strip().splitlines()
    text = lines[0].rstrip(".") if lines else f"no answer from {place}"
    return text[:_PROBLEM_CHARS_MAX]


def parse(node: NodeSpec, text: str, *, now: datetime) -> NodeSeen:
    """What a server's answer says. Pure; `now`: our clock when it came."""
    row: Mapping[str, Any] = json.loads(text)
    standby = bool(row["standby"])
    return NodeSeen(
        name=node.name,
        region=node.region,
        role=Role.STANDBY if standby else Role.PRIMARY,
        is_writable=not standby and not row["read_only"],
        system_identifier=row["system"] or "",
        timeline=row["timeline"],
        position=_whole(row.get("position")),
        received=_whole(row.get("received")),
        replay_age=row.get("replay_age"),
        is_replay_paused=row.get("paused", False),
        receiver=row.get("receiver") or "",
        message_age=row.get("message_age"),
        clock_ahead=float(row["now"]) - now.timestamp(),
        started_at=datetime.fromtimestamp(float(row["started"]), tz=UTC),
        version=row["version"],
        senders=tuple(_sender(each) for each in row.get("senders") or ()),
        slots=tuple(_slot(each) for each in row.get("slots") or ()),
        base_backups=row.get("base_backups", 0),
        oldest_transaction=row.get("oldest_transaction"),
        prepared_transactions=row.get("prepared_transactions", 0),
        sync_names=row.get("sync_names", ""),
    )


def _sender(row: Mapping[str, Any]) -> Sender:
    return Sender(
        name=row["name"] or "",
        address=row["address"],
        state=row["state"] or HIDDEN,
        sync_state=row["sync_state"] or HIDDEN,
        flush_behind=_bytes(row["flush_behind"]),
        replay_behind=_bytes(row["replay_behind"]),
        replay_lag=row["replay_lag"],
        reply_age=row["reply_age"],
    )


def _slot(row: Mapping[str, Any]) -> Slot:
    return Slot(
        name=row["name"],
        kind=row["kind"],
        is_active=row["active"],
        retained=_bytes(row["retained"]),
        wal_status=row["wal_status"] or "",
    )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _bytes(value: Any) -> int | None:
    """Never less than none: what was asked a moment later may be further."""
    return None if value is None else max(int(value), 0)
