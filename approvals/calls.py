"""What the shell and the worker say to the approval service, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.lineage import Origin
from approvals.records import RequestRecord
from approvals.words import Care, Door, Person, PersonId, RequestId, RunId, Verdict, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Somebody asks for a change.

    `attributes` are what we derived; operation and database are added to them.
    `beneficiary` is for whom they ask, who then counts as having asked too. `electorate`:
    everybody who could vote, for policies that say `check_satisfiable`. `origin`: the request
    that this one repeats or undoes.
    """

    operation: str
    database: str
    params: Mapping[str, Any]
    plan: Mapping[str, Any]
    attributes: Mapping[str, str | int]
    by: Person
    door: Door
    reason: str
    channel: str
    delivery: str
    ttl: timedelta | None = None
    beneficiary: Person | None = None
    electorate: Sequence[Person] | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the person was shown. A door without cards passes what it displayed."""

    plan_hash: str
    policy_hash: str
    step: int
    card: str | None = None  # `approvals.shown`, for doors that show cards


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """A vote as it comes in.

    `others`: earlier voters, where they were just looked up. `care`: what the door has
    seen the voter do besides deciding.
    """

    request_id: RequestId
    by: Person
    verdict: Verdict
    reason: str
    door: Door
    seen: Seen
    delivery: str
    others: Mapping[PersonId, Person] = field(default_factory=dict)
    care: frozenset[Care] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided: always a sentence for the person, and the request as it is now.

    `noop`: nothing has changed; for a delivery that came before, the first answer again.
    """

    ok: bool
    noop: bool
    why: Why | None
    problem: str
    next_step: str
    request: RequestRecord | None


class RunQueue(Protocol):
    """Where granted requests go. `jobs.engine` implements it."""

    async def enqueue(
        self,
        conn: AsyncConnection,
        *,
        request_id: RequestId,
        database: str,
        operation: str,
        now: datetime,
    ) -> RunId:
        """Insert the run and its queue entry in the caller's transaction."""
        ...
