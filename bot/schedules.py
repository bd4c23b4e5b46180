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
from bot.digest import planned
from bot.drill_notices import RuleOf, notice_schedule
from bot.inventory import Inventory
from bot.scheduled import ScheduledRequests, schedule_of
from jobs.drill_notices import announcements
from jobs.schedules import Schedule, Scheduler
from jobs.timetable import timetables
from store.connect import Store

HOST: Final = socket.gethostname()


def schedules_of(
    inventory: Inventory, clock: Callable[[], datetime], rule_of: RuleOf
) -> Sequence[Schedule]:
    """Everything that the inventory wants done at given times.

    `rule_of`: by which rule of the policy people agree to what a schedule asks for.
    """
    databases = inventory.databases
    timed = timetables(databases.values()).values()
    anchors = [inventory.anchors.schedule(clock=clock)] if inventory.anchors else []
    digests = [each.schedule(clock) for each in planned(databases.values())]
    notices = [
        notice_schedule(each, databases[each.timed.database], rule_of=rule_of, clock=clock)
        for each in announcements(databases.values())
    ]
    return [*anchors, *digests, *notices, *(schedule_of(each) for each in timed)]


async def run_schedules(
    stop: asyncio.Event,
    *,
    inventory: Inventory,
    store: Store,
    clock: Callable[[], datetime],
    meter: AuditMetrics,
    requests: ScheduledRequests,
) -> None:
    """Fire what is due, ask for it, and keep this host's file of anchors, until `stop` is set."""
    schedules = schedules_of(inventory, clock, requests.rule_of)
    if not schedules:
        return
    scheduler = Scheduler(
        store=store, schedules=schedules, clock=clock, by=f"{HOST}:{os.getpid()}", meter=meter
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(scheduler.run(stop))
        if requests.timed:
            tasks.create_task(requests.run(stop))
        if inventory.anchors is not None:
            keeper = AnchorKeeper(
                store=store, place=inventory.anchors, clock=clock, meter=meter, host=HOST
            )
            tasks.create_task(keeper.run(stop))
