"""A wired process: what it does until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from aiohttp import web
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from approvals.service import Approvals
from approvals.words import BadInputError
from bot.alerting import POLL, Watch
from bot.alertmanager import Alertmanager, receiver
from bot.api import Api
from bot.background import Background
from bot.desk import Desk
from bot.edge import Gate
from bot.homes import Homes
from bot.http import serve_http, web_app
from bot.metrics import Metrics
from bot.notices import Teller
from bot.outbox import Outbox
from bot.scheduled import ScheduledRequests
from bot.schedules import run_schedules
from bot.settings import Settings
from bot.sockets import open_sockets
from jobs.away import is_away
from jobs.reader import Readers
from jobs.worker import Worker
from store.connect import Store

log: Final = logging.getLogger("twokey")

SWEEP_EVERY: Final = timedelta(seconds=5)
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
    teller: Teller
    homes: Homes
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
                tasks.create_task(self.teller.run(stop))
                tasks.create_task(self.homes.run(stop))
                tasks.create_task(self._sweep(stop))
                tasks.create_task(self._scheduled(stop))
                tasks.create_task(self._watch().run(stop))
                tasks.create_task(self._alertmanager().run(stop))
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
            clock=utc_now, api=[*Api(self.desk).routes(), *self._alertmanager().routes()],
        )  # fmt: skip
        try:
            return await serve_http(app, host=settings.http_host, port=settings.http_port)
        except OSError as error:
            raise BadInputError(
                f"{settings.http_host}:{settings.http_port} cannot be listened on: "
                f"{error.strerror}.",
                next_step="Set TWOKEY_HTTP_PORT to another port, or 0 for a free one.",
            ) from error

    async def _scheduled(self, stop: asyncio.Event) -> None:
        desk = self.desk
        await run_schedules(
            stop,
            inventory=desk.inventory,
            store=self.store,
            clock=desk.clock,
            meter=self.metrics.audit,
            requests=ScheduledRequests(desk=desk),
        )

    def _alertmanager(self) -> Alertmanager:
        return receiver(
            self.settings, self.desk.inventory, store=self.store, metrics=self.metrics,
            clock=self.desk.clock,
        )  # fmt: skip

    def _watch(self) -> Watch:
        # To look more often than anybody measures would find nothing new.
        paces = [one.monitoring.every for one in self.desk.inventory.databases.values()]
        return Watch(
            inventory=self.desk.inventory, store=self.store, clock=self.desk.clock,
            poll=min([POLL, *paces]), broke=self.metrics.broke,
        )  # fmt: skip

    async def _sweep(self, stop: asyncio.Event) -> None:
        """Tell what has expired or is about to. Expiry itself does not wait for this."""
        while not stop.is_set():
            try:
                await self.approvals.sweep()
                await self.desk.tokens.forget()
            except Exception as error:
                if not is_away(error):
                    raise
            await _sleep_or(stop, SWEEP_EVERY)

    async def close(self) -> None:
        """Let go of connections to target databases."""
        await self.desk.planner.remembered.close()
        await self.readers.close()


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def _url(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


async def _sleep_or(stop: asyncio.Event, length: timedelta) -> None:
    try:
        async with asyncio.timeout(length.total_seconds()):
            await stop.wait()
    except TimeoutError:
        return
