"""The stand-in alone, for somebody who develops an app against it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from sandbox.slack.server import SlackStandIn, start_slack
from sandbox.slack.timings import Timings

# Flushed, as somebody may read it through a pipe while this goes on running.
SAY: Final[Callable[[str], None]] = partial(print, flush=True)


async def serve(
    manifest: Path,
    port: int = 0,
    request_url: str | None = None,
    *,
    timings: Timings | None = None,
    say: Callable[[str], None] = SAY,
    stop: asyncio.Event | None = None,
) -> None:
    """Run a stand-in until `stop` is set, or for ever, and say how to reach it.

    Raises what `sandbox.slack.server.start_slack` raises.
    """
    slack = await start_slack(
        manifest=manifest, port=port, request_url=request_url, timings=timings
    )
    try:
        for line in introduction(slack, request_url):
            say(line)
        await (stop or asyncio.Event()).wait()
    finally:
        await slack.close()


def introduction(slack: SlackStandIn, request_url: str | None) -> list[str]:
    """Where the page is, and the settings for an app that shall talk to this Slack."""
    lines = [
        f"Slack stand-in: {slack.url}",
        "",
        f"SLACK_API_URL={slack.api_url}",
        f"SLACK_BOT_TOKEN={slack.bot_token}",
    ]
    if request_url is None:
        return [
            *lines,
            f"SLACK_APP_TOKEN={slack.app_token}",
            "",
            "Socket Mode: connect with the app token.",
        ]
    return [
        *lines,
        f"SLACK_SIGNING_SECRET={slack.signing_secret}",
        "",
        f"HTTP: commands, clicks and events go to {request_url}",
    ]
