"""What can go wrong: a Web API method's answer, and a person who cannot do that in Slack."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A Web API method refuses: HTTP 200 with `ok: false` and this code."""

    def __init__(self, code: str, *messages: str, **more: Any) -> None:
        super().__init__(code, *messages)
        self.code = code
        self.messages = messages
        self.more = more

    def body(self) -> dict[str, Any]:
        """What Slack would answer."""
        body: dict[str, Any] = {"ok": False, "error": self.code, **self.more}
        if self.messages:
            body["response_metadata"] = {"messages": list(self.messages)}
        return body


class CannotError(Exception):
    """Slack's own client would not offer this to this person; nothing was sent to the app."""
