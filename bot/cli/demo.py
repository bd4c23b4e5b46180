"""`twokey demo`: everything on one's own machine, to play with or to watch."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Final

import typer

from bot.cli.output import run, say, stop_at_signals
from bot.cli.tour import play
from bot.cli.tour_failover import prove_payments
from bot.cli.tour_play import CLEO, Tour, TourError
from bot.cli.world import World, clear, demo_world
from bot.process import utc_now
from bot.settings import check_names, load_settings
from jobs.backup_state import states
from postgres.cluster.words import ClusterKind

# A failover wants one that is younger than two days.
PROVEN_FOR: Final = timedelta(days=1)


def demo(*, port: int, tour: bool) -> None:
    """Start PostgreSQL, a stand-in for Slack and Twokey on this machine, until Ctrl-C.

    `port` is the page's, 0 for a free one; with `tour` the story is played, and then it ends.
    """
    check_names(os.environ)
    home = load_settings().home
    if tour:
        raise typer.Exit(run(_tour(home / "tour")))
    run(_until_stopped(home, port))


async def _until_stopped(home: Path, port: int) -> None:
    stop = asyncio.Event()
    stop_at_signals(stop)
    say("Starting PostgreSQL servers, a store, a stand-in for Slack, and Twokey …")
    async with demo_world(home, port=port) as world:
        for line in _introduction(world):
            say(line)
        proving = asyncio.create_task(_prove(world))
        stopping = asyncio.create_task(stop.wait())
        failing = asyncio.create_task(world.ended())
        await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        proving.cancel()
        say("Stopping …")
    say("Stopped. Nothing is left running; the data stays for the next start.")


async def _tour(home: Path) -> int:
    """Play on fresh data, so that what one reads is the same every time."""
    await clear(home)
    say("A tour of Twokey: real PostgreSQL, real backups; only Slack is a stand-in.")
    try:
        async with demo_world(home, port=0, by_clock=False) as world:
            return await play(world, say)
    finally:
        await clear(home)


async def _prove(world: World) -> None:
    """Have a backup of payments proven unless one is: without it nothing may fail over."""
    payments = world.payments and world.inventory.databases.get(world.payments.name)
    if not payments:
        return
    now = utc_now()
    async with world.store.begin() as conn:
        (known,) = await states(conn, [payments], now)
    if any(now - each.ended_at < PROVEN_FOR for each in known.verified if each.verified_ok):
        return
    try:
        await prove_payments(Tour(world=world, say=say), CLEO)
    except (TourError, TimeoutError) as problem:
        say(f"No backup of payments is proven, so /db failover will refuse: {problem}")


def _introduction(world: World) -> list[str]:
    home = world.settings.home
    return [
        "",
        f"  Open   {world.slack.url}/#U0ANA/C0DBOPS",
        "",
        "  As Ana type     /db backup orders      (the card appears in #orders)",
        "  Press Approve   as Ana: refused. Then switch to Ben, and to Cleo.",
        "  Then            /db verify orders      and   /db backups orders",
        *_failover(world),
        "",
        "  Check the audit in another terminal:",
        f"                  TWOKEY_HOME={home} .venv/bin/twokey audit verify",
        "  Ctrl-C ends all of it.",
        "",
    ]


def _failover(world: World) -> list[str]:
    if world.payments is None:
        return ["  (payments, with its two servers, is left out: this machine has no /proc.)"]
    how = "Patroni and etcd" if world.payments.kind is ClusterKind.PATRONI else "a plain pair"
    return [
        f"  Two servers     /db replication payments and /db failover payments ({how})",
        "  A disaster      /db drill payments primary-crash",
    ]
