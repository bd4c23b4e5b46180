"""Having a run wait and go on, the same through every door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from approvals import audit
from approvals.records import RequestRecord
from approvals.words import RefusedError, Why
from bot.deciding import Caller, Decider, may_stop
from bot.menus import is_pausable
from jobs.operation import Operation
from jobs.pausing import request_pause, request_resume
from store import outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """What came of it. `changed` False: it was so already, or the run has ended."""

    changed: bool
    problem: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pausing:
    """Takes the decision for all doors."""

    decider: Decider
    operations: Mapping[str, Operation]

    async def pause(self, caller: Caller, record: RequestRecord) -> Paused:
        """Have its run wait: with no lock and no transaction, and its time limit stands still.

        Raises:
            RefusedError: it has no run that could wait, or it is not theirs to stop.
        """
        changed = await self._set(caller, record, action="pause_run")
        return Paused(
            changed=changed,
            problem=f"The run of request {record.id} is told to wait."
            if changed
            else f"The run of request {record.id} waits already, or is ending.",
            next_step=f"It finishes what it is at. /db resume {record.id} has it go on.",
        )

    async def resume(self, caller: Caller, record: RequestRecord) -> Paused:
        """Have its run go on.

        Raises:
            RefusedError: it has no run that could wait, or it is not theirs to stop.
        """
        changed = await self._set(caller, record, action="resume_run")
        return Paused(
            changed=changed,
            problem=f"The run of request {record.id} goes on."
            if changed
            else f"The run of request {record.id} does not wait, or is ending.",
            next_step="Progress is in its thread.",
        )

    async def _set(self, caller: Caller, record: RequestRecord, *, action: str) -> bool:
        """Row, audit entry and card in one transaction."""
        if record.run_id is None or not is_pausable(record, self.operations):
            raise RefusedError(
                f"Request {record.id} ({record.operation}) has no run that could wait.",
                next_step="Only what runs, and works in parts, can be paused: a backfill can.",
                why=Why.CLOSED,
            )
        if not may_stop(record, caller.person):
            raise RefusedError(
                f"Request {record.id} runs, and is not yours to hold up.",
                next_step="Ask who asked for it, or somebody who may approve it.",
                why=Why.NOT_REQUESTER,
            )
        decider, now, by = self.decider, self.decider.clock(), caller.person.id
        async with decider.store.begin() as conn:
            if action == "pause_run":
                changed = await request_pause(conn, record.run_id, by, now=now)
            else:
                changed = await request_resume(conn, record.run_id)
            if changed:
                await audit.append(
                    conn, chain=record.database, at=now, actor=by, action=action,
                    request_id=record.id, detail={"run_id": record.run_id},
                )  # fmt: skip
                await outbox.post(
                    conn, topic="card", request_id=record.id, channel=record.channel, payload={},
                    now=now,
                )  # fmt: skip
        decider.metrics.decided(action, "ok" if changed else "noop", caller.door)
        return changed
