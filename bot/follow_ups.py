"""What people do with a request besides deciding about it.

Withdraw a vote, ask again, retry, plan again, undo. Each begins by looking whether the
card that was pressed still shows what stands; one that does not is drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from approvals.calls import Decision
from approvals.lineage import Origin, OriginKind
from approvals.plans import call_of
from approvals.records import RequestRecord
from approvals.words import BadInputError, RefusedError, State, Why
from bot.blocks import Block, Message
from bot.cards import card_of, plan_as_json
from bot.choices import Choice, Todo, seen_of
from bot.command_text import Asked
from bot.desk import Desk, Pressed
from bot.fields import DATABASE
from bot.form_desk import FormDesk
from bot.menus import Menus, undo_of, undo_until, was_sent_back
from bot.planning import attributes
from bot.views.decision import asked_message, decision_message
from bot.views.menu import undo_window
from jobs.operation import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUps:
    """Does what a card's further buttons say."""

    desk: Desk

    @property
    def menus(self) -> Menus:
        """What was sealed when the card was drawn."""
        return self.desk.cards.menus

    async def withdraw(self, pressed: Pressed) -> Message:
        """Take back the vote of who pressed.

        Raises:
            ExplainedError: the button is not ours or out of date, or nobody can be identified.
        """
        record = await self._opened(pressed, Todo.WITHDRAW)
        decider = self.desk.decider
        return _told(await decider.withdraw(await self.desk.caller(pressed), record))

    async def again(self, pressed: Pressed) -> Block:
        """The form of an ended request's operation, with what it had asked for.

        Raises:
            ExplainedError: the button is not ours or out of date, or the operation is gone.
        """
        record = await self._opened(pressed, Todo.AGAIN)
        await self.desk.person(pressed.team, pressed.user)
        return FormDesk(desk=self.desk).form(
            record.operation,
            values=_params(record),
            reason=record.reason,
            again=record.id,
            channel=record.channel,
            note=f"This repeats request #{record.id}. It is planned anew and takes new votes.",
        )

    async def retry(self, pressed: Pressed) -> Message:
        """Ask for a failed request once more, with a fresh plan under today's policy.

        Raises:
            ExplainedError: the button is not ours or out of date, or it cannot be planned.
        """
        record = await self._opened(pressed, Todo.RETRY)
        asked = self._asked(record.operation, _params(record), record.reason)
        return await self._ask(pressed, asked, record, OriginKind.AGAIN)

    async def plan_again(self, pressed: Pressed) -> Message:
        """Plan a request that was turned back anew. Only who asked for it may.

        Raises:
            ExplainedError: the button is not ours or out of date, the request is somebody
                else's, or it cannot be planned.
        """
        record = await self._opened(pressed, Todo.PLAN_AGAIN)
        caller = await self.desk.caller(pressed)
        if caller.person.id not in {record.asked_by, *record.detail.requesters}:
            raise RefusedError(
                f"Request {record.id} was asked for by somebody else.",
                next_step="Only who asked for it can have it planned again.",
                why=Why.NOT_REQUESTER,
            )
        if not was_sent_back(record):
            raise RefusedError(
                f"Request {record.id} was not turned back.",
                next_step="Its card says what it waits for.",
                why=Why.CLOSED,
            )
        asked = self._asked(record.operation, _params(record), record.reason)
        plan = await self.desk.planner.plan(asked)
        changing = self.desk.approvals.change_plan(
            record.id,
            by=caller.person,
            plan=plan_as_json(plan),
            attributes=attributes(
                asked,
                plan,
                self.desk.inventory.databases.get(asked.database),
                door=caller.door,
            ),
            delivery=caller.delivery,
        )
        decision = await self.desk.decider.counted("change_plan", caller.door, record.id, changing)
        return _planned(decision, record)

    async def undo_form(self, pressed: Pressed) -> Block:
        """Asks why a request is to be undone.

        Raises:
            ExplainedError: the button is not ours or out of date, or there is nothing to undo.
        """
        record = await self._opened(pressed, Todo.UNDO)
        await self.desk.person(pressed.team, pressed.user)
        call = self._undo_call(record)
        params = tuple((name, str(value)) for name, value in call.params.items())
        return undo_window(
            record.id,
            title=card_of(record).plan.title,
            what=f"/db {call.operation}",
            params=params,
            token=pressed.value,
        )

    async def undo(self, pressed: Pressed, reason: str) -> Message:
        """Ask for what undoes a request: what that is follows from what was done.

        Raises:
            ExplainedError: as `undo_form`, or the undo cannot be planned.
        """
        record = await self._opened(pressed, Todo.UNDO)
        call = self._undo_call(record)
        asked = self._asked(call.operation, call.params, reason)
        return await self._ask(pressed, asked, record, OriginKind.UNDO)

    async def _opened(self, pressed: Pressed, todo: Todo) -> RequestRecord:
        """The request of a button of ours, if the card still shows what stands.

        Raises:
            RefusedError: it does not, the button was made for something else, or by others.
        """
        choice: Choice = self.menus.choices.open(pressed.value, now=self.desk.clock())
        if choice.todo is not todo:
            raise RefusedError(
                "What was sent belongs to another button.",
                next_step="Press the button on the request's own card.",
                why=Why.SIGNATURE,
            )
        record = await self.desk.cards.record(choice.request_id)
        if choice.seen != seen_of(record):
            await self.desk.redraw(record)
            raise RefusedError(
                f"The card of request {record.id} has changed since it was drawn.",
                next_step="It is being drawn anew: read it again, then decide.",
                why=Why.STALE_PLAN,
            )
        return record

    def _undo_call(self, record: RequestRecord) -> Any:
        call, until = (
            undo_of(record, self.desk.operations),
            undo_until(record, self.desk.operations),
        )
        if call is None or until is None or self.desk.clock() >= until:
            raise RefusedError(
                f"Request {record.id} cannot be undone any more.",
                next_step="Its card says what it did; ask for what is to be done about it.",
                why=Why.EXPIRED,
            )
        return call

    def _asked(self, name: str, params: Mapping[str, Any], reason: str) -> Asked:
        operation = FormDesk(desk=self.desk).operation(name)
        asked = Asked(
            operation=operation,
            params=_validated(operation, params),
            database="",
            reason=reason,
        )
        database = str(getattr(asked.params, DATABASE, "") or "")
        if database:
            self.desk.inventory.database(database)
        return Asked(operation=operation, params=asked.params, database=database, reason=reason)

    async def _ask(
        self, pressed: Pressed, asked: Asked, former: RequestRecord, kind: OriginKind
    ) -> Message:
        await self.desk.person(pressed.team, pressed.user)
        caller = await self.desk.caller(pressed)
        origin = Origin(request_id=former.id, kind=kind)
        decision = await self.desk.ask(asked, caller, channel=former.channel, origin=origin)
        record = decision.request
        return asked_message(
            ok=decision.ok,
            problem=decision.problem,
            next_step=decision.next_step,
            card=card_of(record) if record else None,
            channel=record.channel if record else "",
        )


def _params(record: RequestRecord) -> Mapping[str, Any]:
    """The parameters as people agreed to them."""
    params: Mapping[str, Any] = call_of(record.plan).get("params") or {}
    return params


def _validated(operation: Operation, params: Mapping[str, Any]) -> Any:
    try:
        return operation.params.model_validate(params)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadInputError(
            f"What was asked for then is no longer understood: {first['msg']}.",
            next_step=f"Ask anew with /db form {operation.name}.",
        ) from None


def _told(decision: Decision) -> Message:
    return decision_message(ok=decision.ok, problem=decision.problem, next_step=decision.next_step)


def _planned(decision: Decision, before: RequestRecord) -> Message:
    if decision.noop and decision.request and decision.request.plan_hash == before.plan_hash:
        return decision_message(
            ok=True,
            problem=f"The plan of request {before.id} is the same as before.",
            next_step="It takes new votes as it is.",
        )
    if decision.ok and before.state is State.PENDING:
        return decision_message(
            ok=True,
            problem=f"Request {before.id} is planned anew.",
            next_step=decision.next_step,
        )
    return _told(decision)
