"""A call of a Web API method: its arguments, read as strictly as Slack reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sandbox.slack.errors import ApiError
from sandbox.slack.platform import Platform
from sandbox.slack.workspace import Channel, Json, Workspace

POST: Final = 0  # the tier of posting: per channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Who calls with what."""

    platform: Platform
    args: Mapping[str, Any]

    @property
    def workspace(self) -> Workspace:
        """The workspace that the token belongs to."""
        return self.platform.workspace

    def optional(self, name: str) -> str | None:
        """A text argument, or None when it is missing or empty."""
        value = self.args.get(name)
        if value is None or value == "":
            return None
        return value if isinstance(value, str) else json.dumps(value)

    def text(self, name: str, *, missing: str | None = None) -> str:
        """A text argument that must be there; `missing` is the code when it is not."""
        if (value := self.optional(name)) is not None:
            return value
        if missing:
            raise ApiError(missing)
        raise ApiError("invalid_arguments", f"[ERROR] missing required field: {name}")

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A truth value in any of the forms that Slack takes."""
        value = self.args.get(name)
        if value is None:
            return default
        return value is True or str(value).lower() in {"1", "true"}

    def number(self, name: str, *, default: int, most: int) -> int:
        """A whole number between 1 and `most`."""
        value = self.args.get(name)
        if value is None or value == "":
            return default
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = 0
        if not 1 <= number <= most:
            raise ApiError("invalid_limit" if name == "limit" else "invalid_arguments")
        return number

    def structure(self, name: str, *, code: str) -> Any:
        """An argument in JSON, as a string or already parsed; None when it is missing."""
        value = self.args.get(name)
        if not isinstance(value, str):
            return value
        if not value:
            return None
        try:
            return json.loads(value)
        except ValueError:
            raise ApiError(code) from None

    def objects(self, name: str, *, code: str) -> list[Json] | None:
        """A JSON list of objects."""
        value = self.structure(name, code=code)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise ApiError(code)
        return value

    def channel(self, *, public_scope: str = "", private_scope: str = "") -> Channel:
        """The channel in the argument, if the app may know of it.

        Raises:
            ApiError: `channel_not_found`, also for a private one without the app in it, or
                `missing_scope` when the kind of channel needs a scope that was not granted.
        """
        wanted = self.text("channel", missing="channel_not_found")
        channel = self.workspace.channels.get(wanted)
        if channel is None:
            raise ApiError("channel_not_found")
        scope = public_scope
        if channel.im_with:
            scope = public_scope.replace("channels:", "im:")
        elif channel.private:
            scope = private_scope
        if scope:
            self.need(scope)
        if channel.private and self.workspace.app.user not in channel.members:
            raise ApiError("channel_not_found")
        return channel

    def need(self, scope: str) -> None:
        """Raise `missing_scope` unless the manifest grants this scope; remember its use."""
        granted = self.platform.manifest.scopes
        if scope not in granted:
            raise ApiError("missing_scope", needed=scope, provided=",".join(granted))
        self.platform.scopes_used.add(scope)

    def granted(self, scope: str) -> bool:
        """Whether the manifest grants this scope; if so, its use is remembered."""
        if scope in self.platform.manifest.scopes:
            self.platform.scopes_used.add(scope)
            return True
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A Web API method. `tier` 1 to 4 is Slack's; `POST` counts per channel."""

    run: Callable[[Call], Json]
    scope: str = ""
    tier: int = 3
    caller: str = "bot"  # bot | app | nobody
