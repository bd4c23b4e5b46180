"""The facts that a plan was made for: read when it is planned, and again before it runs.

A newer verified backup than the pinned one changes nothing; what counts is that the pinned
one could still be restored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pydantic import BaseModel

from jobs.operation import Context, Operation, Pin, Plan
from postgres import facts
from store.backups import find_backup, is_proven, newest_backup

NO_BACKUP: Final = "none"
_IDENTITY: Final = frozenset({Pin.SYSTEM_IDENTIFIER, Pin.TIMELINE, Pin.PRIMARY})


async def planned(operation: Operation, context: Context, params: BaseModel) -> Plan:
    """The plan of a change, with every fact that the operation pins.

    Raises:
        JobError: the target cannot be read, or the operation cannot plan this.
    """
    if operation.plan is None:
        raise TypeError(f"{operation.name} plans nothing")
    # Side by side, as the ack waits; but a plan that fails says so first.
    pinning = asyncio.create_task(read_pins(context, _pinned(operation)))
    try:
        plan = await operation.plan(context, params)
        pins = await pinning
    finally:
        pinning.cancel()
        await asyncio.gather(pinning, return_exceptions=True)
    return replace(plan, pins={**plan.pins, **pins})


async def what_moved(
    operation: Operation, context: Context, params: BaseModel, plan: Plan
) -> str | None:
    """Which pinned facts of the plan no longer hold, as a sentence; None when all do.

    Raises:
        JobError: the target cannot be read.
    """
    wanted = _pinned(operation)
    if missing := sorted(pin for pin in wanted if pin not in plan.pins):
        return f"The plan does not say for which {', '.join(missing)} it was made."
    current = dict(await read_pins(context, wanted, then=plan.pins))
    own = {name for name in plan.pins if name not in wanted}
    if own and operation.pins is not None:
        current |= await operation.pins(context, params, plan)
    moved = [
        f"{name} was {then} and is {current.get(name, 'gone')}"
        for name, then in plan.pins.items()
        if current.get(name) != then
    ]
    if not moved:
        return None
    return f"The plan no longer fits the database: {'; '.join(moved)}. Ask for a new plan."


async def read_pins(
    context: Context, pinned: frozenset[Pin], *, then: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """Each of these facts now. `then`: what the plan pinned, when it is read again."""
    if not pinned:
        return {}
    found: dict[str, str] = {}
    if pinned & _IDENTITY:
        row = (await context.reader.rows(facts.IDENTITY))[0]
        known = {
            Pin.SYSTEM_IDENTIFIER: facts.system_identifier(row),
            Pin.TIMELINE: facts.timeline(row),
            Pin.PRIMARY: facts.primary(row),
        }
        found |= {str(pin): known[pin] for pin in sorted(pinned & _IDENTITY)}
    if Pin.SCHEMA in pinned:
        found[str(Pin.SCHEMA)] = facts.fingerprint((await context.reader.rows(facts.SCHEMA))[0])
    if Pin.VERIFIED_BACKUP in pinned:
        found[str(Pin.VERIFIED_BACKUP)] = await _verified_backup(context, then or {})
    return found


def _pinned(operation: Operation) -> frozenset[Pin]:
    """What it pins; an operation without a target has nothing to pin."""
    return operation.pinned if "database" in operation.params.model_fields else frozenset()


async def _verified_backup(context: Context, then: Mapping[str, str]) -> str:
    """The newest verified backup, or what has become of the pinned one."""
    name = context.database.name
    pinned = then.get(Pin.VERIFIED_BACKUP)
    async with context.store.begin() as conn:
        if pinned is None:
            newest = await newest_backup(conn, name, verified=True)
            return newest.id if newest else NO_BACKUP
        if pinned == NO_BACKUP:
            return NO_BACKUP  # whoever agreed without one would agree with one
        found = await find_backup(conn, name, pinned)
        if found is None or found.state != "complete":
            return found.state if found else "gone"
        return pinned if await is_proven(conn, pinned) else "not verified"
