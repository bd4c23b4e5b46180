"""What every part of one stand-in shares: the workspace, the app's rights, tokens, the clock."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from sandbox.slack.bounded import Bounded
from sandbox.slack.errors import ApiError
from sandbox.slack.faults import Faults
from sandbox.slack.manifest import Manifest
from sandbox.slack.ratelimit import RateLimiter
from sandbox.slack.timings import Timings
from sandbox.slack.wire import Wire
from sandbox.slack.workspace import Workspace

TRIGGERS_MAX: Final = 10_000
HOOKS_MAX: Final = 10_000
HOOK_USES: Final = 5
UPLOADS_MAX: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """The right to open one modal for somebody who has just acted."""

    user: str
    expires: float
    view: str | None = None  # the modal in which the person acted
    used: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A response_url: the right to answer somebody a few times."""

    user: str
    channel: str
    expires: float
    original: str | None = None  # ts of the message in which the person acted
    uses: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file that has been announced, and its bytes once they are here."""

    file_id: str
    name: str
    length: int
    data: bytes | None = None


@dataclass(slots=True, kw_only=True)
class Platform:
    """One Slack, for one app in one workspace."""

    workspace: Workspace
    manifest: Manifest
    clock: Callable[[], datetime]
    timings: Timings = field(default_factory=Timings)
    url: str = ""
    request_url: str | None = None  # None: Socket Mode
    bot_token: str = "xoxb-demo-not-a-real-token"
    app_token: str = "xapp-1-A0TWOKEY-demo-not-a-real-token"
    signing_secret: str = "demo-signing-secret-not-a-real-one"
    faults: Faults = field(default_factory=Faults)
    wire: Wire = field(default_factory=Wire)
    scopes_used: set[str] = field(default_factory=set)
    ahead_seconds: float = 0.0
    revoked: bool = False  # the app was removed from the workspace
    limiter: RateLimiter = field(init=False)
    triggers: Bounded[str, Trigger] = field(default_factory=lambda: Bounded(TRIGGERS_MAX))
    hooks: Bounded[str, Hook] = field(default_factory=lambda: Bounded(HOOKS_MAX))
    uploads: Bounded[str, Upload] = field(default_factory=lambda: Bounded(UPLOADS_MAX))

    def __post_init__(self) -> None:
        self.limiter = RateLimiter(self.timings.limits)

    def now(self) -> float:
        """Seconds since 1970; the demo may run ahead of the real clock."""
        return self.clock().timestamp() + self.ahead_seconds

    def next_ts(self) -> str:
        """A message timestamp for now."""
        return self.workspace.next_ts(self.now())

    def new_trigger(self, user: str, *, view: str | None = None) -> str:
        """A trigger_id for something that `user` did just now."""
        trigger_id = f"{int(self.now() * 1000)}.{secrets.token_hex(6)}"
        expires = self.now() + self.timings.trigger_seconds
        self.triggers[trigger_id] = Trigger(user=user, expires=expires, view=view)
        return trigger_id

    def use_trigger(self, trigger_id: str) -> Trigger:
        """Exchange a trigger_id, once.

        Raises:
            ApiError: it never existed, is too old, or was used before.
        """
        trigger = self.triggers.get(trigger_id)
        if trigger is None:
            raise ApiError("invalid_trigger_id")
        if trigger.used:
            raise ApiError("exchanged_trigger_id")
        if self.now() > trigger.expires:
            raise ApiError("expired_trigger_id")
        self.triggers[trigger_id] = replace(trigger, used=True)
        return trigger

    def new_hook(self, user: str, channel: str, *, original: str | None = None) -> str:
        """A response_url for something that `user` did in `channel`."""
        token = secrets.token_urlsafe(18)
        expires = self.now() + self.timings.response_url_seconds
        self.hooks[token] = Hook(user=user, channel=channel, expires=expires, original=original)
        team = self.workspace.team_id
        return f"{self.url}/commands/{team}/{self.workspace.app.id}/{token}"
