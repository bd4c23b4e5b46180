"""The stand-in as a whole: starts it, and is the tests' and the demo's hands in Slack."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from sandbox.slack.actor import Actor, Delivery
from sandbox.slack.admin import Admin
from sandbox.slack.delivery import Dispatcher, Outcome
from sandbox.slack.faults import Faults
from sandbox.slack.forms import Forms
from sandbox.slack.manifest import load
from sandbox.slack.objects import message_object
from sandbox.slack.people import Person
from sandbox.slack.platform import Platform
from sandbox.slack.replies import Replies
from sandbox.slack.seed import demo_workspace
from sandbox.slack.sockets import Sockets
from sandbox.slack.state import seen_messages
from sandbox.slack.timings import Timings
from sandbox.slack.ui import Ui
from sandbox.slack.uploads import Uploads
from sandbox.slack.viewstate import view_object
from sandbox.slack.webapi import WebApi
from sandbox.slack.wire import Wire
from sandbox.slack.workspace import Json, Workspace

HOST: Final = "127.0.0.1"
# Below Linux's range for outgoing connections, which would take a port from under us.
PORTS: Final = range(20_000, 32_768)
PORT_TRIES: Final = 50
REQUEST_BYTES_MAX: Final = 10_500_000
T = TypeVar("T")


class PortTakenError(OSError):
    """The port that was asked for is in use."""


def check_loopback(url: str) -> str:
    """The URL, if it points to this machine; raises `ValueError` otherwise."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        local = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        local = False
    if parts.scheme != "http" or not local:
        raise ValueError(
            f"The stand-in delivers only to this machine, not to {url}. "
            "Give it something like http://127.0.0.1:8080/slack/events."
        )
    return url


class SlackStandIn:
    """A running stand-in. Ask `start_slack` for one."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.workspace: Workspace = platform.workspace
        self.faults: Faults = platform.faults
        self.wire: Wire = platform.wire
        self.sockets = Sockets(platform)
        self._dispatcher = Dispatcher(platform, self.sockets)
        self._replies = Replies(platform)
        self._actor = Actor(platform, self._dispatcher, self._replies)
        self._forms = Forms(platform, self._dispatcher)
        self.admin = Admin(platform, self._dispatcher)
        self._ui = Ui(platform, self._actor, self._forms, self.admin)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        return self._platform.url

    @property
    def api_url(self) -> str:
        """What the app takes for https://slack.com/api/."""
        return f"{self._platform.url}/api/"

    @property
    def bot_token(self) -> str:
        """The app's token for the Web API."""
        return self._platform.bot_token

    @property
    def app_token(self) -> str:
        """The app's token for Socket Mode."""
        return self._platform.app_token

    @property
    def signing_secret(self) -> str:
        """What proves that a request comes from Slack."""
        return self._platform.signing_secret

    @property
    def scopes_used(self) -> frozenset[str]:
        """The scopes that the app has needed so far."""
        return frozenset(self._platform.scopes_used)

    def set_request_url(self, url: str | None) -> None:
        """Deliver by HTTP to `url` from now on, or with None over Socket Mode."""
        self._platform.request_url = None if url is None else check_loopback(url)

    def advance(self, seconds: float) -> None:
        """Let Slack's clock run ahead; timestamps, triggers and tickets age."""
        self._platform.ahead_seconds += seconds
        self.workspace.changes.bump()

    async def start(self, port: int) -> None:
        """Listen on this machine; port 0 means a free one."""
        app = web.Application(client_max_size=REQUEST_BYTES_MAX, middlewares=[_only_local])
        app.add_routes(WebApi(self._platform, self.sockets).routes())
        app.add_routes(self._replies.routes())
        app.add_routes(Uploads(self._platform).routes())
        app.add_routes([web.get("/link", self.sockets.handle)])
        app.add_routes(self._ui.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        self._platform.url = f"http://{HOST}:{await _listen(self._runner, port)}"
        self.workspace.url = self._platform.url

    async def close(self) -> None:
        """Stop; nothing of it is left running."""
        self._ui.closing.set()
        self.workspace.changes.bump()
        await self._dispatcher.close()
        await self.sockets.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def command(
        self, user: str, channel: str, text: str, thread_ts: str | None = None
    ) -> Delivery:
        """Type a slash command, such as `/db backup orders`."""
        return await self._actor.command(user=user, channel=channel, text=text, thread_ts=thread_ts)

    async def click(
        self,
        user: str,
        channel: str,
        ts: str,
        action_id: str,
        block_id: str | None = None,
        *,
        value: Any = None,
        shown: Json | None = None,
    ) -> Delivery:
        """Press a button or choose (`value`) in a message; `shown`: as somebody still sees it."""
        return await self._actor.click(
            user=user,
            channel=channel,
            ts=ts,
            action_id=action_id,
            block_id=block_id,
            given=value,
            shown=shown,
        )

    async def shortcut(self, user: str, callback_id: str) -> Delivery:
        """Choose one of the app's global shortcuts."""
        return await self._actor.shortcut(user=user, callback_id=callback_id)

    async def suggest(
        self, user: str, view_id: str, block_id: str, action_id: str, value: str
    ) -> Json:
        """Type `value` into an `external_select` of a view: the options that the app gives."""
        container = {"type": "view", "view_id": view_id}
        return await self._actor.suggest(
            user=user, container=container, block_id=block_id, action_id=action_id, value=value
        )

    async def click_view(
        self,
        user: str,
        view_id: str,
        action_id: str,
        block_id: str | None = None,
        *,
        value: Any = None,
    ) -> Delivery:
        """Press a button or choose (`value`) in a modal or on the home tab."""
        return await self._actor.click_view(
            user=user, view_id=view_id, action_id=action_id, block_id=block_id, given=value
        )

    async def submit(
        self, user: str, view_id: str, values: Mapping[str, Any] | None = None
    ) -> Delivery:
        """Submit the modal in front; values by block_id and action_id."""
        return await self._forms.submit(user=user, view_id=view_id, values=values or {})

    async def close_view(self, user: str, view_id: str, *, clear: bool = False) -> Delivery:
        """Close the modal in front, or all of them."""
        return await self._forms.close(user=user, view_id=view_id, clear=clear)

    async def open_home(self, user: str) -> Outcome | None:
        """Open the app's home tab; None when the app does not listen to it."""
        return await self._actor.open_home(user=user)

    async def say(self, user: str, channel: str, text: str, thread_ts: str | None = None) -> Json:
        """Write a message; it is given back as Slack's object."""
        message = await self._actor.say(user=user, channel=channel, text=text, thread_ts=thread_ts)
        return message_object(self.workspace, message)

    async def set_flags(self, user: str, **flags: bool) -> Person:
        """deactivated, guest, single_channel_guest, external, unconfirmed, bot."""
        return await self.admin.set_flags(user, **flags)

    async def again(self) -> Outcome:
        """Deliver the last command, click, form or event once more, signed anew."""
        return await self._dispatcher.again()

    async def verify_request_url(self) -> bool:
        """Whether the app echoes the challenge, which Slack asks for when the URL is entered."""
        return await self._dispatcher.verify()

    def messages(self, channel: str, as_user: str | None = None) -> list[Json]:
        """All messages with replies, oldest first, with metadata.

        With `as_user` also what only this person sees (`ephemeral`), and `failed`.
        """
        return seen_messages(self.workspace, channel, as_user, with_metadata=True)

    def direct(self, user: str) -> list[Json]:
        """The app's direct messages with somebody, oldest first."""
        return self.messages(self.workspace.im(user).id, as_user=user)

    def ephemerals(self, user: str) -> list[Json]:
        """What only this person sees, in all channels, oldest first; Slackbot's too."""
        found = self.workspace.ephemerals(user)
        return [
            {**message_object(self.workspace, m), "channel": m.channel, "ephemeral": True}
            for m in found
        ]

    def views(self, user: str) -> list[Json]:
        """The stack of modals; the last one is in front."""
        return [view_object(self.workspace, v) for v in self.workspace.stacks.get(user, [])]

    def home(self, user: str) -> Json | None:
        """The home tab that the app has published for somebody."""
        view = self.workspace.homes.get(user)
        return view_object(self.workspace, view) if view else None

    async def wait_for(self, predicate: Callable[[], T | None], seconds: float = 30) -> T:
        """What `predicate` gives as soon as it is true; it is asked at every change.

        Raises:
            TimeoutError: it did not become true in time.
        """
        changes = self.workspace.changes
        try:
            async with asyncio.timeout(seconds):
                while not (found := predicate()):
                    await changes.wait(after=changes.version)
        except TimeoutError:
            newest = [f"{e.kind} {e.summary}" for e in self.wire][-5:]
            raise TimeoutError(
                f"It did not happen within {seconds} s. Last on the wire: {newest}"
            ) from None
        return found


async def start_slack(
    *,
    manifest: Path,
    port: int = 0,
    request_url: str | None = None,
    seed: Workspace | None = None,
    timings: Timings | None = None,
    clock: Callable[[], datetime] | None = None,
) -> SlackStandIn:
    """Start a stand-in for the app of this manifest.

    With `request_url` it delivers by signed HTTP, else over Socket Mode.

    Raises:
        ManifestError: Slack would refuse the manifest.
        ValueError: the request URL is not on this machine.
        PortTakenError: the port is in use.
    """
    platform = Platform(
        workspace=seed or demo_workspace(),
        manifest=load(manifest),
        clock=clock or (lambda: datetime.now(tz=UTC)),
        timings=timings or Timings(),
        request_url=None if request_url is None else check_loopback(request_url),
    )
    slack = SlackStandIn(platform)
    await slack.start(port)
    return slack


async def _listen(runner: web.AppRunner, port: int) -> int:
    tries = [port] if port else random.sample(PORTS, PORT_TRIES)
    for one in tries:
        try:
            await web.TCPSite(runner, HOST, one).start()
        except OSError:
            continue
        return one
    raise PortTakenError(
        f"Port {port} on {HOST} is in use." if port else "No free port below 32768 was found."
    )


@web.middleware
async def _only_local(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A page from elsewhere that resolves its name to this machine gets nothing."""
    host = urlsplit(f"//{request.host}").hostname
    if host not in {HOST, "localhost"}:
        return web.Response(status=403, text="this stand-in answers only to its own machine")
    return await handler(request)
