"""Answers through Slack: late ones, remembered ones, and the buttons below them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.command_text import parse
from bot.planning import StillLookingError
from jobs.operation import Answer, Context, JobError, Suggestion
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, OPERATIONS, OneDatabase, World, running
from tests.conftest import Target


@dataclass
class Depth:
    """What the query looks at: it waits for `go`, and counts its looks."""

    looks: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    problem: str = ""

    async def answer(self, context: Context, params: OneDatabase) -> Answer:
        self.looks += 1
        number = self.looks
        await self.go.wait()
        if self.problem:
            raise JobError(self.problem, next_step="Look elsewhere.")
        paint = {"database": params.database, "colour": "blue"}
        helps = Suggestion(text="Paint it blue", operation="paint", params=paint, reason="deep")
        return Answer(title=f"Look {number} into {params.database}", suggestions=(helps,))


@pytest.fixture
def depth() -> Depth:
    return Depth()


@pytest.fixture(params=["http", "socket"])
async def world(
    request: pytest.FixtureRequest,
    slack: SlackStandIn,
    store: Store,
    target: Target,
    tmp_path: Path,
    depth: Depth,
) -> AsyncIterator[World]:
    deep = replace(
        OPERATIONS["colours"], name="deep", answer=depth.answer, is_cached=True,
        patience=timedelta(seconds=10), example="/db deep orders",
    )  # fmt: skip
    async with running(
        slack, store, tmp_path, target.dsn, http=request.param == "http",
        operations={**OPERATIONS, "deep": deep},
    ) as made:  # fmt: skip
        yield made


async def told(world: World, says: str) -> dict[str, Any]:
    """The newest message to Ana alone, once it says this."""

    def found() -> dict[str, Any] | None:
        mine = world.slack.ephemerals("U0ANA")
        return mine[-1] if mine and says in mine[-1]["text"] else None

    message = await world.slack.wait_for(found, seconds=30)
    assert message is not None
    return message


@pytest.mark.deadlines
async def test_a_look_that_takes_long_is_promised_and_its_answer_follows(
    world: World, depth: Depth
) -> None:
    typed = await world.slack.command("U0ANA", CHANNEL, "/db deep orders")
    assert typed.ok
    await told(world, "Looking at orders")
    depth.go.set()
    answer = await told(world, "Look 1 into orders")
    assert "it is remembered" in texts(answer["blocks"])


@pytest.mark.deadlines
async def test_what_goes_wrong_later_is_told_as_well(world: World, depth: Depth) -> None:
    depth.problem = "It is too deep."
    await world.slack.command("U0ANA", CHANNEL, "/db deep orders")
    depth.go.set()
    await told(world, "It is too deep.")


async def test_an_answer_is_remembered_and_looked_at_anew_in_its_place(
    world: World, depth: Depth
) -> None:
    depth.go.set()
    await world.slack.command("U0ANA", CHANNEL, "/db deep orders")
    first = await told(world, "Look 1")
    await world.slack.command("U0ANA", CHANNEL, "/db deep orders")
    second = await told(world, "Look 1")
    assert second["ts"] != first["ts"]
    pressed = await world.slack.click("U0ANA", CHANNEL, second["ts"], "look_again")
    assert pressed.ok
    again = await told(world, "Look 2")
    assert again["ts"] == second["ts"]


async def test_a_change_of_the_database_ends_what_was_remembered_of_it(
    world: World, depth: Depth
) -> None:
    depth.go.set()
    await world.slack.command("U0ANA", CHANNEL, "/db deep orders")
    await told(world, "Look 1")
    await world.slack.command("U0ANA", CHANNEL, "/db free orders")
    await world.card("Done")
    await world.slack.command("U0ANA", CHANNEL, "/db deep orders")
    await told(world, "Look 2")


async def test_what_helps_opens_its_form_filled_in(world: World, depth: Depth) -> None:
    depth.go.set()
    await world.slack.command("U0ANA", CHANNEL, "/db deep orders")
    answer = await told(world, "Look 1")
    pressed = await world.slack.click("U0ANA", CHANNEL, answer["ts"], "suggest.0")
    assert pressed.ok
    view = await world.slack.wait_for(lambda: next(iter(world.slack.views("U0ANA")[-1:]), None))
    assert view is not None
    values = view["state"]["values"]
    assert values["param.colour"]["value"]["value"] == "blue"
    assert values["reason"]["text"]["value"] == "deep"


async def test_a_button_with_a_strange_value_is_answered(world: World, depth: Depth) -> None:
    depth.go.set()
    await world.slack.command("U0ANA", CHANNEL, "/db deep orders")
    answer = await told(world, "Look 1")
    row = next(block for block in answer["blocks"] if block.get("block_id") == "suggestions")
    row["elements"][0]["value"] = "e30.e30"
    await world.slack.click("U0ANA", CHANNEL, answer["ts"], "suggest.0", shown=answer)
    await told(world, "was not made by Twokey")


async def test_a_program_that_asks_too_soon_is_told_to_ask_again_and_then_gets_it(
    world: World, depth: Depth
) -> None:
    planner = replace(world.twokey.desk.planner, limit=timedelta(milliseconds=50))
    asked = parse("deep", ["orders"], world.twokey.desk.operations)
    with pytest.raises(StillLookingError, match="still being looked at"):
        await planner.answer(asked)
    depth.go.set()
    flight = await planner.flight(asked)
    assert (await asyncio.wait_for(flight, 30)).title == "Look 1 into orders"
