"""What an administrator, or time itself, does to a workspace while the app watches."""

from __future__ import annotations

from dataclasses import replace

from sandbox.slack.delivery import Dispatcher
from sandbox.slack.errors import CannotError
from sandbox.slack.people import FLAGS, Group, Person, group_object, user_object
from sandbox.slack.platform import Platform
from sandbox.slack.workspace import Channel


class Admin:
    """Changes people, groups and channels, and sends the events that follow."""

    def __init__(self, platform: Platform, dispatcher: Dispatcher) -> None:
        self._platform = platform
        self._workspace = platform.workspace
        self._dispatcher = dispatcher

    async def set_flags(self, user: str, **flags: bool) -> Person:
        """Make somebody a guest, deactivated and so on, or fit again; sends `user_change`."""
        person = self._workspace.people.get(user)
        if person is None:
            raise CannotError(f"There is nobody with the id {user}.")
        if unknown := sorted(set(flags) - set(FLAGS)):
            raise CannotError(f"There is no flag {unknown[0]}; there are {', '.join(FLAGS)}.")
        now = self._platform.now()
        values = {name: bool(value) for name, value in flags.items()}
        changed = replace(person, updated=int(now), **values)  # type: ignore[arg-type]
        self._workspace.people[user] = changed
        self._workspace.changes.bump()
        mail = "users:read.email" in self._platform.manifest.scopes
        shown = user_object(changed, now=now, with_email=mail)
        await self._dispatcher.emit(
            {"type": "user_change", "user": shown, "event_ts": self._platform.next_ts()}
        )
        return changed

    async def change_person(self, user: str, **changes: object) -> Person:
        """Change anything of an account, such as its e-mail or name; sends `user_change`."""
        person = self._workspace.people.get(user)
        if person is None:
            raise CannotError(f"There is nobody with the id {user}.")
        changed = replace(person, **changes)  # type: ignore[arg-type]
        self._workspace.people[user] = changed
        return await self.set_flags(user)

    def remove_person(self, user: str) -> None:
        """Let an account be gone as if it had never been; Slack sends nothing."""
        self._workspace.people.pop(user, None)
        self._workspace.changes.bump()

    async def disable_group(self, group_id: str, *, disabled: bool = True) -> Group:
        """Disable a user group, or enable it again; sends `subteam_updated`."""
        group = self._workspace.groups.get(group_id)
        if group is None:
            raise CannotError(f"There is no user group {group_id}.")
        changed = replace(group, disabled=disabled, updated=int(self._platform.now()))
        self._workspace.groups[group_id] = changed
        self._workspace.changes.bump()
        shown = group_object(
            changed, team=self._workspace.team_id, with_users=not disabled, with_count=True
        )
        await self._dispatcher.emit(
            {"type": "subteam_updated", "subteam": shown, "event_ts": self._platform.next_ts()}
        )
        return changed

    def remove_group(self, group_id: str) -> None:
        """Let a user group be gone; Slack sends nothing."""
        self._workspace.groups.pop(group_id, None)
        self._workspace.changes.bump()

    async def set_group(self, group_id: str, members: tuple[str, ...]) -> Group:
        """Change who belongs to a user group; sends `subteam_members_changed`."""
        group = self._workspace.groups.get(group_id)
        if group is None:
            raise CannotError(f"There is no user group {group_id}.")
        now = int(self._platform.now())
        changed = replace(group, members=members, updated=now)
        self._workspace.groups[group_id] = changed
        self._workspace.changes.bump()
        added = [user for user in members if user not in group.members]
        removed = [user for user in group.members if user not in members]
        await self._dispatcher.emit(
            {
                "type": "subteam_members_changed",
                "subteam_id": group_id,
                "team_id": self._workspace.team_id,
                "date_previous_update": group.updated,
                "date_update": now,
                "added_users": added,
                "added_users_count": len(added),
                "removed_users": removed,
                "removed_users_count": len(removed),
                "event_ts": self._platform.next_ts(),
            }
        )
        shown = group_object(
            changed, team=self._workspace.team_id, with_users=True, with_count=True
        )
        await self._dispatcher.emit(
            {"type": "subteam_updated", "subteam": shown, "event_ts": self._platform.next_ts()}
        )
        return changed

    async def join(self, person: Person) -> None:
        """Somebody new in the workspace; sends `team_join`."""
        self._workspace.people[person.id] = person
        self._workspace.changes.bump()
        mail = "users:read.email" in self._platform.manifest.scopes
        shown = user_object(person, now=self._platform.now(), with_email=mail)
        await self._dispatcher.emit({"type": "team_join", "user": shown})

    async def uninstall(self) -> None:
        """Remove the app: its tokens are dead from now on, and it is told so."""
        self._platform.revoked = True
        self._workspace.changes.bump()
        bot = self._workspace.app.user
        await self._dispatcher.emit({"type": "tokens_revoked", "tokens": {"bot": [bot]}})
        await self._dispatcher.emit({"type": "app_uninstalled"})

    def change_channel(
        self,
        channel_id: str,
        *,
        add: str | None = None,
        remove: str | None = None,
        archived: bool | None = None,
    ) -> Channel:
        """Invite, remove, archive."""
        channel = self._workspace.channels.get(channel_id)
        if channel is None:
            raise CannotError(f"There is no channel {channel_id}.")
        members = (channel.members | ({add} if add else set())) - {remove}
        gone = channel.archived if archived is None else archived
        self._workspace.channels[channel_id] = replace(channel, members=members, archived=gone)
        self._workspace.changes.bump()
        return self._workspace.channels[channel_id]

    async def dismiss(self, *, user: str, channel: str, ts: str) -> None:
        """Take an ephemeral message away, as its reader does."""
        message = self._workspace.find(channel, ts, viewer=user)
        if message is None or message.only_for != user:
            raise CannotError("There is no such message that only you see.")
        self._workspace.drop(message)
