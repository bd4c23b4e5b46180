"""Buttons below an answer: the form of what helps, and the same look again."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydantic import ValidationError
from slack_bolt.async_app import AsyncAck, AsyncApp

from approvals.words import RefusedError, Why
from bot.background import Background
from bot.blocks import Message
from bot.command_text import Asked
from bot.fields import DATABASE
from bot.form_desk import FormDesk
from bot.listeners.commands import LATE_MAX
from bot.listeners.forms import team_of
from bot.listeners.guard import guarded, settled
from bot.replies import Replies
from bot.slack import SlackError
from bot.suggesting import LOOK_AGAIN, SUGGEST, Call
from bot.views.windows import result_window

Body = dict[str, Any]
_QUIET: Final = Message(text="", blocks=())


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestionListeners:
    """What the buttons below an answer do."""

    forms: FormDesk
    replies: Replies
    background: Background

    async def suggest(self, body: Body) -> Message:
        """Open the form of what helps, filled in."""
        desk = self.forms.desk
        await desk.person(team_of(body), body["user"]["id"])
        call = self._call(body)
        channel = str((body.get("channel") or {}).get("id", ""))
        view = self.forms.form(
            call.operation, values=call.params, reason=call.reason, channel=channel
        )
        on_top = (body.get("view") or {}).get("type") == "modal"
        await desk.windows.open(body["trigger_id"], view, on_top=on_top)
        return _QUIET

    async def look_again(self, body: Body) -> Message:
        """Answer the same query from what stands now."""
        desk = self.forms.desk
        await desk.person(team_of(body), body["user"]["id"])
        asked = self._asked(self._call(body))

        def later(message: Coroutine[Any, Any, Message]) -> None:
            self.background.start(self._told(body, message), limit=LATE_MAX)

        return await desk.answered(asked, later, anew=True)

    async def shown(self, body: Body, message: Message) -> None:
        """Show what came of it: in the window, or in place of the message that was pressed."""
        view = body.get("view") or {}
        if view.get("type") == "modal" and message.blocks:
            title = str(view["title"]["text"])
            try:
                await self.forms.desk.windows.replace(
                    view["id"], view["hash"], result_window(title, message)
                )
            except SlackError:
                pass  # the window is closed: they are told as everybody is
            else:
                return
        if message.text:
            await self.replies.tell(body, message, instead=not message.is_problem)

    async def _told(self, body: Body, message: Coroutine[Any, Any, Message]) -> None:
        told = await settled(LOOK_AGAIN, message, metrics=self.forms.desk.metrics)
        await self.replies.tell(body, told, instead=not told.is_problem)

    def _call(self, body: Body) -> Call:
        return self.forms.desk.suggester.open(str(body["actions"][0].get("value", "")))

    def _asked(self, call: Call) -> Asked:
        operation = self.forms.operation(call.operation)
        try:
            params = operation.params.model_validate(call.params)
        except ValidationError:
            params = None
        if params is None or not operation.is_query(params):
            raise RefusedError(
                f"/db {call.operation} is asked otherwise by the Twokey that runs now.",
                next_step=f"Type it again: {operation.example}",
                why=Why.STALE_PLAN,
            )
        database = str(getattr(params, DATABASE, "") or "")
        return Asked(operation=operation, params=params, database=database, reason="")


def register(app: AsyncApp, forms: FormDesk, *, replies: Replies, background: Background) -> None:
    """Listen to them. Before the fixed buttons, whose last listener takes every action."""
    mine = SuggestionListeners(forms=forms, replies=replies, background=background)
    metrics = forms.desk.metrics

    async def suggested(ack: AsyncAck, body: Body) -> None:
        message = await guarded(
            SUGGEST, partial(mine.suggest, body), metrics=metrics, changes=False
        )
        await ack()
        if message.text:
            background.start(replies.tell(body, message))

    async def again(ack: AsyncAck, body: Body) -> None:
        message = await guarded(
            LOOK_AGAIN, partial(mine.look_again, body), metrics=metrics, changes=False
        )
        await ack()
        background.start(mine.shown(body, message))

    app.action(re.compile(rf"{SUGGEST}\.[0-9]+"))(suggested)
    app.action(LOOK_AGAIN)(again)
