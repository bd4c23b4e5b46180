"""`/db health`: one screen from the store alone, and a line for each of many databases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from commands import health
from commands.health import Params
from jobs.alert_helps import backup_suggestions, suggestions_as_json
from jobs.health_settings import MonitoringSettings, Node
from jobs.operation import Answer, JobError
from store.alerts import fire_alert
from store.connect import Store
from store.samples import NodeRow, record
from store.tables import rollups
from tests.commands.conftest import NOW, DirectJob, JobMaker
from tests.jobs.health import NUMBERS, a_node
from tests.jobs.test_timetable import a_database

WEST = Node(name="west", dsn=a_database().dsn, region="us-west-2")
TABLES = [
    {"name": "public.orders", "bytes": 12 * 2**30, "index_bytes": 2**30, "rows": 5_000_000,
     "is_exact": True},
    {"name": "public.events", "bytes": 9 * 2**30, "index_bytes": 0, "rows": -1,
     "is_exact": False},
]  # fmt: skip
FIVE, HOUR, DAY = timedelta(minutes=5), timedelta(hours=1), timedelta(days=1)


async def stored(store: Store, *nodes: NodeRow) -> None:
    async with store.begin() as conn:
        for node in nodes:
            await record(conn, [node])


async def rolled(
    store: Store, at: datetime, numbers: Mapping[str, float], *, count: int = 6,
    step: timedelta = FIVE, width: str = "5m",
) -> None:  # fmt: skip
    """Roll-ups of `orders` from `at` on, all the same."""
    each = {name: [10, value, value, value, value] for name, value in numbers.items()}
    rows = [
        {"database": "orders", "node": "orders", "width": width, "at": at + number * step,
         "numbers": each}
        for number in range(count)
    ]  # fmt: skip
    async with store.begin() as conn:
        await conn.execute(sa.insert(rollups), rows)


def orders(job: JobMaker, **monitoring: Any) -> DirectJob:
    made = job()
    settings = MonitoringSettings(**monitoring)
    made.database = replace(a_database(), monitoring=settings, replicas=(WEST,))
    made.databases = {"orders": made.database}
    return made


async def ask(made: DirectJob, name: str = "orders") -> Answer:
    return await health.answer(made, Params(database=name))


def groups(answer: Answer) -> dict[str, list[str]]:
    return {name: value.split("\n") for name, value in answer.facts}


async def test_a_healthy_database_is_one_screen(job: JobMaker, store: Store) -> None:
    detail = {"role": "primary", "tables": TABLES}
    numbers = {**NUMBERS, "replicas_streaming": 1}
    west = a_node("west", region="us-west-2", at=NOW - FIVE, seen_at=NOW - FIVE)
    await stored(store, a_node(detail=detail, numbers=numbers, at=NOW), west)
    answer = await ask(orders(job))
    assert answer.title == "Health of orders: healthy"
    assert answer.lines == ("Nothing fires, and every node answers.", "Nothing to do.")
    assert groups(answer) == {
        "Connections": ["active 3", "idle 20", "waiting 0", "pool use 24 % of 97 slots"],
        "Performance": [
            "average query 2.3 ms", "95 of 100 within 27.7 ms",
            "slow queries about 0/min, at most 0", "queries 1,234/s", "cache hit 99.2 %",
        ],
        "Health": [
            "replication lag 20 ms, 1 of 1 stream", "deadlocks 0/h", "lock waits 0",
            "wraparound 12 % of the way", "archiver fine",
        ],
        "Storage": [
            "size 52 GB", "growth +120 MB a day", "disk 61 %, 120 GB free",
            "full in 400 days at the earliest",
        ],
        "Node orders": ["primary, eu-central-1, seen 0 s ago"],
        "Node west": ["standby, us-west-2, seen 5 min ago"],
    }  # fmt: skip
    assert answer.table is not None
    assert answer.table.rows == (
        ("public.orders", "12 GB", "1 GB", "5,000,000"),
        ("public.events", "about 9 GB", "0 B", "not known"),
    )


async def test_what_changed_since_yesterday_has_an_arrow_and_its_judgement(
    job: JobMaker, store: Store
) -> None:
    await stored(store, a_node(at=NOW))
    await rolled(store, NOW - 6 * FIVE, {"query_ms_p95": 27.7, "qps": 1234.0})
    await rolled(store, NOW - DAY - 6 * FIVE, {"query_ms_p95": 12.0, "qps": 1230.0})
    await rolled(store, NOW - DAY, {"qps": 900.0}, count=24, step=HOUR, width="1h")
    answer = await ask(orders(job))
    assert "95 of 100 within 27.7 ms (↑ worse, yesterday 12 ms)" in groups(answer)["Performance"]
    assert "queries 1,234/s" in groups(answer)["Performance"]
    (chart,) = answer.charts
    assert len(chart.labels) == len(chart.series[0].values) == 24
    assert chart.alt == ("Queries per second of orders in the last 24 hours: 900 to 900, now 900.")


async def test_what_fires_is_the_status_with_the_steps_and_a_button(
    job: JobMaker, store: Store
) -> None:
    await stored(store, a_node(at=NOW))
    async with store.begin() as conn:
        for name, severity in (("Slow", "warning"), ("BackupMissing", "critical")):
            await fire_alert(
                conn, database="orders", name=name, severity=severity, problem=f"{name} it is.",
                next_step="Do it.", at=NOW, detail={"suggestions": suggestions_as_json(
                    backup_suggestions(name, "orders", "Why."))},
            )  # fmt: skip
        await fire_alert(
            conn, database="billing", name="Other", severity="critical", problem="x",
            next_step="y", at=NOW, detail={},
        )  # fmt: skip
    answer = await ask(orders(job))
    assert answer.title == "Health of orders: critical"
    assert answer.lines == (
        "2 alerts fire: BackupMissing, Slow.",
        "What to do next:",
        "1. critical: BackupMissing. BackupMissing it is. Do it.",
        "2. warning: Slow. Slow it is. Do it.",
    )
    assert [each.operation for each in answer.suggestions] == ["backup"]


async def test_without_a_sample_it_says_why_and_what_to_do(job: JobMaker, store: Store) -> None:
    answer = await ask(orders(job))
    assert answer.title == "Health of orders: unknown"
    assert answer.lines[0] == "No worker has looked at orders yet."
    assert "twokey doctor" in answer.lines[2]
    assert (answer.facts, answer.charts, answer.table) == ((), (), None)
    off = await ask(orders(job, is_on=False))
    assert off.lines[0] == "Monitoring of orders is switched off."
    await stored(
        store,
        a_node(at=NOW, ok=False, seen_at=None, numbers={"up": 0}, problem="No password.",
               next_step="Give it one."),
    )  # fmt: skip
    refused = await ask(orders(job))
    assert refused.lines == (
        "No password.", "What to do next:", "1. No password. Give it one.",
    )  # fmt: skip


async def test_a_database_that_is_down_shows_no_numbers_as_if_they_were_now(
    job: JobMaker, store: Store
) -> None:
    await stored(store, a_node(at=NOW - HOUR))
    await stored(store, a_node(at=NOW, ok=False, numbers={"up": 0}, problem="It is gone."))
    answer = await ask(orders(job))
    assert answer.title == "Health of orders: warning"
    assert answer.lines[0] == "Nobody has seen orders for 1 h. It is gone."
    assert groups(answer) == {
        "Node orders": ["primary, eu-central-1, DOES NOT ANSWER, seen 1 h ago"]
    }


async def test_many_databases_are_a_line_each_the_worst_first(job: JobMaker, store: Store) -> None:
    made = job()
    made.databases = {f"db{number:03}": a_database(f"db{number:03}") for number in range(120)}
    async with store.begin() as conn:
        for name in made.databases:
            await record(conn, [a_node(name, database=name, at=NOW, detail={"role": "primary"})])
        await fire_alert(
            conn, database="db077", name="Slow", severity="warning", problem="x", next_step="y",
            at=NOW, detail={},
        )  # fmt: skip
    began = time.monotonic()
    answer = await health.answer(made, Params())
    assert time.monotonic() - began < 20  # far less; the ack of a command waits for it
    assert answer.title == "Health of 120 databases: 1 warning, 119 healthy"
    assert answer.lines[1] == "And 20 more that are no worse."
    assert answer.table is not None
    assert len(answer.table.rows) == 100
    assert answer.table.rows[0] == (
        "db077", "warning", "Slow", "24 %", "27.7 ms", "20 ms", "61 %", "400 days",
    )  # fmt: skip
    assert answer.table.rows[1][2] == "-"


async def test_an_inventory_without_databases_is_said(job: JobMaker) -> None:
    with pytest.raises(JobError, match="no database in the inventory"):
        await health.answer(job(), Params())
