"""One decision about a stored request: lock, read, decide, save. Used by the service only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import delegations
from approvals import store as sql
from approvals.by_the_clock import pretence
from approvals.calls import Decision, RunQueue
from approvals.cases import Case
from approvals.detail import Ending
from approvals.events import (
    Begun,
    Cause,
    Distrusted,
    Event,
    Facts,
    Finished,
    GlassBroken,
    Happening,
    Manner,
    Outcome,
    PolicyChanged,
    Request,
    Swept,
    Voted,
)
from approvals.intake import clean_ending, clean_event
from approvals.machine import decide
from approvals.policy_file import LoadedPolicy
from approvals.records import RequestRecord, to_record
from approvals.refusals import Refusal, refuse
from approvals.sentences import ACTIONS, clipped, said
from approvals.shown import shown_hash
from approvals.signing import VoteKeys
from approvals.trust import happened, mistrust
from approvals.vote_digest import with_digests
from approvals.words import Door, Flag, Person, PersonId, RequestId, RunId, State, Why
from store.redact import redact, redact_json

_REASON_CHARS_MAX: Final = 4000
# A worker asks again and again while it must wait: the audit does not need each time.
_WAITS: Final = frozenset({Why.LOCKED, Why.NOT_YET, Why.FROZEN, Why.DIRECTORY})


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """Who does it, by which account and delivery, and what else there is to know and keep."""

    actor: str
    delivery: str = ""
    slack: str = ""
    people: Mapping[PersonId, Person] = field(default_factory=dict)
    manner: Manner = field(default_factory=Manner)
    plan: str | None = None
    ending: Ending | None = None
    review: Ending | None = None
    numbers: Mapping[str, JsonValue] = field(default_factory=dict)
    requester_must_be_known: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """What every decision needs: the keys, the queue, the clock, and today's policy."""

    keys: VoteKeys
    queue: RunQueue
    clock: Callable[[], datetime]
    policy: LoadedPolicy

    async def happen(
        self, conn: AsyncConnection, request_id: RequestId, event: Happening, how: How
    ) -> Decision:
        """Decide about `event` and save what comes of it, in the caller's transaction."""
        now, event = self.clock(), clean_event(event)
        needs_target = isinstance(event, Begun | GlassBroken)
        if isinstance(event, GlassBroken):
            await conn.execute(sql.LOCK_GLASS)
        found = await sql.lock(
            conn, request_id, delivery=how.delivery, at=now, actor=how.actor,
            lock_target=needs_target,
        )  # fmt: skip
        if found is None:
            return no_such(request_id)
        before = Case.of(found.row, found.votes, self.keys)
        if how.delivery and found.answer is not None:
            return answered(found.answer, self.record(before))
        facts = self._facts(before, found, how, now)
        case, entries = self._reconsidered(before, facts)
        if isinstance(event, Voted) and event.seen_card is not None:
            facts = replace(facts, shown=shown_hash(self.record(case)))
        if _must_be_ours(before, event) and (cause := await self._mistrust(conn, before, event)):
            event = Distrusted(cause=cause, starting=isinstance(event, Begun))
        outcome = decide(case.request, event, facts)
        entries += _entries(event, case.request, outcome, how)
        after = self._after(case, outcome, how, now)
        if after is before and isinstance(event, Swept) and self._is_under_old_key(before):
            after = replace(before)  # to be sealed under the key of today
        if after is before:
            decision = _decision(event, outcome, self.record(before))
            await _save_answer(conn, before, decision, entries, how, now)
            return decision
        return await self._save(conn, before, after, event, outcome, entries, how, now)

    def record(
        self, case: Case, run: tuple[RunId | None, str | None] = (None, None)
    ) -> RequestRecord:
        """How a case is shown; the gates of a policy that is no longer ours are not known."""
        is_ours = case.row["policy_hash"] == self.policy.hash
        policy = self.policy.values if is_ours else None
        return to_record(case.row, case.detail, case.votes, policy, run)

    def _reconsidered(self, case: Case, facts: Facts) -> tuple[Case, list[Mapping[str, str]]]:
        """The case under today's policy, if it was looked at under another one before."""
        is_current = case.row["policy_hash"] == self.policy.hash
        if is_current or not case.is_undecided or not case.is_ours(self.keys):
            return case, []
        outcome = decide(case.request, PolicyChanged(), facts)
        entries = _entries(PolicyChanged(), case.request, outcome, How(actor="twokey"))
        return self._after(case, outcome, How(actor="twokey"), facts.at), entries

    async def _mistrust(self, conn: AsyncConnection, case: Case, event: Happening) -> Cause | None:
        cause = mistrust(case, self.keys)
        if cause is None and isinstance(event, Begun) and not case.detail.begun:
            return Cause.USED if await happened(conn, case.row["id"], "begin") else None
        return cause

    def _is_under_old_key(self, case: Case) -> bool:
        return case.detail.key_id != self.keys.current_id and case.is_ours(self.keys)

    def _facts(self, case: Case, found: sql.Evidence, how: How, now: datetime) -> Facts:
        people = dict(how.people)
        asked_by = PersonId(case.row["asked_by"])
        known = asked_by in people or not case.row["asked_by_slack"]
        pretends = pretence(asked_by, Door(case.row["door"]), case.row["attributes"])
        if how.requester_must_be_known and (pretends or not known):
            people[asked_by] = gone(asked_by)
        return Facts(
            at=now,
            policy=self.policy.values,
            policy_hash=self.policy.hash,
            people=people,
            manner=how.manner,
            target_busy=found.target_busy,
            debtors=frozenset(PersonId(name) for name in found.debtors),
            unreviewed=found.unreviewed,
            delegations=delegations.lines(found.delegations, self.keys),
        )

    def _after(self, case: Case, outcome: Outcome, how: How, now: datetime) -> Case:
        """The case to store; `case` itself when there is nothing new in it."""
        if outcome.request is None or (outcome.request == case.request and not outcome.vote):
            return case
        rule = self.policy.values.rule_for(outcome.request.attributes)
        after = case.after(outcome, rule=rule, now=now)
        if outcome.vote:
            after = after.with_vote(outcome.vote, slack=how.slack, keys=self.keys)
        if how.plan is not None and not outcome.refusal:
            after = replace(after, row={**after.row, "plan": how.plan})
        ending = how.ending
        if outcome.refusal:
            refusal = outcome.refusal
            ending = Ending(why=refusal.why, text=refusal.problem, next_step=refusal.next_step)
        kept = {
            "ending": clean_ending(ending),
            "review": clean_ending(how.review),
            "numbers": redact_json(how.numbers),
        }
        detail = after.detail.model_copy(update={name: kept[name] for name in kept if kept[name]})
        return replace(after, detail=detail)

    async def _save(
        self,
        conn: AsyncConnection,
        before: Case,
        after: Case,
        event: Event,
        outcome: Outcome,
        entries: Sequence[Mapping[str, str]],
        how: How,
        now: datetime,
    ) -> Decision:
        # What is not ours is not sealed: a seal would vouch for it.
        vouched = isinstance(event, Distrusted) or before.is_ours(self.keys)
        sealed = after.sealed(self.keys) if vouched else after
        decision = _decision(event, outcome, self.record(sealed))
        row = await conn.execute(
            sql.SAVE_REQUEST,
            {
                **sealed.saved(),
                "at": now,
                "messages": messages(sealed, outcome),
                "entries": with_digests(entries, sealed.new_votes),
                "delivery": how.delivery,
                "answer": answer_of(decision),
            },
        )
        row.one()  # the row is locked, so its version cannot have moved
        run = await self.enqueued(conn, before, sealed, now)
        return replace(decision, request=self.record(sealed, run))

    async def enqueued(
        self, conn: AsyncConnection, before: Case | None, after: Case, now: datetime
    ) -> tuple[RunId | None, str | None]:
        """Queue what has become free to run by this decision."""
        was = before.row["state"] if before else ""
        is_state, broke_glass = after.row["state"], after.detail.glass and not after.detail.begun
        granted = is_state == State.APPROVED != was
        if not granted and not (is_state == State.EXECUTING != was and broke_glass):
            return None, None
        run = await self.queue.enqueue(
            conn,
            request_id=RequestId(after.row["id"]),
            database=after.row["database"],
            operation=after.row["operation"],
            now=now,
        )
        return run, "queued"


def _must_be_ours(case: Case, event: Event) -> bool:
    """Whether anything could be granted by what is stored. That a run ended is a fact."""
    return case.is_undecided or (case.is_open and not isinstance(event, Finished | Swept))


def gone(person: PersonId) -> Person:
    """Somebody whom the directory no longer knows."""
    return Person(id=person, name=person, flags=frozenset({Flag.DEACTIVATED}))


def no_such(request_id: RequestId) -> Decision:
    """The answer about a request that does not exist."""
    return refused(
        refuse(
            Why.CLOSED,
            problem=f"There is no request {request_id}.",
            next_step="`/db requests` lists the requests there are.",
        )
    )


def refused(refusal: Refusal, record: RequestRecord | None = None) -> Decision:
    """A refusal as the answer."""
    return Decision(
        ok=False,
        noop=False,
        why=refusal.why,
        problem=refusal.problem,
        next_step=refusal.next_step,
        request=record,
    )


def answered(answer: Mapping[str, Any], record: RequestRecord | None) -> Decision:
    """The first answer again, for a delivery that came before."""
    why = answer["why"]
    return Decision(
        ok=answer["ok"],
        noop=True,
        why=Why(why) if why else None,
        problem=answer["problem"],
        next_step=answer["next_step"],
        request=record,
    )


def answer_of(decision: Decision) -> Mapping[str, JsonValue]:
    """What is remembered of an answer."""
    return {
        "ok": decision.ok,
        "noop": decision.noop,
        "why": str(decision.why) if decision.why else None,
        "problem": redact(decision.problem),
        "next_step": redact(decision.next_step),
    }


def messages(case: Case, outcome: Outcome) -> list[Mapping[str, JsonValue]]:
    """What is posted about a change: the card is drawn anew, and notes go to its thread."""
    channel = case.row["channel"]
    notes: list[Mapping[str, JsonValue]] = [
        {
            "topic": "note",
            "channel": channel,
            "payload": {"text": note.text, "kind": str(note.kind)},
        }
        for note in outcome.notes
    ]
    return [{"topic": "card", "channel": channel, "payload": {}}, *notes]


def audit_detail(event: Event, before: State | None, outcome: Outcome) -> Mapping[str, JsonValue]:
    """What the audit keeps of a decision."""
    request = outcome.request
    detail: dict[str, JsonValue] = {"from": str(before or ""), "result": str(outcome)}
    if request:
        detail |= {
            "to": str(request.state),
            "plan": request.plan_hash,
            "policy": request.policy_hash,
        }
    if isinstance(event, Voted):
        detail |= {"verdict": event.verdict[:16], "door": str(event.door)}
    if reason := getattr(event, "reason", ""):
        detail["reason"] = clipped(reason, _REASON_CHARS_MAX)
    if outcome.notes:
        detail["notes"] = [str(note.kind) for note in outcome.notes]
    return detail


def _entries(event: Event, before: Request, outcome: Outcome, how: How) -> list[Mapping[str, str]]:
    is_wait = isinstance(event, Begun) and outcome.why in _WAITS
    is_silent_sweep = isinstance(event, Swept) and outcome.request == before
    if outcome.noop or is_wait or is_silent_sweep:
        return []
    detail = audit_detail(event, before.state, outcome)
    return [sql.audit_entry(how.actor, ACTIONS[type(event)], detail)]


def _decision(event: Event, outcome: Outcome, record: RequestRecord) -> Decision:
    if outcome.refusal:
        return refused(outcome.refusal, record)
    problem, next_step = said(event, record, noop=outcome.noop)
    return Decision(
        ok=True, noop=outcome.noop, why=None, problem=problem, next_step=next_step, request=record
    )


async def _save_answer(
    conn: AsyncConnection,
    case: Case,
    decision: Decision,
    entries: Sequence[Mapping[str, str]],
    how: How,
    now: datetime,
) -> None:
    if not how.delivery and not entries:
        return
    await conn.execute(
        sql.SAVE_ANSWER,
        {
            "id": case.row["id"],
            "database": case.row["database"],
            "at": now,
            "delivery": how.delivery,
            "answer": answer_of(decision),
            "entries": list(entries),
        },
    )
