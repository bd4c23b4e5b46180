"""Tells the people who must agree, directly: looks them up, and has it decided and stored.

What is told to whom stands in `approvals.telling`; the outbox brings it, at Slack's pace.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from approvals.delegations import Absence
from approvals.machine import FINAL
from approvals.notices import Audience, Notices, audience
from approvals.records import RequestRecord
from approvals.service import Approvals
from approvals.telling import Somebody
from approvals.words import DirectoryDownError, RefusedError, RequestId, State
from bot.people import People
from jobs.away import is_away

log: Final = logging.getLogger("twokey.notices")

LOOK_EVERY: Final = timedelta(seconds=2)
DIRECTORY_AGAIN: Final = timedelta(seconds=15)
BROKEN_AGAIN: Final = timedelta(minutes=10)
REQUESTS_MAX: Final = 20
# More people than this are not asked about one request: the card tells everybody.
PEOPLE_MAX: Final = 200
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """Looks at what is due. Any number of them may run on one store."""

    approvals: Approvals
    notices: Notices
    people: People
    clock: Callable[[], datetime]

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until `stop` is set."""
        while not stop.is_set():
            wait = LOOK_EVERY
            try:
                await self.look()
            except DirectoryDownError:
                wait = DIRECTORY_AGAIN  # nobody can be told now; nothing is lost
            except Exception as error:
                if not is_away(error):
                    raise
            try:
                async with asyncio.timeout(wait.total_seconds()):
                    await stop.wait()
            except TimeoutError:
                continue

    async def look(self, *, limit: int = REQUESTS_MAX) -> int:
        """Tell what is due now; how many messages that are.

        Raises:
            DirectoryDownError: it is not known who is who at the moment.
        """
        due = await self.notices.due(limit=limit)
        if not due:
            return 0
        absences = await self.approvals.delegations.open()
        return sum([await self._look_at(number, absences) for number in due])

    async def _look_at(self, request_id: RequestId, absences: Sequence[Absence]) -> int:
        record = await self.approvals.load(request_id)
        if record is None:
            return 0
        try:
            people = await self._people(record, absences)
            return await self.notices.tell(
                request_id,
                policy=self.approvals.policy,
                people=people,
                absences=absences,
                version=record.version,
            )
        except DirectoryDownError:
            raise
        except Exception as error:
            if is_away(error):
                raise
            # One request must not keep the others from being told.
            log.exception("What is to be told about request %s cannot be found out.", request_id)
            until = self.clock() + BROKEN_AGAIN
            await self.notices.put_off(request_id, record.version, until)
            return 0

    async def _people(
        self, record: RequestRecord, absences: Sequence[Absence]
    ) -> Sequence[Somebody]:
        """Everybody who could have to be told, as they are today."""
        policy = self.approvals.policy.values
        rule = policy.rule_for(record.attributes)
        is_asked = record.state is State.PENDING or record.detail.glass is not None
        if rule is None or record.state in FINAL or not is_asked:
            return []
        wanted = audience(rule, absences, policy)
        accounts = await self._accounts(wanted, record)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(slack: str) -> Somebody | None:
            async with turns:
                return await self._somebody(slack)

        found = await asyncio.gather(*(one(slack) for slack in accounts))
        return [each for each in found if each is not None]

    async def _accounts(self, wanted: Audience, record: RequestRecord) -> Sequence[str]:
        members = [await self.people.members(group) for group in sorted(wanted.groups)]
        users = {user for group in members for user in group}
        accounts = {f"{self.people.team}/{user}" for user in users}
        accounts |= {await self.people.account_of(name) for name in sorted(wanted.users)}
        glass = record.detail.glass
        if glass is not None:
            accounts.add(await self.people.account_of(glass.by))
        return _bounded(accounts - {""}, record.id)

    async def _somebody(self, slack: str) -> Somebody | None:
        team, _, user = slack.partition("/")
        try:
            person = await self.people.by_slack(team, user)
            zone = await self.people.zone(user)
        except DirectoryDownError:
            raise
        except RefusedError:
            return None
        return Somebody(person=person, zone=zone)


def _bounded(accounts: Iterable[str], request_id: RequestId) -> Sequence[str]:
    found = sorted(accounts)
    if len(found) > PEOPLE_MAX:
        log.warning(
            "%d people could be told about request %s; %d are.",
            len(found), request_id, PEOPLE_MAX,
        )  # fmt: skip
    return found[:PEOPLE_MAX]
