"""`twokey demo`: everything on one's own machine, to play with or to watch."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import typer

from bot.cli.output import run, say, stop_at_signals
from bot.cli.tour import play
from bot.cli.world import World, clear, demo_world
from bot.settings import check_names, load_settings


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
    say("Starting two PostgreSQL clusters, a store, a stand-in for Slack, and Twokey …")
    async with demo_world(home, port=port) as world:
        for line in _introduction(world):
            say(line)
        stopping = asyncio.create_task(stop.wait())
        failing = asyncio.create_task(world.ended())
        await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
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


def _introduction(world: World) -> list[str]:
    home = world.settings.home
    return [
        "",
        f"  Open   {world.slack.url}/#U0ANA/C0DBOPS",
        "",
        "  As Ana type     /db backup orders      (the card appears in #orders)",
        "  Press Approve   as Ana: refused. Then switch to Ben, and to Cleo.",
        "  Then            /db verify orders      and   /db backups orders",
        "",
        "  Check the audit in another terminal:",
        f"                  TWOKEY_HOME={home} .venv/bin/twokey audit verify",
        "  Ctrl-C ends all of it.",
        "",
    ]
