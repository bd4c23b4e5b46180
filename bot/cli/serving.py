"""`twokey serve`, `bot`, `worker` and `demo`: processes that work until they are told to stop."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
from typing import Annotated

import typer

from bot.app import assembled
from bot.cli.output import log_to_stderr, run, say, stop_at_signals
from bot.inventory import load_inventory
from bot.settings import load_settings
from bot.storage import open_store

# A request makes thousands of objects that die with it: look for cycles less often than
# every 700.
GC_THRESHOLD = 20_000

serving_app = typer.Typer()


@serving_app.command()
def serve() -> None:
    """Bot, worker and scheduler in one process."""
    run(_work(bot=True, worker=True))


@serving_app.command("bot")
def bot_alone() -> None:
    """Only the bot: takes requests and votes, delivers messages, runs nothing."""
    run(_work(bot=True, worker=False))


@serving_app.command("worker")
def worker_alone() -> None:
    """Only a worker: runs what was granted. Start as many as you like on one store."""
    run(_work(bot=False, worker=True))


@serving_app.command()
def demo(
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = 8065,
    tour: Annotated[bool, typer.Option("--tour", help="Play the story unattended.")] = False,
) -> None:
    """The main job on this machine alone: Slack stand-in, bot, worker and PostgreSQL."""
    # Imported here: the sandbox is for this command, not for one that serves people.
    importlib.import_module("bot.cli.demo").demo(port=port, tour=tour)


async def _work(*, bot: bool, worker: bool) -> None:
    log_to_stderr()
    stop = asyncio.Event()
    stop_at_signals(stop)
    settings = load_settings()
    inventory = load_inventory(settings.config)
    async with (
        open_store(settings, os.environ) as store,
        assembled(settings, inventory, store=store) as twokey,
    ):
        if not bot:
            say(f"Twokey works as {twokey.worker.name}")
        _collect_less()
        await twokey.run(stop, bot=bot, worker=worker, listening=_listening)


def _collect_less() -> None:
    """What was built so far stays, so the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def _listening(url: str) -> None:
    say(f"Twokey listens on {url}")
