"""The log of what people were told directly, and which requests are to be looked at.

Everything is written under the request's lock, together with the messages: whichever of
several processes comes first tells it, and the others find it told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import store as sql
from approvals.cases import Case
from approvals.delegations import Absence
from approvals.events import Facts
from approvals.policy_file import LoadedPolicy
from approvals.rules import Policy, Rule
from approvals.signing import VoteKeys
from approvals.telling import Kind, Notice, Somebody, standing, telling
from approvals.words import PersonId, PlanHash, RequestId
from store import outbox
from store.connect import Store

DIRECT_KIND: Final = "notice"
_AT: Final = TIMESTAMP(timezone=True)

# Two partial indexes, each of which holds only what is open or has just changed.
DUE: Final = sa.text("""
    SELECT id FROM (
        (SELECT id FROM requests WHERE told_version <> version ORDER BY id LIMIT :limit)
         UNION
        (SELECT id FROM requests WHERE tell_at <= :at ORDER BY tell_at LIMIT :limit)
    ) AS due
     ORDER BY id LIMIT :limit
""").bindparams(sa.bindparam("at", type_=_AT))

TOLD: Final = sa.text("""
    SELECT person, number, kind, plan_hash, step, slack, absent, at
      FROM notices
     WHERE request_id = :id
     ORDER BY number, person
""")

KEEP: Final = sa.text("""
    INSERT INTO notices (request_id, person, number, kind, plan_hash, step, slack, absent, at)
    VALUES (:request_id, :person, :number, :kind, :plan_hash, :step, :slack, :absent, :at)
""").bindparams(sa.bindparam("at", type_=_AT))

# No new version of the request: nothing about it has changed but what people know.
LOOKED: Final = sa.text("""
    UPDATE requests SET told_version = :version, tell_at = :tell_at WHERE id = :id
""").bindparams(sa.bindparam("tell_at", type_=_AT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Who could have to be told: groups by the policy's names, and identities."""

    groups: frozenset[str]
    users: frozenset[str]


def audience(rule: Rule, lines: Iterable[Absence], policy: Policy) -> Audience:
    """Everybody whom a rule could make somebody of, and who stands in for any of them. Pure."""
    glass = rule.break_glass
    groups = {group for gate in rule.gates for group in (*gate.groups, *gate.escalate_groups)}
    users = {user for gate in rule.gates for user in gate.users}
    delegates = {line.stand_in_slack for line in lines if line.stand_in_slack}
    delegates |= {line.absent_slack for line in lines if line.absent_slack}
    delegates |= {name for line in policy.delegations for name in (line.absent, line.stand_in)}
    reviewers = glass.reviewers if glass else frozenset()
    return Audience(groups=frozenset(groups | reviewers), users=frozenset(users | delegates))


class Notices:
    """Looks at requests and tells people. Safe to use from many tasks and hosts."""

    def __init__(self, *, store: Store, keys: VoteKeys, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    async def due(self, *, limit: int) -> Sequence[RequestId]:
        """The requests that have changed, or whose time has come."""
        async with self._store.single() as conn:
            found = await conn.execute(DUE, {"at": self._clock(), "limit": limit})
            return [RequestId(number) for number in found.scalars()]

    async def put_off(self, request_id: RequestId, version: int, until: datetime) -> None:
        """Do not look at a request before `until`, unless it changes."""
        async with self._store.single() as conn:
            values = {"id": request_id, "version": version, "tell_at": until}
            await conn.execute(LOOKED, values)

    async def tell(
        self,
        request_id: RequestId,
        *,
        policy: LoadedPolicy,
        people: Sequence[Somebody],
        absences: Sequence[Absence],
        version: int,
    ) -> int:
        """Tell what is due about a request; how many messages that are.

        `people` were looked up for this `version` of it: when another one stands there now,
        nothing is done, and it is due again.
        """
        now = self._clock()
        async with self._store.begin() as conn:
            found = await sql.lock(conn, request_id, delivery="", at=now)
            if found is None or found.row["version"] != version:
                return 0
            case = Case.of(found.row, found.votes, self._keys)
            rule = policy.values.rule_for(case.request.attributes)
            told = await _told(conn, request_id)
            # What is stored is not what we stored: nobody is asked to agree to it.
            if rule is None or (case.is_undecided and not case.is_ours(self._keys)):
                await _looked(conn, case, None)
                return 0
            facts = Facts(
                at=now,
                policy=policy.values,
                policy_hash=policy.hash,
                people={each.person.id: each.person for each in people},
                delegations=tuple(line.line for line in absences),
            )
            result = telling(case.request, rule, facts, people, told)
            await self._send(conn, request_id, result.notices, told, now)
            await _looked(conn, case, result.look_at)
        return len(result.notices)

    async def _send(
        self,
        conn: AsyncConnection,
        request_id: RequestId,
        notices: Sequence[Notice],
        told: Sequence[Notice],
        now: datetime,
    ) -> None:
        for notice in notices:
            await conn.execute(KEEP, {"request_id": request_id, **_as_row(notice)})
            mine = [each for each in told if each.person == notice.person]
            shown = standing(mine) if notice.kind is Kind.OVER else [notice]
            for each in shown:
                await outbox.post(
                    conn,
                    topic="direct",
                    request_id=request_id,
                    channel=each.slack.rpartition("/")[2],
                    payload=_payload(each, is_over=notice.kind is Kind.OVER),
                    now=now,
                )


def slot_of(payload: Mapping[str, Any]) -> str:
    """Under which name the place of a direct message is kept, so that it can be redrawn."""
    return str(payload.get("slot", ""))


def _payload(notice: Notice, *, is_over: bool) -> Mapping[str, JsonValue]:
    return {
        "kind": DIRECT_KIND,
        "slot": f"direct:{notice.person}:{notice.number}",
        "notice": str(notice.kind),
        "plan_hash": notice.plan_hash,
        "absent": notice.absent,
        "is_over": is_over,
    }


def _as_row(notice: Notice) -> Mapping[str, Any]:
    names = ("person", "number", "plan_hash", "step", "slack", "absent", "at")
    return {"kind": str(notice.kind), **{name: getattr(notice, name) for name in names}}


async def _told(conn: AsyncConnection, request_id: RequestId) -> list[Notice]:
    rows = await conn.execute(TOLD, {"id": request_id})
    return [
        Notice(
            person=PersonId(row["person"]),
            slack=row["slack"],
            kind=Kind(row["kind"]),
            number=row["number"],
            plan_hash=PlanHash(row["plan_hash"]),
            step=row["step"],
            at=row["at"],
            absent=row["absent"],
        )
        for row in rows.mappings()
    ]


async def _looked(conn: AsyncConnection, case: Case, tell_at: datetime | None) -> None:
    values = {"id": case.row["id"], "version": case.row["version"], "tell_at": tell_at}
    await conn.execute(LOOKED, values)
