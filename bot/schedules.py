"""What a bot process does by the clock: the schedules of the inventory, and what follows them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from bot.anchoring import AnchorKeeper
from bot.audit_metrics import AuditMetrics
from bot.inventory import Inventory
from jobs.schedules import Schedule, Scheduler
from store.connect import Store

HOST: Final = socket.gethostname()


def schedules_of(inventory: Inventory, clock: Callable[[], datetime]) -> Sequence[Schedule]:
    """Everything that the inventory wants done at given times."""
    anchors = inventory.anchors
    return [anchors.schedule(clock=clock)] if anchors else []


async def run_schedules(
    stop: asyncio.Event,
    *,
    inventory: Inventory,
    store: Store,
    clock: Callable[[], datetime],
    meter: AuditMetrics,
) -> None:
    """Fire what is due, and keep this host's file of anchors, until `stop` is set."""
    schedules = schedules_of(inventory, clock)
    if not schedules:
        return
    scheduler = Scheduler(
        store=store, schedules=schedules, clock=clock, by=f"{HOST}:{os.getpid()}", meter=meter
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(scheduler.run(stop))
        if inventory.anchors is not None:
            keeper = AnchorKeeper(
                store=store, place=inventory.anchors, clock=clock, meter=meter, host=HOST
            )
            tasks.create_task(keeper.run(stop))
