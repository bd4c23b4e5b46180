"""The guide's ten checks: what meets them, what does not, and what nobody can say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from jobs.backup_settings import TIERS, BackupSettings, BackupTier
from jobs.cluster_settings import ClusterSettings, DrillKind, DrillSettings
from jobs.health_settings import AppPool, MonitoringSettings, Node
from jobs.health_state import HealthState
from jobs.operation import CriticalQuery, Tier
from jobs.readiness import Readiness, readiness, worst_first
from jobs.readiness_facts import Facts, PassedDrill
from postgres.cluster.words import ClusterKind
from store.samples import NodeRow
from tests.jobs.health import NUMBERS, a_node
from tests.jobs.test_alerts import DAY, HOUR, NOW, RECEIVING, a_line, a_state, an_archive

WEST = Node(name="west", dsn=SecretStr("postgresql://west"))
SETTINGS = MonitoringSettings(
    runbooks="https://wiki.example/{alert}", sensitive_tables=("public.users",),
    pools=(AppPool(name="web", instances=4, size=10),),
)  # fmt: skip
DRILL = PassedDrill(
    request_id=12, kind="primary-crash", at=NOW - 60 * DAY, rpo_seconds=0.0, rto_seconds=12.3
)
FACTS = Facts(
    pool_peak=61.0, slow_average=0.2, slow_statements=0, measured_since=NOW - 7 * DAY,
    restored_at=NOW - 30 * DAY, drill=DRILL,
    audited={"public.users": NOW - 9 * DAY}, anchored_at=NOW - 10 * HOUR, size_days=60,
    sized_on=NOW.date(),
)  # fmt: skip


def drilled(*kinds: DrillKind, **more: Any) -> ClusterSettings:
    """A cluster whose inventory allows these kinds of drills, the first by the clock."""
    drills = DrillSettings(kinds=kinds, kind=kinds[0] if kinds else DrillKind.SWITCHOVER, **more)
    return ClusterSettings(kind=ClusterKind.PAIR, nodes=(), drills=drills)


def world(
    *,
    nodes: tuple[NodeRow, ...] | None = None,
    numbers: dict[str, float | None] | None = None,
    facts: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    detail: dict[str, Any] | None = None,
    database: dict[str, Any] | None = None,
    backups: dict[str, Any] | None = None,
) -> Readiness:
    """A database that is ready for everything, but for what is said."""
    state = a_state(
        a_line(), a_line(3 * DAY), settings=RECEIVING, archive=an_archive(lag_bytes=2048)
    )
    made = replace(
        state.database,
        monitoring=replace(SETTINGS, **(settings or {})),
        replicas=(WEST,),
        critical_queries=(CriticalQuery(name="orders", sql="SELECT 1"),),
        **(database or {}),
    )
    state = replace(state, database=made, **(backups or {}))
    measured = {**NUMBERS, "replicas_streaming": 1, **(numbers or {})}
    seen = (
        a_node(numbers=measured, detail={"role": "primary", **(detail or {})}),
        a_node("west"),
    )
    health = HealthState(database=made, nodes=seen if nodes is None else nodes)
    return readiness(state, health, replace(FACTS, **(facts or {})), NOW)


def missing(found: Readiness) -> dict[int, tuple[str, str]]:
    return {check.number: (str(check.verdict), check.evidence) for check in found.missing}


def test_a_database_that_is_ready_for_everything_has_all_ten_with_their_age() -> None:
    found = world()
    assert missing(found) == {}
    assert found.score == "10 of 10"
    assert [check.number for check in found.checks] == list(range(1, 11))
    ages = {check.number: check.age for check in found.checks}
    assert (ages[1], ages[2], ages[7]) == (10 * HOUR, HOUR, 30 * DAY)
    assert (ages[3], ages[9]) == (timedelta(seconds=8), 10 * HOUR)
    assert not any(check.mend for check in found.checks)


DOWN = a_node("west", ok=False)
ONE_TIER = {BackupTier.DAILY: TIERS[BackupTier.DAILY]}


@pytest.mark.parametrize(
    ("change", "number", "verdict", "evidence"),
    [
        ({"backups": {"backups": ()}}, 1, "NO", "there is no usable backup"),
        ({"backups": {"archive": None}}, 1, "NO",
         "Any moment can be recovered, WalArchiveDown"),
        ({"settings": {"is_on": False}}, 3, "NO", "switched off"),
        ({"nodes": ()}, 3, "NO", "never seen: orders, west"),
        ({"nodes": (a_node(),)}, 3, "NO", "never seen: west"),
        ({"nodes": (a_node(), DOWN)}, 3, "NO", "not seen lately: west"),
        ({"nodes": (a_node(), a_node("west", seen_at=NOW - HOUR))}, 3, "NO",
         "not seen lately: west"),
        ({"numbers": {"disk_usage_pct": None}}, 3, "NO",
         "disk use is not known (`volume:` in the inventory)"),
        ({"facts": {"pool_peak": 86.0}}, 4, "NO",
         "peak 86 % in 7 d, pools of 40 for 97 slots"),
        ({"numbers": {"pool_usage_pct": 90}}, 4, "NO",
         "peak 90 % in 7 d, pools of 40 for 97 slots"),
        ({"settings": {"pools": (AppPool(name="web", instances=10, size=10),)}}, 4, "NO",
         "peak 61 % in 7 d, pools of 100 for 97 slots"),
        ({"nodes": ()}, 4, "?",
         "peak 61 % in 7 d, pools of 40, and nobody knows for how many slots"),
        ({"nodes": (), "facts": {"pool_peak": None}}, 4, "?", "no samples yet"),
        ({"detail": {"statements_missing": "CREATE EXTENSION"}}, 5, "?",
         "no statistics of statements"),
        ({"facts": {"slow_average": 3.0}}, 5, "NO",
         "3 slow a minute, 0 statements over 1 s on average"),
        ({"facts": {"slow_statements": 2}}, 5, "NO",
         "0.2 slow a minute, 2 statements over 1 s on average"),
        ({"numbers": {"replicas_streaming": 0}}, 6, "NO", "0 of 1 stream, 20 ms behind"),
        ({"numbers": {"replication_lag_ms": 61_000}}, 6, "NO",
         "1 of 1 stream, 1 min 1 s behind"),
        ({"settings": {"replicas": 2}}, 6, "NO", "1 of 2 stream, 20 ms behind"),
        ({"settings": {"replicas": 0}}, 6, "NO", "no standby; tier critical needs one"),
        ({"nodes": ()}, 6, "?", "1 expected, none seen yet"),
        ({"settings": {"runbooks": ""}}, 7, "NO", "no runbook link"),
        ({"facts": {"restored_at": None}}, 7, "NO",
         "nobody has asked for a restore for a year"),
        ({"facts": {"restored_at": NOW - 367 * DAY}}, 7, "NO",
         "nobody has asked for a restore for a year"),
        ({"facts": {"drill": None}}, 8, "NO", "none has ever passed; one is due every 92 d"),
        ({"facts": {"drill": replace(DRILL, at=NOW - 93 * DAY)}}, 8, "NO",
         "primary-crash passed, RPO 0 s, RTO 12.3 s, request 12; one is due every 92 d"),
        ({"facts": {"drill": replace(DRILL, is_intact=False)}}, 8, "NO",
         "the report of request 12 is not the one that was stored"),
        ({"facts": {"drill": replace(DRILL, at=NOW - 31 * DAY, rto_seconds=None)},
          "database": {"cluster": drilled(every=30 * DAY)}}, 8, "NO",
         "primary-crash passed, RPO 0 s, RTO not known, request 12; one is due every 30 d"),
        ({"settings": {"sensitive_tables": ()}}, 9, "NO", "no sensitive tables are named"),
        ({"facts": {"audited": {}}}, 9, "NO", "no audit trigger known on public.users"),
        ({"facts": {"anchored_at": NOW - 3 * DAY}}, 9, "NO",
         "Twokey's own audit is not anchored"),
        ({"facts": {"anchored_at": None}}, 9, "NO", "Twokey's own audit is not anchored"),
        ({"facts": {"size_days": 13}}, 10, "?", "13 of 14 days of sizes so far"),
        ({"numbers": {"days_until_full": 89}}, 10, "NO",
         "full in 89 days at the earliest; 60 days of history"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_its_evidence_and_what_would_mend_it(
    change: dict[str, Any], number: int, verdict: str, evidence: str
) -> None:
    found = world(**change)
    assert missing(found)[number] == (verdict, evidence)
    assert next(check.mend for check in found.checks if check.number == number)


@pytest.mark.parametrize(
    ("cluster", "backups", "mend"),
    [
        (None, {}, "/db drill orders restore: that needs no second server"),
        (None, {"backups": ()},
         "/db backup orders, then /db drill orders restore: that needs no second server"),
        (drilled(), {},
         ("Name `cluster.drills.kinds` of orders in the inventory: restore harms nothing, then"
          " /db drill orders restore")),
        (drilled(DrillKind.HOST_LOSS, DrillKind.SWITCHOVER), {}, "/db drill orders host-loss"),
    ],
)  # fmt: skip
def test_whoever_has_rehearsed_nothing_reads_what_can_be_rehearsed_here(
    cluster: ClusterSettings | None, backups: dict[str, Any], mend: str
) -> None:
    found = world(facts={"drill": None}, database={"cluster": cluster}, backups=backups)
    assert next(check.mend for check in found.checks if check.number == 8) == mend


def test_a_tier_that_no_schedule_takes_backups_for_is_named() -> None:
    state = a_state(a_line(), settings=BackupSettings(tiers=ONE_TIER))
    found = readiness(state, HealthState(database=state.database), Facts(), NOW)
    assert missing(found)[1] == ("NO", "no schedule for weekly, monthly")


def test_what_no_alert_tells_of_counts_as_well() -> None:
    """Without an archive only the ends of backups can be recovered: nobody is woken for that."""
    state = a_state(a_line(), a_line(3 * DAY))
    found = readiness(state, HealthState(database=state.database), Facts(), NOW)
    assert found.alerts == ()
    assert missing(found)[1] == ("NO", "Any moment can be recovered")


def test_a_restore_that_fails_its_tests_is_none() -> None:
    found = world(backups={"backups": (a_line(verified_at=NOW - 9 * DAY),)})
    assert missing(found)[2][0] == "NO"
    never = world(backups={"backups": (a_line(verified_at=None, verified_ok=None),)})
    assert missing(never)[2] == ("NO", "no backup was ever restored")


def test_a_tier_that_comes_back_from_backups_needs_no_standby() -> None:
    found = world(settings={"replicas": 0}, database={"tier": Tier.STANDARD})
    assert 6 not in missing(found)


def test_what_no_forecast_says_to_be_full_is_fine() -> None:
    found = world(numbers={"days_until_full": None})
    assert found.checks[9].evidence == "60 days of history, not full as far as can be foreseen"
    unknown = world(numbers={"days_until_full": None, "disk_usage_pct": None})
    assert missing(unknown)[10][0] == "NO"


def test_a_database_of_which_nobody_knows_anything_meets_nothing() -> None:
    state = a_state(settings=BackupSettings())
    found = readiness(state, HealthState(database=state.database), Facts(), NOW)
    assert found.score == "0 of 10"
    assert all(check.mend for check in found.checks)
    assert found.next == ()


def test_the_worst_come_first() -> None:
    good, bad = world(), world(nodes=())
    assert worst_first([good, bad]) == [bad, good]


def test_what_comes_next_is_told_in_its_order() -> None:
    assert [name for name, _ in world().next][:2] == ["backup-daily orders", "prune orders"]
    assert world().next[0][1] - NOW == timedelta(hours=14)
