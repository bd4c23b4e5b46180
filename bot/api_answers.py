"""What the API answers: requests and decisions as JSON, and errors with their status. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from approvals.calls import Decision
from approvals.plans import plan_of
from approvals.records import RequestRecord
from approvals.words import Why
from bot.cards import ANSWER
from jobs.operation import Answer
from store.redact import redact

Json = Mapping[str, Any]

_FORBIDDEN, _CONFLICT, _UNFIT = 403, 409, 422
# A reason that is not here cannot be answered: a test looks at each.
STATUS: Final[Mapping[Why, int]] = MappingProxyType(
    {
        Why.SELF: _FORBIDDEN,
        Why.NOT_ELIGIBLE: _FORBIDDEN,
        Why.IDENTITY: _FORBIDDEN,
        Why.IMPERSONATION: _FORBIDDEN,
        Why.NOT_REQUESTER: _FORBIDDEN,
        Why.FOUR_EYES: _FORBIDDEN,
        Why.POLICY: _FORBIDDEN,
        Why.UNREAD: _FORBIDDEN,
        Why.NAME: _FORBIDDEN,
        Why.STEP_UP: _FORBIDDEN,
        Why.SIGNATURE: 401,
        Why.DIRECTORY: 503,
        Why.CLOSED: _CONFLICT,
        Why.EXPIRED: _CONFLICT,
        Why.STALE_PLAN: _CONFLICT,
        Why.STALE_STEP: _CONFLICT,
        Why.DUPLICATE: _CONFLICT,
        Why.NOT_APPROVED: _CONFLICT,
        Why.NOT_YET: _CONFLICT,
        Why.FROZEN: _CONFLICT,
        Why.LOCKED: _CONFLICT,
        Why.REASON: _UNFIT,
        Why.VERDICT: _UNFIT,
        Why.TTL: _UNFIT,
        Why.UNSATISFIABLE: _UNFIT,
        Why.SECRET: _UNFIT,
    }
)


def problem(why: str, said: str, next_step: str) -> dict[str, Any]:
    """An error: which, what is wrong, what to do."""
    return {"why": why, "problem": redact(said), "next_step": redact(next_step)}


def told(record: RequestRecord, *, noop: bool, problem: str, next_step: str) -> tuple[int, Json]:
    """What a run was asked to do; `noop`: it was so already."""
    return 200, {
        "ok": True,
        "noop": noop,
        "why": None,
        "problem": problem,
        "next_step": next_step,
        "request": brief(record),
    }


def decided(decision: Decision) -> tuple[int, Json]:
    """A decision and its status: 200 also when it was taken before."""
    status = 200 if decision.ok else STATUS[decision.why or Why.CLOSED]
    if decision.why is Why.CLOSED and decision.request is None:
        status = 404
    return status, {
        "ok": decision.ok,
        "noop": decision.noop,
        "why": str(decision.why) if decision.why else None,
        "problem": decision.problem,
        "next_step": decision.next_step,
        "request": brief(decision.request) if decision.request else None,
    }


def brief(record: RequestRecord) -> Json:
    """A request in a list: without its plan."""
    return {
        "id": record.id,
        "state": str(record.state),
        "operation": record.operation,
        "database": record.database,
        "title": str(plan_of(record.plan).get("title", "")),
        "asked_by": record.asked_by,
        "asked_at": moment(record.asked_at),
        "expires_at": moment(record.expires_at),
        "reason": record.reason,
        "door": str(record.door),
        "plan_hash": record.plan_hash,
        "policy_hash": record.policy_hash,
        "step": record.step,
        "rule": record.rule,
        "must_agree": record.who_must_agree,
        "missing": record.what_is_missing,
        "run_state": record.run_state,
        "paused_by": record.paused_by or None,
        "stopped_by": record.stopped_by or None,
    }


def whole(record: RequestRecord) -> Json:
    """Everything that somebody needs to decide: the plan in full, and who must still agree.

    `plan_text` is the very text that is hashed: its SHA-256 is `plan_hash`.
    """
    ending = record.detail.ending
    return {
        **brief(record),
        "params": dict(record.params),
        "attributes": dict(record.attributes),
        "authors": list(record.authors),
        "plan": dict(plan_of(record.plan)),
        "plan_text": record.plan,
        "gates": [
            {
                "id": gate.id,
                "who": gate.who,
                "need": gate.approve,
                "have": list(gate.have),
                "denials": gate.denials,
                "open": gate.open,
            }
            for gate in record.gates
        ],
        "any_gate": record.any_gate,
        "care": sorted(str(each) for each in record.care),
        "votes": [
            {
                "person": vote.person,
                "verdict": str(vote.verdict),
                "reason": vote.reason,
                "door": str(vote.door),
                "at": moment(vote.at),
            }
            for vote in record.votes
        ],
        "approved_at": moment(record.approved_at),
        "approval_expires_at": moment(record.approval_expires_at),
        "not_before": moment(record.not_before),
        "ended_at": moment(record.ended_at),
        "note": " ".join(filter(None, (ending.text, ending.next_step))) if ending else "",
    }


def answered(answer: Answer) -> Json:
    """A query's answer as data, and as text for a terminal."""
    return {"answer": ANSWER.dump_python(answer, mode="json"), "text": as_text(answer)}


def as_text(answer: Answer) -> str:
    """An answer in full, as lines."""
    lines = [answer.title, *answer.lines, *(f"{name}: {value}" for name, value in answer.facts)]
    lines += [f"    {line}" for text in answer.statements for line in text.splitlines()]
    if answer.table is not None:
        rows = [answer.table.columns, *answer.table.rows]
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
    return "\n".join(lines)


def moment(at: datetime | None) -> str | None:
    """A time in UTC, as ISO 8601 has it."""
    return at.astimezone(UTC).isoformat() if at else None
