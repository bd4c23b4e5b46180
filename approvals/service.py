"""The approval service: the deciding code of `approvals.machine` over our store.

Every decision locks the request first, reads after the lock, decides in one pure
function, and saves state, votes, audit, messages and the queue entry together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import store as sql
from approvals.absentees import absentees
from approvals.asking import oversized, policy_change_refused
from approvals.bookkeeping import (
    Book,
    How,
    no_such,
    refused,
)
from approvals.calls import Ask, Ballot, Decision, RunQueue, Seen
from approvals.cases import asked_case
from approvals.delegations import Delegations
from approvals.detail import Ending
from approvals.directory import Directory
from approvals.events import (
    AttributesChanged,
    Begun,
    Cancelled,
    Facts,
    Finished,
    GlassBroken,
    Happening,
    PlanChanged,
    Reopened,
    Reviewed,
    SentBack,
    Swept,
    Voted,
    VoteWithdrawn,
)
from approvals.in_force import DistrustedPolicyError, InForce, Policies
from approvals.intake import clean_ask, pretence_in, secret_in_plan
from approvals.machine import decide, inadmissible
from approvals.new_requests import NewRequests, asked_of, delivery_key
from approvals.plans import call_of, plan_body, plan_hash
from approvals.policy_file import LoadedPolicy
from approvals.records import RequestRecord
from approvals.refusals import refuse
from approvals.sentences import ENDING_CHARS_MAX, clipped
from approvals.shelf import Shelf
from approvals.signing import VoteKeys
from approvals.tally import fit
from approvals.trust import goes_on, told
from approvals.words import (
    Care,
    Door,
    Person,
    PersonId,
    RefusedError,
    RequestId,
    Verdict,
    Why,
)
from store.connect import Store

__all__ = ["Approvals", "Ask", "Ballot", "Clock", "Decision", "RunQueue", "Seen"]

log: Final = logging.getLogger("twokey.approvals")

Clock = Callable[[], datetime]
SYSTEM: Final = "twokey"
DELIVERIES_KEPT: Final = timedelta(days=2)


class Approvals:
    """Asks, votes and runs, decided and stored. Safe to use from many tasks and hosts."""

    def __init__(
        self,
        *,
        store: Store,
        keys: VoteKeys,
        queue: RunQueue,
        clock: Clock,
        policy: LoadedPolicy,
        directory: Directory | None = None,
        policies: Policies | None = None,
        heard: Callable[[LoadedPolicy], None] = lambda _: None,
    ) -> None:
        """`directory` looks up the absent whom a voter stands in for; without it nobody can.

        `policies`: where `policy` is in force, to be followed when another one is; `heard`
        is told of it. Without them `policy` stays.
        """
        self._policies = policies
        self._heard = heard
        self._distrust: RefusedError | None = None
        self._store = store
        self._directory = directory
        self._book = Book(keys=keys, queue=queue, clock=clock, policy=policy)
        self._shelf = Shelf(keys=keys, policy=policy)
        self._new = NewRequests(store=store, shelf=self._shelf)
        self.delegations = Delegations(store=store, keys=keys, clock=clock)

    @property
    def policy(self) -> LoadedPolicy:
        """The policy that decisions are made under now."""
        return self._book.policy

    async def follow(self) -> None:
        """Decide under the policy that is in force now; while it is not ours, about nothing.

        Raises:
            DistrustedPolicyError: it is not ours.
        """
        if self._policies is None:
            return
        try:
            self._use(await self._policies.in_force())
        except DistrustedPolicyError as error:
            self._distrust = error
            raise

    async def ask(self, ask: Ask) -> Decision:
        """Store a request, or refuse it. What no rule allows is stored as refused."""
        ask = clean_ask(ask)
        self._trusted()
        await self._new.keep_policy(self.policy, self._book.clock())
        now = self._book.clock()
        body, event = asked_of(ask)
        if refusal := pretence_in(ask) or oversized(body) or secret_in_plan(body):
            return refused(refusal)
        outcome = decide(None, event, self._facts(now))
        if outcome.request is None:
            return refused(outcome.refusal or refuse(Why.POLICY))
        rule = self.policy.values.rule_for(event.attributes)
        case = asked_case(ask, body, outcome, outcome.request, rule).sealed(self._book.keys)
        return await self._new.insert(self._book, ask, event, case, outcome, rule, now)

    async def vote(self, ballot: Ballot, *, keep: bool = True) -> Decision:
        """Take a vote. The deciding one queues the run in the same transaction.

        Without `keep` it is only tried: the answer is the same, and nothing is stored.
        """
        event: Happening = Voted(
            by=ballot.by,
            verdict=str(ballot.verdict),
            reason=ballot.reason,
            door=ballot.door,
            seen_plan=ballot.seen.plan_hash,
            seen_policy=ballot.seen.policy_hash,
            seen_step=ballot.seen.step,
            seen_card=ballot.seen.card,
            care=ballot.care,
        )
        if ballot.verdict is Verdict.WITHDRAWN:
            event = VoteWithdrawn(by=ballot.by, door=ballot.door)
        people = {**ballot.others, **await self._absent(ballot.by), ballot.by.id: ballot.by}
        return await self._by_person(
            ballot.request_id, event, ballot.by, ballot.delivery, keep=keep, people=people
        )

    async def cancel(
        self, request_id: RequestId, *, by: Person, door: Door, delivery: str
    ) -> Decision:
        """Whoever asked takes the request back, while it does not run."""
        ending = Ending(by=by.id, text=f"Cancelled through {door}.")
        return await self._by_person(request_id, Cancelled(by=by), by, delivery, ending=ending)

    async def break_glass(
        self,
        request_id: RequestId,
        *,
        by: Person,
        reason: str,
        door: Door,
        delivery: str,
        care: frozenset[Care] = frozenset(),
        seen_plan: str | None = None,
        keep: bool = True,
    ) -> Decision:
        """Run a request without its votes, loudly, owing a review. `keep`: as `vote`."""
        del door  # the same through every door
        event = GlassBroken(by=by, reason=reason, care=care, seen_plan=seen_plan)
        return await self._by_person(request_id, event, by, delivery, keep=keep)

    async def review(
        self, request_id: RequestId, *, by: Person, reason: str, door: Door, delivery: str
    ) -> Decision:
        """Close what was run behind broken glass."""
        review = Ending(by=by.id, text=reason, next_step=str(door))
        event = Reviewed(by=by, reason=reason)
        return await self._by_person(request_id, event, by, delivery, review=review)

    async def reopen(self, request_id: RequestId, *, by: Person, delivery: str) -> Decision:
        """Refuse to reopen, in a sentence: whoever still needs it asks again."""
        return await self._by_person(request_id, Reopened(by=by), by, delivery)

    async def change_plan(
        self,
        request_id: RequestId,
        *,
        by: Person,
        plan: Mapping[str, Any],
        attributes: Mapping[str, str | int] | None = None,
        delivery: str,
    ) -> Decision:
        """Replace the plan: no vote so far counts for it, and `by` becomes an author."""
        record = await self.load(request_id)
        if record is None:
            return no_such(request_id)
        call = call_of(record.plan)
        body = plan_body(
            plan, operation=record.operation, database=record.database, params=call["params"]
        )
        if refusal := oversized(body) or secret_in_plan(body):
            return refused(refusal)
        event = PlanChanged(by=by, plan_hash=plan_hash(body), attributes=attributes)
        planned = Ending(by=by.id, text=f"{by.name} planned it again: it takes new votes.")
        return await self._by_person(request_id, event, by, delivery, plan=body, ending=planned)

    async def change_attributes(
        self, request_id: RequestId, attributes: Mapping[str, str | int]
    ) -> Decision:
        """Look at the request again, as something else was derived about it."""
        event = AttributesChanged(attributes=attributes)
        async with self._store.begin() as conn:
            return await self._book.happen(conn, request_id, event, How(actor=SYSTEM))

    async def change_policy(
        self, policy: LoadedPolicy, *, by: Person, approved_by: Sequence[Person | None]
    ) -> Decision:
        """Decide under another policy from now on, also about what is open."""
        manner = self._facts(self._book.clock()).manner
        refusal = inadmissible(by, manner, may_act=fit(by)) or policy_change_refused(
            self.policy.values, by, tuple(approved_by)
        )
        if refusal:
            return refused(refusal)
        noop = policy.hash == self.policy.hash
        self._shelf.use(policy)
        self._book = replace(self._book, policy=policy)
        await self._new.keep_policy(self.policy, self._book.clock())
        while await self.sweep() > 0:
            pass
        text = "The policy is in force."
        return Decision(ok=True, noop=noop, why=None, problem=text, next_step="", request=None)

    async def begin(
        self, conn: AsyncConnection, request_id: RequestId, *, people: Mapping[PersonId, Person]
    ) -> Decision:
        """The worker's distrustful check, in its claiming transaction: ok means executing.

        `people` are the requester and the voters as the directory knows them now. Commit
        also after a refusal: it can have turned the request back.
        """
        if self._policies is not None:
            try:
                self._use(await self._policies.held(conn))
            except DistrustedPolicyError as error:
                # Nothing is wrong with the request: it waits.
                why = Why.NOT_YET
                return refused(refuse(why, problem=error.problem, next_step=error.next_step))
        fresh = {person: found for person, found in people.items() if found.id == person}
        how = How(actor=SYSTEM, people=fresh, requester_must_be_known=True)
        return await self._book.happen(conn, request_id, Begun(), how)

    async def resume(self, conn: AsyncConnection, request_id: RequestId) -> Decision:
        """Whether a run that says it was begun may go on: its request is at work, and ours."""
        return told(await goes_on(conn, request_id, self._book))

    async def finish(
        self,
        conn: AsyncConnection,
        request_id: RequestId,
        *,
        ok: bool,
        summary: str,
        numbers: Mapping[str, JsonValue],
    ) -> Decision:
        """The run has ended, well or not."""
        ending = Ending(by=SYSTEM, text=clipped(summary, ENDING_CHARS_MAX))
        how = How(actor=SYSTEM, ending=ending, numbers=numbers)
        return await self._book.happen(conn, request_id, Finished(ok=ok), how)

    async def send_back(
        self, conn: AsyncConnection, request_id: RequestId, *, problem: str
    ) -> Decision:
        """Back to pending, as votes can mend what the worker found. Votes so far are void."""
        how = How(actor=SYSTEM, ending=Ending(by=SYSTEM, text=clipped(problem, ENDING_CHARS_MAX)))
        return await self._book.happen(conn, request_id, SentBack(), how)

    async def sweep(self, *, limit: int = 100) -> int:
        """End what has expired and tell what is due; how many requests changed.

        Nothing depends on it: every decision looks at the time itself.
        """
        try:
            await self.follow()
        except DistrustedPolicyError as error:
            log.error("%s %s", error.problem, error.next_step)  # noqa: TRY400 - is no bug of ours
            return 0
        now = self._book.clock()
        async with self._store.begin() as conn:
            await conn.execute(sql.FORGET_DELIVERIES, {"before": now - DELIVERIES_KEPT})
            values = {
                "at": now, "policy_hash": self.policy.hash, "limit": limit,
                "key_id": self._book.keys.current_id,
            }  # fmt: skip
            due = list((await conn.execute(sql.DUE, values)).scalars())
        changed = 0
        for request_id in due:
            async with self._store.begin() as conn:
                decision = await self._book.happen(
                    conn, RequestId(request_id), Swept(), How(actor=SYSTEM)
                )
            changed += not decision.noop
        return changed

    async def load(self, request_id: RequestId) -> RequestRecord | None:
        """A request as it is stored, or None."""
        async with self._store.single() as conn:
            found = await self._shelf.read(conn, [request_id])
        return next(iter(found), None)

    async def recent(
        self, *, database: str | None = None, open_only: bool = False, limit: int = 20
    ) -> Sequence[RequestRecord]:
        """The newest requests first."""
        async with self._store.begin() as conn:
            return await self._shelf.recent(
                conn, database=database, open_only=open_only, limit=limit
            )

    async def facts_for(self, person: Person) -> Facts:
        """What a decision about votes of this person would look at now.

        Raises:
            DirectoryDownError: those whom the person stands in for cannot be looked up.
        """
        people = {**await self._absent(person), person.id: person}
        lines = tuple(given.line for given in await self.delegations.of(person.id))
        return replace(self._facts(self._book.clock()), people=people, delegations=lines)

    async def _by_person(
        self,
        request_id: RequestId,
        event: Happening,
        by: Person,
        delivery: str,
        *,
        keep: bool = True,
        **more: Any,
    ) -> Decision:
        self._trusted()
        key = delivery_key(delivery, by.id, str(request_id), type(event).__name__)
        known = {"people": {by.id: by}, **more}
        how = How(actor=by.id, slack=by.slack, delivery=key, **known)
        async with self._store.begin() as conn:
            decision = await self._book.happen(conn, request_id, event, how)
            if not keep:
                await conn.rollback()
            return decision

    def _trusted(self) -> None:
        """Nothing, while the policy in force is ours.

        Raises:
            DistrustedPolicyError: it is not.
        """
        if self._distrust is not None:
            raise self._distrust

    def _use(self, found: InForce | None) -> None:
        """Decide under this policy from now on; sweeps look at what is open under another."""
        self._distrust = None
        if found is None or found.policy.hash == self.policy.hash:
            return
        self._shelf.use(found.policy)
        self._book = replace(self._book, policy=found.policy)
        self._heard(found.policy)

    async def _absent(self, by: Person) -> Mapping[PersonId, Person]:
        return await absentees(
            by,
            named=self.policy.values.delegations,
            given=self.delegations,
            directory=self._directory,
            now=self._book.clock(),
        )

    def _facts(self, now: datetime) -> Facts:
        return Facts(at=now, policy=self.policy.values, policy_hash=self.policy.hash)
