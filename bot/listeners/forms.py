"""Forms: the shortcut that opens one, what is chosen in it, and what is sent."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final

from slack_bolt.async_app import AsyncAck, AsyncApp

from approvals.words import ExplainedError
from bot.background import Background
from bot.blocks import Block, Message
from bot.elements import DATABASE_ACTION
from bot.form_desk import Came, FormDesk, Sent
from bot.forms import CALLBACK_ID, Entered, Meta
from bot.listeners.guard import guarded
from bot.replies import Replies
from bot.slack import SlackError, SlackRefusedError
from bot.views.errors import problem_message
from bot.views.overview import OPEN_FORM, OPEN_PICKER
from bot.views.windows import (
    PICK_ACTION,
    PICK_CALLBACK,
    RESULT_CALLBACK,
    planning_window,
    result_window,
)

log: Final = logging.getLogger("twokey.forms")

SHORTCUT: Final = "ask_for_change"
# How long a submission waits for its plan before the modal says "planning": Slack gives 3 s.
PATIENCE: Final = timedelta(seconds=1.8)
# After the ack Slack needs a moment until the modal has its name.
_LOOKS_SECONDS: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_ROOM: Final = timedelta(seconds=15)

Body = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FormListeners:
    """What happens when somebody opens, fills or sends a form."""

    forms: FormDesk
    replies: Replies
    background: Background
    patience: timedelta = PATIENCE
    at_work: set[asyncio.Task[Came]] = field(default_factory=set)

    async def sent(self, ack: AsyncAck, body: Body) -> None:
        """A form was sent: errors at its fields, what came of it, or that it is being planned."""
        desk = self.forms.desk
        with desk.metrics.ack("form"):
            sent = sent_of(body)
            try:
                given = self.forms.entered(sent)
            except ExplainedError as error:
                gone = self._problem(error)
                await ack(response_action="update", view=dict(gone))
                return
            if given.errors:
                await ack(response_action="errors", errors=dict(given.errors))
                return
            await self._carry_out(ack, body, sent, given)

    async def _carry_out(self, ack: AsyncAck, body: Body, sent: Sent, given: Entered) -> None:
        task = asyncio.create_task(self.forms.carry_out(sent, given))
        self.at_work.add(task)  # the loop itself keeps no hold of it
        task.add_done_callback(self.at_work.discard)
        done, _ = await asyncio.wait({task}, timeout=self.patience.total_seconds())
        if done:
            came = task.result()
            await ack(response_action="update", view=dict(came.view))
            return
        name = f"plan-{sent.view_id}-{sent.view_hash}"
        view = planning_window(sent.meta.operation, external_id=name)
        await ack(response_action="update", view=dict(view))
        limit = self.forms.plan_limit + _ROOM
        self.background.start(self._show_later(task, name, body, sent), limit=limit)

    async def _show_later(
        self, task: asyncio.Task[Came], name: str, body: Body, sent: Sent
    ) -> None:
        """Replace "planning" by what came of it; a modal that was closed is told as a message."""
        came = await task
        for pause in _LOOKS_SECONDS:
            try:
                # By its name, which it has only since Slack took the ack: replaced any sooner,
                # the ack would put "planning" on top of the result.
                await self.forms.desk.windows.replace_named(name, came.view)
            except SlackRefusedError as error:
                if error.error != "not_found":
                    log.warning("A form's result was not shown: %s.", error)
                    break
            except SlackError as error:
                log.warning("A form's result was not shown yet: %s.", error)
            else:
                return
            await asyncio.sleep(pause)
        await self.replies.tell(body, came.message, channel=sent.meta.channel)

    async def shortcut(self, body: Body) -> None:
        """Somebody chose the shortcut."""
        await self._opened(body, self.forms.picker)

    async def open_picker(self, body: Body) -> None:
        """A button that asks what is to be done."""
        await self._opened(body, self.forms.picker)

    async def open_form(self, body: Body) -> None:
        """A button that opens one operation's form."""
        name = str(body["actions"][0].get("value", ""))
        await self._opened(body, partial(self.forms.form, name))

    async def pick(self, body: Body) -> None:
        """An operation was chosen: its form takes the picker's place."""
        chosen = body["actions"][0]["selected_option"]
        view = body["view"]
        channel = str(json.loads(view["private_metadata"] or '""'))
        await self._person(body)
        shown = self.forms.form(str(chosen["value"]), channel=channel)
        await self.forms.desk.windows.replace(view["id"], view["hash"], shown)

    async def _opened(self, body: Body, view: Callable[[], Block]) -> None:
        await self._person(body)
        on_top = (body.get("view") or {}).get("type") == "modal"
        await self.forms.desk.windows.open(body["trigger_id"], view(), on_top=on_top)

    async def _person(self, body: Body) -> None:
        await self.forms.desk.person(team_of(body), body["user"]["id"])

    def _problem(self, error: ExplainedError) -> Block:
        return result_window("Twokey", problem_message(error.problem, error.next_step))


def register(app: AsyncApp, forms: FormDesk, *, replies: Replies, background: Background) -> None:
    """Listen to forms. Before the buttons, whose last listener takes every action."""
    mine = FormListeners(forms=forms, replies=replies, background=background)
    metrics = forms.desk.metrics

    def listening(where: str, work: Callable[[Body], Awaitable[None]]) -> Callable[..., Any]:
        async def listener(ack: AsyncAck, body: Body) -> None:
            message = await guarded(
                where, partial(_nothing_said, work, body), metrics=metrics, changes=False
            )
            await ack()
            if message.text:
                background.start(replies.tell(body, message))

        return listener

    async def options(ack: AsyncAck, body: Body) -> None:
        await ack(option_groups=[dict(group) for group in forms.suggestions(body["value"])])

    app.view(CALLBACK_ID)(mine.sent)
    app.options(DATABASE_ACTION)(options)
    app.shortcut(SHORTCUT)(listening("shortcut", mine.shortcut))
    app.action(OPEN_PICKER)(listening("open_form", mine.open_picker))
    app.action(re.compile(rf"{OPEN_FORM}\..+"))(listening("open_form", mine.open_form))
    app.action(PICK_ACTION)(listening("pick_operation", mine.pick))
    for closed in (CALLBACK_ID, PICK_CALLBACK, RESULT_CALLBACK):
        app.view_closed(closed)(_closed)


async def _closed(ack: AsyncAck) -> None:
    await ack()


async def _nothing_said(work: Callable[[Body], Awaitable[None]], body: Body) -> Message:
    await work(body)
    return Message(text="", blocks=())


def sent_of(body: Body) -> Sent:
    """What was sent by whom."""
    view = body["view"]
    return Sent(
        team=team_of(body),
        user=body["user"]["id"],
        view_id=view["id"],
        view_hash=view["hash"],
        meta=Meta.of(view["private_metadata"]),
        state=view["state"]["values"],
    )


def team_of(body: Body) -> str:
    """The workspace of who acted."""
    return str(body["user"].get("team_id") or (body.get("team") or {}).get("id", ""))
