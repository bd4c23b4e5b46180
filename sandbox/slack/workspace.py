"""A workspace: its people, channels, messages, files and views, all in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from sandbox.slack.bounded import Bounded, Changes
from sandbox.slack.people import Group, Person

Json = dict[str, Any]

MESSAGES_MAX: Final = 5000  # per channel
EPHEMERALS_MAX: Final = 500  # per person
FILES_MAX: Final = 50
FAILURES_MAX: Final = 1000
READ_MARKS_MAX: Final = 1000
THREADS_MAX: Final = 5000
SLACKBOT: Final = "USLACKBOT"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """The one app that is installed."""

    id: str
    name: str
    user: str
    bot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A conversation. `im_with` makes it the app's direct messages with a person."""

    id: str
    name: str
    members: frozenset[str]
    private: bool = False
    archived: bool = False
    ext_shared: bool = False
    im_with: str = ""
    topic: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An uploaded file; `shared` are the channels where it can be seen."""

    id: str
    name: str
    title: str
    mimetype: str
    data: bytes
    user: str
    created: int
    shared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message; `only_for` makes it ephemeral."""

    channel: str
    ts: str
    user: str
    text: str
    blocks: tuple[Json, ...] = ()
    attachments: tuple[Json, ...] = ()
    thread_ts: str | None = None
    broadcast: bool = False
    edited: str | None = None
    metadata: Json | None = None
    reactions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    files: tuple[str, ...] = ()
    only_for: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An open modal or a published home tab. `payload` is what the app sent."""

    id: str
    user: str
    payload: Json
    hash: str
    root: str
    previous: str | None = None
    values: Json
    failed: str | None = None


class Workspace:
    """Everything that Slack remembers. Whoever changes something calls `changes.bump()`."""

    def __init__(
        self,
        *,
        team: tuple[str, str],
        app: App,
        people: Iterable[Person],
        groups: Iterable[Group],
        channels: Iterable[Channel],
    ) -> None:
        self.team_id, self.team_name = team
        self.app = app
        self.people = {person.id: person for person in people}
        self.groups = {group.id: group for group in groups}
        self.channels = {channel.id: channel for channel in channels}
        self.files: Bounded[str, File] = Bounded(FILES_MAX)
        self.stacks: dict[str, list[View]] = {}
        self.homes: dict[str, View] = {}
        self.failures: Bounded[tuple[str, str, str], str] = Bounded(FAILURES_MAX)
        self.url = ""  # where this Slack is reached; files have addresses below it
        # Up to which message somebody has read a channel, by (person, channel).
        self._read: Bounded[tuple[str, str], str] = Bounded(READ_MARKS_MAX)
        self._threads: Bounded[tuple[str, str], dict[str, None]] = Bounded(THREADS_MAX)
        self.changes = Changes()
        self._messages: dict[str, Bounded[str, Message]] = {}
        self._ephemerals: dict[str, Bounded[str, Message]] = {}
        self._last_micros = 0
        self._ids = 0

    def next_ts(self, now: float) -> str:
        """A timestamp that no other message has."""
        self._last_micros = max(self._last_micros + 1, int(now * 1_000_000))
        return f"{self._last_micros // 1_000_000}.{self._last_micros % 1_000_000:06d}"

    def next_id(self, prefix: str) -> str:
        """An id that nothing else has."""
        self._ids += 1
        return f"{prefix}0{self._ids:08X}"

    def put(self, message: Message) -> Message:
        """Store a message, new or changed."""
        self._box(message)[message.ts] = message
        if message.thread_ts and message.only_for is None:
            key = (message.channel, message.thread_ts)
            if key not in self._threads:
                self._threads[key] = {}
            self._threads[key][message.ts] = None
        self.changes.bump()
        return message

    def drop(self, message: Message) -> None:
        """Remove a message; a second time is no error."""
        self._box(message).pop(message.ts, None)
        if message.only_for is None:
            self._threads.pop((message.channel, message.ts), None)
        self.changes.bump()

    def find(self, channel: str, ts: str, *, viewer: str | None = None) -> Message | None:
        """A message that `viewer` can see (None: that everybody can see)."""
        if (public := self._messages.get(channel)) and ts in public:
            return public[ts]
        mine = self._ephemerals.get(viewer or "")
        found = mine.get(ts) if mine else None
        return found if found and found.channel == channel else None

    def _box(self, message: Message) -> Bounded[str, Message]:
        if message.only_for is None:
            return self._messages.setdefault(message.channel, Bounded(MESSAGES_MAX))
        return self._ephemerals.setdefault(message.only_for, Bounded(EPHEMERALS_MAX))

    def messages(self, channel: str) -> list[Message]:
        """All messages of a channel, replies too, without ephemerals, oldest first."""
        found = self._messages.get(channel)
        return list(found.values()) if found else []

    def ephemerals(self, user: str) -> list[Message]:
        """What only this person sees, oldest first."""
        found = self._ephemerals.get(user)
        return list(found.values()) if found else []

    def replies(self, channel: str, ts: str) -> list[Message]:
        """The replies of a thread, oldest first, without its root."""
        known = self._messages.get(channel)
        thread = self._threads.get((channel, ts))
        if not known or not thread:
            return []
        return [known[reply] for reply in thread if reply in known]

    def mark_read(self, user: str, channel: str) -> None:
        """Note that this person has seen everything that now stands in the channel."""
        found = self._messages.get(channel)
        if found:
            self._read[user, channel] = next(reversed(found))

    def unread(self, user: str, channel: str) -> int:
        """How many messages of others have come since this person last acted there."""
        since = self._read.get((user, channel), "")
        return sum(m.ts > since and m.user != user for m in self.messages(channel))

    def sees(self, user: str, channel: Channel) -> bool:
        """Members see a channel; full members of the team see every public one."""
        if user in channel.members:
            return True
        person = self.people.get(user)
        if person is None or channel.private or channel.im_with:
            return False
        odd = person.guest or person.single_channel_guest or person.external or person.deactivated
        return not odd and person.team == self.team_id

    def im(self, user: str) -> Channel:
        """The app's direct messages with a person; opened when needed."""
        channel_id = f"D{user[1:]}"
        if channel_id not in self.channels:
            members = frozenset({user, self.app.user})
            self.channels[channel_id] = Channel(
                id=channel_id, name="", members=members, private=True, im_with=user
            )
        return self.channels[channel_id]

    def views(self) -> Iterator[View]:
        """Every open modal and every published home tab."""
        for stack in self.stacks.values():
            yield from stack
        yield from self.homes.values()

    def view(self, view_id: str) -> View | None:
        """An open view by its id."""
        return next((view for view in self.views() if view.id == view_id), None)

    def replace_view(self, view: View) -> View:
        """Store a changed view in the place of the one with its id."""
        stack = self.stacks.get(view.user, [])
        self.stacks[view.user] = [view if old.id == view.id else old for old in stack]
        home = self.homes.get(view.user)
        if home and home.id == view.id:
            self.homes[view.user] = view
        self.changes.bump()
        return view

    def set_members(self, channel_id: str, members: frozenset[str]) -> Channel:
        """Change who is in a channel."""
        channel = replace(self.channels[channel_id], members=members)
        self.channels[channel_id] = channel
        self.changes.bump()
        return channel
