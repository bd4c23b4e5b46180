"""Having a run stop, the same through every door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from approvals import audit
from approvals.records import RequestRecord
from approvals.words import RefusedError, Why
from bot.deciding import Caller, Decider, may_stop
from bot.menus import ends_in_order
from jobs.operation import Operation
from jobs.runs import request_cancel
from store import outbox

_CUT_SHORT: Final = "It stops at its next safe point"
_IN_ORDER: Final = "It brings what it has begun to a safe end by itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What came of it. `changed` False: it is being stopped already, or has ended."""

    changed: bool
    problem: str
    next_step: str  # without the full stop: doors add where more can be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """Takes the decision for all doors."""

    decider: Decider
    operations: Mapping[str, Operation]

    async def stop(self, caller: Caller, record: RequestRecord) -> Stopped:
        """Have a running change stopped, or brought to an end in order by itself.

        Raises:
            RefusedError: it is neither the caller's own, nor theirs to agree to.
        """
        if record.run_id is None or not may_stop(record, caller.person):
            raise RefusedError(
                f"Request {record.id} runs, and is not yours to stop.",
                next_step="Ask who asked for it, or somebody who may approve it.",
                why=Why.NOT_REQUESTER,
            )
        in_order = ends_in_order(record, self.operations)
        decider, now, by = self.decider, self.decider.clock(), caller.person.id
        async with decider.store.begin() as conn:
            changed = await request_cancel(conn, record.run_id, by)
            if changed:
                await audit.append(
                    conn, chain=record.database, at=now, actor=by, action="stop_run",
                    request_id=record.id, detail={"run_id": record.run_id},
                )  # fmt: skip
            if changed and in_order:
                # It may take minutes: until then its card says so, and has no such button.
                await outbox.post(
                    conn, topic="card", request_id=record.id, channel=record.channel, payload={},
                    now=now,
                )  # fmt: skip
        decider.metrics.decided("stop_run", "ok" if changed else "noop", caller.door)
        told = "is told to stop" if changed else "has ended, or is being stopped already"
        return Stopped(
            changed=changed,
            problem=f"The run of request {record.id} {told}.",
            next_step=_IN_ORDER if in_order else _CUT_SHORT,
        )
