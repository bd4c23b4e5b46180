"""App Home stays true while somebody looks at it: published again when something was decided.

Nobody is told that a home tab was closed, so whoever has opened theirs lately counts as
looking. Every decision, whichever replica or door took it, adds to the audit; its heads and
the versions of what is open of incidents say cheaply whether there is anything new.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from bot.blocks import Block
from bot.desk import Desk
from bot.request_words import home
from bot.slack import SlackError
from jobs.away import is_away

log: Final = logging.getLogger("twokey.homes")

LOOKERS_MAX: Final = 200
LOOKING_FOR: Final = timedelta(minutes=15)
# Slack takes about one views.publish per second and person; these are far below.
EVERY: Final = timedelta(seconds=3)
PER_ROUND_MAX: Final = 20

HEADS: Final = sa.text("""
    SELECT (SELECT coalesce(sum(seq), 0) FROM audit_heads)::text || ' ' ||
           (SELECT coalesce(string_agg(id || '.' || version, ' ' ORDER BY id), '')
              FROM incidents
             WHERE state = 'open')
""")


@dataclass(slots=True, kw_only=True)
class _Looker:
    team: str
    since: datetime
    shown: str = ""
    turn: int = 0  # of all that were published, which
    at: str = "never"  # the heads when it was published


class Homes:
    """Publishes home tabs, and again as long as somebody looks."""

    def __init__(
        self,
        desk: Desk,
        *,
        clock: Callable[[], datetime],
        every: timedelta = EVERY,
        lookers_max: int = LOOKERS_MAX,
    ) -> None:
        self._desk = desk
        self._clock = clock
        self._every = every
        self._lookers_max = lookers_max
        self._lookers: dict[str, _Looker] = {}
        self._turn = 0

    async def opened(self, user: str, team: str) -> None:
        """Somebody opened their home tab."""
        self._lookers.pop(user, None)
        while len(self._lookers) >= self._lookers_max:
            self._lookers.pop(next(iter(self._lookers)))
        looker = _Looker(team=team, since=self._clock())
        self._lookers[user] = looker
        heads = await self._heads()
        await self._publish(user, looker, heads)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish again what has changed, until `stop` is set."""
        while not stop.is_set():
            try:
                await self.round()
            except Exception as error:
                if not is_away(error):
                    raise
            try:
                async with asyncio.timeout(self._every.total_seconds()):
                    await stop.wait()
            except TimeoutError:
                continue

    async def round(self) -> None:
        """One look: the few who look at their tab get what is new, the longest waiting first."""
        now = self._clock()
        gone = [user for user, one in self._lookers.items() if now - one.since > LOOKING_FOR]
        for user in gone:
            self._lookers.pop(user, None)
        if not self._lookers:
            return
        heads = await self._heads()
        behind = [(user, one) for user, one in self._lookers.items() if one.at != heads]
        for user, looker in sorted(behind, key=lambda each: each[1].turn)[:PER_ROUND_MAX]:
            await self._publish(user, looker, heads)

    async def _heads(self) -> str:
        async with self._desk.store.begin() as conn:
            return str((await conn.execute(HEADS)).scalar_one())

    async def _publish(self, user: str, looker: _Looker, heads: str) -> None:
        view = await home(self._desk, looker.team, user)
        shown = _digest(view)
        if shown != looker.shown:
            try:
                await self._desk.windows.publish(user, view)
            except SlackError as error:
                log.warning("The home tab of %s was not published: %s.", user, error)
                return
        self._turn += 1
        looker.shown, looker.at, looker.turn = shown, heads, self._turn


def _digest(view: Block) -> str:
    return hashlib.sha256(json.dumps(dict(view), sort_keys=True).encode()).hexdigest()
