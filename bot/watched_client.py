"""Slack's client, with an eye on what it posts."""

from __future__ import annotations

from typing import Any

from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from store.redact import redact_json, redact_shown


class WatchedClient(AsyncWebClient):
    """Slack's client, which posts no secret of ours, whoever made the message."""

    async def api_call(self, api_method: str, **arguments: Any) -> AsyncSlackResponse:
        """Call a method; its texts go out without secrets."""
        for name in ("json", "params", "data"):
            given = arguments.get(name)
            if isinstance(given, dict):
                # slack_sdk takes the token out of the arguments and puts it into a header.
                clean = redact_json(
                    {key: item for key, item in given.items() if key != "token"}, by=redact_shown
                )
                kept = {"token": given["token"]} if "token" in given else {}
                arguments[name] = {**clean, **kept}
        return await super().api_call(api_method, **arguments)
