"""What people do in Slack, and what they see of the app's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sandbox.slack import payloads
from sandbox.slack.blocks import elements_of
from sandbox.slack.delivery import Dispatcher, Kind, Outcome
from sandbox.slack.elements import VALUE_FIELDS
from sandbox.slack.errors import ApiError, CannotError
from sandbox.slack.objects import message_object
from sandbox.slack.people import Person
from sandbox.slack.platform import Platform
from sandbox.slack.replies import Replies
from sandbox.slack.viewstate import read_value, view_object
from sandbox.slack.workspace import SLACKBOT, Channel, Json, Message, View, Workspace

CLICK_FAILED: Final = "This app didn't respond. Try again?"
NOT_IN_THREADS: Final = "{command} is not supported in threads. Sorry!"
UNKNOWN: Final = (
    "{command} is not a valid command. In Slack, all messages that start with the “/” "
    "character are interpreted as commands.\n\nIf you are trying to send a message and not "
    "run a command, try preceding the “/” with an empty space."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What came of something that a person did.

    `status` is the app's HTTP status (200 for an ack in Socket Mode), 0 when nothing came back
    or nothing was sent. `error` is what Slack shows to the person, None when all went well.
    `errors` are a modal's complaints by block_id. `ephemerals` are the app's messages to this
    person alone that came before the ack.
    """

    status: int = 0
    ms: float = 0.0
    error: str | None = None
    ephemerals: tuple[Json, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def ok(self) -> bool:
        """Whether the person saw no failure."""
        return self.error is None and not self.errors


class Actor:
    """People's hands."""

    def __init__(self, platform: Platform, dispatcher: Dispatcher, replies: Replies) -> None:
        self._platform = platform
        self._workspace = platform.workspace
        self._dispatcher = dispatcher
        self._replies = replies

    async def command(
        self, *, user: str, channel: str, text: str, thread_ts: str | None = None
    ) -> Delivery:
        """Type a slash command, such as `/db backup orders`."""
        person, place = self._writer(user, channel)
        self._workspace.mark_read(user, channel)
        name, _, rest = text.strip().partition(" ")
        command = self._platform.manifest.commands.get(name)
        if command is None:
            return self._refused(UNKNOWN.format(command=name), user, channel)
        if thread_ts is not None:
            return self._refused(NOT_IN_THREADS.format(command=name), user, channel)
        self._platform.scopes_used.add("commands")
        rest = rest.strip()
        mark = self._platform.next_ts()
        payload = payloads.command_payload(
            self._workspace,
            person=person,
            channel=place,
            command=name,
            text=payloads.escaped(self._workspace, rest) if command.should_escape else rest,
            response_url=self._platform.new_hook(user, channel),
            trigger_id=self._platform.new_trigger(user),
        )
        outcome = await self._dispatcher.send(Kind.COMMAND, payload, summary=f"{name} {rest}")
        error = self._show_answer(outcome, name, user=user, channel=channel)
        return self._delivery(outcome, user, mark, error=error)

    def _show_answer(self, outcome: Outcome, name: str, *, user: str, channel: str) -> str | None:
        if outcome.error is None:
            try:
                self._replies.acknowledged(outcome.body, user=user, channel=channel)
            except ApiError as problem:
                outcome = replace(outcome, error=problem.code)
            else:
                return None
        error = f'{name} failed with the error "{outcome.error}"'
        return self._refused(error, user, channel).error

    def _refused(self, error: str, user: str, channel: str) -> Delivery:
        message = self._replies.slackbot(error, user=user, channel=channel)
        self._workspace.failures[user, channel, message.ts] = error
        self._workspace.changes.bump()
        return Delivery(error=error)

    async def click(
        self,
        *,
        user: str,
        channel: str,
        ts: str,
        action_id: str,
        block_id: str | None = None,
        given: Any = None,
        shown: Json | None = None,
    ) -> Delivery:
        """Act on an element of a message. `shown` is the message as this person still sees it."""
        person, place = self._reader(user, channel)
        self._need_interactivity()
        self._workspace.mark_read(user, channel)
        stored = self._workspace.find(channel, ts, viewer=user)
        message = shown or (message_object(self._workspace, stored) if stored else None)
        if message is None:
            raise CannotError(f"{user} sees no message {ts} in {channel}.")
        block, element = _element(message.get("blocks", []), action_id, block_id)
        mark = self._platform.next_ts()
        payload = payloads.message_click(
            self._workspace,
            person=person,
            channel=place,
            message=message,
            ephemeral=bool(stored and stored.only_for),
            action=payloads.action_of(block, element, ts=mark, given=_given(element, given)),
            response_url=self._platform.new_hook(user, channel, original=ts),
            trigger_id=self._platform.new_trigger(user),
        )
        self._workspace.failures.pop((user, channel, ts), None)
        summary = f"block_actions {action_id}"
        outcome = await self._dispatcher.send(Kind.INTERACTIVE, payload, summary=summary)
        error = CLICK_FAILED if outcome.error else None
        if error:
            self._workspace.failures[user, channel, ts] = error
            self._workspace.changes.bump()
        return self._delivery(outcome, user, mark, error=error)

    async def say(
        self, *, user: str, channel: str, text: str, thread_ts: str | None = None
    ) -> Message:
        """Write a message; a mention of the app and messages it listens to become events."""
        _, place = self._writer(user, channel)
        if user not in place.members:
            raise CannotError(f"{user} has to join {place.name} before writing there.")
        if thread_ts is not None and self._workspace.find(channel, thread_ts) is None:
            raise CannotError(f"There is no thread {thread_ts} in {channel}.")
        shown = payloads.without_labels(payloads.escaped(self._workspace, text))
        message = Message(
            channel=channel,
            ts=self._platform.next_ts(),
            user=user,
            text=shown,
            thread_ts=thread_ts,
        )
        self._workspace.put(message)
        self._workspace.mark_read(user, channel)
        await self._tell(message, place)
        return message

    async def _tell(self, message: Message, place: Channel) -> None:
        app = self._workspace.app.user
        if app not in place.members:
            return
        event = message_object(self._workspace, message) | {
            "channel": place.id,
            "event_ts": message.ts,
        }
        kind = "im" if place.im_with else "group" if place.private else "channel"
        await self._dispatcher.emit({**event, "channel_type": kind})
        if f"<@{app}" in message.text and not place.im_with:
            await self._dispatcher.emit({**event, "type": "app_mention"})

    async def open_home(self, *, user: str) -> Outcome | None:
        """Open the app's home tab."""
        self._person(user)
        self._workspace.im(user)
        if not self._platform.manifest.home_tab:
            raise CannotError("The app has no home tab.")
        home = self._workspace.homes.get(user)
        ts = self._platform.next_ts()
        event: Json = {
            "type": "app_home_opened",
            "user": user,
            "channel": f"D{user[1:]}",
            "tab": "home",
            "event_ts": ts,
        }
        if home is not None:
            event["view"] = view_object(self._workspace, home)
        return await self._dispatcher.emit(event)

    async def click_view(
        self,
        *,
        user: str,
        view_id: str,
        action_id: str,
        block_id: str | None = None,
        given: Any = None,
    ) -> Delivery:
        """Act on an element of a modal or of the home tab."""
        person, view = self._person(user), self._own_view(user, view_id)
        self._need_interactivity()
        block, element = _element(view.payload["blocks"], action_id, block_id)
        mark = self._platform.next_ts()
        value = _given(element, given)
        if value is not None and element["type"] != "overflow":
            mine = {**view.values.get(block["block_id"], {}), element["action_id"]: value}
            values = {**view.values, block["block_id"]: mine}
            view = self._workspace.replace_view(replace(view, values=values))
        if block["type"] == "input" and not block.get("dispatch_action"):
            return Delivery()  # Slack keeps it until the form is submitted
        payload = payloads.view_click(
            self._workspace,
            person=person,
            view=view_object(self._workspace, view),
            action=payloads.action_of(block, element, ts=mark, given=value),
            trigger_id=self._platform.new_trigger(user, view=view_id),
        )
        summary = f"block_actions {action_id}"
        outcome = await self._dispatcher.send(Kind.INTERACTIVE, payload, summary=summary)
        error = CLICK_FAILED if outcome.error else None
        now = self._workspace.view(view_id)
        if now is not None and now.failed != error:
            self._workspace.replace_view(replace(now, failed=error))
        return self._delivery(outcome, user, mark, error=error)

    def _delivery(self, outcome: Outcome, user: str, mark: str, *, error: str | None) -> Delivery:
        fresh = told_since(self._workspace, user, mark)
        return Delivery(
            status=outcome.status,
            ms=outcome.ms,
            error=error,
            ephemerals=fresh,
            body=outcome.body,
        )

    async def shortcut(self, *, user: str, callback_id: str) -> Delivery:
        """Choose one of the app's global shortcuts."""
        person = self._person(user)
        self._need_interactivity()
        if callback_id not in self._platform.manifest.shortcuts:
            raise CannotError(f"The app has no shortcut {callback_id}.")
        self._platform.scopes_used.add("commands")
        mark = self._platform.next_ts()
        payload = payloads.shortcut(
            self._workspace,
            person=person,
            callback_id=callback_id,
            trigger_id=self._platform.new_trigger(user),
        )
        summary = f"shortcut {callback_id}"
        outcome = await self._dispatcher.send(Kind.INTERACTIVE, payload, summary=summary)
        error = CLICK_FAILED if outcome.error else None
        return self._delivery(outcome, user, mark, error=error)

    async def suggest(
        self, *, user: str, container: Json, block_id: str, action_id: str, value: str
    ) -> Json:
        """Ask the app for the options of an `external_select` while somebody types."""
        payload = payloads.suggestion(
            self._workspace,
            person=self._person(user),
            container=container,
            block_id=block_id,
            action_id=action_id,
            value=value,
        )
        summary = f"block_suggestion {action_id}"
        outcome = await self._dispatcher.send(Kind.INTERACTIVE, payload, summary=summary)
        body = outcome.body if isinstance(outcome.body, dict) and not outcome.error else {}
        return {key: body[key] for key in ("options", "option_groups") if key in body}

    def _need_interactivity(self) -> None:
        if not self._platform.manifest.interactive:
            raise CannotError("This app is not configured to handle interactive responses.")

    def _person(self, user: str) -> Person:
        person = self._workspace.people.get(user)
        if person is None:
            raise CannotError(f"There is nobody with the id {user}.")
        return person

    def _reader(self, user: str, channel: str) -> tuple[Person, Channel]:
        person, place = self._person(user), self._workspace.channels.get(channel)
        if place is None or not self._workspace.sees(user, place):
            raise CannotError(f"{user} sees no channel {channel}.")
        return person, place

    def _writer(self, user: str, channel: str) -> tuple[Person, Channel]:
        person, place = self._reader(user, channel)
        if place.archived:
            raise CannotError(f"{place.name} is archived.")
        if place.im_with and self._platform.manifest.messages_read_only:
            raise CannotError("Sending messages to this app has been turned off.")
        return person, place

    def _own_view(self, user: str, view_id: str) -> View:
        view = self._workspace.view(view_id)
        if view is None or view.user != user:
            raise CannotError(f"{user} has no view {view_id} open.")
        return view


def told_since(workspace: Workspace, user: str, mark: str) -> tuple[Json, ...]:
    """What the app has told this person alone after the timestamp `mark`."""
    return tuple(
        message_object(workspace, message)
        for message in workspace.ephemerals(user)
        if message.ts > mark and message.user != SLACKBOT
    )


def _element(blocks: list[Json], action_id: str, block_id: str | None) -> tuple[Json, Json]:
    found = [
        (block, element)
        for block in blocks
        if block_id in {None, block.get("block_id")}
        for element in elements_of(block)
        if element.get("action_id") == action_id
    ]
    if not found:
        raise CannotError(f"There is no {action_id} to act on.")
    if len(found) > 1:
        raise CannotError(f"{action_id} is there {len(found)} times; say which block_id.")
    return found[0]


def _given(element: Json, given: Any) -> Json | None:
    if element["type"] not in VALUE_FIELDS or given is None:
        return None
    try:
        return read_value(element, given)
    except LookupError as error:
        raise CannotError(str(error)) from None
