"""The further buttons of a card: its menu, ask again, retry, plan again, undo."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from slack_bolt.async_app import AsyncAck, AsyncApp

from approvals.words import RequestId
from bot.background import Background
from bot.blocks import Block, Message, unescape
from bot.card_window import CALLBACK_ID, answered, card_window
from bot.choices import Todo
from bot.desk import Pressed
from bot.follow_ups import FollowUps
from bot.listeners.forms import team_of
from bot.listeners.guard import guarded
from bot.replies import Replies
from bot.request_words import overview
from bot.views.menu import MORE, UNDO_CALLBACK, UNDO_REASON_BLOCK
from bot.views.overview import SHOW

Body = dict[str, Any]
Work = Callable[[Pressed, Body], Awaitable[Message]]
_QUIET: Final = Message(text="", blocks=())


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUpListeners:
    """What each of the further buttons does; a message is for who pressed it."""

    ups: FollowUps
    replies: Replies
    background: Background

    async def again(self, pressed: Pressed, body: Body) -> Message:
        """The form with what was asked for then."""
        await self._open(body, await self.ups.again(pressed))
        return _QUIET

    async def undo(self, pressed: Pressed, body: Body) -> Message:
        """Asks why it is to be undone."""
        await self._open(body, await self.ups.undo_form(pressed))
        return _QUIET

    async def retry(self, pressed: Pressed, _: Body) -> Message:
        """The same once more, planned anew."""
        return await self.ups.retry(pressed)

    async def plan_again(self, pressed: Pressed, _: Body) -> Message:
        """The same request with a fresh plan."""
        return await self.ups.plan_again(pressed)

    async def more(self, pressed: Pressed, _: Body) -> Message:
        """An entry of the menu."""
        ups = self.ups
        choice = ups.menus.choices.open(pressed.value, now=ups.desk.clock())
        if choice.todo is Todo.WAITING:
            return await overview(ups.desk, team=pressed.team, user=pressed.user)
        return await ups.withdraw(pressed)

    async def show(self, pressed: Pressed, body: Body) -> Message:
        """The whole card in a window."""
        desk = self.ups.desk
        await desk.person(pressed.team, pressed.user)
        number = pressed.value if re.fullmatch("[0-9]{1,18}", pressed.value) else "0"
        await self._open(body, await card_window(desk, RequestId(int(number))))
        return _QUIET

    async def undone(self, ack: AsyncAck, body: Body) -> None:
        """The reason of an undo was sent."""
        view, metrics = body["view"], self.ups.desk.metrics
        reason = view["state"]["values"][UNDO_REASON_BLOCK]["text"].get("value") or ""
        sent = Pressed(
            team=team_of(body), user=body["user"]["id"], value=view["private_metadata"],
            delivery=f"slack:{view['id']}:{view['hash']}",
        )  # fmt: skip
        message = await guarded(
            "undo", partial(self.ups.undo, sent, reason), metrics=metrics, changes=True
        )
        if message.is_problem:
            # The modal stays open, so that nothing that was typed is lost.
            problem = unescape(message.text)
            await ack(response_action="errors", errors={UNDO_REASON_BLOCK: problem})
            return
        await ack()
        self.background.start(self.replies.tell(body, message))

    async def _open(self, body: Body, view: Block) -> None:
        in_modal = (body.get("view") or {}).get("type") == "modal"
        await self.ups.desk.windows.open(body["trigger_id"], view, on_top=in_modal)


def register(app: AsyncApp, ups: FollowUps, *, replies: Replies, background: Background) -> None:
    """Listen to them. Before the fixed buttons, whose last listener takes every action."""
    mine = FollowUpListeners(ups=ups, replies=replies, background=background)

    def listen(to: str, work: Work, *, changes: bool) -> None:
        async def listener(ack: AsyncAck, body: Body) -> None:
            message = await guarded(
                to, partial(work, pressed_of(body), body), metrics=ups.desk.metrics,
                changes=changes,
            )  # fmt: skip
            await ack()
            background.start(answered(ups.desk, replies, body, message))

        app.action(to)(listener)

    listen(SHOW, mine.show, changes=False)
    listen(MORE, mine.more, changes=True)
    listen(str(Todo.AGAIN), mine.again, changes=False)
    listen(str(Todo.UNDO), mine.undo, changes=False)
    listen(str(Todo.RETRY), mine.retry, changes=True)
    listen(str(Todo.PLAN_AGAIN), mine.plan_again, changes=True)
    app.view(UNDO_CALLBACK)(mine.undone)
    for closed in (UNDO_CALLBACK, CALLBACK_ID):
        app.view_closed(closed)(_closed)


async def _closed(ack: AsyncAck) -> None:
    await ack()


def pressed_of(body: Body) -> Pressed:
    """Who pressed what, be it a button or an entry of a menu."""
    action = body["actions"][0]
    chosen = action.get("selected_option") or action
    return Pressed(
        team=team_of(body),
        user=body["user"]["id"],
        value=str(chosen.get("value", "")),
        delivery=f"slack:{body['trigger_id']}",
    )
