"""Buttons: approve, deny, details, cancel, pause, resume, and turning the pages of the details."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from approvals.words import RefusedError, Why
from bot.background import Background
from bot.blocks import Block, Message
from bot.card_window import answered
from bot.desk import Desk, Pressed
from bot.listeners.guard import guarded
from bot.replies import Replies
from bot.slack import SlackError, SlackRefusedError, call

APPROVE: Final = "approve"
DENY: Final = "deny"
DETAILS: Final = "details"
CANCEL: Final = "cancel"
PAUSE: Final = "pause"
RESUME: Final = "resume"
PAGES: Final = ("page_back", "page_next")
_TOO_LATE: Final = frozenset({"expired_trigger_id", "exchanged_trigger_id", "invalid_trigger_id"})

Body = dict[str, Any]
Work = Callable[[Body], Awaitable[Message | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Buttons:
    """What each button does; a message is for the person who pressed it."""

    desk: Desk
    client: AsyncWebClient

    async def approve(self, body: Body) -> Message | None:
        """A vote, or the modal that asks for what it demands."""
        answer = await self.desk.approve(pressed(body))
        if isinstance(answer, Message):
            return answer
        await _open(self.client, body, answer)
        return None

    async def deny(self, body: Body) -> None:
        """Ask for the reason."""
        await _open(self.client, body, await self.desk.deny_form(pressed(body)))

    async def details(self, body: Body) -> None:
        """Show the whole plan, and keep that its first page was opened."""
        view, opened = await self.desk.details(pressed(body))
        await _open(self.client, body, view)
        await self.desk.careful.opened(opened)

    async def cancel(self, body: Body) -> Message:
        """Cancel the request, or stop its run."""
        return await self.desk.cancel(pressed(body))

    async def pause(self, body: Body) -> Message:
        """Have its run wait."""
        return await self.desk.pause(pressed(body))

    async def resume(self, body: Body) -> Message:
        """Have its run go on."""
        return await self.desk.pause(pressed(body), go_on=True)

    async def turn(self, body: Body) -> None:
        """Another page of the details."""
        view = body["view"]
        asked = replace(pressed(body), value=view["private_metadata"])
        shown, opened = await self.desk.details(asked, page_of(body))
        try:
            await call(
                self.client.views_update(view_id=view["id"], hash=view["hash"], view=dict(shown))
            )
        except SlackRefusedError as error:
            if error.error != "hash_conflict":
                raise
            return  # a newer click has won: this page was not shown
        await self.desk.careful.opened(opened)


def register(
    app: AsyncApp, desk: Desk, *, client: AsyncWebClient, replies: Replies, background: Background
) -> None:
    """Listen to the buttons."""
    buttons = Buttons(desk=desk, client=client)

    def listen(where: str, work: Work, *, to: str | re.Pattern[str], changes: bool) -> None:
        async def listener(ack: AsyncAck, body: Body) -> None:
            message = await guarded(
                where, partial(_message_of, work, body), metrics=desk.metrics, changes=changes
            )
            await ack()
            background.start(answered(desk, replies, body, message))

        app.action(to)(listener)

    listen(APPROVE, buttons.approve, to=APPROVE, changes=True)
    listen(DENY, buttons.deny, to=DENY, changes=False)
    listen(DETAILS, buttons.details, to=DETAILS, changes=False)
    listen(CANCEL, buttons.cancel, to=CANCEL, changes=True)
    listen(PAUSE, buttons.pause, to=PAUSE, changes=True)
    listen(RESUME, buttons.resume, to=RESUME, changes=True)
    for page in PAGES:
        listen("page", buttons.turn, to=page, changes=False)
    # Bolt takes the first that fits; this is for buttons of another version of ours.
    listen("unknown_button", _unknown_button, to=re.compile(".*"), changes=False)


async def _unknown_button(_: Body) -> Message:
    raise RefusedError(
        "This button is not known to the Twokey that runs now.",
        next_step="/db requests lists what is open; /db show <number> draws a request anew.",
        why=Why.VERDICT,
    )


def page_of(body: Body) -> int:
    """The page that a button of the details turns to; the first for what is no number."""
    value = str(body["actions"][0].get("value", ""))
    return int(value) if re.fullmatch("[0-9]{1,6}", value) else 0


def pressed(body: Body) -> Pressed:
    """Who pressed what, and in which message."""
    action, user = body["actions"][0], body["user"]
    container = body.get("container") or {}
    place = f"{container.get('channel_id', '')}/{container.get('message_ts', '')}"
    return Pressed(
        team=user.get("team_id") or (body.get("team") or {}).get("id", ""),
        user=user["id"],
        value=str(action.get("value", "")),
        delivery=f"slack:{body['trigger_id']}",
        place=place,
    )


async def _message_of(work: Callable[[Body], Awaitable[Message | None]], body: Body) -> Message:
    return await work(body) or Message(text="", blocks=())


async def _open(client: AsyncWebClient, body: Body, view: Block) -> None:
    """Open a modal while the click's trigger lives.

    Raises:
        RefusedError: Slack did not open it.
    """
    try:
        await call(client.views_open(trigger_id=body["trigger_id"], view=dict(view)))
    except SlackError as error:
        late = isinstance(error, SlackRefusedError) and error.error in _TOO_LATE
        raise RefusedError(
            "Slack took too long to open the window."
            if late
            else f"Slack did not open the window ({error}).",
            next_step="Press the button again.",
            why=Why.DIRECTORY,
        ) from error
