"""A small Slack app on the real slack-bolt, for the page to show: cards, modals, a home."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.server import SlackStandIn

Json = dict[str, Any]
HOSTILE = (
    "&lt;script&gt;window.hacked = 1&lt;/script&gt; "
    "&lt;img src=x onerror='window.hacked = 2'&gt; "
    "<javascript:window.hacked=3|press me> \u202egnp.exe\u202c end"
)


def _text(text: str, *, plain: bool = False) -> Json:
    return {"type": "plain_text" if plain else "mrkdwn", "text": text}


def _button(action: str, label: str, **more: Any) -> Json:
    return {
        "type": "button",
        "action_id": action,
        "text": _text(label, plain=True),
        "value": "request-7",
        **more,
    }


CONFIRM = {
    "title": _text("Approve the backup?", plain=True),
    "text": _text("It reads *orders* once."),
    "confirm": _text("Yes, approve", plain=True),
    "deny": _text("Not yet", plain=True),
}


def card(asked_by: str, state: str = "pending") -> list[Json]:
    """A request; its buttons are there while it is pending."""
    head = {"type": "header", "text": _text(":package: Back up orders", plain=True)}
    fields = [_text(f"*Asked by*\n<@{asked_by}>"), _text(f"*State*\n{state}")]
    plan = _text("What will run:\n```pg_basebackup --format=tar \\\n  --checkpoint=fast```")
    buttons = [
        _button("approve", "Approve", style="primary", confirm=CONFIRM),
        _button("deny", "Deny", style="danger"),
        _button("broken", "Break"),
    ]
    blocks: list[Json] = [
        head,
        {"type": "section", "fields": fields},
        {"type": "section", "text": plan},
    ]
    actions: Json = {"type": "actions", "elements": buttons}
    return [*blocks, actions] if state == "pending" else blocks


def reason_form() -> Json:
    """Asks for a reason and a kind."""
    kinds = [{"text": _text(word, plain=True), "value": word.lower()} for word in ("Time", "Plan")]
    return {
        "type": "modal",
        "callback_id": "deny_reason",
        "title": _text("Deny request 7", plain=True),
        "submit": _text("Deny", plain=True),
        "blocks": [
            {
                "type": "input",
                "block_id": "reason",
                "label": _text("Reason", plain=True),
                "element": {"type": "plain_text_input", "action_id": "v", "multiline": True},
            },
            {
                "type": "input",
                "block_id": "kind",
                "label": _text("Kind", plain=True),
                "element": {"type": "static_select", "action_id": "k", "options": kinds},
            },
        ],
    }


def home(choice: str) -> Json:
    """A home tab with a select that tells what was chosen."""
    options = [{"text": _text(w, plain=True), "value": w} for w in ("orders", "billing")]
    select = {
        "type": "static_select",
        "action_id": "database",
        "placeholder": _text("Database", plain=True),
        "options": options,
    }
    return {
        "type": "home",
        "blocks": [
            {"type": "header", "text": _text("Your requests", plain=True)},
            {"type": "section", "text": _text(choice)},
            {"type": "actions", "block_id": "choose", "elements": [select]},
        ],
    }


CHART = {
    "type": "data_visualization",
    "title": "Restore time",
    "chart": {
        "type": "line",
        "series": [
            {
                "name": "minutes",
                "data": [{"label": "Mon", "value": 3}, {"label": "Tue", "value": 4}],
            }
        ],
        "axis_config": {"categories": ["Mon", "Tue"]},
    },
}
TABLE = {
    "type": "table",
    "rows": [
        [{"type": "raw_text", "text": "Backup"}, {"type": "raw_text", "text": "Size"}],
        [{"type": "raw_text", "text": "orders-19"}, {"type": "raw_text", "text": "7.1 GB"}],
    ],
}


class Desk:
    """The listeners, and what they have been told."""

    def __init__(self, app: AsyncApp, client: AsyncWebClient) -> None:
        self.client = client
        self.denied: list[Json] = []
        self.hold = asyncio.Event()
        self.hold.set()
        app.command("/db")(self.command)
        app.action("approve")(self.approve)
        app.action("deny")(self.deny)
        app.action("broken")(self.broken)
        app.action("database")(self.choose)
        app.view("deny_reason")(self.reason)
        app.event("app_home_opened")(self.open_home)
        app.event("user_change")(self.ignore)

    async def command(self, ack: Any, client: Any, command: Json) -> None:
        """Posts what the text asks for."""
        to = {"channel": command["channel_id"]}
        match command["text"]:
            case "backup orders":
                blocks = card(command["user_id"])
                await client.chat_postMessage(**to, text="Ana asks for a backup", blocks=blocks)
            case "hostile":
                await client.chat_postMessage(**to, text=HOSTILE)
            case "show":
                await client.chat_postMessage(**to, text="Numbers", blocks=[TABLE, CHART])
            case "silent":
                return
            case other:
                await ack(f":x: *{other}* is not known. Try `/db backup orders`.")
                return
        await ack()

    async def approve(self, ack: Any, client: Any, body: Json) -> None:
        """Refuses who asked; else the card loses its buttons and the thread tells."""
        await ack()
        await self.hold.wait()
        to = {"channel": body["channel"]["id"]}
        user, ts = body["user"]["id"], body["message"]["ts"]
        if user == "U0ANA":
            await client.chat_postEphemeral(
                **to, user=user, text=":no_entry: You asked for this yourself."
            )
            return
        await client.chat_update(
            **to, ts=ts, text="approved", blocks=card("U0ANA", f"approved by <@{user}>")
        )
        await client.chat_postMessage(**to, thread_ts=ts, text=":hourglass: 40 % copied")

    async def deny(self, ack: Any, client: Any, body: Json) -> None:
        """Asks for the reason."""
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=reason_form())

    async def broken(self, ack: Any) -> None:
        """Never answers."""

    async def reason(self, ack: Any, view: Json) -> None:
        """A short reason is sent back."""
        values = view["state"]["values"]
        if len(values["reason"]["v"]["value"]) < 10:
            await ack(response_action="errors", errors={"reason": "Say at least ten letters."})
            return
        self.denied.append(values)
        await ack()

    async def choose(self, ack: Any, client: Any, body: Json) -> None:
        """Tells on the home tab what was chosen."""
        await ack()
        chosen = body["actions"][0]["selected_option"]["value"]
        await client.views_publish(user_id=body["user"]["id"], view=home(f"You chose *{chosen}*."))

    async def open_home(self, client: Any, event: Json) -> None:
        """Publishes the home tab."""
        await client.views_publish(user_id=event["user"], view=home("Nothing chosen."))

    async def ignore(self) -> None:
        """Accounts change; this app remembers nothing about them."""


@asynccontextmanager
async def desk(slack: SlackStandIn) -> AsyncIterator[Desk]:
    """The app, served over HTTP on this machine and known to the stand-in."""
    async with ClientSession(timeout=ClientTimeout(total=30), trust_env=False) as session:
        client = AsyncWebClient(base_url=slack.api_url, session=session, token=slack.bot_token)

        async def authorize() -> AuthorizeResult:
            return AuthorizeResult(
                enterprise_id=None, team_id="T0DEMO", bot_token=slack.bot_token, bot_id="B0TWOKEY",
                bot_user_id="U0TWOKEY",
            )  # fmt: skip

        app = AsyncApp(client=client, authorize=authorize, signing_secret=slack.signing_secret)
        made = Desk(app, client)

        async def handle(request: web.Request) -> web.Response:
            return await to_aiohttp_response(
                await app.async_dispatch(await to_bolt_request(request))
            )

        site = web.Application()
        site.router.add_post("/slack/events", handle)
        runner = web.AppRunner(site, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        try:
            port = await _listen(runner)
            slack.set_request_url(f"http://127.0.0.1:{port}/slack/events")
            yield made
        finally:
            made.hold.set()
            await runner.cleanup()


async def _listen(runner: web.AppRunner) -> int:
    for port in random.sample(range(20_000, 32_000), 50):
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError:
            continue
        return port
    raise OSError("no free port")
