"""Forms at work: opened for somebody, sent, planned, stored, and what came of it shown.

The modal is the answer: nothing here needs a channel. A plan may take longer than Slack
waits for an ack; then the modal says so, and is replaced when the plan is there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from approvals.lineage import Origin, OriginKind
from approvals.words import BadInputError, Door, ExplainedError, RequestId
from bot.blocks import Block, Message
from bot.cards import card_of
from bot.command_text import Asked, MissingInputError, unknown
from bot.deciding import Caller
from bot.desk import Desk, Typed
from bot.elements import DatabaseName, suggestions
from bot.fields import DATABASE
from bot.forms import Entered, Meta, entered, form_view
from bot.listeners.guard import failure
from bot.views.decision import asked_message
from bot.views.errors import problem_message
from bot.views.windows import named, picker_window, result_window
from jobs.operation import Kind, Operation
from postgres.errors import PostgresError

log: Final = logging.getLogger("twokey.forms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A form that somebody sent. A view and its hash are sent once, however often they come."""

    team: str
    user: str
    view_id: str
    view_hash: str
    meta: Meta
    state: Mapping[str, Any]

    @property
    def delivery(self) -> str:
        """The same when the same form comes again."""
        return f"slack:{self.view_id}:{self.view_hash}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """What came of a form: as a modal, and as a message where there is no modal any more."""

    view: Block
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class FormDesk:
    """Opens forms and carries out what was sent."""

    desk: Desk

    @property
    def plan_limit(self) -> timedelta:
        """How long a plan may take: longer than Slack waits, as the modal says so."""
        return self.desk.planner.patience

    @property
    def databases(self) -> Sequence[DatabaseName]:
        """What can be chosen as a database."""
        return [
            DatabaseName(name=one.name, environment=one.environment)
            for one in self.desk.inventory.databases.values()
        ]

    def operation(self, name: str) -> Operation:
        """The operation of this name.

        Raises:
            BadInputError: there is none.
        """
        found = self.desk.operations.get(name.lower())
        if found is None:
            raise unknown(name, self.desk.operations)
        return found

    def form(
        self,
        name: str,
        *,
        values: Mapping[str, Any] | None = None,
        reason: str = "",
        again: int = 0,
        channel: str = "",
        note: str = "",
    ) -> Block:
        """The form of an operation.

        Raises:
            BadInputError: there is no such operation.
        """
        operation = self.operation(name)
        meta = Meta(operation=operation.name, again=again, channel=channel)
        return form_view(
            operation, self.databases, meta=meta, values=values, reason=reason, note=note
        )

    def picker(self, channel: str = "") -> Block:
        """Asks which operation."""
        kinds: dict[Kind, list[tuple[str, str]]] = {kind: [] for kind in Kind}
        for name, operation in self.desk.operations.items():
            kinds[operation.kind].append((name, operation.summary))
        return picker_window(
            named(kinds[Kind.CHANGE]), named(kinds[Kind.QUERY]), metadata=json.dumps(channel)
        )

    def suggestions(self, typed: str) -> list[Block]:
        """Databases for what was typed into a search."""
        return suggestions(self.databases, typed)

    def entered(self, sent: Sent) -> Entered:
        """What was entered, checked.

        Raises:
            BadInputError: the operation is gone.
        """
        return entered(self.operation(sent.meta.operation), sent.state)

    async def carry_out(self, sent: Sent, given: Entered) -> Came:
        """Do what a form without errors asks for. Whatever happens, there is something to show."""
        operation = self.operation(sent.meta.operation)
        try:
            return await self._carried_out(operation, sent, given)
        except (ExplainedError, PostgresError) as error:
            return self.again(operation, sent, given, error.problem, error.next_step)
        except Exception as error:  # noqa: BLE001 - the edge: everything else is a bug
            message = failure("form", error, metrics=self.desk.metrics, changes=True)
            return Came(view=result_window(f"/db {operation.name}", message), message=message)

    def again(
        self, operation: Operation, sent: Sent, given: Entered, problem: str, next_step: str
    ) -> Came:
        """The form once more, with what was entered and why it did not do."""
        view = form_view(
            operation, self.databases, meta=sent.meta, values=given.values, reason=given.reason,
            problem=f"{problem}\n→ {next_step}" if next_step else problem,
        )  # fmt: skip
        return Came(view=view, message=problem_message(problem, next_step))

    async def _carried_out(self, operation: Operation, sent: Sent, given: Entered) -> Came:
        if given.params is None:
            raise TypeError("a form with errors is not carried out")
        person = await self.desk.person(sent.team, sent.user)
        asked = Asked(
            operation=operation,
            params=given.params,
            database=str(getattr(given.params, DATABASE, "") or ""),
            reason=given.reason,
        )
        if asked.database:
            self.desk.inventory.database(asked.database)
        limit = max(self.plan_limit, operation.patience or timedelta(0))
        desk = replace(self.desk, planner=replace(self.desk.planner, limit=limit))
        if operation.is_query(given.params):
            message = await desk.answered(asked)
            return Came(view=result_window(f"/db {operation.name}", message), message=message)
        caller = Caller(person=person, door=Door.SLACK, delivery=sent.delivery)
        decision = await desk.ask(
            asked, caller, channel=sent.meta.channel, origin=origin_of(sent.meta)
        )
        record = decision.request
        if record is None:
            return self.again(operation, sent, given, decision.problem, decision.next_step)
        message = asked_message(
            ok=decision.ok, problem=decision.problem, next_step=decision.next_step,
            card=card_of(record), channel=record.channel,
        )  # fmt: skip
        return Came(view=result_window(f"Request {record.id}", message), message=message)


def origin_of(meta: Meta) -> Origin | None:
    """The request that a form repeats, if it repeats one."""
    if not meta.again:
        return None
    return Origin(request_id=RequestId(meta.again), kind=OriginKind.AGAIN)


async def form_word(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    """`/db form`, `/db form backup`: a form instead of words.

    Raises:
        ExplainedError: there is no such operation, or no window can be opened here.
    """
    forms = FormDesk(desk=desk)
    view = forms.form(rest[0], channel=typed.channel) if rest else forms.picker(typed.channel)
    if not typed.trigger:
        raise BadInputError("There is no window to open here.", next_step="Type /db form in Slack.")
    await desk.windows.open(typed.trigger, view)
    return Message(text="", blocks=())


async def form_instead(desk: Desk, typed: Typed, missing: MissingInputError) -> Message:
    """What is missing, and a form for it with what was typed.

    Raises:
        ExplainedError: the person may not ask, or no window can be opened here.
    """
    await desk.person(typed.team, typed.user)
    if not typed.trigger:
        raise missing
    forms = FormDesk(desk=desk)
    view = forms.form(
        missing.operation, values=missing.values, reason=missing.reason, channel=typed.channel
    )
    try:
        await desk.windows.open(typed.trigger, view)
    except ExplainedError as error:
        log.info("No form was opened: %s", error.problem)
        raise missing from error
    return problem_message(missing.problem, f"A form has opened for it. {missing.next_step}")
