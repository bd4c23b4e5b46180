"""Our own database goes away now and then: tell that from a bug, and wait for it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeVar

import asyncpg
import sqlalchemy.exc as sa_exc

T = TypeVar("T")

log: Final = logging.getLogger("twokey.jobs")

FIRST_PAUSE_SECONDS: Final = 0.1
PAUSE_SECONDS_MAX: Final = 2.0

_AWAY: Final = (
    OSError,  # TimeoutError is one
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What asyncpg says when the server's farewell crosses our statement, or a standby answers.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement cancelled
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or an old primary that was fenced
    asyncpg.TooManyConnectionsError,
    asyncpg.DeadlockDetectedError,
    sa_exc.TimeoutError,
)


class StoreAwayError(Exception):
    """Patience with the store has run out; what was to be stored is not known to be stored."""


def is_away(error: BaseException) -> bool:
    """Whether `error` says that the database could not answer, rather than that we erred."""
    if isinstance(error, sa_exc.DBAPIError):
        # SQLAlchemy wraps asyncpg's error twice; the innermost one knows.
        inner = getattr(error.orig, "__cause__", None)
        return error.connection_invalidated or isinstance(inner, _AWAY)
    return isinstance(error, _AWAY)


def pause_seconds(failures: int) -> float:
    """How long to wait after the given number of failures in a row, with jitter."""
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 16), PAUSE_SECONDS_MAX)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing


async def patiently(
    call: Callable[[], Awaitable[T]], *, patience: Callable[[], timedelta], what: str
) -> T:
    """What `call` returns; while the store is away it is called again for `patience()`.

    `call` must be safe to repeat when its commit was not heard of. Patience is asked for
    anew each time, as it may shrink. Any error but the store's absence is raised at once.

    Raises:
        StoreAwayError: patience has run out.
    """
    loop = asyncio.get_running_loop()
    since = loop.time()
    failures = 0
    while True:
        try:
            return await call()
        except Exception as error:
            if not is_away(error):
                raise
            if loop.time() - since >= patience().total_seconds():
                raise StoreAwayError(f"could not {what}: {error}") from error
            if failures == 0:
                log.warning("The store is away (%s); waiting to %s.", error, what)
            failures += 1
        await asyncio.sleep(pause_seconds(failures))


async def in_rounds(
    stop: asyncio.Event, look: Callable[[], Awaitable[float]], *, waits: str = ""
) -> None:
    """Call `look` until `stop` is set, each time after as many seconds as it gave.

    While the store is away the next call comes after a growing pause; `waits` says then in the
    log what does. Any other error is raised.
    """
    failures = 0
    while not stop.is_set():
        try:
            wait = await look()
            failures = 0
        except Exception as error:
            if not is_away(error):
                raise
            if failures == 0 and waits:
                log.warning("The store is away (%s); %s wait.", type(error).__name__, waits)
            failures += 1
            wait = pause_seconds(failures)
        try:
            async with asyncio.timeout(wait):
                await stop.wait()
        except TimeoutError:
            continue
