"""Work in a thread that is over when whoever waits for it hears of a cancel."""

from __future__ import annotations

import asyncio
import threading

import pytest

from postgres.together import unbroken


async def test_a_thread_has_ended_before_a_cancel_is_heard() -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(10)
        ended.set()

    task = asyncio.create_task(unbroken(asyncio.to_thread(work)))
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, go.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_what_the_thread_gives_is_given() -> None:
    assert await unbroken(asyncio.to_thread(sum, [1, 2])) == 3
