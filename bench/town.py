"""People, operations and requests for benchmarks that need no Slack."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, JsonValue, SecretStr

from approvals.policy_file import LoadedPolicy, load_policy
from approvals.service import Approvals, Ask, Ballot, Seen
from approvals.signing import VoteKeys
from approvals.words import Door, Person, PersonId, RequestId, Verdict
from bench.places import KEY, Place
from bot.app import utc_now
from jobs.engine import PgQueue
from jobs.operation import (
    Answer,
    Attempt,
    Context,
    Database,
    Job,
    Kind,
    Mode,
    Operation,
    Plan,
    Risk,
    Tier,
)
from store.connect import Store

ANA: Final = Person(
    id=PersonId("ana@acme.example"), name="Ana", slack_team="T0DEMO", slack_user="U0ANA"
)
DBAS: Final = tuple(
    Person(
        id=PersonId(f"dba{number}@acme.example"),
        name=f"DBA {number}",
        slack_team="T0DEMO",
        slack_user=f"U0DBA{number}",
        groups=frozenset({"dba"}),
    )
    for number in range(40)
)
EVERYBODY: Final = {person.id: person for person in (ANA, *DBAS)}


class Town:
    """A directory that always answers at once; implements `approvals.directory.Directory`."""

    async def by_slack(self, team: str, user: str) -> Person:
        del team
        return next(person for person in EVERYBODY.values() if person.slack_user == user)

    async def by_id(self, person: PersonId, slack: str) -> Person:
        del slack
        return EVERYBODY[person]


class Params(BaseModel):
    """A probe's target."""

    database: str


@dataclass(slots=True)
class Probe:
    """An operation that does nothing but say when its first step began."""

    began: asyncio.Queue[float] = field(default_factory=asyncio.Queue)

    async def plan(self, context: Context, params: Params) -> Plan:
        del context
        return Plan(title=f"Probe {params.database}", steps=("Look at the clock",))

    async def run(self, job: Job, params: Params, plan: Plan) -> Answer:
        del params, plan

        async def look(attempt: Attempt) -> JsonValue:
            del attempt
            self.began.put_nowait(time.perf_counter())
            return None

        await job.step("look", look, mode=Mode.RETRYABLE, time_limit=timedelta(seconds=10))
        return Answer(title="Looked")

    def operation(self, name: str = "backup") -> Operation:
        """Under the name of a real one, so that the example policy has a rule for it."""
        return Operation(
            name=name, summary="Probe", kind=Kind.CHANGE, risk=Risk.NONE, params=Params,
            example="/db probe orders", plan=self.plan, run=self.run,
            pinned=frozenset(),
        )  # fmt: skip


def policy_of(where: Place) -> LoadedPolicy:
    """The example policy: production backups need two of dba."""
    return load_policy(where.folder / "policy.yml")


def approvals_on(store: Store, where: Place) -> Approvals:
    """The service as `bot.app` wires it."""
    return Approvals(
        store=store,
        keys=VoteKeys(current=KEY.encode()),
        queue=PgQueue(store),
        clock=utc_now,
        policy=policy_of(where),
        directory=Town(),
    )


def database_of(where: Place, name: str = "orders") -> Database:
    """The target, as the inventory has it."""
    return Database(
        name=name, dsn=SecretStr(where.target_dsn), environment="production", tier=Tier.CRITICAL,
        channel="C0ORDERS", backup_folder=where.folder / "backups",
    )  # fmt: skip


def ask_for(operation: str, *, plan: Plan | None = None, database: str = "orders") -> Ask:
    """A request of Ana's."""
    plan = plan or Plan(title=f"{operation} {database}", steps=("one",))
    return Ask(
        operation=operation,
        database=database,
        params={"database": database},
        plan=plan_json(plan),
        attributes={"environment": "production", "tier": "critical", "risk": "none"},
        by=ANA,
        door=Door.SLACK,
        reason="",
        channel="C0ORDERS",
        delivery=_delivery(),
    )


def plan_json(plan: Plan) -> dict[str, JsonValue]:
    """A plan as it is stored."""
    from pydantic import TypeAdapter  # noqa: PLC0415

    dumped: dict[str, JsonValue] = TypeAdapter(Plan).dump_python(plan, mode="json")
    return dumped


def ballot(approvals_request: RequestId, voter: Person, seen: Seen) -> Ballot:
    """An approving vote."""
    return Ballot(
        request_id=approvals_request, by=voter, verdict=Verdict.APPROVE, reason="",
        door=Door.SLACK, seen=seen, delivery=_delivery(),
    )  # fmt: skip


def _delivery() -> str:
    return os.urandom(12).hex()
