"""The edge of every listener: whatever happens, the person gets an answer and Slack an ack."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import uuid4

from approvals.words import ExplainedError, RefusedError
from bot.blocks import Message
from bot.metrics import Metrics
from bot.redact import redact, shown
from bot.turns import NoTurnError, turn
from bot.views.errors import broken_message, problem_message
from jobs.away import is_away
from postgres.errors import PostgresError

log: Final = logging.getLogger("twokey.listeners")

# Slack waits 3 s for the ack; the rest is for the way.
ANSWER_SECONDS_MAX: Final = 2.7


async def guarded(
    where: str, answer: Callable[[], Awaitable[Message]], *, metrics: Metrics, changes: bool
) -> Message:
    """What `answer` brings, or what to say when it brings nothing.

    `changes`: something may have been stored before it failed, which is then not denied.
    """
    try:
        with metrics.ack(where):
            async with turn(seconds_max=ANSWER_SECONDS_MAX):
                return shown(await answer())
    except (ExplainedError, PostgresError) as error:
        return _explained(error, metrics)
    except Exception as error:  # noqa: BLE001 - the edge: everything else is a bug
        return failure(where, error, metrics=metrics, changes=changes)


async def settled(where: str, answer: Awaitable[Message], *, metrics: Metrics) -> Message:
    """What comes of a look that nobody waits for with an ack; it has a limit of its own."""
    try:
        return shown(await answer)
    except (ExplainedError, PostgresError) as error:
        return _explained(error, metrics)
    except Exception as error:  # noqa: BLE001 - the edge: everything else is a bug
        return failure(where, error, metrics=metrics, changes=False)


def _explained(error: ExplainedError | PostgresError, metrics: Metrics) -> Message:
    metrics.refused("slack", str(error.why) if isinstance(error, RefusedError) else "input")
    return problem_message(redact(error.problem), redact(error.next_step))


def failure(where: str, error: Exception, *, metrics: Metrics, changes: bool) -> Message:
    """What to say about an error that nobody foresaw; the log has the rest."""
    reference = uuid4().hex[:8]
    log.error("A listener (%s) failed, id %s.", where, reference, exc_info=error)
    metrics.broke(where)
    if isinstance(error, NoTurnError):
        return problem_message(
            f"So much is asked of Twokey right now that this was not begun (id {reference}).",
            "Nothing was changed. Do it again in a few seconds.",
        )
    if isinstance(error, TimeoutError):
        return problem_message(
            f"This took too long to be finished (id {reference})."
            + (" Whether it was stored is not certain." if changes else ""),
            "Look with /db requests, and repeat it if it is not there.",
        )
    if is_away(error):
        return problem_message(
            f"Twokey's own database does not answer (id {reference})."
            + (" Whether this was stored is not certain." if changes else ""),
            "Look with /db requests in a minute, and repeat it if it is not there."
            if changes
            else "Try again in a minute.",
        )
    return broken_message(reference, stored=changes)
