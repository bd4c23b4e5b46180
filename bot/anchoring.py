"""The audit's anchors as a process of ours takes and keeps them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import anchoring
from approvals.anchor_file import AnchorFileError, append_anchor
from approvals.anchoring import SCHEDULE, Taken
from approvals.words import BadInputError
from bot.audit_metrics import AuditMetrics
from jobs.away import in_rounds
from jobs.schedules import Firing, Schedule, fire_once
from store import outbox
from store.connect import Store

log: Final = logging.getLogger("twokey.audit")

ACTOR: Final = "twokey"
# An anchor that is late still covers all that came before it.
GRACE: Final = timedelta(hours=12)
POLL: Final = timedelta(seconds=30)


class AnchorsEntry(BaseModel):
    """The inventory's `anchors`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel: Annotated[str, StringConstraints(pattern=r"^[CG][A-Z0-9]{2,20}$")] | None = None
    file: Path | None = None
    schedule: str = Field(default="0 1 * * *")
    zone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorPlace:
    """Where and when the audit is anchored. `file` is this host's own, absolute."""

    channel: str | None
    file: Path | None
    cron: str
    zone: str

    @staticmethod
    def of(entry: AnchorsEntry, *, folder: Path) -> AnchorPlace:
        """What an inventory in `folder` says.

        Raises:
            BadInputError: it names no place, or its schedule cannot be used.
        """
        if entry.channel is None and entry.file is None:
            raise BadInputError(
                "The inventory's `anchors` names neither a channel nor a file.",
                next_step="anchors: {channel: C0123ABCD, file: /var/lib/twokey/anchors}",
            )
        file = folder / entry.file.expanduser() if entry.file else None
        place = AnchorPlace(channel=entry.channel, file=file, cron=entry.schedule, zone=entry.zone)
        place.schedule()
        return place

    def schedule(self, *, by: str = ACTOR, clock: Callable[[], datetime] | None = None) -> Schedule:
        """When anchors are taken, and how: into the audit and the channel.

        Raises:
            BadInputError: the cron text or the zone cannot be used.
        """

        async def act(conn: AsyncConnection, firing: Firing) -> dict[str, JsonValue]:
            at = clock() if clock else firing.due_at
            taken = await anchoring.take(conn, at=at, by=by, channel=self.channel)
            return taken.to_json()

        return Schedule.of(SCHEDULE, self.cron, zone=self.zone, misfire=GRACE, action=act)


async def take_now(
    store: Store, place: AnchorPlace, *, by: str, clock: Callable[[], datetime]
) -> Taken:
    """Take an anchor outside of the schedule; every host's file follows as for any other."""
    now = clock()
    firing = Firing(schedule=SCHEDULE, due_at=now)
    await fire_once(store, place.schedule(by=by, clock=clock), firing, by=by, now=now)
    taken = await anchoring.newest(store)
    assert taken is not None  # noqa: S101 - it was stored a line ago, and nothing removes one
    return taken


class AnchorKeeper:
    """Brings each new anchor to this host's file. Every process with a file runs one."""

    def __init__(
        self,
        *,
        store: Store,
        place: AnchorPlace,
        clock: Callable[[], datetime],
        meter: AuditMetrics,
        host: str,
        poll: timedelta = POLL,
    ) -> None:
        self._store = store
        self._place = place
        self._clock = clock
        self._meter = meter
        self._host = host
        self._poll = poll
        self._done_at: datetime | None = None
        self._told: tuple[str, datetime | None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until `stop` is set; while the store is away, wait for it."""
        await in_rounds(stop, self._round)

    async def _round(self) -> float:
        await self.look()
        return self._poll.total_seconds()

    async def look(self) -> None:
        """Append the newest anchor, unless the file has it."""
        try:
            taken = await anchoring.newest(self._store)
        except ValueError as error:
            await self._complain(f"The newest anchor in the store was edited: {error}.", None)
            return
        if taken is None:
            return
        self._meter.newest(taken.at)
        if self._place.file is None or self._done_at == taken.at:
            return
        try:
            made = await asyncio.to_thread(
                append_anchor, self._place.file, taken.heads, at=taken.at
            )
        except AnchorFileError as error:
            await self._complain(f"{error.problem} {error.next_step}", taken.at)
            return
        if made is not None:
            self._meter.appended(ok=True)
        self._done_at = taken.at

    async def _complain(self, problem: str, at: datetime | None) -> None:
        """Say it in the log, the metrics and the channel: once per anchor, and try on."""
        if self._told == (problem, at):
            return
        self._told = (problem, at)
        log.error("The audit's anchor was not kept: %s", problem)
        self._meter.appended(ok=False)
        if self._place.channel:
            async with self._store.begin() as conn:
                await outbox.post(
                    conn,
                    topic="note",
                    request_id=None,
                    channel=self._place.channel,
                    payload={
                        "text": f"The audit's anchor was not kept on {self._host}. {problem}",
                        "kind": "alarm",
                    },
                    now=self._clock(),
                )
