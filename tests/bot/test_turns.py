"""Answers in turns: the first are early, and who never had a turn is told that nothing changed."""

from __future__ import annotations

import asyncio

import pytest

from bot.blocks import Message
from bot.listeners import guard
from bot.listeners.guard import guarded
from bot.metrics import Metrics
from bot.turns import AT_ONCE, NoTurnError, turn


async def test_only_so_many_work_at_once_and_they_begin_in_the_order_they_came() -> None:
    at_work, most = 0, 0
    begun: list[int] = []

    async def work(number: int) -> None:
        nonlocal at_work, most
        async with turn(seconds_max=10):
            begun.append(number)
            at_work += 1
            most = max(most, at_work)
            await asyncio.sleep(0)
            at_work -= 1

    await asyncio.gather(*(work(number) for number in range(4 * AT_ONCE)))
    assert begun == sorted(begun)
    assert 1 < most <= AT_ONCE


async def test_waiting_counts_and_who_had_no_turn_has_begun_nothing() -> None:
    release = asyncio.Event()

    async def hold() -> None:
        async with turn(seconds_max=10):
            await release.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(hold())
        await asyncio.sleep(0)
        with pytest.raises(NoTurnError):
            async with turn(seconds_max=0.01):
                pytest.fail("it had a turn")
        release.set()


async def test_a_block_that_takes_too_long_is_told_apart() -> None:
    with pytest.raises(TimeoutError):
        async with turn(seconds_max=0.01):
            await asyncio.sleep(10)
    async with turn(seconds_max=1):  # its place is free again
        pass


async def test_who_had_no_turn_is_told_that_nothing_was_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "ANSWER_SECONDS_MAX", 0.05)
    release = asyncio.Event()

    async def hold() -> None:
        async with turn(seconds_max=10):
            await release.wait()

    async def answer() -> Message:
        await release.wait()
        return Message(text="done", blocks=())

    metrics = Metrics()
    slow = await guarded("command", answer, metrics=metrics, changes=True)
    assert "not certain" in slow.text
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(hold())
        await asyncio.sleep(0)
        crowded = await guarded("command", answer, metrics=metrics, changes=True)
        release.set()
    assert "Nothing was changed" in crowded.text
    assert "not certain" not in crowded.text
