"""What the ten checks read of the store, for many databases at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from jobs.cluster_settings import DrillKind
from jobs.drill_words import DrillEnd, DrillReport, report_json
from jobs.health_state import HealthState
from jobs.readiness_facts import Facts, PassedDrill, facts_of
from store.connect import Store, connect
from store.drills import begin_drill, end_drill
from store.tables import firings, requests, rollups, sizes, statement_texts, statements
from tests.commands.archived import add_request
from tests.jobs.drill_samples import FULL
from tests.jobs.health import NOW, a_health, a_node

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
COUNTS = {"square_ms": 0, "max_ms": 0, "rows": 0, "blocks_hit": 0, "blocks_read": 0,
          "temp_blocks": 0, "wal_bytes": 0}  # fmt: skip


async def insert(store: Store, table: sa.Table, *rows: dict[str, Any]) -> None:
    async with store.begin() as conn:
        await conn.execute(sa.insert(table), list(rows))


async def facts(store: Store, state: HealthState | None = None) -> Facts:
    state = state or a_health(a_node())
    async with store.begin() as conn:
        return (await facts_of(conn, [state], NOW))[state.database.name]


def a_rollup(at: datetime, width: str, pool: float, slow: float, node: str = "orders") -> Any:
    return {
        "database": "orders", "node": node, "width": width, "at": at,
        "numbers": {"pool_usage_pct": [9, 1, 0, pool, 1], "slow_queries": [9, slow, 0, 99, 1]},
    }  # fmt: skip


def a_request(operation: str, at: datetime, **more: Any) -> dict[str, Any]:
    return {
        "state": "done", "version": 1, "operation": operation, "database": "orders",
        "asked_by": "ana", "asked_by_slack": "", "authors": ["ana"], "door": "slack",
        "reason": "", "params": {}, "plan": "{}", "plan_hash": "h", "policy_hash": "p",
        "attributes": {}, "rule": "r", "step": 0, "asked_at": at, "expires_at": at,
        "ended_at": at, "detail": {}, "channel": "C", **more,
    }  # fmt: skip


async def test_of_what_nobody_stored_nothing_is_known(store: Store) -> None:
    assert await facts(store) == Facts(slow_statements=0)


async def test_the_peak_is_of_seven_days_and_slow_statements_of_one_on_the_primary(
    store: Store,
) -> None:
    await insert(
        store, rollups,
        a_rollup(NOW - 8 * DAY, "1d", 99, 9),
        a_rollup(NOW - 6 * DAY, "1d", 83, 9),
        a_rollup(NOW - 2 * HOUR, "1h", 70, 1),
        a_rollup(NOW - HOUR, "1h", 60, 2),
        a_rollup(NOW - HOUR, "1h", 100, 50, node="west"),
    )  # fmt: skip
    found = await facts(store)
    assert (found.pool_peak, found.slow_average) == (83, 1.5)
    assert found.measured_since == NOW - 6 * DAY
    promoted = a_health(a_node(detail={}), a_node("west", detail={"role": "primary"}))
    assert (await facts(store, promoted)).pool_peak == 100


async def test_statements_over_a_second_on_average_are_counted_without_utility_ones(
    store: Store,
) -> None:
    kinds = ((1, 3000.0, False, HOUR), (2, 1000.0, False, HOUR), (3, 9000.0, True, HOUR),
             (4, 9000.0, False, 2 * DAY))  # fmt: skip
    for queryid, total, is_utility, age in kinds:
        await insert(
            store, statements,
            {"database": "orders", "node": "orders", "at": NOW - age, "queryid": queryid,
             "calls": 2, "total_ms": total, **COUNTS},
        )  # fmt: skip
        await insert(
            store, statement_texts,
            {"database": "orders", "queryid": queryid, "text": "x", "is_utility": is_utility,
             "seen_at": NOW},
        )  # fmt: skip
    assert (await facts(store)).slow_statements == 1


async def test_only_what_ended_well_was_rehearsed_and_a_removed_trigger_is_none(
    store: Store,
) -> None:
    install = {"table": "public.users", "action": "install"}
    cards = {"table": "public.cards", "action": "install"}
    await insert(store, requests, a_request("restore", NOW - 9 * DAY))
    await insert(store, requests, a_request("restore", NOW - DAY, state="failed"))
    await insert(store, requests, a_request("audit-trigger", NOW - 4 * DAY, params=install))
    await insert(store, requests, a_request("audit-trigger", NOW - 4 * DAY, params=cards))
    await insert(
        store, requests,
        a_request("audit-trigger", NOW - DAY, params={**cards, "action": "remove"}),
    )  # fmt: skip
    found = await facts(store)
    assert found.restored_at == NOW - 9 * DAY
    assert found.audited == {"public.users": NOW - 4 * DAY}


async def drilled(store: Store, report: DrillReport, at: datetime) -> int:
    """A drill that ended then with this report."""
    number = await add_request(store)
    async with store.begin() as conn:
        busy = await begin_drill(
            conn, request_id=number, run_key=str(number), database=report.database,
            environment=report.environment, kind=report.kind, at=at - HOUR,
        )  # fmt: skip
        assert busy is None
        await end_drill(conn, number, report=report_json(report), at=at)
    return number


async def test_the_newest_drill_that_passed_is_known_with_what_it_cost(store: Store) -> None:
    assert (await facts(store)).drill is None
    await drilled(store, replace(FULL, kind=DrillKind.SWITCHOVER, cost=None), NOW - 70 * DAY)
    known = await drilled(store, FULL, NOW - 5 * DAY)
    await drilled(store, replace(FULL, end=DrillEnd.FAILED), NOW - 2 * DAY)
    await drilled(store, replace(FULL, end=DrillEnd.ABORTED), NOW - DAY)
    await drilled(store, replace(FULL, database="billing"), NOW)
    assert (await facts(store)).drill == PassedDrill(
        request_id=known, kind="primary-crash", at=NOW - 5 * DAY, rpo_seconds=0.0,
        rto_seconds=12.25,
    )  # fmt: skip


async def test_a_drill_whose_report_was_edited_is_known_as_such(store: Store) -> None:
    await drilled(store, FULL, NOW - DAY)
    owner = connect(store.dsn, role="postgres")
    try:
        async with owner.begin() as conn:
            await conn.execute(sa.text("ALTER TABLE drills DISABLE TRIGGER drills_final"))
            await conn.execute(
                sa.text("UPDATE drills SET report = jsonb_set(report, '{cost,rto_seconds}', '1')")
            )
            await conn.execute(sa.text("ALTER TABLE drills ENABLE TRIGGER drills_final"))
    finally:
        await owner.close()
    found = (await facts(store)).drill
    assert found is not None
    assert not found.is_intact


async def test_days_of_sizes_and_the_last_anchor_are_known(store: Store) -> None:
    rows = [
        {"database": "orders", "what": what, "day": (NOW - age * DAY).date(), "bytes": 1}
        for what in ("database", "volume")
        for age in (0, 1, 2, 100)
    ]
    await insert(store, sizes, *rows)
    anchor = {"at": (NOW - 3 * HOUR).isoformat(), "heads": [], "root": "", "hash": ""}
    await insert(
        store, firings,
        {"schedule": "audit anchor", "due_at": NOW, "at": NOW, "by": "a", "detail": anchor},
    )  # fmt: skip
    found = await facts(store)
    assert (found.size_days, found.sized_on) == (3, NOW.date())
    assert found.anchored_at == NOW - 3 * HOUR


async def test_each_database_has_its_own(store: Store) -> None:
    await insert(store, rollups, a_rollup(NOW - HOUR, "1h", 70, 1))
    other = a_health(a_node("billing", database="billing"))
    other = replace(other, database=replace(other.database, name="billing"))
    assert (await facts(store, other)).pool_peak is None
