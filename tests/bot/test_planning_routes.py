"""A plan looks where the primary is now, and nowhere else; nobody pays who need not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bot.command_text import Asked
from bot.inventory import Inventory
from bot.planning import Planner
from jobs.operation import Answer, Context, Database, JobError, Kind, Operation, Risk
from jobs.reader import Readers
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from store.connect import Store
from tests.jobs.support import clock
from tests.jobs.test_routes import (
    EAST_WRITES,
    NOBODY,
    ORDERS,
    WEST_WRITES,
    Looker,
    looking,
    routes,
)


class Params(BaseModel):
    """Which database."""

    database: str


async def where(context: Context, params: Params) -> Answer:
    del params
    target = parse_dsn(context.database.dsn.get_secret_value())
    return Answer(title=target.words["host"])


def breaking(kind: type[JobError | PostgresError]) -> Operation:
    async def answer(context: Context, params: Params) -> Answer:
        del context, params
        raise kind("It is gone.", next_step="Look.")

    return replace(WHERE, answer=answer)


WHERE = Operation(
    name="where", summary="Where", kind=Kind.QUERY, risk=Risk.NONE, params=Params, example="",
    answer=where,
)  # fmt: skip


def planner(store: Store, looker: Looker, orders: Database = ORDERS, **more: Any) -> Planner:
    nowhere = Path("/nonexistent")
    inventory = Inventory(path=nowhere, policy=nowhere, groups={}, databases={"orders": orders})
    values: dict[str, Any] = {"limit": timedelta(seconds=30), "routes": routes(looker), **more}
    return Planner(inventory=inventory, readers=Readers(), store=store, clock=clock, **values)


def asked(operation: Operation = WHERE) -> Asked:
    params = Params(database="orders")
    return Asked(operation=operation, params=params, database="orders", reason="")


async def test_a_look_goes_to_the_primary_of_now(store: Store) -> None:
    made = planner(store, looking(EAST_WRITES, WEST_WRITES))
    assert (await made.answer(asked())).title == "10.0.0.1"
    made.routes.forget("orders")
    assert (await made.answer(asked())).title == "10.0.0.2"


async def test_who_is_not_routed_and_who_has_no_cluster_asks_nobody(store: Store) -> None:
    looker = looking(NOBODY)
    itself = replace(WHERE, is_routed=False)
    assert (await planner(store, looker).answer(asked(itself))).title == "proxy"
    plain = replace(ORDERS, cluster=None)
    assert (await planner(store, looker, plain).answer(asked())).title == "proxy"
    assert looker.asked == []


async def test_what_would_connect_is_told_why_it_cannot(store: Store) -> None:
    with pytest.raises(JobError, match="No server of orders takes writes") as refusal:
        await planner(store, looking(NOBODY)).answer(asked())
    assert "/db failover" in refusal.value.next_step


@pytest.mark.parametrize("kind", [JobError, PostgresError])
async def test_after_an_error_the_primary_is_looked_for_anew(
    store: Store, kind: type[JobError | PostgresError]
) -> None:
    looker = looking(EAST_WRITES)
    made = planner(store, looker)
    with pytest.raises(JobError, match=r"It is gone\."):
        await made.answer(asked(breaking(kind)))
    await made.answer(asked())
    assert len(looker.asked) == 2


async def test_finding_the_primary_leaves_time_for_the_plan(store: Store) -> None:
    looker = looking(EAST_WRITES)
    await planner(store, looker, limit=timedelta(seconds=1.5)).answer(asked())
    await planner(store, looker, limit=timedelta(seconds=20)).answer(asked())
    assert looker.limits == [timedelta(seconds=0.9), timedelta(seconds=3)]


async def test_a_plan_that_gave_up_waiting_leaves_the_look_to_the_next(store: Store) -> None:
    looker = Looker([EAST_WRITES])
    made = planner(store, looker, limit=timedelta(seconds=0.05))
    with pytest.raises(JobError, match="took longer"):
        await made.answer(asked())
    patient = replace(made, limit=timedelta(seconds=30))
    answering = asyncio.create_task(patient.answer(asked()))
    await asyncio.sleep(0)
    looker.gate.set()
    assert (await answering).title == "10.0.0.1"
    assert len(looker.asked) == 1
