"""How the command line speaks: people read sentences, scripts read JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import typer

from bot.redact import redact, told_traceback, watch_logs

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
_Value = TypeVar("_Value")


def say(text: str) -> None:
    """A line for people."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def say_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """A document for scripts."""
    say(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def complain(problem: str, next_step: str) -> None:
    """A problem and its next step, on stderr."""
    sys.stderr.write(f"{redact(problem)}\n")
    if next_step:
        sys.stderr.write(f"→ {redact(next_step)}\n")


def complain_of_bug(error: Exception) -> None:
    """What the operator needs of an error that is ours, on stderr."""
    sys.stderr.write(told_traceback(error))


def run(work: Coroutine[Any, Any, _Value]) -> _Value:
    """Do asynchronous work to its end."""
    return asyncio.run(work)


def stop_at_signals(stop: asyncio.Event) -> None:
    """Set `stop` at Ctrl-C and SIGTERM; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()

    def asked(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked, number)


def log_to_stderr() -> None:
    """Logs of a process that keeps running."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    watch_logs()
    # Other people's libraries say at INFO what we say better or not at all.
    for name in ("slack_bolt", "slack_sdk", "pgqueuer", "alembic", "apscheduler"):
        logging.getLogger(name).setLevel(logging.WARNING)
