"""One look at a server: connections, locks, counters, replication, WAL, in one row. Pure.

Needs nothing but `pg_monitor`, runs on a primary and on a standby, on PostgreSQL 13 to 18: what
a version lacks is NULL. Whoever has a connection runs `instance_query` and reads the row with
`parse_instance`; a login without `pg_monitor` gets the counters, and None for all that
PostgreSQL hides from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from postgres.health.counters import Counters, DatabaseCounters

_WAITSTART: Final = 14  # pg_locks.waitstart, and sessions in pg_stat_database
_CHECKPOINTER: Final = 17  # checkpoints left pg_stat_bgwriter
BLOCKERS_MAX: Final = 5
REPLICAS_MAX: Final = 50
SLOTS_MAX: Final = 100
DATABASES_MAX: Final = 1000

# Of 2^31 ids PostgreSQL keeps the last three million back, and takes no more writes there.
_WRAPAROUND: Final = 2**31 - 3_000_000

# The comment tells our own statements from those of applications in pg_stat_statements. It
# stands inside: PostgreSQL 18 drops a comment that comes first. A statement without parameters
# keeps one generic plan, so that a prepared one is never planned again. One row.
_QUERY: Final = """
    WITH /* twokey-monitor */ act AS MATERIALIZED (
        SELECT pid, usename, application_name, state, backend_type, wait_event_type,
               xact_start, query_start, state_change, pid = pg_backend_pid() AS is_own
          FROM pg_stat_activity
    ), clients AS MATERIALIZED (
        SELECT * FROM act WHERE backend_type = 'client backend'
    ), conn AS (
        SELECT count(*) AS total,
               count(*) FILTER (WHERE state = 'active') AS active,
               count(*) FILTER (WHERE state = 'idle') AS idle,
               count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS idle_in_transaction,
               count(*) FILTER (WHERE wait_event_type = 'Lock') AS waiting,
               max(clock_timestamp() - query_start) FILTER (WHERE state = 'active') AS query_max,
               max(clock_timestamp() - xact_start) AS transaction_max,
               max(clock_timestamp() - state_change)
                   FILTER (WHERE state LIKE 'idle in transaction%') AS idle_max
          FROM clients
         WHERE NOT is_own
    ), waits AS MATERIALIZED (
        SELECT l.pid, min({waitstart}) AS since
          FROM pg_locks l
         WHERE NOT l.granted
         GROUP BY l.pid
    ), waiters AS MATERIALIZED (
        SELECT a.pid, a.usename, a.application_name,
               clock_timestamp() - coalesce(w.since, a.query_start) AS waited
          FROM waits w
          JOIN act a USING (pid)
    ), worst AS MATERIALIZED (
        SELECT *, pg_blocking_pids(pid) AS blocked_by
          FROM (SELECT * FROM waiters ORDER BY waited DESC NULLS LAST LIMIT 5) AS longest
    ), roots AS (
        SELECT a.pid, a.usename, a.application_name, a.state,
               clock_timestamp() - a.xact_start AS transaction
          FROM act a
         WHERE a.pid IN (SELECT unnest(blocked_by) FROM worst)
           AND a.pid NOT IN (SELECT pid FROM waits)
         LIMIT 5
    ), databases AS (
        SELECT jsonb_agg(jsonb_build_array(
                   datid, xact_commit, xact_rollback, blks_hit, blks_read, deadlocks, temp_bytes,
                   {bad_sessions}, stats_reset)) AS counters,
               sum(checksum_failures) AS checksum_failures
          FROM (SELECT * FROM pg_stat_database ORDER BY datid LIMIT 1000) AS d
    ), here AS (
        SELECT pg_is_in_recovery() AS standby,
               CASE WHEN pg_is_in_recovery()
                    THEN coalesce(pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn())
                    ELSE pg_current_wal_lsn() END AS lsn
    ), replicas AS (
        SELECT jsonb_agg(jsonb_build_object(
                   'name', application_name, 'addr', host(client_addr), 'state', state,
                   'sync', sync_state,
                   'lag_bytes', pg_wal_lsn_diff(here.lsn, replay_lsn),
                   'replay_lsn', pg_wal_lsn_diff(replay_lsn, '0/0'),
                   'replay_ms', extract(epoch FROM replay_lag) * 1000,
                   'reply_age_s', extract(epoch FROM clock_timestamp() - reply_time),
                   'is_logical', pid IN (SELECT s.active_pid FROM pg_replication_slots s
                                          WHERE s.slot_type = 'logical'
                                            AND s.active_pid IS NOT NULL))
                   ORDER BY application_name, client_addr) AS list
          FROM here,
               (SELECT * FROM pg_stat_replication
                 WHERE application_name NOT IN ('pg_basebackup', 'pg_rewind')
                 LIMIT 50) AS r
    ), slots AS (
        SELECT jsonb_agg(jsonb_build_object(
                   'name', slot_name, 'type', slot_type, 'active', active,
                   'wal_status', wal_status,
                   'retained_bytes', greatest(pg_wal_lsn_diff(here.lsn, restart_lsn), 0))
                   ORDER BY slot_name) AS list
          FROM here, (SELECT * FROM pg_replication_slots WHERE NOT temporary LIMIT 100) AS s
    )
    SELECT jsonb_build_object(
        'at', extract(epoch FROM clock_timestamp()),
        'started', extract(epoch FROM pg_postmaster_start_time()),
        'sees_all', pg_has_role('pg_read_all_stats', 'USAGE'),
        'login', current_user,
        'standby', here.standby,
        'database', (SELECT oid FROM pg_database WHERE datname = current_database()),
        'total', conn.total + 1,
        'active', conn.active,
        'idle', conn.idle,
        'idle_in_transaction', conn.idle_in_transaction,
        'waiting', conn.waiting,
        'query_s', extract(epoch FROM conn.query_max),
        'transaction_s', extract(epoch FROM conn.transaction_max),
        'idle_s', extract(epoch FROM conn.idle_max),
        'usable', current_setting('max_connections')::int
                - current_setting('superuser_reserved_connections')::int
                - coalesce(nullif(current_setting('reserved_connections', true), '')::int, 0),
        'autovacuum', (SELECT count(*) FROM act WHERE backend_type = 'autovacuum worker'),
        'lock_waits', (SELECT count(*) FROM waits),
        'lock_wait_s', (SELECT extract(epoch FROM max(waited)) FROM waiters),
        'blockers', (SELECT jsonb_agg(jsonb_build_object(
                        'pid', pid, 'blocked_by', blocked_by,
                        'wait_s', extract(epoch FROM waited),
                        'user', usename, 'application', application_name)
                        ORDER BY waited DESC NULLS LAST) FROM worst),
        'roots', (SELECT jsonb_agg(jsonb_build_object(
                     'pid', pid, 'user', usename, 'application', application_name,
                     'state', state, 'transaction_s', extract(epoch FROM transaction))
                     ORDER BY transaction DESC NULLS LAST) FROM roots),
        'databases', databases.counters,
        'checksum_failures', databases.checksum_failures,
        'xid_age', (SELECT max(age(datfrozenxid)) FROM pg_database),
        'mxid_age', (SELECT max(mxid_age(datminmxid)) FROM pg_database),
        'prepared', (SELECT count(*) FROM pg_prepared_xacts),
        'lsn', pg_wal_lsn_diff(here.lsn, '0/0'),
        'replicas', CASE WHEN here.standby THEN NULL ELSE replicas.list END,
        'slots', slots.list,
        'receiver', CASE WHEN here.standby THEN jsonb_build_object(
            'gap_bytes', pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()),
            'replay_age_s', extract(epoch FROM clock_timestamp()
                                               - pg_last_xact_replay_timestamp()),
            'paused', pg_is_wal_replay_paused(),
            'status', (SELECT w.status FROM pg_stat_wal_receiver w),
            'message_age_s', (SELECT extract(epoch FROM clock_timestamp()
                                                        - w.last_msg_receipt_time)
                                FROM pg_stat_wal_receiver w)) END,
        'archiver', (SELECT jsonb_build_object(
            'mode', current_setting('archive_mode'),
            'archived', archived_count, 'failed', failed_count,
            'ok_age_s', extract(epoch FROM clock_timestamp() - last_archived_time),
            'failed_age_s', extract(epoch FROM clock_timestamp() - last_failed_time),
            'is_failing', coalesce(last_failed_time
                                   > coalesce(last_archived_time, '-infinity'), false),
            'last_failed', last_failed_wal) FROM pg_stat_archiver),
        'writer_reset', (SELECT extract(epoch FROM stats_reset) FROM pg_stat_bgwriter),
        'checkpoints', (SELECT jsonb_build_array({checkpoints}, extract(epoch FROM stats_reset))
                          FROM {checkpointer}),
        'statistics_age_s', (SELECT extract(epoch FROM clock_timestamp()
                                            - greatest(d.stats_reset, b.stats_reset))
                               FROM pg_stat_database d, pg_stat_bgwriter b
                              WHERE d.datname = current_database())
    ) AS instance
      FROM here, conn, databases, replicas, slots
"""

# Not all clouds let a monitor look into the control file, so it stands alone. One row.
IDENTITY: Final = """
    SELECT /* twokey-monitor */
           (SELECT s.system_identifier::text FROM pg_control_system() AS s) AS system,
           CASE WHEN pg_is_in_recovery()
                THEN (SELECT c.timeline_id FROM pg_control_checkpoint() AS c)
                ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
           END AS timeline
"""

# What people ask about first; a name that a version lacks is NULL.
SETTINGS: Final = (
    "max_connections", "shared_buffers", "work_mem", "maintenance_work_mem",
    "effective_cache_size", "max_wal_size", "checkpoint_timeout", "wal_level", "archive_mode",
    "synchronous_commit", "random_page_cost", "statement_timeout", "lock_timeout",
    "idle_in_transaction_session_timeout", "autovacuum", "data_checksums", "hot_standby",
    "track_io_timing", "log_min_duration_statement", "max_replication_slots", "max_wal_senders",
    "max_slot_wal_keep_size",
)  # fmt: skip

# What we set for our own session is not what applications have: of that, the usual value.
SETTINGS_QUERY: Final = """
    SELECT /* twokey-monitor */ name, pending_restart,
           CASE WHEN source = 'session' THEN concat(reset_val, unit)
                ELSE current_setting(name, true) END AS setting
      FROM pg_settings
     WHERE name = ANY($1::text[]) OR pending_restart
     LIMIT 200
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A server at a moment. `numbers` have the names of `postgres.health.metrics`.

    `hidden` says which privilege is missing, or is "". `lsn` counts bytes since the beginning:
    what a primary has written, or a standby has replayed.
    """

    counters: Counters
    numbers: Mapping[str, float | None]
    standby: bool
    lsn: int | None
    database_oid: int
    hidden: str
    detail: Mapping[str, Any]


def instance_query(major: int) -> str:
    """The statement for servers of this major version; no parameters, one row `instance`."""
    return _QUERY.format(
        waitstart="l.waitstart" if major >= _WAITSTART else "NULL::timestamptz",
        bad_sessions=(
            "sessions_fatal + sessions_killed + sessions_abandoned"
            if major >= _WAITSTART
            else "NULL"
        ),
        checkpoints=(
            "num_timed, num_requested"
            if major >= _CHECKPOINTER
            else "checkpoints_timed, checkpoints_req"
        ),
        checkpointer="pg_stat_checkpointer" if major >= _CHECKPOINTER else "pg_stat_bgwriter",
    )


def parse_instance(text: str) -> Instance:
    """What the row says."""
    row: Mapping[str, Any] = json.loads(text)
    hidden = "" if row["sees_all"] else _hidden(str(row["login"]))
    return Instance(
        counters=_counters(row),
        numbers=MappingProxyType({**_seen_by_all(row), **_seen_by_monitors(row)}),
        standby=row["standby"],
        lsn=None if row["lsn"] is None else int(row["lsn"]),
        database_oid=int(row["database"]),
        hidden=hidden,
        detail=MappingProxyType(_detail(row)),
    )


def _hidden(login: str) -> str:
    return (
        f"The login {login} may not see the sessions of others: connections, waits, replication "
        f"and statements are unknown. Run: GRANT pg_monitor TO {login}"
    )


def _counters(row: Mapping[str, Any]) -> Counters:
    timed, requested, reset = row["checkpoints"]
    return Counters(
        at=float(row["at"]),
        started=float(row["started"]),
        standby=row["standby"],
        writer_reset=row["writer_reset"],
        databases=MappingProxyType(
            {int(oid): DatabaseCounters(*rest) for oid, *rest in row["databases"]}
        ),
        wal_bytes=None if row["standby"] or row["lsn"] is None else int(row["lsn"]),
        checkpoints_timed=int(timed),
        checkpoints_requested=int(requested),
        checkpoints_reset=reset,
    )


def _seen_by_all(row: Mapping[str, Any]) -> dict[str, float | None]:
    slots = row["slots"] or ()
    return {
        "up": 1.0,
        "connections_usable": float(row["usable"]),
        "lock_waits": float(row["lock_waits"]),
        "prepared_transactions": float(row["prepared"]),
        "xid_age_pct": 100.0 * row["xid_age"] / _WRAPAROUND,
        "mxid_age_pct": 100.0 * row["mxid_age"] / _WRAPAROUND,
        "checksum_failures": _float(row["checksum_failures"]),
        "slots_inactive": float(sum(not slot["active"] for slot in slots)),
        "slot_retained_bytes_max": float(
            max((slot["retained_bytes"] or 0 for slot in slots), default=0)
        ),
        "statistics_age_s": _float(row["statistics_age_s"]),
    }


# A wait of zero seconds is one that nobody has: a chart of None would look like blindness.
def _seen_by_monitors(row: Mapping[str, Any]) -> dict[str, float | None]:
    names = (
        "connections_total", "connections_active", "connections_idle",
        "connections_idle_in_transaction", "connections_waiting", "pool_usage_pct",
        "lock_wait_s_max", "query_s_max", "transaction_s_max", "idle_in_transaction_s_max",
        "autovacuum_workers",
    )  # fmt: skip
    if not row["sees_all"]:
        return dict.fromkeys(names)
    usable = row["usable"]
    values = (
        row["total"], row["active"], row["idle"], row["idle_in_transaction"], row["waiting"],
        100.0 * row["total"] / usable if usable > 0 else None,
        row["lock_wait_s"] or 0.0, row["query_s"] or 0.0, row["transaction_s"] or 0.0,
        row["idle_s"] or 0.0, row["autovacuum"],
    )  # fmt: skip
    return {name: _float(value) for name, value in zip(names, values, strict=True)}


def _detail(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "role": "standby" if row["standby"] else "primary",
        "started": row["started"],
        "blockers": row["blockers"] or [],
        "roots": row["roots"] or [],
        "replicas": row["replicas"] or [],
        "slots": row["slots"] or [],
        "archiver": row["archiver"],
        "standby": row["receiver"] and {**row["receiver"], "replay_lsn": row["lsn"]},
    }


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
