"""What people ask of Twokey, whatever brought it here: parsed values in, a message out.

Listeners translate Slack's payloads into these calls. Everything that is answered comes
from stored state, so a restart, another replica or an old card makes no difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from approvals.inbox import Inbox
from approvals.lineage import Origin
from approvals.readings import Readings
from approvals.records import RequestRecord
from approvals.second_factors import SecondFactors
from approvals.service import Approvals, Ask, Decision
from approvals.tokens import Tokens
from approvals.words import (
    Door,
    Flag,
    Person,
    RefusedError,
    RequestId,
    State,
    Verdict,
    Why,
)
from bot.approving import Approving
from bot.blocks import Block, Message
from bot.buttons import Purpose, Seal
from bot.cards import Cards, card_of, plan_as_json
from bot.care import Careful, Opened
from bot.command_text import Asked, parse
from bot.deciding import Caller, Decider
from bot.incidents import Incidents
from bot.inventory import Inventory
from bot.metrics import Metrics
from bot.opening import Opening, seen_in
from bot.patience import Later, soon_or_later
from bot.pausing import Pausing
from bot.people import People
from bot.planning import Planner, attributes, params_as_json
from bot.stopping import Stopping
from bot.suggesting import Suggester
from bot.views.answer import answer_message, looking_message, planning_message
from bot.views.decision import asked_message, decision_message
from bot.views.deny import deny_modal
from bot.views.details import details_modal
from bot.voters import electorate
from bot.windows import Windows
from jobs.operation import Answer, Operation
from store.connect import Store

# Some may deny also what was agreed to already; who they are, the decision says.
_DENIABLE: Final = frozenset({State.PENDING, State.APPROVED})
_UNFIT: Final[Mapping[Flag, str]] = {
    Flag.DEACTIVATED: "is deactivated",
    Flag.BOT: "belongs to a bot",
    Flag.GUEST: "is a guest's",
    Flag.EXTERNAL: "is of another workspace",
    Flag.UNCONFIRMED: "has no confirmed e-mail address",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A command. `delivery` is the same when Slack delivers the same command again."""

    team: str
    user: str
    channel: str
    text: str
    delivery: str
    trigger: str = ""  # with which a modal may be opened, for a moment
    later: Later | None = None  # tells what takes longer than Slack waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """A button, or a modal that a button opened. `value` is the sealed token.

    `place`: the message (`CHANNEL/TS`) in which the button stood.
    """

    team: str
    user: str
    value: str
    delivery: str
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Everything that the listeners call."""

    approvals: Approvals
    people: People
    planner: Planner
    inventory: Inventory
    operations: Mapping[str, Operation]
    cards: Cards
    seal: Seal
    store: Store
    metrics: Metrics
    clock: Callable[[], datetime]
    tokens: Tokens
    windows: Windows
    inbox: Inbox
    factors: SecondFactors
    suggester: Suggester
    incidents: Incidents

    async def person(self, team: str, user: str) -> Person:
        """Who this is, if they may ask anything at all.

        Raises:
            RefusedError: the account is unfit, or nobody can be identified at the moment.
        """
        found = await self.people.by_slack(team, user)
        for flag, what in _UNFIT.items():
            if flag in found.flags:
                raise RefusedError(
                    f"Your account {what}, so it may not use Twokey.",
                    next_step="Ask a colleague with a full account of this workspace.",
                    why=Why.IDENTITY,
                )
        return found

    async def operate(self, typed: Typed, name: str, rest: list[str]) -> Message:
        """Answer a query, or store the request for a change.

        Raises:
            ExplainedError: it was not understood, may not be asked, or cannot be planned.
        """
        asked = parse(name, rest, self.operations)
        if asked.database:
            self.inventory.database(asked.database)
        person = await self.person(typed.team, typed.user)
        if asked.operation.is_query(asked.params):
            return await self.answered(asked, typed.later)
        caller = Caller(person=person, door=Door.SLACK, delivery=typed.delivery)
        patience = asked.operation.patience
        if patience is None or typed.later is None:
            return await self.stored(asked, caller, typed.channel)
        planner = replace(self.planner, limit=max(patience, self.planner.limit))
        storing = replace(self, planner=planner).stored(asked, caller, typed.channel)
        meanwhile = planning_message(asked.database or asked.operation.name)
        return await soon_or_later(storing, typed.later, meanwhile=meanwhile)

    async def stored(self, asked: Asked, caller: Caller, channel: str) -> Message:
        """Plan a change and store its request; what its asker is told. Raises as `operate`."""
        decision = await self.ask(asked, caller, channel=channel)
        record = decision.request
        return asked_message(
            ok=decision.ok, problem=decision.problem, next_step=decision.next_step,
            card=card_of(record) if record else None, channel=record.channel if record else "",
        )  # fmt: skip

    async def answered(
        self, asked: Asked, later: Later | None = None, *, anew: bool = False
    ) -> Message:
        """What a query finds, or a word that it is being looked at, and the answer through `later`.

        Raises:
            ExplainedError: it cannot be answered.
        """
        if later is None or not (anew or asked.operation.patience):
            return self.drawn(asked, await self.planner.answer(asked))
        flight = await self.planner.flight(asked, anew=anew)
        what = asked.database or asked.operation.name
        return await soon_or_later(
            self._late(asked, flight), later, meanwhile=looking_message(what)
        )

    async def _late(self, asked: Asked, flight: asyncio.Task[Answer]) -> Message:
        return self.drawn(asked, await asyncio.shield(flight))

    def drawn(self, asked: Asked, answer: Answer) -> Message:
        """A query's answer, with what helps and, where it is remembered, its age."""
        return answer_message(answer, below=self.suggester.below(answer, asked))

    async def approve(self, pressed: Pressed) -> Message | Block:
        """Cast an approval for what the card showed, or ask for more in a modal.

        Raises:
            ExplainedError: the button is not ours, or nobody can be identified.
        """
        caller = await self.caller(pressed)
        answer = await self.approving.press(caller, pressed.value, place=pressed.place)
        return told(answer) if isinstance(answer, Decision) else answer

    async def deny(self, pressed: Pressed, reason: str) -> Message:
        """Cast a denial, out of the modal that asked for its reason.

        Raises:
            ExplainedError: the modal is not ours, or nobody can be identified.
        """
        caller = await self.caller(pressed)
        shown, record = await self.opening.current(
            pressed.value, Purpose.REASON, person=caller.person.id
        )
        return told(
            await self.decider.cast(
                caller, Verdict.DENY, reason, record=record, seen=seen_in(shown)
            )
        )

    async def deny_form(self, pressed: Pressed) -> Block:
        """The modal that asks for a deny's reason, for who pressed the button.

        Raises:
            ExplainedError: the card is out of date or the request is closed.
        """
        shown, record = await self.opening.current(pressed.value, Purpose.DENY, place=pressed.place)
        person = await self.person(pressed.team, pressed.user)
        if record.state not in _DENIABLE:
            await self.redraw(record)
            raise RefusedError(
                f"Request {record.id} is {record.state} already.",
                next_step="Its card is being drawn anew.",
                why=Why.CLOSED,
            )
        token = self.opening.sealed_for(shown, Purpose.REASON, person.id)
        return deny_modal(card_of(record), token=token)

    async def details(self, pressed: Pressed, page: int | None = None) -> tuple[Block, Opened]:
        """The whole plan, also from an old card; `page` of it out of the modal itself.

        Raises:
            ExplainedError: the button is not ours, or this person may not read it.
        """
        person = await self.person(pressed.team, pressed.user)
        if page is None:
            shown, record = await self.opening.of_any_age(
                pressed.value, Purpose.DETAILS, place=pressed.place
            )
        else:
            shown, record = await self.opening.of_any_age(
                pressed.value, Purpose.PAGES, person=person.id
            )
        opened = Opened(record=record, person=person.id, page=page or 0)
        token = self.opening.sealed_for(shown, Purpose.PAGES, person.id)
        reading = await self.careful.reading(record, person.id, opened.page)
        view = details_modal(card_of(record), token=token, page=opened.page, reading=reading)
        return view, opened

    async def cancel(self, pressed: Pressed) -> Message:
        """Cancel a request, or stop its run.

        Raises:
            ExplainedError: the button is not ours, or nobody can be identified.
        """
        shown, _ = await self.opening.of_any_age(pressed.value, Purpose.CANCEL, place=pressed.place)
        return await self.cancel_request(pressed, shown.request_id)

    async def cancel_request(self, pressed: Pressed, request_id: RequestId) -> Message:
        """Cancel a request, or stop its run.

        Raises:
            ExplainedError: there is no such request, or nobody can be identified.
        """
        caller = await self.caller(pressed)
        record = await self.cards.record(request_id)
        if record.state is not State.EXECUTING:
            return told(await self.decider.cancel(caller, request_id))
        done = await self.stopping.stop(caller, record)
        next_step = f"{done.next_step}; the thread says what became of it."
        return decision_message(ok=True, problem=done.problem, next_step=next_step)

    async def pause(self, pressed: Pressed, *, go_on: bool = False) -> Message:
        """Have a run wait, or go on again.

        Raises:
            ExplainedError: the button is not ours, or this person may not.
        """
        purpose = Purpose.RESUME if go_on else Purpose.PAUSE
        shown, _ = await self.opening.of_any_age(pressed.value, purpose, place=pressed.place)
        return await self.pause_request(pressed, shown.request_id, go_on=go_on)

    async def pause_request(
        self, pressed: Pressed, request_id: RequestId, *, go_on: bool = False
    ) -> Message:
        """Have a request's run wait, or go on again.

        Raises:
            ExplainedError: there is no such request, or this person may not.
        """
        caller = await self.caller(pressed)
        record = await self.cards.record(request_id)
        work = self.pausing.resume if go_on else self.pausing.pause
        paused = await work(caller, record)
        return decision_message(ok=True, problem=paused.problem, next_step=paused.next_step)

    async def channel_of(self, value: str) -> str:
        """The channel where the card of this button stands."""
        shown = self.seal.open(value, now=None)
        return (await self.cards.record(shown.request_id)).channel

    async def decide(self, action: str, deciding: Awaitable[Decision]) -> Message:
        """The answer to a decision on its way, counted."""
        return told(await self.decider.counted(action, Door.SLACK, None, deciding))

    async def redraw(self, record: RequestRecord) -> None:
        """Have a request's card drawn from stored state once more."""
        await self.decider.redraw(record)

    async def caller(self, pressed: Pressed | Typed) -> Caller:
        """Who this is at Slack's door; whether they may decide, the decision says.

        Raises:
            RefusedError: nobody has this account, or nobody can be identified.
        """
        person = await self.people.by_slack(pressed.team, pressed.user)
        return Caller(person=person, door=Door.SLACK, delivery=pressed.delivery)

    @property
    def opening(self) -> Opening:
        """What opens buttons and modals."""
        return Opening(
            seal=self.seal, cards=self.cards, store=self.store, clock=self.clock,
            redraw=self.redraw,
        )  # fmt: skip

    @property
    def careful(self) -> Careful:
        """What checks the care that rules demand, for this door and for the others."""
        return Careful(readings=Readings(store=self.store), factors=self.factors, clock=self.clock)

    @property
    def approving(self) -> Approving:
        """What takes approvals, and breaks the glass."""
        return Approving(
            opening=self.opening, decider=self.decider, careful=self.careful, cards=self.cards
        )

    @property
    def decider(self) -> Decider:
        """What decides, for this door and for the others."""
        return Decider(
            approvals=self.approvals,
            people=self.people,
            cards=self.cards,
            store=self.store,
            metrics=self.metrics,
            clock=self.clock,
        )

    @property
    def stopping(self) -> Stopping:
        """What has runs stop."""
        return Stopping(decider=self.decider, operations=self.operations)

    @property
    def pausing(self) -> Pausing:
        """What has runs wait and go on."""
        return Pausing(decider=self.decider, operations=self.operations)

    async def ask(
        self, asked: Asked, caller: Caller, *, channel: str = "", origin: Origin | None = None
    ) -> Decision:
        """Store the request for a change. `channel`: where one without a database is shown.

        Raises:
            ExplainedError: it cannot be planned.
        """
        database = self.inventory.databases.get(asked.database)
        plan = await self.planner.plan(asked)
        derived = attributes(asked, plan, database, door=caller.door)
        asking = self.approvals.ask(
            Ask(
                operation=asked.operation.name,
                database=asked.database,
                params=params_as_json(asked.params),
                plan=plan_as_json(plan),
                attributes=derived,
                electorate=await self._electorate(asked, derived),
                by=caller.person,
                door=caller.door,
                reason=asked.reason,
                channel=database.channel if database else channel,
                delivery=caller.delivery,
                origin=origin,
            )
        )
        return await self.decider.counted("ask", caller.door, None, asking)

    async def _electorate(
        self, asked: Asked, derived: Mapping[str, str | int]
    ) -> Sequence[Person] | None:
        """Everybody who could vote, where the rule wants to know before it is asked."""
        named = {"operation": asked.operation.name, "database": asked.database}
        rule = self.approvals.policy.values.rule_for({**derived, **named})
        wanted = rule is not None and rule.check_satisfiable
        return await electorate(self.people, rule) if rule and wanted else None


def told(decision: Decision) -> Message:
    """What somebody is told of a decision."""
    return decision_message(ok=decision.ok, problem=decision.problem, next_step=decision.next_step)
