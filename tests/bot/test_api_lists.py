"""What the API lists for somebody is what App Home shows them, and what a click would do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from approvals.scenario_file import EPOCH, Scenario, read_scenarios
from approvals.words import PersonId
from store.connect import Store
from tests.approvals.doors.api import ApiWorld
from tests.approvals.doors.base import ground_on
from tests.bot.test_api import Caller

POLICY: Mapping[str, Any] = {
    "people": {
        "ana": {},
        "bo": {"groups": ["dba"]},
        "cy": {"groups": ["security"]},
        "ole": {},
        "lea": {"groups": ["leads"]},
    },
    "gates": [
        {
            "id": "dba", "groups": ["dba"], "approve": 1,
            "escalate_after": 600, "escalate_groups": ["leads"],
        },
        {"id": "security", "groups": ["security"], "approve": 1},
    ],
    "ordered": True,
    "delegations": [{"from": "bo", "to": "ole", "from_t": 300, "to_t": 900}],
    "break_glass": {"groups": ["dba"], "reviewers": ["security"], "review_within": 3600},
}  # fmt: skip


@pytest.fixture
async def world(store: Store, tmp_path: Path) -> AsyncIterator[ApiWorld]:
    path = tmp_path / "world.json"
    path.write_text(json.dumps([{"id": "lists", "policy": POLICY, "events": []}]))
    [scenario] = read_scenarios(path)
    assert isinstance(scenario, Scenario)
    async with ground_on(store, tmp_path) as ground:
        made = await ApiWorld.through(ground, scenario, 1)
        assert isinstance(made, ApiWorld)
        made.clock.now = EPOCH
        await made.open()
        yield made
        await made.close()


async def listed(world: ApiWorld, name: str, wanted: str) -> list[int]:
    """The numbers that the API lists, which are those of App Home."""
    status, said = await Caller(world, name)("GET", f"/api/requests?waiting={wanted}")
    assert status == 200, said
    ids = [each["id"] for each in said["requests"]]
    assert world.desk
    person = await world.desk.people.by_id(PersonId(name), "")
    inbox = world.desk.inbox
    shown = await (inbox.waiting_for(person) if wanted == "me" else inbox.owed_by(person))
    assert [record.id for record in shown.records] == ids
    return ids


async def waiting(world: ApiWorld) -> dict[str, list[int]]:
    """For whom something waits."""
    found = {name: await listed(world, name, "me") for name in POLICY["people"]}
    return {name: ids for name, ids in found.items() if ids}


async def test_it_waits_for_a_stand_in_and_after_a_while_for_those_it_is_escalated_to(
    world: ApiWorld,
) -> None:
    request = await Caller(world, "ana").ask()
    ids = [request["id"]]
    assert await waiting(world) == {"bo": ids}
    world.clock.forward(seconds=301)
    assert await waiting(world) == {"bo": ids, "ole": ids}
    world.clock.forward(seconds=300)
    assert await waiting(world) == {"bo": ids, "ole": ids, "lea": ids}
    world.clock.forward(seconds=300)
    assert await waiting(world) == {"bo": ids, "lea": ids}


async def test_gates_in_order_wait_for_one_group_after_the_other(world: ApiWorld) -> None:
    request = await Caller(world, "ana").ask()
    assert "cy" not in await waiting(world)
    await Caller(world, "bo").decide(request)
    assert await waiting(world) == {"cy": [request["id"]]}


async def test_reviews_that_are_owed_are_listed_for_reviewers(world: ApiWorld) -> None:
    request = await Caller(world, "ana").ask()
    status, said = await Caller(world, "bo").decide(request, "break-glass", reason="down")
    assert status == 200, said
    assert world.service
    async with world.store.begin() as conn:
        assert (await world.service.begin(conn, request["id"], people={})).ok
        await world.service.finish(conn, request["id"], ok=True, summary="done", numbers={})
    assert await listed(world, "cy", "review") == [request["id"]]
    assert await listed(world, "bo", "review") == []
