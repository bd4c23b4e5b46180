"""Approve pressed, and the glass broken: at once, or through a modal where care is demanded.

What the modal sends is checked as if no modal had been opened: the value in it, the pages,
the name, the code, and behind the request's lock the rule itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from approvals.calls import Decision
from approvals.records import RequestRecord
from approvals.refusals import Refusal
from approvals.words import Care, PlanHash, RefusedError, Verdict, Why
from bot.blocks import Block
from bot.buttons import Purpose, Shown
from bot.cards import Cards, card_of
from bot.care import Careful, is_name, misnamed, unread
from bot.deciding import Caller, Decider
from bot.opening import Opening, seen_in
from bot.views.approve import (
    CODE_BLOCK,
    NAME_BLOCK,
    approve_modal,
    asks_more,
    first_field,
    glass_modal,
)

# Care that is shown in the modal: without it the decision says so, and the modal is opened.
_IN_THE_MODAL: Final = frozenset({Why.NAME, Why.STEP_UP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a modal sends. `value` is its sealed token."""

    value: str
    typed: str = field(default="", repr=False)
    code: str = field(default="", repr=False)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amiss:
    """A problem with one field of a modal, which stays open."""

    block: str
    refusal: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Approving:
    """Takes approvals with the care that their rule demands."""

    opening: Opening
    decider: Decider
    careful: Careful
    cards: Cards

    async def press(self, caller: Caller, value: str, *, place: str) -> Decision | Block:
        """Approve was pressed: what was decided, or the modal that asks for more.

        Raises:
            RefusedError: the button is not ours or out of date, or nobody can be identified.
        """
        shown, record = await self.opening.current(value, Purpose.APPROVE, place=place)
        care = await self.careful.given(record, caller.person.id)
        if record.care - care:
            tried = await self._vote(caller, shown, record, care, keep=False)
            if tried.why in _IN_THE_MODAL:
                token = self.opening.sealed_for(shown, Purpose.CARE, caller.person.id)
                return approve_modal(card_of(record), token=token)
        decision = await self._vote(caller, shown, record, care)
        if decision.why is Why.UNREAD:
            refusal = unread(record, await self.careful.read(record, caller.person.id))
            return replace(decision, problem=refusal.problem, next_step=refusal.next_step)
        return decision

    async def send(self, caller: Caller, sent: Sent) -> Decision | Amiss:
        """The approval's modal was sent: what was decided, or what is amiss in a field.

        Raises:
            RefusedError: the modal is not ours, somebody else's, or out of date.
        """
        person = caller.person.id
        shown, record = await self.opening.current(sent.value, Purpose.CARE, person=person)
        if amiss := _misnamed(record, sent):
            return amiss
        tried = await self._vote(caller, shown, record, record.care, keep=False)
        if not tried.ok or tried.noop:
            # Refused whatever the code is, or this very modal was taken before: spare the code.
            return tried if tried.noop else await self._refused(caller, shown, record, sent)
        return await self._with_code(caller, shown, record, sent)

    async def _with_code(
        self, caller: Caller, shown: Shown, record: RequestRecord, sent: Sent
    ) -> Decision | Amiss:
        try:
            care = await self.careful.given(
                record, caller.person.id, typed=sent.typed, code=sent.code
            )
        except RefusedError as error:
            return _amiss(CODE_BLOCK, error)
        return await self._vote(caller, shown, record, care)

    async def _refused(
        self, caller: Caller, shown: Shown, record: RequestRecord, sent: Sent
    ) -> Decision:
        """The refusal for real, so that it is counted and the card drawn anew."""
        care = await self.careful.given(record, caller.person.id, typed=sent.typed)
        return await self._vote(caller, shown, record, care)

    async def break_glass(
        self, caller: Caller, record: RequestRecord, reason: str
    ) -> Decision | Block:
        """The glass is to be broken: what was decided, or the modal that asks for more."""
        if asks_more(record.care):
            tried = await self._break(caller, record, reason or "-", frozenset(), keep=False)
            if tried.why in _IN_THE_MODAL:
                shown = self.cards.shown(record, Purpose.GLASS)
                token = self.opening.sealed_for(shown, Purpose.GLASS, caller.person.id)
                return glass_modal(card_of(record), token=token, reason=reason)
        return await self._break(caller, record, reason, frozenset())

    async def send_glass(self, caller: Caller, sent: Sent) -> Decision | Amiss:
        """The glass's modal was sent: what was decided, or what is amiss in a field.

        Raises:
            RefusedError: the modal is not ours, somebody else's, or out of date.
        """
        person = caller.person.id
        shown, record = await self.opening.current(sent.value, Purpose.GLASS, person=person)
        if amiss := _misnamed(record, sent):
            return amiss
        plan = shown.plan_hash
        tried = await self._break(caller, record, sent.reason, record.care, plan=plan, keep=False)
        if tried.noop:
            return tried
        code = sent.code if tried.ok else ""  # a code is spared where it could not help
        try:
            care = await self.careful.given(record, person, typed=sent.typed, code=code)
        except RefusedError as error:
            return _amiss(CODE_BLOCK, error)
        decision = await self._break(caller, record, sent.reason, care, plan=plan)
        return tried if not tried.ok and decision.why is Why.STEP_UP else decision

    async def _vote(
        self,
        caller: Caller,
        shown: Shown,
        record: RequestRecord,
        care: frozenset[Care],
        *,
        keep: bool = True,
    ) -> Decision:
        return await self.decider.cast(
            caller, Verdict.APPROVE, "", record=record, seen=seen_in(shown), care=care, keep=keep
        )

    async def _break(
        self,
        caller: Caller,
        record: RequestRecord,
        reason: str,
        care: frozenset[Care],
        *,
        plan: PlanHash | None = None,
        keep: bool = True,
    ) -> Decision:
        return await self.decider.break_glass(
            caller, record.id, reason, care=care, seen_plan=plan, keep=keep
        )


def field_of(record: RequestRecord) -> str:
    """The field at which a problem with the whole modal is shown. Pure."""
    return first_field(card_of(record))


def _misnamed(record: RequestRecord, sent: Sent) -> Amiss | None:
    if Care.NAMED not in record.care or is_name(record, sent.typed):
        return None
    return Amiss(block=NAME_BLOCK, refusal=misnamed(record))


def _amiss(block: str, error: RefusedError) -> Amiss:
    return Amiss(
        block=block,
        refusal=Refusal(why=error.why, problem=error.problem, next_step=error.next_step),
    )
