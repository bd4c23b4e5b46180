"""Cards out of stored requests: loaded, turned into values, sealed, drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final

from pydantic import TypeAdapter

from approvals.by_the_clock import CLOCK
from approvals.plans import call_of, canonical, plan_of
from approvals.records import GateStatus, RequestRecord
from approvals.service import Approvals
from approvals.shown import shown_hash
from approvals.words import BadInputError, PersonId, RequestId, State, Verdict
from bot.blocks import Message
from bot.buttons import Purpose, Seal, Shown
from bot.digest import DIGEST
from bot.menus import Menus, abort_words, ends_in_order, is_pausable
from bot.outbox_rows import Row
from bot.suggesting import Suggester
from bot.views.anchor import anchor_message
from bot.views.answer import answer_message, note_message, progress_message
from bot.views.card import Card, GateLine, VoteLine
from bot.views.digest import digest_message
from bot.views.drill_notice import drill_notice_message
from bot.views.errors import problem_message
from bot.views.request import request_message
from jobs.operation import Answer, Plan

PLAN: Final = TypeAdapter(Plan)
ANSWER: Final = TypeAdapter(Answer)
# Buttons of a request that has ended only open its details.
_DETAILS_FOR: Final = timedelta(days=3650)


def plan_as_json(plan: Plan) -> Mapping[str, Any]:
    """A plan as it is stored and hashed."""
    dumped: Mapping[str, Any] = PLAN.dump_python(plan, mode="json")
    return dumped


def card_of(record: RequestRecord) -> Card:
    """What the card of a stored request shows."""
    slack_of = record.slack_of
    ending = record.detail.ending
    said = " ".join(filter(None, (ending.text, ending.next_step))) if ending else ""
    return Card(
        request_id=record.id,
        state=record.state,
        operation=record.operation,
        database=record.database,
        asked_by=CLOCK.name
        if record.asked_by == CLOCK.id
        else record.asked_by_slack or record.asked_by,
        reason=record.reason,
        plan=PLAN.validate_python(plan_of(record.plan)),
        rule=record.rule,
        gates=tuple(_gate(gate, slack_of, stand_ins_of(record)) for gate in record.gates),
        any_gate=record.any_gate,
        ways=record.ways,
        ordered=record.ordered,
        votes=tuple(
            VoteLine(
                who=vote.slack or vote.person, verdict=vote.verdict, reason=vote.reason, at=vote.at
            )
            for vote in record.votes
        ),
        asked_at=record.asked_at,
        expires_at=record.expires_at,
        approval_expires_at=record.approval_expires_at,
        not_before=record.not_before,
        ended_at=record.ended_at,
        note=said,
        glass=_glass(record),
        run_state=record.run_state or "",
        paused_by=slack_of.get(PersonId(record.paused_by), record.paused_by),
        paused_at=record.paused_at,
        stopped_by=slack_of.get(PersonId(record.stopped_by), record.stopped_by),
        params=_params(record.plan),
        care=record.care,
    )


def _params(plan: str) -> tuple[tuple[str, str], ...]:
    """What was asked for, out of the text that people agree to."""
    params: Mapping[str, Any] = call_of(plan).get("params", {})
    return tuple(
        (name, value if isinstance(value, str) else canonical(value))
        for name, value in sorted(params.items())
    )


def stand_ins_of(record: RequestRecord) -> Mapping[PersonId, str]:
    """By whose seat it was: who approved in the place of somebody else."""
    return {
        vote.seat: vote.slack or vote.person
        for vote in record.votes
        if vote.seat != vote.person and vote.verdict is Verdict.APPROVE
    }


def _gate(
    gate: GateStatus, slack_of: Mapping[PersonId, str], stand_ins: Mapping[PersonId, str]
) -> GateLine:
    return GateLine(
        id=gate.id,
        who=gate.who,
        need=gate.approve,
        have=tuple(slack_of.get(person, person) for person in gate.have),
        stand_ins=tuple(stand_ins.get(person, "") for person in gate.have),
        is_open=gate.open,
        can_deny=gate.deny > 0,
    )


def _glass(record: RequestRecord) -> str:
    glass = record.detail.glass
    if glass is None:
        return ""
    return f"{glass.by} ran it without its votes: {glass.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """Draws from what is stored now; implements `bot.outbox.Draw`."""

    approvals: Approvals
    seal: Seal
    menus: Menus
    suggester: Suggester

    async def __call__(self, row: Row, payload: Mapping[str, Any]) -> Message | None:
        """What a row of the outbox shows; None when its request is gone."""
        match row.topic:
            case "card":
                record = await self.approvals.load(RequestId(row.request_id or 0))
                return None if record is None else self.drawn(record)
            case "progress":
                return progress_message(str(payload["text"]), payload.get("fraction"))
            case "result":
                return _result(payload, self.suggester)
            case topic if topic in _DRAWN:
                return _DRAWN[topic](payload)
            case _:
                return note_message(str(payload["text"]), str(payload.get("kind", "")))

    def drawn(self, record: RequestRecord) -> Message:
        """A request's message with its buttons."""
        card = replace(
            card_of(record),
            menu=self.menus.of(record),
            is_pausable=is_pausable(record, self.menus.operations),
            ends_in_order=ends_in_order(record, self.menus.operations),
            abort_words=abort_words(record, self.menus.operations),
        )
        return request_message(card, tokens=partial(self.token, record))

    def token(self, record: RequestRecord, purpose: Purpose) -> str:
        """The sealed value of one button of this request's card as it is now."""
        return self.seal.close(self.shown(record, purpose))

    def shown(self, record: RequestRecord, purpose: Purpose) -> Shown:
        """What this request's card shows now."""
        pending = record.state is State.PENDING
        return Shown(
            request_id=record.id,
            plan_hash=record.plan_hash,
            policy_hash=record.policy_hash,
            card_hash=shown_hash(record),
            step=record.step,
            expires_at=record.expires_at if pending else record.asked_at + _DETAILS_FOR,
            purpose=purpose,
        )

    async def record(self, request_id: RequestId) -> RequestRecord:
        """A stored request.

        Raises:
            BadInputError: there is none of this number.
        """
        found = await self.approvals.load(request_id)
        if found is None:
            raise BadInputError(
                f"There is no request {request_id}.", next_step="/db requests lists them."
            )
        return found


def _result(payload: Mapping[str, Any], suggester: Suggester) -> Message:
    if "answer" in payload:
        answer = ANSWER.validate_python(payload["answer"])
        return answer_message(answer, below=suggester.row(answer.suggestions))
    return problem_message(str(payload.get("problem", "")), str(payload.get("next_step", "")))


def _digest(payload: Mapping[str, Any]) -> Message:
    return digest_message(DIGEST.validate_python(payload))


# What is drawn of its payload alone.
_DRAWN: Final[Mapping[str, Callable[[Mapping[str, Any]], Message]]] = {
    "anchor": anchor_message,
    "digest": _digest,
    "drill": drill_notice_message,
}
