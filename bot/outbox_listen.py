"""Hears of what is written to the outbox, for as long as the store can be reached."""

from __future__ import annotations

import asyncio
from typing import Final

from jobs.away import is_away, pause_seconds
from store.connect import Store
from store.outbox import CHANNEL

CHECK_SECONDS: Final = 30.0
CHECK_SECONDS_MAX: Final = 10.0


async def keep_listening(store: Store, wake: asyncio.Event) -> None:
    """Set `wake` when a transaction that wrote to the outbox commits; never returns."""
    failures = 0
    while True:
        try:
            await _listen_once(store, wake)
            failures = 0
        except Exception as error:
            if not is_away(error):
                raise
            failures += 1
        await asyncio.sleep(pause_seconds(failures))


async def _listen_once(store: Store, wake: asyncio.Event) -> None:
    """Returns when the connection is lost; raises when the store is somewhere else by now."""
    connection = await store.direct(application_name="twokey outbox")
    lost = asyncio.Event()
    try:
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(CHANNEL, lambda *_: wake.set())
        wake.set()  # for what was committed before we listened
        while not await _is_set(lost, seconds=CHECK_SECONDS):
            await store.reach.check(connection, seconds_max=CHECK_SECONDS_MAX)
    finally:
        connection.terminate()


async def _is_set(event: asyncio.Event, *, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
