"""A statement outside of transactions, sent and watched: who holds it up, and for how long.

It has no lock_timeout where nobody waits for its locks: a short one would cancel CREATE INDEX
CONCURRENTLY for any old snapshot in the database, and leave an invalid index each time.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import asyncpg

from postgres.connect import CONNECT_SECONDS_MAX
from postgres.health.index_build import PROGRESS, fraction_of, progress_text
from postgres.migrate.apply_errors import LOST
from postgres.migrate.apply_session import Work, ms
from postgres.migrate.apply_words import ApplyLimits, Tell, Wait
from postgres.migrate.blockers import Block
from postgres.together import together

# Only the statement that was sent: one that follows on the same session is another matter.
_CANCEL: Final = """
    SELECT pg_cancel_backend(a.pid) FROM pg_stat_activity a
     WHERE a.pid = $1 AND a.backend_start = $2 AND a.state = 'active'
"""


class Stopped(Enum):
    """Why we cancelled a statement."""

    TOO_LONG = "too long"  # against the rehearsal, its waits not counted
    BLOCKED = "blocked"  # it has waited for others for too long
    NOT_AT_ALL = "not at all"


@dataclass(slots=True, kw_only=True)
class Sent:
    """How a statement went. `block`: who held it up last."""

    seconds: float = 0.0
    waited_seconds: float = 0.0
    block: Block | None = None
    stopped: Stopped = Stopped.NOT_AT_ALL
    lock_seconds: float = 0.0

    def wait(self, index: int, reason: str) -> Wait:
        """It as a wait."""
        blockers = (self.block.text,) if self.block else ()
        return Wait(
            index=index, reason=reason, seconds=round(self.waited_seconds, 3), blockers=blockers
        )


async def send(
    work: Work,
    sql: str,
    *,
    limits: ApplyLimits,
    tell: Tell,
    sent: Sent,
    short_waits: bool,
    longer: bool = False,
    seconds_max: float | None = None,
) -> None:
    """Run one statement to its end; `sent` says how it went, also when this raises.

    `short_waits`: others would wait behind its locks. `seconds_max`: how long it may work.

    Raises:
        asyncpg.PostgresError: the server refused it, or it was cancelled: see `sent.stopped`.
        LostError: the session is gone.
    """
    lock = work.lock_wait(limits, longer=longer)
    sent.lock_seconds = lock.total_seconds() if short_waits else 0.0
    whole = limits.alone.total_seconds()
    await work.execute(
        f"SET lock_timeout = '{ms(lock) if short_waits else '0'}'", seconds_max=CONNECT_SECONDS_MAX
    )
    await work.execute(
        f"SET statement_timeout = '{ms(limits.alone)}'", seconds_max=CONNECT_SECONDS_MAX
    )
    began = time.monotonic()
    try:
        async with together() as group:
            done = asyncio.Event()
            group.create_task(_watch(work, limits, tell, sent, done, seconds_max))
            try:
                await work.execute(sql, seconds_max=whole)
            finally:
                done.set()
    finally:
        sent.seconds = time.monotonic() - began
    await calm(work, limits)


async def calm(work: Work, limits: ApplyLimits) -> None:
    """Short waits again, for our own small statements."""
    await work.execute(f"SET lock_timeout = '{ms(limits.lock)}'", seconds_max=CONNECT_SECONDS_MAX)
    await work.execute("SET statement_timeout = '60s'", seconds_max=CONNECT_SECONDS_MAX)


async def _watch(
    work: Work,
    limits: ApplyLimits,
    tell: Tell,
    sent: Sent,
    done: asyncio.Event,
    seconds_max: float | None,
) -> None:
    """Tell how far it is and who holds it up; cancel it when a limit is reached.

    What fails here fails alone, but for the limits: those the server keeps too.
    """
    began = last = time.monotonic()
    # Often enough for a short wait to be seen before it ends.
    every = min(limits.look.total_seconds(), (sent.lock_seconds or float("inf")) / 4)
    told_at, told = began, ""
    while not await _ends(done, every):
        try:
            block, progress = await _seen(work)
        except (asyncpg.PostgresError, *LOST):
            return
        now = time.monotonic()
        if block is not None:
            sent.block = block
            sent.waited_seconds += now - last
        last = now
        if now - told_at >= limits.look.total_seconds() and not done.is_set():
            told_at = now
            text = _text(block, progress)
            if text and text != told:
                told = text
                await tell(text, fraction_of(progress) if progress else None)
        worked = now - began - sent.waited_seconds
        if seconds_max is not None and worked > seconds_max:
            sent.stopped = Stopped.TOO_LONG
        elif sent.waited_seconds > limits.alone_wait.total_seconds():
            sent.stopped = Stopped.BLOCKED
        if sent.stopped is not Stopped.NOT_AT_ALL and not done.is_set():
            await work.watch.run(_CANCEL)


async def _seen(work: Work) -> tuple[Block | None, Any]:
    return await work.watch.block(), await work.watch.row(PROGRESS)


def _text(block: Block | None, progress: Any) -> str:
    parts = []
    if progress:
        parts.append(progress_text(progress))
    if block is not None:
        parts.append(f"waits for {block.text}")
    return "; ".join(parts)


async def _ends(done: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await done.wait()
    except TimeoutError:
        return False
    return True
