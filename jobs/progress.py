"""How a run is going, told often enough and not more: the newest word wins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs import runs
from jobs.away import is_away
from jobs.runs import Claim
from postgres.together import unbroken
from store import outbox
from store.connect import Store
from store.redact import redact

log: Final = logging.getLogger("twokey.jobs")

TEXT_CHARS_MAX: Final = 500
FLUSH_SECONDS_MAX: Final = 3.0

# A word that nobody has delivered yet is replaced instead of followed by the next one.
REPLACE_WAITING: Final = sa.text("""
    UPDATE outbox
       SET payload = :payload
     WHERE topic = 'progress'
       AND request_id = :request_id
       AND channel = :channel
       AND state = 'waiting'
    RETURNING id
""").bindparams(sa.bindparam("payload", type_=JSONB))

STORE_PROGRESS: Final = sa.text("""
    UPDATE runs
       SET progress = :progress
     WHERE id = :run_id AND epoch = :epoch AND worker = :worker AND state = 'running'
    RETURNING id
""").bindparams(sa.bindparam("progress", type_=JSONB))


async def tell(
    conn: AsyncConnection,
    *,
    request_id: int,
    channel: str,
    text: str,
    fraction: float | None,
    now: datetime,
) -> None:
    """Queue a progress message in the caller's transaction; at most one waits per request."""
    payload: dict[str, JsonValue] = {"text": text, "fraction": fraction}
    where = {"request_id": request_id, "channel": channel, "payload": payload}
    if (await conn.execute(REPLACE_WAITING, where)).first() is None:
        await outbox.post(
            conn,
            topic="progress",
            request_id=request_id,
            channel=channel,
            payload=payload,
            now=now,
        )


class Progress:
    """The progress of one life of a run."""

    def __init__(
        self,
        store: Store,
        claim: Claim,
        *,
        request_id: int,
        channel: str,
        every: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._claim = claim
        self._request_id = request_id
        self._channel = channel
        self._every = every
        self._clock = clock
        self._news = asyncio.Event()
        self._latest: tuple[str, float | None] | None = None

    def report(self, text: str, *, fraction: float | None = None) -> None:
        """Note how it goes. Costs nothing: `keep` stores the newest word."""
        shown = None if fraction is None else min(max(fraction, 0.0), 1.0)
        self._latest = (redact(text)[:TEXT_CHARS_MAX], shown)
        self._news.set()

    async def keep(self) -> None:
        """Store what is reported, at the rate that was asked for; never returns."""
        while True:
            await self._news.wait()
            await self._store_latest()
            await asyncio.sleep(self._every.total_seconds())

    async def flush(self) -> None:
        """Store the last word, if the store is there."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS_MAX):
                await self._store_latest()
        except TimeoutError:
            log.warning("The last progress of run %d was not stored.", self._claim.run_id)

    async def _store_latest(self) -> None:
        latest, self._latest = self._latest, None
        self._news.clear()
        if latest is None:
            return
        try:
            await unbroken(self._write(*latest))
        except Exception as error:
            if not is_away(error):
                raise
            # A newer word may have come meanwhile; an old one is kept for the next try.
            if self._latest is None:
                self._latest = latest
                self._news.set()

    async def _write(self, text: str, fraction: float | None) -> None:
        now = self._clock()
        progress = {"text": text, "fraction": fraction, "at": now.isoformat()}
        async with self._store.begin() as conn:
            mine = {**self._claim.params(), "progress": progress}
            if (await conn.execute(STORE_PROGRESS, mine)).one_or_none() is None:
                return
            await runs.write_line(conn, self._claim.run_id, text, now=now)
            await tell(
                conn,
                request_id=self._request_id,
                channel=self._channel,
                text=text,
                fraction=fraction,
                now=now,
            )
