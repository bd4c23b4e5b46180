"""A stored request between two decisions: what it was, and what is to be saved. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from approvals.calls import Ask
from approvals.detail import Detail, Ending
from approvals.events import NoteKind, Outcome, Request
from approvals.lineage import kept
from approvals.machine import FINAL
from approvals.plans import plan_hash
from approvals.records import (
    VoteRecord,
    from_glass,
    marks_of,
    seal_fields,
    to_request,
    to_vote,
    vote_fields,
)
from approvals.rules import Rule
from approvals.running import ends_at, next_reminder
from approvals.signing import Signature, VoteKeys
from approvals.tally import Vote
from approvals.words import State

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row of `requests` with the votes that count; `new_votes` are not stored yet."""

    row: Row
    detail: Detail
    votes: tuple[VoteRecord, ...]
    new_votes: tuple[Row, ...] = ()

    @staticmethod
    def of(row: Row, votes: Sequence[Row], keys: VoteKeys) -> Case:
        """The case in what was read."""
        return Case(
            row=row,
            detail=Detail.model_validate(row["detail"]),
            votes=tuple(to_vote(vote, row["id"], keys) for vote in votes),
        )

    @property
    def request(self) -> Request:
        """What decisions look at."""
        return to_request(self.row, self.detail, self.votes)

    @property
    def is_undecided(self) -> bool:
        """Whether rules and votes still matter to it."""
        return self.row["state"] in (State.PENDING, State.APPROVED)

    @property
    def is_open(self) -> bool:
        """Whether anything can still happen to it."""
        return State(self.row["state"]) not in FINAL

    def is_ours(self, keys: VoteKeys) -> bool:
        """Whether everything in it is as we stored it: the row, the votes, the plan's text."""
        return self.is_sealed(keys) and all(vote.is_signed for vote in self.votes)

    def is_sealed(self, keys: VoteKeys) -> bool:
        """Whether the row, which votes count, and the plan's text are as we stored them."""
        seal = Signature(key_id=self.detail.key_id, value=self.detail.seal)
        holds = keys.holds(self._sealed(), seal)
        return holds and plan_hash(self.row["plan"]) == self.row["plan_hash"]

    def after(self, outcome: Outcome, *, rule: Rule | None, now: datetime) -> Case:
        """The case with what a decision brought, but for its vote and its seal."""
        request = outcome.request
        if request is None:
            return self
        signed = sum(vote.is_signed for vote in self.votes)
        voided = len(request.votes) < signed or (signed < len(self.votes) and not request.votes)
        newest = max((vote.id for vote in self.votes), default=self.detail.void_before)
        ended = now if request.state in FINAL and self.is_open else self.row["ended_at"]
        detail = self.detail.model_copy(
            update={
                "requesters": tuple(sorted(request.requesters)),
                "begun": request.begun,
                "told": tuple(sorted(request.told)),
                "glass": from_glass(request.glass),
                "void_before": newest if voided else self.detail.void_before,
                "look_at": look_at(request, rule),
            }
        )
        row = {
            **self.row,
            "state": str(request.state),
            "authors": sorted(request.authors),
            "plan_hash": request.plan_hash,
            "policy_hash": request.policy_hash,
            "attributes": dict(request.attributes),
            "rule": rule.name if rule else "",
            "step": request.step,
            "approved_at": request.approved_at,
            "approval_expires_at": request.approval_expires_at,
            "ended_at": ended,
        }
        return replace(self, row=row, detail=detail, votes=() if voided else self.votes)

    def with_vote(self, vote: Vote, *, slack: str, keys: VoteKeys) -> Case:
        """The case with a signed vote."""
        fields = {
            "request_id": self.row["id"],
            "plan_hash": vote.plan_hash,
            "policy_hash": vote.policy_hash,
            "step": vote.step,
            "person": vote.person,
            "slack": slack,
            "groups": marks_of(vote),
            "verdict": str(vote.verdict),
            "reason": vote.reason,
            "door": str(vote.door),
            "at": vote.at,
        }
        made = keys.sign(vote_fields(fields))
        stored = {"id": 0, **fields, "key_id": made.key_id, "signature": made.value}
        return replace(
            self,
            votes=(*self.votes, to_vote(stored, self.row["id"], keys)),
            new_votes=(*self.new_votes, {**stored, "at": vote.at.isoformat()}),
        )

    def numbered(self, number: int) -> Case:
        """The case of a new request with the number that it was stored under."""
        return replace(self, row={**self.row, "id": number})

    def sealed(self, keys: VoteKeys) -> Case:
        """The case as it is to be stored."""
        made = keys.sign(self._sealed())
        detail = self.detail.model_copy(update={"key_id": made.key_id, "seal": made.value})
        return replace(self, detail=detail)

    def saved(self) -> Row:
        """The values of `SAVE_REQUEST` and `INSERT_REQUEST` that come from here."""
        return {
            **self.row,
            "detail": self.detail.model_dump(mode="json"),
            "votes": [dict(vote) for vote in self.new_votes],
        }

    def _sealed(self) -> Row:
        return seal_fields(self.row, self.detail, [vote.signature for vote in self.votes])


def asked_case(ask: Ask, body: str, outcome: Outcome, request: Request, rule: Rule | None) -> Case:
    """The case of a new request, which has no id yet; `body` is the text of its plan."""
    row = {
        "id": 0,
        "state": str(State.PENDING),
        "version": 1,
        "operation": ask.operation,
        "database": ask.database,
        "asked_by": ask.by.id,
        "asked_by_slack": ask.by.slack,
        "door": str(ask.door),
        "reason": ask.reason,
        "params": dict(ask.params),
        "plan": body,
        "asked_at": request.asked_at,
        "expires_at": request.expires_at,
        "not_before": rule.not_before if rule else None,
        "channel": ask.channel,
        # `after` writes the rest.
        "authors": sorted(request.authors),
        "plan_hash": request.plan_hash,
        "policy_hash": request.policy_hash,
        "attributes": dict(request.attributes),
        "step": 0,
        "approved_at": None,
        "approval_expires_at": None,
        "ended_at": None,
    }
    ending = None
    if refusal := outcome.refusal:
        ending = Ending(why=refusal.why, text=refusal.problem, next_step=refusal.next_step)
    new = Case(row=row, detail=Detail(ending=ending, **kept(ask.origin)), votes=())
    return new.after(outcome, rule=rule, now=request.asked_at)


def gates_of(rule: Rule | None) -> list[Row]:
    """The gates as they were asked under; decisions look at the policy."""
    return [
        {"position": number, "id": gate.id, "approve": gate.approve, "deny": gate.deny}
        for number, gate in enumerate(rule.gates if rule else ())
    ]


def look_at(request: Request, rule: Rule | None) -> datetime | None:
    """When a sweep must look at the request next; None: never."""
    moments: list[datetime] = []
    end = ends_at(request)
    if end is not None:
        moments.append(end)
        if rule and rule.warn_before is not None and NoteKind.WARN not in request.told:
            moments.append(end - rule.warn_before)
    if request.state is State.PENDING and rule and NoteKind.ESCALATED not in request.told:
        waits = [gate.escalate_after for gate in rule.gates if gate.escalate_after is not None]
        moments += [request.asked_at + wait for wait in waits]
    if request.state is State.NEEDS_REVIEW and request.glass:
        reminder = next_reminder(request.glass)
        moments += [reminder] if reminder else []
    return min(moments, default=None)
