"""What people ask of Twokey, whatever brought it here: parsed values in, a message out.

Listeners translate Slack's payloads into these calls. Everything that is answered comes
from stored state, so a restart, another replica or an old card makes no difference.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from approvals import audit
from approvals.policy_file import LoadedPolicy
from approvals.records import RequestRecord
from approvals.service import Approvals, Ask, Ballot, Decision, Seen
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
from bot.inventory import Inventory
from bot.metrics import Metrics
from bot.people import People
from bot.planning import Planner, attributes, params_as_json
from bot.views.answer import answer_message
from bot.views.card import card_hash
from bot.views.decision import asked_message, decision_message
from bot.views.deny import deny_modal
from bot.views.details import details_modal
from jobs.operation import Kind, Operation
from jobs.runs import request_cancel
from store import outbox
from store.connect import Store

# The card that was pressed shows something that no longer stands: draw it again.
_OUT_OF_DATE: Final = frozenset(
    {Why.STALE_PLAN, Why.STALE_STEP, Why.CLOSED, Why.EXPIRED, Why.DUPLICATE}
)
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
        decision = await self._ask(asked, person, typed)
        self._count("ask", decision)
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
        shown = await self._open(pressed)
        person = await self.people.by_slack(pressed.team, pressed.user)
        decision = await self.approvals.vote(
            Ballot(
                request_id=shown.request_id,
                by=person,
                verdict=verdict,
                reason=reason,
                door=Door.SLACK,
                seen=Seen(
                    plan_hash=shown.plan_hash, policy_hash=shown.policy_hash, step=shown.step
                ),
                delivery=pressed.delivery,
            )
        )
        self._count(str(verdict), decision)
        await self._redraw_if_stale(decision, shown.request_id)
        return _told(decision)

    async def deny_form(self, pressed: Pressed) -> Block:
        """The modal that asks for a deny's reason; it carries the button's token.

        Raises:
            ExplainedError: the card is out of date or the request is closed.
        """
        shown = await self._open(pressed)
        await self.person(pressed.team, pressed.user)
        record = await self.cards.record(shown.request_id)
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
        person = await self.people.by_slack(pressed.team, pressed.user)
        record = await self.cards.record(request_id)
        if record.state is State.EXECUTING:
            return await self._stop_run(record, person)
        decision = await self.approvals.cancel(
            request_id, by=person, door=Door.SLACK, delivery=pressed.delivery
        )
        self._count("cancel", decision)
        await self._redraw_if_stale(decision, request_id)
        return _told(decision)

    async def _stop_run(self, record: RequestRecord, person: Person) -> Message:
        """Have a running change stopped by who asked for it, or by who may agree to it."""
        groups = {group for gate in record.gates for group in gate.groups}
        users = {user for gate in record.gates for user in gate.users}
        mine = person.id in {record.asked_by, *record.authors, *users}
        if person.flags or not (mine or person.groups & groups) or record.run_id is None:
            raise RefusedError(
                f"Request {record.id} runs, and is not yours to stop.",
                next_step="Ask who asked for it, or somebody who may approve it.",
                why=Why.NOT_REQUESTER,
            )
        async with self.store.begin() as conn:
            asked = await request_cancel(conn, record.run_id, person.id)
            if asked:
                await audit.append(
                    conn, chain=record.database, at=self.clock(), actor=person.id,
                    action="stop_run", request_id=record.id, detail={"run_id": record.run_id},
                )  # fmt: skip
        self.metrics.decided("stop_run", "ok" if asked else "noop")
        return decision_message(
            ok=True,
            problem=f"The run of request {record.id} is told to stop."
            if asked
            else f"The run of request {record.id} has ended, or is being stopped already.",
            next_step="It stops at its next safe point; the thread says what became of it.",
        )

    async def channel_of(self, value: str) -> str:
        """The channel where the card of this button stands."""
        shown = self.seal.open(value, now=None)
        return (await self.cards.record(shown.request_id)).channel

    async def decide(self, action: str, deciding: Awaitable[Decision]) -> Message:
        """The answer to a decision on its way, counted."""
        decision = await deciding
        self._count(action, decision)
        return _told(decision)

    async def redraw(self, record: RequestRecord) -> None:
        """Have a request's card drawn from stored state once more."""
        async with self.store.begin() as conn:
            await outbox.post(
                conn, topic="card", request_id=record.id, channel=record.channel, payload={},
                now=self.clock(),
            )  # fmt: skip

    async def _ask(self, asked: Asked, person: Person, typed: Typed) -> Decision:
        database = self.inventory.databases.get(asked.database)
        plan = await self.planner.plan(asked)
        return await self.approvals.ask(
            Ask(
                operation=asked.operation.name,
                database=asked.database,
                params=params_as_json(asked.params),
                plan=plan_as_json(plan),
                attributes=attributes(asked, plan, database),
                by=person,
                door=Door.SLACK,
                reason=asked.reason,
                channel=database.channel if database else typed.channel,
                delivery=typed.delivery,
            )
        )

    async def _open(self, pressed: Pressed) -> Shown:
        """What the button's card showed, if that still stands.

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
        return shown

    async def _redraw_if_stale(self, decision: Decision, request_id: RequestId) -> None:
        if decision.why in _OUT_OF_DATE:
            await self.redraw(decision.request or await self.cards.record(request_id))

    def _count(self, action: str, decision: Decision) -> None:
        result = "noop" if decision.noop else "ok" if decision.ok else str(decision.why)
        self.metrics.decided(action, result)


def _told(decision: Decision) -> Message:
    return decision_message(ok=decision.ok, problem=decision.problem, next_step=decision.next_step)
