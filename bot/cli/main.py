"""The `twokey` command."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import sys
from typing import Annotated

import typer

from approvals.words import ExplainedError
from bot.app import assembled
from bot.cli import remote
from bot.cli.approvals import approvals_app
from bot.cli.audit import audit_app
from bot.cli.doctor import doctor
from bot.cli.mfa import mfa_app
from bot.cli.output import complain, complain_of_bug, log_to_stderr, run, say, stop_at_signals
from bot.cli.policy import policy_app
from bot.cli.runs import runs_app
from bot.cli.sandbox import sandbox_app
from bot.cli.store import store_app
from bot.inventory import load_inventory
from bot.redact import watch_logs
from bot.settings import load_settings
from bot.storage import open_store
from postgres.errors import PostgresError

BAD_INPUT = 2
# A request makes thousands of objects that die with it: look for cycles less often than
# every 700.
GC_THRESHOLD = 20_000

app = typer.Typer(
    help="Database operations that turn only with two keys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(policy_app, name="policy")
app.add_typer(audit_app, name="audit")
app.add_typer(approvals_app, name="approvals")
app.add_typer(runs_app, name="runs")
app.add_typer(mfa_app, name="mfa")
app.add_typer(store_app, name="store")
app.add_typer(sandbox_app, name="sandbox")
app.command()(doctor)
remote.register(app)


@app.command()
def serve() -> None:
    """Bot, worker and scheduler in one process."""
    run(_work(bot=True, worker=True))


@app.command("bot")
def bot_alone() -> None:
    """Only the bot: takes requests and votes, delivers messages, runs nothing."""
    run(_work(bot=True, worker=False))


@app.command("worker")
def worker_alone() -> None:
    """Only a worker: runs what was granted. Start as many as you like on one store."""
    run(_work(bot=False, worker=True))


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = 8065,
    tour: Annotated[bool, typer.Option("--tour", help="Play the story unattended.")] = False,
) -> None:
    """The main job on this machine alone: Slack stand-in, bot, worker and PostgreSQL."""
    # Imported here: the sandbox is for this command, not for one that serves people.
    importlib.import_module("bot.cli.demo").demo(port=port, tour=tour)


def main() -> None:
    """Run the command line; a problem is told in two sentences and ends with 2."""
    watch_logs()
    try:
        app()
    except (ExplainedError, PostgresError) as error:
        complain(error.problem, error.next_step)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - the edge: everything else is a bug
        complain_of_bug(error)
        sys.exit(1)


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
