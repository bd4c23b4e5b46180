"""What fires when, as data: the guide's six alerts, and those of a DBA. Pure.

The thresholds of the first six, their severities and what their actions say are the guide's;
where each clears, and for how long it must last, is ours: a week of samples around a threshold
tells of it (`bench/alert_noise.py`). The further ones follow what monitoring systems for
PostgreSQL ship (pgMonitor, awesome-prometheus-alerts).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from jobs.alert_machine import Severity
from jobs.alert_nodes import CLUSTERS
from jobs.alert_rule import (
    MONITORING_BLIND,
    PRIMARIES,
    REPLICA_MISSING,
    SERVER_DOWN,
    STALE,
    TWO_PRIMARIES,
    Beside,
    Help,
    Rule,
    Scope,
)

_GIB: Final = 1024.0**3
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

_GUIDE: Final = (
    Rule(
        name="PoolUsage",
        metric="pool_usage_pct",
        fire=80,
        clear=72,
        lasting=2 * _MINUTE,
        severity=Severity.WARNING,
        says="{value} of the connection slots of {where} are taken; the limit is {limit}.",
        action="Look for clients that leak connections or leave them idle: /db health {database}."
        " What sizes would fit, or whether a larger pool or PgBouncer helps: /db pool {database}",
        helps=(Help.POOL, Help.LOCKS),
    ),
    Rule(
        name="ConnectionsWaiting",
        metric="connections_waiting",
        fire=10,
        clear=5,
        lasting=_MINUTE,
        hold=2 * _MINUTE,
        repeat=30 * _MINUTE,
        escalate=15 * _MINUTE,
        severity=Severity.CRITICAL,
        says="{value} connections of {where} wait for a lock or for a place in the pool; the limit"
        " is {limit}.",
        action="Look at once: /db locks {database} shows who holds up the others. A statement that"
        " has run too long may have to be cancelled, or its backend ended.",
        subject="waiting",
        helps=(Help.END_BLOCKER, Help.LOCKS),
    ),
    Rule(
        name="SlowQueries",
        metric="slow_queries",
        fire=100,
        clear=70,
        lasting=3 * _MINUTE,
        severity=Severity.WARNING,
        says="Statements on {where} that take longer than a second: about {value}; the limit is"
        " {limit}.",
        action="See which, and what changed: /db slow {database}. Make them faster, or give them"
        " an index: /db indexes {database}",
        helps=(Help.SLOW, Help.INDEXES),
    ),
    Rule(
        name="ReplicationLag",
        metric="replication_lag_ms",
        fire=60_000,
        clear=30_000,
        lasting=_MINUTE,
        hold=3 * _MINUTE,
        repeat=30 * _MINUTE,
        escalate=15 * _MINUTE,
        severity=Severity.CRITICAL,
        says="A standby of {where} is {value} behind; the limit is {limit}.",
        action="See how the standby is and what it waits for: /db health {database}. Hold back"
        " heavy writes. A failover may be needed; never to this standby before it has caught up.",
        scope=Scope.CLUSTER,
        helps=(Help.HEALTH,),
    ),
    Rule(
        name="DiskUsage",
        metric="disk_usage_pct",
        fire=80,
        clear=77,
        lasting=5 * _MINUTE,
        hold=30 * _MINUTE,
        repeat=_DAY,
        severity=Severity.WARNING,
        says="{value} of the data volume of {where} is used; the limit is {limit}.",
        action="Archive old data, clean up logs, or make the volume larger. What grows, and until"
        " when it lasts: /db forecast {database}",
        helps=(Help.FORECAST,),
    ),
    Rule(
        name="Deadlocks",
        metric="deadlocks",
        fire=5,
        clear=2,
        hold=15 * _MINUTE,
        severity=Severity.WARNING,
        says="Deadlocks on {where}: {value}; the limit is {limit}.",
        action="The server's log has the statements of each: let them lock in the same order, and"
        " make their transactions shorter. Who waits now: /db locks {database}",
        helps=(Help.LOCKS,),
    ),
)

_AVAILABILITY: Final = (
    Rule(
        name=SERVER_DOWN,
        metric="up",
        fire=1,
        clear=1,
        above=False,
        lasting=_MINUTE,
        hold=_MINUTE,
        repeat=30 * _MINUTE,
        escalate=10 * _MINUTE,
        severity=Severity.CRITICAL,
        says="{where} does not answer.",
        action="See whether the server runs and lets us in: /db health {database}. If it is lost,"
        " /db readiness {database} says how it can be brought back.",
        helps=(Help.HEALTH,),
    ),
    Rule(
        name=MONITORING_BLIND,
        metric="sample_age_s",
        fire=STALE.total_seconds(),
        clear=STALE.total_seconds(),
        hold=_MINUTE,
        repeat=_HOUR,
        escalate=15 * _MINUTE,
        severity=Severity.CRITICAL,
        says="Nobody has measured {where} for {value}: what is wrong there would not be told.",
        action="See whether a worker runs that has {database} in its inventory, and its log.",
        silenced_by=(SERVER_DOWN,),
    ),
    Rule(
        name=TWO_PRIMARIES,
        metric=PRIMARIES,
        fire=1,
        clear=1,
        lasting=_MINUTE,
        hold=_MINUTE,
        repeat=15 * _MINUTE,
        escalate=5 * _MINUTE,
        severity=Severity.CRITICAL,
        says="{value} servers of {where} say that they are its primary: what is written to one is"
        " missing on the other.",
        action="Keep applications away from the one that is not meant to be it, at once, and only"
        " then look for what it took: /db health {database}",
        scope=Scope.CLUSTER,
        helps=(Help.HEALTH,),
    ),
    Rule(
        name=REPLICA_MISSING,
        metric="replicas_missing",
        fire=0,
        clear=0,
        lasting=2 * _MINUTE,
        hold=2 * _MINUTE,
        repeat=_HOUR,
        escalate=30 * _MINUTE,
        severity=Severity.CRITICAL,
        says="Standbys that should stream from {where} and do not: {value}.",
        action="See which, and its log: /db health {database}. Until it is back there is one server"
        " less to fail over to.",
        scope=Scope.CLUSTER,
        helps=(Help.HEALTH,),
    ),
)

_SAFETY: Final = (
    Rule(
        name="ReplicationSlotInactive",
        metric="slots_inactive",
        fire=0,
        clear=0,
        lasting=10 * _MINUTE,
        repeat=_DAY,
        severity=Severity.WARNING,
        says="Replication slots of {where} that nobody uses, and that hold back WAL: {value}.",
        action="Bring back whoever used it, or drop a slot that nobody needs before the disk is"
        " full: /db health {database} shows what is kept for it.",
        subject="slots",
        helps=(Help.HEALTH,),
    ),
    Rule(
        name="RetainedWal",
        metric="slot_retained_bytes_max",
        fire=10 * _GIB,
        clear=8 * _GIB,
        lasting=5 * _MINUTE,
        severity=Severity.WARNING,
        says="{where} keeps {value} of WAL for a replication slot; the limit is {limit}.",
        action="See who does not keep up: /db health {database}. Drop the slot before the disk is"
        " full; its standby must be built anew then.",
        helps=(Help.HEALTH, Help.FORECAST),
    ),
    Rule(
        name="ArchiverFailing",
        metric="archive_failing_s",
        fire=300,
        clear=0,
        repeat=_HOUR,
        escalate=30 * _MINUTE,
        severity=Severity.CRITICAL,
        says="archive_command of {where} has been failing for {value}: nothing newer can be"
        " recovered, and WAL piles up.",
        action="The server's log says why. What can still be recovered: /db readiness {database}",
        scope=Scope.CLUSTER,
    ),
    Rule(
        name="WraparoundNear",
        metric="xid_age_pct",
        fire=50,
        clear=45,
        lasting=5 * _MINUTE,
        hold=30 * _MINUTE,
        repeat=_DAY,
        severity=Severity.WARNING,
        says="{where} is {value} of the way to transaction id wraparound; the limit is {limit}.",
        action="Find what holds back vacuum: an old transaction, slot or prepared transaction"
        " (/db locks {database}); then VACUUM the oldest tables.",
        scope=Scope.CLUSTER,
        helps=(Help.LOCKS,),
    ),
    Rule(
        name="WraparoundImminent",
        metric="xid_age_pct",
        fire=75,
        clear=70,
        lasting=_MINUTE,
        hold=30 * _MINUTE,
        escalate=30 * _MINUTE,
        severity=Severity.CRITICAL,
        says="{where} is {value} of the way to transaction id wraparound: it will refuse to write.",
        action="End what holds back vacuum now (/db locks {database}) and VACUUM the oldest"
        " tables.",
        scope=Scope.CLUSTER,
        helps=(Help.LOCKS,),
    ),
    Rule(
        name="MultixactWraparoundNear",
        metric="mxid_age_pct",
        fire=50,
        clear=45,
        lasting=5 * _MINUTE,
        hold=30 * _MINUTE,
        repeat=_DAY,
        severity=Severity.WARNING,
        says="{where} is {value} of the way to multixact wraparound; the limit is {limit}.",
        action="VACUUM the tables with the oldest relminmxid, and end long transactions that lock"
        " rows: /db locks {database}",
        scope=Scope.CLUSTER,
        helps=(Help.LOCKS,),
    ),
    Rule(
        name="ChecksumFailures",
        metric="checksum_failures",
        fire=0,
        clear=0,
        repeat=_DAY,
        escalate=30 * _MINUTE,
        severity=Severity.CRITICAL,
        says="Damaged pages that {where} has met since its start: {value}.",
        action="Take no chances with that disk: verify the newest backup (/db verify {database}),"
        " then find out which tables are hit: /db integrity {database}",
        helps=(Help.VERIFY,),
    ),
    Rule(
        name="DiskNearlyFull",
        metric="disk_usage_pct",
        fire=95,
        clear=92,
        lasting=_MINUTE,
        hold=10 * _MINUTE,
        repeat=_HOUR,
        escalate=15 * _MINUTE,
        severity=Severity.CRITICAL,
        says="{value} of the data volume of {where} is used: when it is full, the server stops.",
        action="Make room now: extend the volume, or remove what is not the server's own. Never"
        " remove files of pg_wal. What is largest: /db health {database}",
        helps=(Help.FORECAST, Help.HEALTH),
    ),
    Rule(
        name="DiskFullSoon",
        metric="days_until_full",
        fire=14,
        clear=21,
        above=False,
        lasting=_HOUR,
        hold=6 * _HOUR,
        repeat=_DAY,
        severity=Severity.WARNING,
        says="The data volume of {where} may be full in {value}.",
        action="See what grows and what to do by when: /db forecast {database}",
        scope=Scope.CLUSTER,
        silenced_by=("DiskUsage", "DiskNearlyFull"),
        helps=(Help.FORECAST,),
        # An import on a small disk looks like its end for an hour: pgMonitor needs both too.
        beside=Beside(metric="disk_usage_pct", fire=50),
    ),
)

_WORK: Final = (
    Rule(
        name="LockWait",
        metric="lock_wait_s_max",
        fire=60,
        clear=10,
        hold=_MINUTE,
        repeat=30 * _MINUTE,
        severity=Severity.WARNING,
        says="Somebody on {where} has waited for a lock for {value}; the limit is {limit}.",
        action="See who holds it and what for: /db locks {database}. Cancel or end the blocker if"
        " its work may be lost.",
        subject="waiting",
        helps=(Help.END_BLOCKER, Help.LOCKS),
    ),
    Rule(
        name="IdleInTransaction",
        metric="idle_in_transaction_s_max",
        fire=300,
        clear=60,
        hold=2 * _MINUTE,
        severity=Severity.WARNING,
        says="A connection of {where} has been idle in a transaction for {value}; the limit is"
        " {limit}.",
        action="It keeps its locks and holds back vacuum: /db locks {database}. Let the"
        " application commit, or set idle_in_transaction_session_timeout.",
        helps=(Help.LOCKS,),
    ),
    Rule(
        name="LongTransaction",
        metric="transaction_s_max",
        fire=3600,
        clear=3000,
        severity=Severity.WARNING,
        says="A transaction on {where} has been open for {value}; the limit is {limit}.",
        action="Vacuum cannot remove what became old since it began: /db locks {database}",
        helps=(Help.LOCKS,),
    ),
    Rule(
        name="InvalidIndex",
        metric="invalid_indexes",
        fire=0,
        clear=0,
        lasting=15 * _MINUTE,
        repeat=_DAY,
        severity=Severity.WARNING,
        says="Indexes of {where} that are invalid, cost writes and serve no query: {value}.",
        action="A build that failed left it behind: drop it and build it again. Which:"
        " /db indexes {database}",
        scope=Scope.CLUSTER,
        helps=(Help.INDEXES,),
    ),
    Rule(
        name="PendingRestart",
        metric="pending_restart",
        fire=0,
        clear=0,
        lasting=_HOUR,
        repeat=7 * _DAY,
        severity=Severity.WARNING,
        says="Settings of {where} that were changed and wait for a restart: {value}.",
        action="Until then the server runs with other settings than its files say. Plan a restart,"
        " or take the change back: /db health {database}",
        helps=(Help.HEALTH,),
    ),
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {rule.name: rule for rule in (*_GUIDE, *_AVAILABILITY, *CLUSTERS, *_SAFETY, *_WORK)}
)
