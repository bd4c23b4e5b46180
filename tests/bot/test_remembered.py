"""Answers that are kept for a while: one look at a time, never older than what was done since."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from bot.remembered import Remembered
from jobs.operation import Answer

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FIVE = timedelta(minutes=5)


class Looks:
    """A slow look that counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()
        self.fails = False

    async def __call__(self) -> Answer:
        self.begun += 1
        number = self.begun
        await self.go.wait()
        if self.fails:
            raise LookupError("no")
        return Answer(title=f"look {number}")


def flight(
    memory: Remembered,
    looks: Looks,
    *,
    key: str = "k",
    now: datetime = NOW,
    mark: str = "m",
    anew: bool = False,
    age_max: timedelta = FIVE,
) -> asyncio.Task[Answer]:
    return memory.flight(key, looks, now=now, mark=mark, age_max=age_max, anew=anew)


async def title(task: asyncio.Task[Answer]) -> str:
    return (await asyncio.wait_for(asyncio.shield(task), 30)).title


async def test_many_who_ask_at_once_share_one_look() -> None:
    memory, looks = Remembered(), Looks()
    flights = [flight(memory, looks) for _ in range(20)]
    looks.go.set()
    assert [await title(each) for each in flights] == ["look 1"] * 20
    assert looks.begun == 1


async def test_an_answer_is_remembered_until_it_is_too_old() -> None:
    memory, looks = Remembered(), Looks()
    looks.go.set()
    first = await flight(memory, looks)
    assert first.at == NOW
    again = await flight(memory, looks, now=NOW + FIVE - timedelta(seconds=1))
    assert (again.title, again.at) == ("look 1", NOW)
    assert await title(flight(memory, looks, now=NOW + FIVE)) == "look 2"


async def test_what_is_not_kept_is_shared_while_it_is_looked_at_and_then_looked_at_anew() -> None:
    memory, looks, none = Remembered(), Looks(), timedelta(0)
    first = flight(memory, looks, age_max=none)
    assert flight(memory, looks, age_max=none, now=NOW + FIVE) is first
    looks.go.set()
    assert await title(first) == "look 1"
    assert await title(flight(memory, looks, age_max=none)) == "look 2"


async def test_what_was_done_in_between_makes_a_look_necessary() -> None:
    memory, looks = Remembered(), Looks()
    looks.go.set()
    assert await title(flight(memory, looks, mark="run 1")) == "look 1"
    assert await title(flight(memory, looks, mark="run 2")) == "look 2"


async def test_a_look_that_began_before_a_change_does_not_serve_who_asks_after_it() -> None:
    memory, looks = Remembered(), Looks()
    before = flight(memory, looks, mark="run 1")
    after = flight(memory, looks, mark="run 2")
    looks.go.set()
    assert await title(before) == "look 1"
    assert await title(after) == "look 2"
    assert await title(flight(memory, looks, mark="run 2")) == "look 2"


async def test_looking_anew_ignores_what_is_remembered_but_joins_a_look_under_way() -> None:
    memory, looks = Remembered(), Looks()
    looks.go.set()
    assert await title(flight(memory, looks)) == "look 1"
    looks.go.clear()
    second, third = flight(memory, looks, anew=True), flight(memory, looks, anew=True)
    looks.go.set()
    assert (await title(second), await title(third)) == ("look 2", "look 2")


async def test_a_failure_is_told_to_who_waits_and_not_remembered() -> None:
    memory, looks = Remembered(), Looks()
    looks.fails = True
    looks.go.set()
    with pytest.raises(LookupError):
        await flight(memory, looks)
    looks.fails = False
    assert await title(flight(memory, looks)) == "look 2"


async def test_who_stops_waiting_does_not_stop_the_look() -> None:
    memory, looks = Remembered(), Looks()
    shared = flight(memory, looks)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(shared), 0.01)
    looks.go.set()
    assert await title(flight(memory, looks)) == "look 1"


async def test_memory_has_a_bound() -> None:
    memory, looks = Remembered(entries_max=2), Looks()
    looks.go.set()
    for key in ("a", "b", "c"):
        await flight(memory, looks, key=key)
    assert await title(flight(memory, looks, key="c")) == "look 3"
    assert await title(flight(memory, looks, key="a")) == "look 4"


async def test_a_clock_that_was_set_back_makes_nothing_last_longer() -> None:
    memory, looks = Remembered(), Looks()
    looks.go.set()
    await flight(memory, looks)
    assert await title(flight(memory, looks, now=NOW - timedelta(hours=1))) == "look 2"


async def test_closing_ends_the_looks_under_way() -> None:
    memory, looks = Remembered(), Looks()
    shared = flight(memory, looks)
    await memory.close()
    assert shared.cancelled()
