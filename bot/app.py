"""Wires everything together; nothing else does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import aiohttp
from aiohttp import web
from slack_bolt import BoltResponse
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.web.async_client import AsyncWebClient

from approvals.policy_file import load_policy
from approvals.service import Approvals
from approvals.signing import VoteKeys
from approvals.words import BadInputError
from bot.background import Background
from bot.buttons import Seal
from bot.cards import Cards
from bot.desk import Desk
from bot.edge import Gate
from bot.http import serve_http, web_app
from bot.inventory import Inventory
from bot.limits import limits_of
from bot.listeners import actions, commands, events, views
from bot.metrics import Metrics
from bot.outbox import Outbox, Pace
from bot.people import People
from bot.planning import Planner
from bot.replies import Replies
from bot.settings import Settings
from bot.slack import SlackError, SlackRefusedError, call, open_session, web_client
from bot.sockets import open_sockets
from bot.storage import vote_keys
from jobs.away import is_away, pause_seconds
from jobs.engine import PgQueue
from jobs.limits import Limits
from jobs.operation import Operation
from jobs.reader import Readers
from jobs.registry import load_operations
from jobs.worker import Worker
from store.connect import Store

log: Final = logging.getLogger("twokey")

SWEEP_EVERY: Final = timedelta(seconds=5)
READ_LIMIT: Final = timedelta(seconds=2)
_STOPS: Final = 2  # a worker may need one stop limit, and its clean-up another


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who we are in Slack."""

    team: str
    bot_id: str
    bot_user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Twokey:
    """A wired process. `run` does its work until it is told to stop."""

    settings: Settings
    store: Store
    identity: Identity
    approvals: Approvals
    desk: Desk
    bolt: AsyncApp
    client: AsyncWebClient
    outbox: Outbox
    worker: Worker
    background: Background
    metrics: Metrics
    readers: Readers
    gate: Gate | None

    async def run(
        self,
        stop: asyncio.Event,
        *,
        bot: bool = True,
        worker: bool = True,
        listening: Callable[[str], None] = lambda url: log.info("Listening on %s", url),
    ) -> None:
        """Work until `stop` is set, then end what is in hand, within the stop limit.

        `listening` hears the URL once the process takes requests.

        Raises:
            BadInputError: the bot was given no way to hear from Slack, or the port is taken.
        """
        if bot and self.gate is None and self.settings.slack_app_token is None:
            raise BadInputError(
                "There is no way to hear from Slack.",
                next_step="Set SLACK_SIGNING_SECRET for HTTP, or SLACK_APP_TOKEN for Socket Mode.",
            )
        runner = await self._open_http() if bot else None
        work = asyncio.create_task(self._work(stop, runner, worker=worker, listening=listening))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({work}, timeout=_STOPS * self.settings.stop_limit.total_seconds())
            if not work.done():
                log.error("Not everything ended in time; what is left is cancelled.")
        finally:
            stopping.cancel()
            work.cancel()
            if runner is not None:
                await runner.cleanup()
        with contextlib.suppress(asyncio.CancelledError):
            await work

    async def _work(
        self,
        stop: asyncio.Event,
        runner: web.AppRunner | None,
        *,
        worker: bool,
        listening: Callable[[str], None],
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            if worker:
                tasks.create_task(self.worker.run(stop))
            if runner is not None:
                tasks.create_task(self.outbox.run(stop))
                tasks.create_task(self._sweep(stop))
                await self._listen(stop, runner, listening)

    async def _listen(
        self, stop: asyncio.Event, runner: web.AppRunner, listening: Callable[[str], None]
    ) -> None:
        """Take requests until `stop`; then no new ones, and what was promised is told."""
        token = self.settings.slack_app_token
        async with contextlib.AsyncExitStack() as stack:
            if token is not None:
                await stack.enter_async_context(
                    open_sockets(self.bolt, token.get_secret_value(), client=self.client, stop=stop)
                )
            listening(_url(runner))
            await stop.wait()
        await runner.cleanup()
        await self.background.drain()

    async def _open_http(self) -> web.AppRunner:
        settings = self.settings
        app = web_app(
            bolt=self.bolt, gate=self.gate, store=self.store, metrics=self.metrics,
            clock=utc_now,
        )  # fmt: skip
        try:
            return await serve_http(app, host=settings.http_host, port=settings.http_port)
        except OSError as error:
            raise BadInputError(
                f"{settings.http_host}:{settings.http_port} cannot be listened on: "
                f"{error.strerror}.",
                next_step="Set TWOKEY_HTTP_PORT to another port, or 0 for a free one.",
            ) from error

    async def _sweep(self, stop: asyncio.Event) -> None:
        """Tell what has expired or is about to. Expiry itself does not wait for this."""
        while not stop.is_set():
            try:
                await self.approvals.sweep()
            except Exception as error:
                if not is_away(error):
                    raise
            await _sleep_or(stop, SWEEP_EVERY)

    async def close(self) -> None:
        """Let go of connections to target databases."""
        await self.readers.close()


@asynccontextmanager
async def assembled(
    settings: Settings, inventory: Inventory, *, store: Store, **more: Any
) -> AsyncIterator[Twokey]:
    """`build`, with an HTTP session that is closed at the end of the block."""
    async with open_session() as session:
        twokey = await build(settings, inventory, store=store, session=session, **more)
        try:
            yield twokey
        finally:
            await twokey.close()


async def build(
    settings: Settings,
    inventory: Inventory,
    *,
    store: Store,
    session: aiohttp.ClientSession,
    operations: Mapping[str, Operation] | None = None,
    clock: Callable[[], datetime] | None = None,
    pace: Pace | None = None,
    limits: Limits | None = None,
) -> Twokey:
    """Everything of a process, wired. Asks Slack once who we are, and waits for it if it is away.

    Raises:
        BadInputError: a token is missing or Slack does not take it, or the policy is wrong.
    """
    clock = clock or utc_now
    operations = operations if operations is not None else load_operations("commands")
    client = web_client(_bot_token(settings), base_url=settings.slack_api_url, session=session)
    identity = await who_we_are(client)
    current, previous = vote_keys(settings)
    policy = load_policy(inventory.policy)
    metrics = Metrics()
    people = People(
        client,
        team=identity.team,
        groups={**inventory.groups, **policy.values.groups},
        fresh_for=settings.people_cache,
    )
    approvals = Approvals(
        store=store,
        keys=VoteKeys(current=current, previous=previous),
        queue=PgQueue(store),
        clock=clock,
        policy=policy,
        directory=people,
    )
    readers = Readers(statement_timeout=READ_LIMIT)
    seal = Seal([key for key in (current, previous) if key])
    cards = Cards(approvals=approvals, seal=seal)
    desk = Desk(
        approvals=approvals,
        people=people,
        planner=Planner(
            inventory=inventory, readers=readers, store=store, clock=clock,
            limit=settings.plan_limit,
        ),
        inventory=inventory,
        operations=operations,
        policy=policy,
        cards=cards,
        seal=seal,
        store=store,
        metrics=metrics,
        clock=clock,
    )  # fmt: skip
    background = Background(limit=settings.stop_limit)
    bolt = bolt_app(desk, identity=identity, client=client, session=session, background=background)
    return Twokey(
        settings=settings,
        store=store,
        identity=identity,
        approvals=approvals,
        desk=desk,
        bolt=bolt,
        client=client,
        outbox=Outbox(
            store=store, client=client, draw=cards, clock=clock, meter=metrics,
            pace=pace or Pace(give_up=settings.outbox_give_up),
        ),
        worker=Worker(
            store=store,
            approvals=approvals,
            directory=people,
            operations=operations,
            databases=inventory.databases,
            home=settings.home,
            clock=clock,
            limits=limits or limits_of(settings),
        ),
        background=background,
        metrics=metrics,
        readers=readers,
        gate=_gate(settings),
    )  # fmt: skip


def bolt_app(
    desk: Desk,
    *,
    identity: Identity,
    client: AsyncWebClient,
    session: aiohttp.ClientSession,
    background: Background,
) -> AsyncApp:
    """Bolt with our listeners. The gate has checked the signature, Socket Mode needs none."""

    async def authorize(enterprise_id: str | None) -> AuthorizeResult:
        # Built from what we know since the start: no auth.test per request. Who comes from
        # another workspace is refused by `people`, with an answer; Bolt would answer through
        # a URL in the payload, before the ack.
        return AuthorizeResult(
            enterprise_id=enterprise_id,
            team_id=identity.team,
            bot_token=client.token,
            bot_id=identity.bot_id,
            bot_user_id=identity.bot_user,
        )

    app = AsyncApp(
        # Ours has the token already; Bolt's own is used by nobody.
        client=web_client(None, base_url=client.base_url, session=session),
        authorize=authorize,
        request_verification_enabled=False,
        # Without it Bolt polls for the ack every 10 ms, and loses it when a listener raises.
        process_before_response=True,
    )
    replies = Replies(client, session)
    commands.register(app, desk)
    actions.register(app, desk, client=client, replies=replies, background=background)
    views.register(app, desk, replies=replies, background=background)
    events.register(app, desk, client=client, background=background)

    @app.error
    async def failed(error: Exception) -> BoltResponse:
        # Listeners are guarded: what comes here is a payload that lacks what Slack always sends.
        reference = uuid4().hex[:8]
        log.error("A payload could not be read (id %s).", reference, exc_info=error)
        desk.metrics.broke("payload")
        return BoltResponse(status=400, body="")

    return app


async def who_we_are(client: AsyncWebClient) -> Identity:
    """Our workspace and account, as soon as Slack can be asked.

    Raises:
        BadInputError: Slack does not take the token.
    """
    failures = 0
    while True:
        try:
            data = await call(client.auth_test())
        except SlackRefusedError as error:
            raise BadInputError(
                f"Slack does not take SLACK_BOT_TOKEN: {error.error}.",
                next_step="Install the app in the workspace again and use its new bot token.",
            ) from error
        except SlackError as error:
            failures += 1
            log.warning("Slack does not say yet who we are: %s.", error)
            await asyncio.sleep(pause_seconds(failures))
        else:
            return Identity(
                team=data["team_id"], bot_id=data.get("bot_id", ""), bot_user=data["user_id"]
            )


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def _bot_token(settings: Settings) -> str:
    if settings.slack_bot_token is None:
        raise BadInputError(
            "SLACK_BOT_TOKEN is not set.",
            next_step="Install the app of manifest.yml in Slack and set its bot token (xoxb-…).",
        )
    return settings.slack_bot_token.get_secret_value()


def _gate(settings: Settings) -> Gate | None:
    secrets: Sequence[str] = [
        secret.get_secret_value()
        for secret in (settings.slack_signing_secret, settings.slack_signing_secret_previous)
        if secret is not None
    ]
    return Gate(secrets) if settings.slack_signing_secret is not None else None


def _url(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


async def _sleep_or(stop: asyncio.Event, length: timedelta) -> None:
    try:
        async with asyncio.timeout(length.total_seconds()):
            await stop.wait()
    except TimeoutError:
        return
