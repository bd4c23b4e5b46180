"""What people ask of Twokey, whatever brought it here: parsed values in, a message out.

Listeners translate Slack's payloads into these calls. Everything that is answered comes
from stored state, so a restart, another replica or an old card makes no difference.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from approvals.lineage import Origin
from approvals.policy_file import LoadedPolicy
from approvals.records import RequestRecord
from approvals.service import Approvals, Ask, Decision, Seen
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
from bot.blocks import Block, Message
from bot.buttons import Seal, Shown
from bot.cards import Cards, card_of, plan_as_json
from bot.command_text import Asked, parse
from bot.deciding import Caller, Decider
from bot.inventory import Inventory
from bot.metrics import Metrics
from bot.people import People
from bot.planning import Planner, attributes, params_as_json
from bot.views.answer import answer_message
from bot.views.card import card_hash
from bot.views.decision import asked_message, decision_message
from bot.views.deny import deny_modal
from bot.views.details import details_modal
from bot.windows import Windows
from jobs.operation import Kind, Operation
from store.connect import Store

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """A button, or a modal that a button opened. `value` is the sealed token."""

    team: str
    user: str
    value: str
    delivery: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Everything that the listeners call."""

    approvals: Approvals
    people: People
    planner: Planner
    inventory: Inventory
    operations: Mapping[str, Operation]
    policy: LoadedPolicy
    cards: Cards
    seal: Seal
    store: Store
    metrics: Metrics
    clock: Callable[[], datetime]
    tokens: Tokens
    windows: Windows

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
        if asked.operation.kind is Kind.QUERY:
            return answer_message(await self.planner.answer(asked))
        caller = Caller(person=person, door=Door.SLACK, delivery=typed.delivery)
        decision = await self.ask(asked, caller, channel=typed.channel)
        record = decision.request
        return asked_message(
            ok=decision.ok,
            problem=decision.problem,
            next_step=decision.next_step,
            card=card_of(record) if record else None,
            channel=record.channel if record else "",
        )

    async def vote(self, pressed: Pressed, verdict: Verdict, reason: str) -> Message:
        """Cast a vote for what the card showed.

        Raises:
            ExplainedError: the button is not ours, or nobody can be identified.
        """
        shown, record = await self._open(pressed)
        caller = await self.caller(pressed)
        seen = Seen(plan_hash=shown.plan_hash, policy_hash=shown.policy_hash, step=shown.step)
        return _told(await self.decider.cast(caller, verdict, reason, record=record, seen=seen))

    async def deny_form(self, pressed: Pressed) -> Block:
        """The modal that asks for a deny's reason; it carries the button's token.

        Raises:
            ExplainedError: the card is out of date or the request is closed.
        """
        _, record = await self._open(pressed)
        await self.person(pressed.team, pressed.user)
        if record.state is not State.PENDING:
            await self.redraw(record)
            raise RefusedError(
                f"Request {record.id} is {record.state} already.",
                next_step="Its card is being drawn anew.",
                why=Why.CLOSED,
            )
        return deny_modal(card_of(record), token=pressed.value)

    async def details(self, pressed: Pressed, page: int = 0) -> Block:
        """The whole plan, also from an old card.

        Raises:
            ExplainedError: the button is not ours, or this person may not read it.
        """
        shown = self.seal.open(pressed.value, now=None)
        await self.person(pressed.team, pressed.user)
        record = await self.cards.record(shown.request_id)
        return details_modal(card_of(record), token=pressed.value, page=page)

    async def cancel(self, pressed: Pressed) -> Message:
        """Cancel a request, or stop its run.

        Raises:
            ExplainedError: the button is not ours, or nobody can be identified.
        """
        shown = self.seal.open(pressed.value, now=None)
        return await self.cancel_request(pressed, shown.request_id)

    async def cancel_request(self, pressed: Pressed, request_id: RequestId) -> Message:
        """Cancel a request, or stop its run.

        Raises:
            ExplainedError: there is no such request, or nobody can be identified.
        """
        caller = await self.caller(pressed)
        record = await self.cards.record(request_id)
        if record.state is not State.EXECUTING:
            return _told(await self.decider.cancel(caller, request_id))
        stopping = await self.decider.stop_run(caller, record)
        return decision_message(
            ok=True,
            problem=f"The run of request {record.id} is told to stop."
            if stopping
            else f"The run of request {record.id} has ended, or is being stopped already.",
            next_step="It stops at its next safe point; the thread says what became of it.",
        )

    async def channel_of(self, value: str) -> str:
        """The channel where the card of this button stands."""
        shown = self.seal.open(value, now=None)
        return (await self.cards.record(shown.request_id)).channel

    async def decide(self, action: str, deciding: Awaitable[Decision]) -> Message:
        """The answer to a decision on its way, counted."""
        return _told(await self.decider.counted(action, Door.SLACK, None, deciding))

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

    async def ask(
        self, asked: Asked, caller: Caller, *, channel: str = "", origin: Origin | None = None
    ) -> Decision:
        """Store the request for a change. `channel`: where one without a database is shown.

        Raises:
            ExplainedError: it cannot be planned.
        """
        database = self.inventory.databases.get(asked.database)
        plan = await self.planner.plan(asked)
        asking = self.approvals.ask(
            Ask(
                operation=asked.operation.name,
                database=asked.database,
                params=params_as_json(asked.params),
                plan=plan_as_json(plan),
                attributes=attributes(asked, plan, database),
                by=caller.person,
                door=caller.door,
                reason=asked.reason,
                channel=database.channel if database else channel,
                delivery=caller.delivery,
                origin=origin,
            )
        )
        return await self.decider.counted("ask", caller.door, None, asking)

    async def _open(self, pressed: Pressed) -> tuple[Shown, RequestRecord]:
        """What the button's card showed, if that still stands, and its request.

        Raises:
            RefusedError: it does not, or the button is not ours. A card that is out of
                date is drawn anew.
        """
        shown = self.seal.open(pressed.value, now=None)
        record = await self.cards.record(shown.request_id)
        try:
            self.seal.open(pressed.value, now=self.clock())
        except RefusedError:
            await self.redraw(record)
            raise
        if shown.card_hash != card_hash(card_of(record)):
            await self.redraw(record)
            raise RefusedError(
                f"The card of request {record.id} has changed since it was drawn.",
                next_step="It is being drawn anew: read it again, then decide.",
                why=Why.STALE_PLAN,
            )
        return shown, record


def _told(decision: Decision) -> Message:
    return decision_message(ok=decision.ok, problem=decision.problem, next_step=decision.next_step)
