"""What a digest reads of the store: of its period, of its databases, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from jobs.digest import AlertSum, DatabaseDigest, Digest, Period
from jobs.digest_facts import digest_of
from jobs.operation import Database
from store.backups import record_backup, record_verification
from store.connect import Store
from store.samples import record
from store.tables import alerts, gates, requests, rollups, sizes
from tests.bot.test_scheduled import a_backup
from tests.jobs.health import NOW, NUMBERS, a_node
from tests.jobs.test_readiness_facts import a_request, insert
from tests.jobs.test_timetable import a_database
from tests.jobs.test_verifying import _proof

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ORDERS, BILLING = a_database(), a_database("billing")


async def digest(store: Store, *databases: Database, period: Period = Period.WEEKLY) -> Digest:
    async with store.begin() as conn:
        return await digest_of(conn, databases or (ORDERS,), period, NOW)


async def of_orders(store: Store, period: Period = Period.WEEKLY) -> DatabaseDigest:
    return (await digest(store, period=period)).databases[0]


def hour(age: timedelta, numbers: Mapping[str, tuple[float, float]], **more: Any) -> Any:
    """A roll-up of an hour: of each metric the samples and their average."""
    told = {name: [count, value, value, value, value] for name, (count, value) in numbers.items()}
    return {"database": "orders", "node": "orders", "width": "1h", "at": NOW - age,
            "numbers": told, **more}  # fmt: skip


def an_alert(age: timedelta, name: str = "Slow", **more: Any) -> dict[str, Any]:
    return {
        "database": "orders", "name": name, "severity": "warning", "state": "resolved",
        "problem": "", "next_step": "", "fired_at": NOW - age, "seen_at": NOW, "detail": {},
        "resolved_at": NOW - age + 10 * MINUTE, "acked_at": None, **more,
    }  # fmt: skip


async def test_of_an_empty_store_there_is_a_digest_that_says_so(store: Store) -> None:
    found = await digest(store, BILLING, ORDERS)
    assert [each.name for each in found.databases] == ["billing", "orders"]
    assert {str(each.status) for each in found.databases} == {"unknown"}
    assert (found.since, found.until) == (NOW - 7 * DAY, NOW)
    assert found.charts == ()
    assert found.alerts == AlertSum()
    assert found.databases[0].up_pct is None
    assert not found.databases[0].has_backup


async def test_availability_is_the_share_of_samples_that_were_up(store: Store) -> None:
    await insert(
        store, rollups,
        hour(HOUR, {"up": (120, 1.0), "query_ms_p95": (1, 20), "qps": (1, 100)}),
        hour(2 * HOUR, {"up": (40, 0.5), "query_ms_p95": (1, 40), "qps": (1, 300)}),
        hour(30 * HOUR, {"up": (120, 0.9), "query_ms_p95": (1, 8), "qps": (1, 50)}),
        hour(HOUR, {"up": (120, 0.0)}, node="west"),
        hour(HOUR, {"up": (120, 0.0)}, width="5m"),
        hour(50 * HOUR, {"up": (120, 0.0)}),
        hour(-HOUR, {"up": (120, 0.0)}),
    )  # fmt: skip
    found = await of_orders(store, Period.DAILY)
    assert (found.up_pct, found.up_pct_before) == (87.5, 90)
    assert found.seen == 2 / 24
    assert (found.p95_ms, found.p95_ms_before) == (30, 8)
    assert (found.qps, found.qps_before) == (200, 50)


async def test_alerts_count_where_they_began(store: Store) -> None:
    await insert(
        store, alerts,
        an_alert(DAY, acked_at=NOW),
        an_alert(2 * DAY, resolved_at=NOW - 2 * DAY + 30 * MINUTE),
        an_alert(3 * DAY, "Pool", state="firing", resolved_at=None),
        an_alert(8 * DAY),
        an_alert(15 * DAY),
        an_alert(DAY, database="other"),
    )  # fmt: skip
    found = await digest(store)
    assert found.alerts == AlertSum(fired=3, acked=1, resolve_seconds=1200)
    assert found.alerts_before == AlertSum(fired=1, acked=0, resolve_seconds=600)
    assert found.noisiest == (("Slow", 2), ("Pool", 1))
    assert found.databases[0].alerts == 3


async def test_backups_and_proofs_of_the_period_count(store: Store) -> None:
    good = _proof("orders-1", 0, ok=True)
    bad = _proof("orders-1", 0, ok=False)
    assert good
    assert bad
    async with store.begin() as conn:
        for number, age in ((1, DAY), (2, 6 * DAY), (3, 8 * DAY)):
            await record_backup(conn, a_backup(f"orders-{number}", NOW - age))
        await record_verification(conn, replace(good, at=NOW - 3 * HOUR))
        await record_verification(conn, replace(bad, at=NOW - 2 * HOUR))
        await record_verification(conn, replace(good, at=NOW - 8 * DAY))
    found = await of_orders(store)
    assert (found.backups, found.verified, found.failed_proofs) == (2, 1, 1)
    assert found.has_backup


async def test_lead_times_and_what_waits_are_of_these_databases(store: Store) -> None:
    decided = {"approved_at": NOW - DAY + 20 * MINUTE, "expires_at": NOW + HOUR}
    waits = {"state": "pending", "ended_at": None, "expires_at": NOW + HOUR}
    await insert(store, requests, a_request("backup", NOW - DAY, **decided))
    await insert(store, requests, a_request("backup", NOW - 8 * DAY, approved_at=NOW - 7.5 * DAY))
    await insert(store, requests, a_request("backup", NOW - 2 * HOUR, **waits))
    await insert(store, requests, a_request("backup", NOW - DAY, database="other", **decided))
    async with store.begin() as conn:
        ids = (await conn.execute(sa.select(requests.c.id))).scalars()
        gate = {"position": 0, "id": "dba", "approve": 1, "deny": 1}
        await conn.execute(sa.insert(gates), [{**gate, "request_id": each} for each in ids])
    found = await digest(store)
    assert (found.approvals.asked, found.approvals.lead_seconds) == (2, 1200)
    assert (found.approvals_before.asked, found.approvals_before.lead_seconds) == (1, 43200)
    assert (found.waiting.requests, found.waiting.longest_seconds) == (1, 7200)


async def test_critical_alerts_that_nobody_took_wait(store: Store) -> None:
    firing = {"state": "firing", "resolved_at": None, "severity": "critical"}
    await insert(
        store, alerts,
        an_alert(DAY, "ServerDown", **firing, acked_by=""),
        an_alert(DAY, "Full", **firing, acked_by="ana"),
    )  # fmt: skip
    found = await digest(store)
    assert found.waiting.unacked == ("ServerDown on orders",)
    assert str(found.status) == "critical"
    assert found.databases[0].problem == "ServerDown, Full fire."


async def test_the_last_sample_and_the_sizes_are_there(store: Store) -> None:
    rows = [
        {"database": "orders", "what": "database", "bytes": (50 + age) * 2**30,
         "day": (NOW - timedelta(days=60 - age)).date()}
        for age in range(60)
    ]  # fmt: skip
    await insert(store, sizes, *rows)
    async with store.begin() as conn:
        await record(conn, [a_node(at=NOW, numbers=NUMBERS)])
    found = await digest(store)
    assert found.databases[0].bytes == NUMBERS["database_bytes"]
    assert found.databases[0].days_until_full == 400
    assert [chart.title for chart in found.charts] == ["Storage, expected from 21 Nov on"]
    daily = await digest(store, period=Period.DAILY)
    assert daily.charts == ()


async def test_a_hundred_databases_are_one_digest(store: Store) -> None:
    many = [a_database(f"db{number:03}") for number in range(100)]
    hours = [
        hour(age * HOUR, {"up": (120, 1.0), "qps": (120, 7.0)}, database=each.name, node=each.name)
        for each in many
        for age in range(1, 25)
    ]
    await insert(store, rollups, *hours)
    found = await digest(store, *many, period=Period.DAILY)
    assert len(found.databases) == 100
    assert {each.up_pct for each in found.databases} == {100}
    (chart,) = found.charts
    assert chart.series[0].values[0] == 700
