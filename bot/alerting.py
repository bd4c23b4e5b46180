"""Looks whether databases can be recovered still, and tells their channels when not.

Any number of bots may look: one of them does at a time. What is found is stored with the
messages that tell of it, so each is told once, whoever dies when.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from bot.inventory import Inventory
from jobs.alerts import Alert, Firing, Settled, findings, firing_of, settle
from jobs.away import in_rounds
from jobs.backup_state import states
from store import outbox
from store.alerts import (
    fire_alert,
    firing_alerts,
    forget_alerts,
    look_alone,
    resolve_alert,
    see_alert,
)
from store.connect import Store

log: Final = logging.getLogger("twokey.alerts")

POLL: Final = timedelta(seconds=30)
LOOK_SECONDS_MAX: Final = 60
KEPT: Final = timedelta(days=400)
FORGOTTEN_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Looks every half minute, until it is told to stop."""

    inventory: Inventory
    store: Store
    clock: Callable[[], datetime]
    poll: timedelta = POLL

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop` is set; while the store is away, wait for it."""
        await in_rounds(stop, self._round)

    async def _round(self) -> float:
        await self.look()
        return self.poll.total_seconds()

    async def look(self) -> Settled | None:
        """One look; what it changed, or None: somebody else looks at this moment."""
        now = self.clock()
        async with asyncio.timeout(LOOK_SECONDS_MAX), self.store.begin() as conn:
            if not await look_alone(conn):
                return None
            firing = [firing_of(asdict(row)) for row in await firing_alerts(conn)]
            known = await states(conn, self.inventory.databases.values(), now)
            found = [alert for state in known for alert in findings(state, now)]
            settled = settle(firing, found, now)
            await self._store(conn, settled, now)
            await forget_alerts(conn, before=now - KEPT, rows=FORGOTTEN_MAX)
            return settled

    async def _store(self, conn: AsyncConnection, settled: Settled, now: datetime) -> None:
        for alert in settled.fire:
            await self._fire(conn, alert, now)
        for firing, alert in settled.update:
            await see_alert(
                conn, firing.id, severity=str(alert.severity), problem=alert.problem,
                next_step=alert.next_step, at=now, detail={},
            )  # fmt: skip
        for firing, alert in settled.worse:
            await self._tell(conn, alert, "firing", since=firing.fired_at, now=now)
        for firing in settled.resolve:
            await self._resolve(conn, firing, now)

    async def _fire(self, conn: AsyncConnection, alert: Alert, now: datetime) -> None:
        stored = await fire_alert(
            conn, database=alert.database, name=alert.name, severity=str(alert.severity),
            problem=alert.problem, next_step=alert.next_step, at=now,
            detail={"channel": self._channel(alert.database)},
        )  # fmt: skip
        if stored is not None:
            log.info("%s on %s: %s", alert.name, alert.database, alert.problem)
            await self._tell(conn, alert, "firing", since=now, now=now)

    async def _resolve(self, conn: AsyncConnection, firing: Firing, now: datetime) -> None:
        if not await resolve_alert(conn, firing.id, at=now):
            return
        log.info("%s on %s is over.", firing.alert.name, firing.alert.database)
        await self._tell(conn, firing.alert, "resolved", since=firing.fired_at, now=now)

    async def _tell(
        self, conn: AsyncConnection, alert: Alert, state: str, *, since: datetime, now: datetime
    ) -> None:
        channel = self._channel(alert.database)
        if not channel:
            return  # the database has left the inventory, and its channel with it
        await outbox.post(
            conn, topic="alert", request_id=None, channel=channel, now=now,
            payload={
                "database": alert.database, "name": alert.name, "severity": str(alert.severity),
                "state": state, "problem": alert.problem, "next_step": alert.next_step,
                "fired_at": since.isoformat(),
            },
        )  # fmt: skip

    def _channel(self, database: str) -> str:
        known = self.inventory.databases.get(database)
        return known.channel if known else ""
