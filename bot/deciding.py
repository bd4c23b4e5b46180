"""What people decide about requests, the same through every door.

A door says who it is (`Caller`), and what they were shown. Everything after that is here:
looking earlier voters up, deciding, counting, and drawing a card that is out of date anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from approvals.bookkeeping import gone
from approvals.calls import Ballot, Decision, Seen
from approvals.directory import Directory
from approvals.records import RequestRecord
from approvals.service import Approvals
from approvals.words import (
    Care,
    DirectoryDownError,
    Door,
    Person,
    PersonId,
    RefusedError,
    RequestId,
    Verdict,
    Why,
)
from bot.cards import Cards
from bot.metrics import Metrics
from store import outbox
from store.connect import Store

# What was shown no longer stands: the card is drawn anew.
_OUT_OF_DATE: Final = frozenset(
    {Why.STALE_PLAN, Why.STALE_STEP, Why.CLOSED, Why.EXPIRED, Why.DUPLICATE}
)
_NO_CARE: Final[frozenset[Care]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who stands at which door. `delivery` is the same when the same thing comes again."""

    person: Person
    door: Door
    delivery: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Takes decisions for all doors."""

    approvals: Approvals
    people: Directory
    cards: Cards
    store: Store
    metrics: Metrics
    clock: Callable[[], datetime]

    async def cast(
        self,
        caller: Caller,
        verdict: Verdict,
        reason: str,
        *,
        record: RequestRecord,
        seen: Seen,
        care: frozenset[Care] = _NO_CARE,
        keep: bool = True,
    ) -> Decision:
        """Cast a vote for what was seen, or take it back. Without `keep` it is only tried.

        Raises:
            DirectoryDownError: who has voted before cannot be looked up.
        """
        ballot = Ballot(
            request_id=record.id,
            by=caller.person,
            verdict=verdict,
            reason=reason,
            door=caller.door,
            seen=seen,
            delivery=caller.delivery,
            others=await self._earlier_voters(record, caller.person),
            care=care,
        )
        if not keep:
            return await self.approvals.vote(ballot, keep=False)
        return await self.counted(str(verdict), caller.door, record.id, self.approvals.vote(ballot))

    async def withdraw(self, caller: Caller, record: RequestRecord) -> Decision:
        """Take the caller's own vote back.

        Raises:
            DirectoryDownError: who has voted before cannot be looked up.
        """
        seen = Seen(plan_hash=record.plan_hash, policy_hash=record.policy_hash, step=record.step)
        return await self.cast(caller, Verdict.WITHDRAWN, "", record=record, seen=seen)

    async def cancel(self, caller: Caller, request_id: RequestId) -> Decision:
        """Cancel a request that does not run."""
        deciding = self.approvals.cancel(
            request_id, by=caller.person, door=caller.door, delivery=caller.delivery
        )
        return await self.counted("cancel", caller.door, request_id, deciding)

    async def break_glass(
        self,
        caller: Caller,
        request_id: RequestId,
        reason: str,
        *,
        care: frozenset[Care] = _NO_CARE,
        seen_plan: str | None = None,
        keep: bool = True,
    ) -> Decision:
        """Run a request without its votes, loudly. `seen_plan`: the plan that was shown.

        Without `keep` it is only tried.
        """
        deciding = self.approvals.break_glass(
            request_id, by=caller.person, reason=reason, door=caller.door,
            delivery=caller.delivery, care=care, seen_plan=seen_plan, keep=keep,
        )  # fmt: skip
        if not keep:
            return await deciding
        return await self.counted("break_glass", caller.door, request_id, deciding)

    async def review(self, caller: Caller, request_id: RequestId, reason: str) -> Decision:
        """Close what ran behind broken glass."""
        deciding = self.approvals.review(
            request_id, by=caller.person, reason=reason, door=caller.door,
            delivery=caller.delivery,
        )  # fmt: skip
        return await self.counted("review", caller.door, request_id, deciding)

    async def counted(
        self,
        action: str,
        door: Door,
        request_id: RequestId | None,
        deciding: Awaitable[Decision],
    ) -> Decision:
        """A decision on its way, counted; a card that turns out to be out of date is redrawn."""
        decision = await deciding
        self.metrics.decided(action, result_of(decision), door)
        if request_id is not None and decision.why in _OUT_OF_DATE:
            record = decision.request or await self.approvals.load(request_id)
            if record is not None:
                await self.redraw(record)
        return decision

    async def redraw(self, record: RequestRecord) -> None:
        """Have a request's card drawn from stored state once more."""
        async with self.store.begin() as conn:
            await outbox.post(
                conn, topic="card", request_id=record.id, channel=record.channel, payload={},
                now=self.clock(),
            )  # fmt: skip

    async def _earlier_voters(
        self, record: RequestRecord, voter: Person
    ) -> Mapping[PersonId, Person]:
        """Whoever has voted before, and in whose place, as they are today.

        A vote counts while its author may vote, and the one whose seat it was.
        """
        accounts = {vote.seat: vote.seat_slack for vote in record.votes if vote.seat_slack}
        accounts |= {vote.person: vote.slack for vote in record.votes if vote.slack}
        accounts.pop(voter.id, None)
        looks = (self.people.by_id(person, slack) for person, slack in accounts.items())
        found = await asyncio.gather(*looks, return_exceptions=True)
        return {
            person: _as_of_today(person, answer)
            for person, answer in zip(accounts, found, strict=True)
        }


def result_of(decision: Decision) -> str:
    """How a decision is counted: `ok`, `noop`, or why not."""
    return "noop" if decision.noop else "ok" if decision.ok else str(decision.why)


def may_stop(record: RequestRecord, person: Person) -> bool:
    """Whether a run is theirs to stop or to hold up: their own, or theirs to agree to."""
    groups = {group for gate in record.gates for group in gate.groups}
    users = {user for gate in record.gates for user in gate.users}
    mine = person.id in {record.asked_by, *record.authors, *users}
    return not person.flags and (mine or bool(person.groups & groups))


def _as_of_today(person: PersonId, answer: Person | BaseException) -> Person:
    match answer:
        case Person():
            # The account may belong to somebody else by now, who has not voted.
            return answer if answer.id == person else gone(person)
        case DirectoryDownError():
            raise answer
        case RefusedError():
            return gone(person)
        case _:
            raise answer
