"""The real Bolt over both transports, and the Block Kit that the tests send."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.app.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.server import PORTS, SlackStandIn
from sandbox.slack.timings import Timings

MANIFEST = Path(__file__).parents[2] / "manifest.yml"
QUICK = Timings(ack_seconds=2.0, event_retry_seconds=(0.0, 0.02, 0.02), socket_grace_seconds=0.1)


def client_of(slack: SlackStandIn, token: str | None = None) -> AsyncWebClient:
    """A client that never tries again by itself."""
    return AsyncWebClient(token=token or slack.bot_token, base_url=slack.api_url, retry_handlers=[])


def scoped(*scopes: str, drop: str = "") -> Callable[[dict[str, Any]], None]:
    """A change of the manifest: these scopes in addition, without `drop`."""

    def change(raw: dict[str, Any]) -> None:
        granted = raw["oauth_config"]["scopes"]["bot"]
        granted[:] = [scope for scope in [*granted, *scopes] if scope != drop]
        raw["settings"]["event_subscriptions"]["bot_events"] = ["app_home_opened"]

    return change


class Bot:
    """A real Bolt app; the tests register listeners and then `run` it."""

    def __init__(self, slack: SlackStandIn, mode: str) -> None:
        self.slack = slack
        self.mode = mode
        self.app = AsyncApp(
            client=client_of(slack),
            signing_secret=slack.signing_secret,
            process_before_response=True,
        )

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Be reachable for the stand-in."""
        async with over_http(self) if self.mode == "http" else over_socket(self):
            yield


@asynccontextmanager
async def over_http(bot: Bot) -> AsyncIterator[None]:
    """Bolt's own web server at a request URL."""
    runner = web.AppRunner(bot.app.server(path="/slack/events").web_app, access_log=None)
    await runner.setup()
    port = await listen(runner)
    bot.slack.set_request_url(f"http://127.0.0.1:{port}/slack/events")
    try:
        yield
    finally:
        await runner.cleanup()


async def listen(runner: web.AppRunner) -> int:
    """A free port below the range of outgoing connections."""
    for port in PORTS:
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError:
            continue
        return port
    raise OSError("no port is free")


@asynccontextmanager
async def over_socket(bot: Bot) -> AsyncIterator[None]:
    """Bolt's Socket Mode."""
    handler = AsyncSocketModeHandler(bot.app, bot.slack.app_token, ping_interval=0.2)
    await handler.connect_async()
    await bot.slack.wait_for(lambda: len(bot.slack.sockets))
    try:
        yield
    finally:
        await handler.close_async()


def button(action_id: str = "approve", **more: Any) -> dict[str, Any]:
    """A button."""
    text = {"type": "plain_text", "text": action_id.title()}
    return {"type": "button", "action_id": action_id, "text": text, "value": "v1", **more}


def actions(*elements: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A block of buttons."""
    return {"type": "actions", "elements": list(elements or [button()]), **more}


def section(text: str = "hello") -> dict[str, Any]:
    """A section."""
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def ask(block_id: str = "why", **element: Any) -> dict[str, Any]:
    """An input."""
    return {
        "type": "input",
        "block_id": block_id,
        "label": {"type": "plain_text", "text": "Reason"},
        "element": {"type": "plain_text_input", "action_id": "text", **element},
    }


def modal(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A modal."""
    return {
        "type": "modal",
        "callback_id": "form",
        "title": {"type": "plain_text", "text": "Form"},
        "submit": {"type": "plain_text", "text": "Send"},
        "blocks": list(blocks or [ask()]),
        **more,
    }
