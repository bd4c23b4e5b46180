"""What takes longer than Slack waits: it goes on, and its answer follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

from bot.blocks import Message

# How long something slow is waited for before Slack is told that it goes on: Slack gives 3 s.
QUICK: Final = timedelta(seconds=1.8)
Later = Callable[[Coroutine[Any, Any, Message]], None]


async def soon_or_later(
    working: Coroutine[Any, Any, Message], later: Later | None, *, meanwhile: Message
) -> Message:
    """What `working` brings, if soon; else `meanwhile`, and the rest through `later`.

    Without `later` it is waited for. What it raises soon is raised here.
    """
    if later is None:
        return await working
    task = asyncio.create_task(working)
    done, _ = await asyncio.wait({task}, timeout=QUICK.total_seconds())
    if done:
        return task.result()
    later(_rest(task))
    return meanwhile


async def _rest(task: asyncio.Task[Message]) -> Message:
    return await task
