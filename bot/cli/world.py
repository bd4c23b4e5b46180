"""The demo's world: three servers and a pair, a Slack to talk to, and Twokey between them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from approvals.words import BadInputError
from bot.app import assembled
from bot.cli.demo_inventory import CHANNEL, ROOT, demo_inventory
from bot.cli.past import remember_growth
from bot.inventory import Inventory
from bot.outbox import Pace
from bot.process import Twokey, utc_now
from bot.settings import Settings
from bot.storage import open_store
from jobs.scratches import end_all
from postgres.binaries import Binaries
from postgres.restore.lasting import remove_all
from postgres.server import find_binaries, remove_server
from postgres.together import together
from sandbox.clusters import DemoCluster, DemoDatabase, start_cluster
from sandbox.payments import Payments, remove_payments, start_payments
from sandbox.slack.server import PortTakenError, SlackStandIn, start_slack
from sandbox.traffic import visitors
from store.connect import Store
from store.outbox import post

STOP_SECONDS_MAX: Final = 30.0
CLUSTERS: Final = ("orders", "reports", "trials")

# The stand-in keeps its messages in memory: a card of an earlier start is nowhere any more.
OPEN_REQUESTS: Final = sa.text("""
    SELECT id FROM requests WHERE state IN ('pending', 'approved', 'executing') ORDER BY id
""")
FORGET_POSTS: Final = sa.text("DELETE FROM posts")
FORGET_PLACES: Final = sa.text("DELETE FROM places")


@dataclass(kw_only=True)
class World:
    """Everything that runs. `restart` starts Twokey anew on the same store."""

    slack: SlackStandIn
    store: Store
    settings: Settings
    inventory: Inventory
    clusters: tuple[DemoCluster, ...]
    payments: Payments | None  # None: this machine cannot have it
    twokey: Twokey
    url: str  # where Twokey listens, for its API
    _stop: asyncio.Event
    _task: asyncio.Task[None]

    async def restart(self) -> None:
        """End Twokey as SIGTERM would, and start it again; Slack and store stay."""
        await self.halt()
        self.twokey, self.url, self._stop, self._task = await _running(
            self.settings, self.inventory, self.store, self.slack
        )

    async def halt(self) -> None:
        """End Twokey; what it was doing is handed back to the store."""
        self._stop.set()
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await self._task

    async def ended(self) -> None:
        """Wait until Twokey ends by itself, which is an error's doing."""
        await self._task


@asynccontextmanager
async def demo_world(home: Path, *, port: int, by_clock: bool = True) -> AsyncIterator[World]:
    """Start all of it under `home`; nothing of it is left when the block ends.

    Without `by_clock` nothing is asked for by schedules: a story's requests are numbered.

    Raises:
        BadInputError: a demo runs here already, or the port is taken.
        PostgresError: there are no programs of PostgreSQL, or a server does not start.
    """
    await asyncio.to_thread(home.mkdir, parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_alone(home))
        slack = await _slack(port, stack)
        settings = _settings(home, slack)
        binaries = await asyncio.to_thread(find_binaries, os.environ)
        async with together() as starting:
            # Most of what a cluster's start takes is waiting: the others start meanwhile.
            beside = starting.create_task(_payments(home, binaries, stack))
            clusters = await _clusters(home, binaries, stack)
            store = await stack.enter_async_context(open_store(settings, os.environ))
        payments = beside.result()
        inventory = demo_inventory(home, clusters, payments, by_clock=by_clock)
        await _forget_posts(store)
        # Nobody visits where changes are tried.
        visited: list[DemoDatabase] = [one for one in clusters if one.name != "trials"]
        doors = {one.name: one.dsn for one in visited}
        if payments:
            visited.append(payments)
            doors[payments.name] = payments.endpoint
        await remember_growth(store, visited)
        await stack.enter_async_context(visitors(doors))
        twokey, url, stop, task = await _running(settings, inventory, store, slack)
        world = World(
            slack=slack, store=store, settings=settings, inventory=inventory,
            clusters=clusters, payments=payments, twokey=twokey, url=url, _stop=stop, _task=task,
        )  # fmt: skip
        try:
            yield world
        finally:
            await world.halt()
            await end_all(store, home, now=utc_now())


async def clear(home: Path) -> None:
    """Remove all that a demo has left under `home`, wherever its servers really stand.

    Raises:
        PostgresError: one of them is running.
    """
    for name in CLUSTERS:
        await remove_server(home / "clusters" / name)
    await remove_server(home / "store")
    await asyncio.to_thread(remove_payments, home / "clusters")
    await remove_all(home)
    await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)


async def _running(
    settings: Settings, inventory: Inventory, store: Store, slack: SlackStandIn
) -> tuple[Twokey, str, asyncio.Event, asyncio.Task[None]]:
    """Twokey and where it listens, once it takes requests."""
    made: asyncio.Future[tuple[Twokey, str]] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()

    async def life() -> None:
        pace = Pace(give_up=settings.outbox_give_up)
        async with assembled(settings, inventory, store=store, pace=pace) as twokey:

            def listening(url: str) -> None:
                slack.set_request_url(f"{url}/slack/events")
                made.set_result((twokey, url))

            await twokey.run(stop, listening=listening)

    task = asyncio.create_task(life())
    either: set[asyncio.Future[Any]] = {made, task}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not made.done():
        await task
    twokey, url = made.result()
    return twokey, url, stop, task


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep a second demo out of this folder; the lock goes with the process."""
    with (home / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInputError(
                f"A demo runs in {home} already.",
                next_step="Use that one, or end it with Ctrl-C, or set TWOKEY_HOME elsewhere.",
            ) from None
        yield


async def _clusters(
    home: Path, binaries: Binaries, stack: contextlib.AsyncExitStack
) -> tuple[DemoCluster, ...]:
    made = []
    for name in CLUSTERS:
        cluster = await start_cluster(binaries, home / "clusters", name)
        stack.push_async_callback(cluster.server.stop, "fast")
        made.append(cluster)
    return tuple(made)


async def _payments(
    home: Path, binaries: Binaries, stack: contextlib.AsyncExitStack
) -> Payments | None:
    payments = await start_payments(home / "clusters", binaries)
    if payments:
        stack.push_async_callback(payments.close)
    return payments


async def _slack(port: int, stack: contextlib.AsyncExitStack) -> SlackStandIn:
    try:
        slack = await start_slack(manifest=ROOT / "manifest.yml", port=port)
    except PortTakenError as error:
        raise BadInputError(
            f"{error}",
            next_step="Choose another one: make demo ARGS='--port 0' takes any free one.",
        ) from error
    stack.push_async_callback(slack.close)
    return slack


def _settings(home: Path, slack: SlackStandIn) -> Settings:
    """The settings that an operator would have put into the environment."""
    return Settings.model_validate(
        {
            "config": home / "twokey.yml",
            "home": home,
            "http_port": 0,
            "store": None,
            "slack_bot_token": slack.bot_token,
            "slack_signing_secret": slack.signing_secret,
            "slack_api_url": slack.api_url,
            "slack_app_token": None,
        }
    )


async def _forget_posts(store: Store) -> None:
    async with store.begin() as conn:
        await conn.execute(FORGET_POSTS)
        await conn.execute(FORGET_PLACES)
        for request_id in (await conn.execute(OPEN_REQUESTS)).scalars().all():
            await post(
                conn, topic="card", request_id=request_id, channel=CHANNEL, payload={},
                now=utc_now(),
            )  # fmt: skip
