"""`/db pool` with measured samples and a real server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from commands import pool
from jobs.health_settings import AppPool, MonitoringSettings
from jobs.operation import Answer
from postgres.server import Server
from store.connect import Store
from store.samples import NodeRow, record
from tests.commands.conftest import NOW, DirectJob, JobMaker, connected, facts

PARAMS = pool.Params(database="shop")
WEB = AppPool(name="web", instances=4, size=50)
BUSY = {
    "connections_total": 60.0, "connections_active": 6.0, "connections_idle": 50.0,
    "connections_waiting": 3.0, "connections_idle_in_transaction": 2.0,
}  # fmt: skip


def monitored(job: DirectJob, **settings: Any) -> DirectJob:
    job.database = replace(job.database, monitoring=MonitoringSettings(**settings))
    return job


async def sampled(
    store: Store, *numbers: Mapping[str, float], detail: Mapping[str, Any] | None = None
) -> None:
    rows = [
        NodeRow(
            database="shop", node="shop", at=NOW - timedelta(minutes=each), ok=True, seen_at=NOW,
            numbers=values, detail=detail or {},
        )
        for each, values in enumerate(numbers, start=1)
    ]  # fmt: skip
    async with store.begin() as conn:
        await record(conn, rows)


def said(answer: Answer) -> str:
    return "\n".join(answer.lines)


async def test_each_pool_of_the_inventory_gets_its_line(job: JobMaker, store: Store) -> None:
    quiet = BUSY | {"connections_total": 20.0, "connections_idle": 10.0, "connections_waiting": 0.0}
    await sampled(store, BUSY, quiet)
    answer = await pool.answer(monitored(job(), cores=4, pools=(WEB,)), PARAMS)
    text = said(answer)
    assert answer.lines[0] == ("web: 4 x 50 = 200 -> 4 x 9 = 36 (the formula, as a starting value)")
    assert "All pools together may open 200 connections, and clients have 97 slots" in text
    assert "75% of the connections were idle on average" in text
    assert "Up to 2 were idle in a transaction" in text
    assert "Not known. A whole week: peaks are of 7 min so far." in text
    seen = facts(answer)
    assert seen["Formula"] == "(4 cores * 2) + 1 spindles = 9, as a start"
    assert seen["Slots"].startswith("97 for clients (max_connections 100, 3 reserved), ")
    assert seen["Peaks of 7 min"] == (
        "60 connections, 6 at work, 3 waiting, 2 idle in a transaction, 75% idle on average"
    )
    assert answer.table is not None
    assert answer.table.rows == (
        ("web", "4", "50", "200", "9", "36", "the formula, as a starting value"),
    )
    assert [each.operation for each in answer.suggestions] == ["locks"]


async def test_with_nothing_measured_and_nothing_written_down_it_says_what_is_missing(
    job: JobMaker,
) -> None:
    answer = await pool.answer(job(), PARAMS)
    assert len(answer.lines) == 3
    assert all(line.startswith("Not known. ") for line in answer.lines)
    assert facts(answer)["Formula"] == "(cores * 2) + spindles; the cores are not known"
    assert answer.table is None
    assert pool.OPERATION.is_cached


async def test_pools_that_fit_are_left_alone(job: JobMaker, store: Store) -> None:
    calm = dict.fromkeys(BUSY, 0.0) | {"connections_total": 5.0}
    await sampled(store, calm)
    small = replace(WEB, size=5)
    answer = await pool.answer(monitored(job(), cores=4, pools=(small,)), PARAMS)
    assert answer.lines[0].startswith("The pools fit the server")


async def test_who_is_connected_now_is_shown_and_bounded(job: JobMaker, shop: Server) -> None:
    async with connected(shop) as conn:
        await conn.execute("SET application_name = 'web'; BEGIN")
        answer = await pool.answer(job(), PARAMS)
    lines = facts(answer)["Connected now"].split("\n")
    [line] = [each for each in lines if each.startswith("postgres/web")]
    assert line == "postgres/web: 1 (0 at work, 1 idle in a transaction)"
    many = [
        {"user": "u" * 80, "application": "", "connections": 2, "active": 1, "in_transaction": 0,
         "all_connections": 20}
        for _ in range(8)
    ]  # fmt: skip
    assert pool._users(many).endswith("and 4 more connections")
    assert pool._users(many).startswith(f"{'u' * 39}…/-: 2 (1 at work")


async def test_a_pooler_has_its_queue_told(job: JobMaker, store: Store) -> None:
    queue = {"waiting": 5, "active": 9, "wait_s": 12.0, "pools": []}
    await sampled(store, BUSY, detail={"pgbouncer": queue})
    settings = {"cores": 4, "pools": (WEB,), "pgbouncer": SecretStr("postgresql://x@127.0.0.1:1/p")}
    answer = await pool.answer(monitored(job(), **settings), PARAMS)
    assert "5 clients now in the pooler's queue, the first for 12 s" in said(answer)
    assert answer.table is not None
    assert answer.table.rows[0][4] == "50"


@pytest.mark.parametrize("instances", [3, 300])
async def test_serverless_says_whether_it_needs_a_pooler(job: JobMaker, instances: int) -> None:
    functions = AppPool(name="api", instances=instances, size=15, is_serverless=True)
    answer = await pool.answer(monitored(job(), cores=4, pools=(functions,)), PARAMS)
    assert ("needs a pooler between" in said(answer)) is (instances == 300)
    assert answer.table is not None
    assert answer.table.rows[0][0] == "api (serverless)"
