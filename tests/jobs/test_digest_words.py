"""A digest's words: how it is, what needs a decision, and the numbers against those before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.digest import (
    AlertSum,
    ApprovalSum,
    DatabaseDigest,
    Digest,
    Period,
    Waiting,
)
from jobs.digest_words import as_answer, decisions, rows, sentence, tiles, up_text
from jobs.health_status import Status

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
GIB = 2.0**30
ORDERS = DatabaseDigest(
    name="orders", status=Status.HEALTHY, problem="Nothing fires, and every node answers.",
    ready=9, backups=7, verified=1, has_backup=True, is_proven=True, alerts=2, up_pct=99.983,
    up_pct_before=100.0, seen=1.0, bytes=52 * GIB, growth=0.12 * GIB, days_until_full=400.0,
    p95_ms=27.7, p95_ms_before=12.0, qps=1200.0, qps_before=1190.0,
)  # fmt: skip
BILLING = replace(
    ORDERS, name="billing", status=Status.CRITICAL, problem="ServerDown fires.", ready=6,
    up_pct=98.2, days_until_full=200.0, p95_ms=8.0, p95_ms_before=8.0, qps=300.0, qps_before=310.0,
)  # fmt: skip
STOCK = replace(ORDERS, name="stock", status=Status.WARNING, problem="Slow fires.")


def a_digest(*databases: DatabaseDigest, **more: Any) -> Digest:
    values: dict[str, Any] = {
        "period": Period.WEEKLY, "since": NOW - timedelta(days=7), "until": NOW,
        "databases": databases or (ORDERS,),
        "alerts": AlertSum(fired=12, acked=10, resolve_seconds=840.0),
        "alerts_before": AlertSum(fired=20, acked=1),
        "noisiest": (("PoolUsage", 7), ("Slow", 5)),
        "approvals": ApprovalSum(asked=9, lead_seconds=720.0, lapsed=1),
        "approvals_before": ApprovalSum(asked=3, lead_seconds=1200.0),
    }  # fmt: skip
    return Digest(**{**values, **more})


def tile(name: str, digest: Digest) -> str:
    return dict(tiles(digest))[name]


@pytest.mark.parametrize(
    ("databases", "said"),
    [
        ((ORDERS,), "orders is healthy."),
        ((ORDERS, replace(ORDERS, name="a")), "All 2 databases are healthy."),
        ((BILLING,), "billing is critical: ServerDown fires."),
        ((ORDERS, BILLING), ("1 of 2 databases are healthy. billing is critical:"
         " ServerDown fires.")),
        ((ORDERS, STOCK, BILLING), ("1 of 3 databases are healthy. billing is critical: ServerDown"
         " fires. Not healthy either: stock (warning).")),
    ],
)  # fmt: skip
def test_it_is_said_in_one_breath_the_worst_first(
    databases: tuple[DatabaseDigest, ...], said: str
) -> None:
    assert sentence(a_digest(*databases)) == said


def test_the_numbers_stand_beside_those_of_the_period_before() -> None:
    assert tiles(a_digest()) == (
        ("Ready for the worst", "9 of 10 checks met"),
        ("Availability seen", "99.98 % (before 100 %)"),
        ("Backups", "7 taken, 1 proven by a restore"),
        ("Alerts", ("12 began (before 20), 10 acknowledged, half over within 14 min; most often"
         " PoolUsage (7)")),
        ("Approvals", "9 asked, half decided within 12 min (before 20 min), 1 lapsed"),
        ("Storage", "52 GB, +123 MB a day; full in 400 days at the earliest"),
        ("Load", "1,200 queries/s, 95 of 100 within 27.7 ms (before 12 ms)"),
    )  # fmt: skip


def test_of_several_the_weakest_is_named() -> None:
    digest = a_digest(ORDERS, BILLING)
    assert tile("Ready for the worst", digest) == ("7.5 of 10 checks on average; billing 6 of 10")
    assert tile("Availability seen", digest) == "98.20 % on billing, the lowest (before 100 %)"
    assert tile("Storage", digest).endswith("billing full in 200 days at the earliest")
    assert tile("Load", digest) == (
        "1,500 queries/s, 95 of 100 within 27.7 ms on orders (before 12 ms)"
    )
    found = rows(digest)
    assert found is not None
    assert found.rows == (
        ("billing", "critical", "6 of 10", "98.20 %", "7, 1 proven", "2", "52 GB", "200 days"),
        ("orders", "healthy", "9 of 10", "99.98 %", "7, 1 proven", "2", "52 GB", "400 days"),
    )


def test_where_nothing_is_known_nothing_is_made_up() -> None:
    empty = DatabaseDigest(name="orders", status=Status.UNKNOWN, problem="Nobody looked.")
    digest = a_digest(
        empty, alerts=AlertSum(), alerts_before=AlertSum(), noisiest=(),
        approvals=ApprovalSum(), approvals_before=ApprovalSum(),
    )  # fmt: skip
    assert tiles(digest) == (
        ("Ready for the worst", "0 of 10 checks met"),
        ("Availability seen", "nobody looked"),
        ("Backups", "0 taken, 0 proven by a restore"),
        ("Alerts", "none"),
        ("Approvals", "nothing was asked for"),
    )
    assert rows(digest) is None


@pytest.mark.parametrize(
    ("percent", "said"),
    [(100.0, "100 %"), (99.9999, "99.99 %"), (99.5, "99.50 %"), (0.0, "0.00 %")],
)
def test_only_what_was_whole_is_a_hundred(percent: float, said: str) -> None:
    assert up_text(percent) == said


def test_nothing_needs_a_decision_where_all_is_well() -> None:
    assert decisions(a_digest()) == ()
    assert "Nothing needs a decision." in as_answer(a_digest()).lines


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"waiting": Waiting(unacked=("ServerDown on billing",))},
         "Nobody has taken ServerDown on billing: /db alerts"),
        ({"waiting": Waiting(requests=2, longest_seconds=7200)},
         "2 requests wait for approval, the longest for 2 h: /db requests open"),
        ({"approvals": ApprovalSum(overdue=1)},
         "1 review of broken glass is overdue: /db requests"),
        ({"databases": (replace(ORDERS, has_backup=False),)},
         "orders has no usable backup: /db backup orders"),
        ({"databases": (replace(ORDERS, is_proven=False),)},
         "No restore was tested lately of orders: /db verify orders"),
        ({"databases": (replace(ORDERS, days_until_full=89.0),)},
         "orders may be full in 89 days, more disk or less data: /db forecast orders"),
        ({"databases": (replace(ORDERS, seen=0.5),)},
         "Monitoring saw too little of orders: /db health orders"),
    ],
)  # fmt: skip
def test_what_needs_a_decision_has_its_command(change: dict[str, Any], said: str) -> None:
    assert decisions(a_digest(**change)) == (said,)


def test_at_most_five_decisions_are_named_the_most_urgent_first() -> None:
    bare = [
        replace(ORDERS, name=f"db{number}", has_backup=False, days_until_full=5.0)
        for number in range(4)
    ]
    digest = a_digest(*bare, waiting=Waiting(requests=1, unacked=("X on db0",)))
    found = decisions(digest)
    assert len(found) == 5
    assert found[0].startswith("Nobody has taken X")
    assert found[-1] == "And 6 more: /db readiness"


def test_a_failed_restore_test_is_loud() -> None:
    assert tile("Backups", a_digest(replace(ORDERS, failed_proofs=1))).endswith(
        "1 FAILED their restore test"
    )
