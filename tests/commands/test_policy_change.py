"""The policy that comes into force is the one that was agreed to, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from approvals.in_force import Policies
from approvals.service import Approvals
from approvals.words import BadInputError, RefusedError, Why
from commands.policy_change import FILE, IN_FORCE, Params, pins, plan, run
from jobs.operation import JobError, Mode, Plan
from store.connect import Store
from tests.approvals.support import (
    ANA,
    BEN,
    CLEO,
    KEYS,
    Clock,
    Queue,
    a_ballot,
    an_ask,
)
from tests.commands.conftest import DirectJob, JobMaker

ONE = {"gates": [{"id": "dba", "groups": ["dba"]}], "policy_four_eyes": True}
TWO = {"gates": [{"id": "dba", "groups": ["dba"], "approve": 2}], "policy_four_eyes": True}
THREE = {"gates": [{"id": "dba", "groups": ["dba"], "approve": 3}], "policy_four_eyes": True}
Says = Callable[[dict[str, Any]], None]


@pytest.fixture
def says(tmp_path: Path) -> Says:
    """Writes the policy file."""

    def write(policy: dict[str, Any]) -> None:
        (tmp_path / "policy.yml").write_text(json.dumps(policy))

    return write


@pytest.fixture
def policies(store: Store, tmp_path: Path) -> Policies:
    return Policies(store=store, keys=KEYS, clock=Clock(), file=tmp_path / "policy.yml")


@pytest.fixture
async def proposal(policies: Policies, job: JobMaker, says: Says) -> DirectJob:
    """A run of a granted change from the policy ONE; the file says TWO."""
    says(ONE)
    approvals = await service(policies, job().store)
    says(TWO)
    made = job()
    made.policies = policies
    made.request_id = await running(approvals, made.store, "policy-change")
    return made


async def service(policies: Policies, store: Store) -> Approvals:
    policy = (await policies.start()).policy
    return Approvals(
        store=store, keys=KEYS, queue=Queue(), clock=Clock(), policy=policy, policies=policies
    )


async def running(approvals: Approvals, store: Store, operation: str) -> int:
    """A request that was granted and has begun."""
    ask = an_ask(operation=operation, database="", attributes={"risk": "disruptive"})
    asked = await approvals.ask(ask)
    for voter in (BEN, CLEO):
        asked = await approvals.vote(a_ballot(asked, voter))
    assert asked.request is not None
    async with store.begin() as conn:
        begun = await approvals.begin(
            conn, asked.request.id, people={person.id: person for person in (ANA, BEN, CLEO)}
        )
    assert begun.ok, begun
    return asked.request.id


async def planned(job: DirectJob, text: str = "") -> Plan:
    return await plan(job, Params(hash=text))


async def hashes(store: Store) -> list[str]:
    """What has been in force, in order."""
    async with store.begin() as conn:
        rows = await conn.execute(sa.text("SELECT policy_hash FROM policies_in_force ORDER BY id"))
        return list(rows.scalars())


async def test_what_was_agreed_to_is_in_force_once(proposal: DirectJob, policies: Policies) -> None:
    agreed = await planned(proposal)
    for _ in range(2):  # as after a crash between the commit and its note
        answer = await run(proposal, Params(), agreed)
        assert agreed.pins[FILE][:12] in answer.title
    assert await hashes(proposal.store) == [agreed.pins[IN_FORCE], agreed.pins[FILE]]
    assert proposal.steps == [("put in force", Mode.RETRYABLE)] * 2


async def test_a_file_that_changed_since_does_not_come_into_force(
    proposal: DirectJob, says: Says
) -> None:
    agreed = await planned(proposal)
    says(THREE)
    with pytest.raises(JobError, match="no longer the one that was agreed to"):
        await run(proposal, Params(), agreed)
    assert await hashes(proposal.store) == [agreed.pins[IN_FORCE]]
    assert proposal.steps == []


async def test_nothing_comes_into_force_instead_of_a_policy_that_nobody_compared_it_with(
    proposal: DirectJob,
) -> None:
    agreed = await planned(proposal)
    other = replace(agreed, pins={**agreed.pins, IN_FORCE: agreed.pins[FILE]})
    with pytest.raises(RefusedError, match="has come into force since") as refusal:
        await run(proposal, Params(), other)
    assert refusal.value.why is Why.STALE_PLAN
    assert await hashes(proposal.store) == [agreed.pins[IN_FORCE]]


async def test_both_pins_are_read_anew_and_not_from_the_plan(
    proposal: DirectJob, policies: Policies, says: Says
) -> None:
    agreed = await planned(proposal)
    assert await pins(proposal, Params(), agreed) == agreed.pins
    stale = replace(agreed, pins={IN_FORCE: "0" * 64, FILE: "1" * 64})
    assert await pins(proposal, Params(), stale) == agreed.pins
    says(THREE)
    moved = await pins(proposal, Params(), agreed)
    assert moved[IN_FORCE] == agreed.pins[IN_FORCE]
    assert moved[FILE] == policies.proposed().hash != agreed.pins[FILE]
    says(TWO)
    await run(proposal, Params(), agreed)
    after = await pins(proposal, Params(), agreed)
    assert after == {IN_FORCE: agreed.pins[FILE], FILE: agreed.pins[FILE]}


async def test_a_change_of_something_else_that_runs_puts_no_policy_in_force(
    policies: Policies, job: JobMaker, says: Says
) -> None:
    says(ONE)
    made = job()
    made.policies = policies
    approvals = await service(policies, made.store)
    made.request_id = await running(approvals, made.store, "backup")
    says(TWO)
    agreed = await planned(made)
    with pytest.raises(RefusedError, match="is no change of the policy that runs") as refusal:
        await run(made, Params(), agreed)
    assert refusal.value.why is Why.NOT_APPROVED
    assert await hashes(made.store) == [agreed.pins[IN_FORCE]]


async def test_the_hash_that_somebody_names_must_be_that_of_the_file(
    proposal: DirectJob, policies: Policies
) -> None:
    new = policies.proposed().hash
    for named in (new, new[:8]):
        assert (await planned(proposal, named)).pins[FILE] == new
    other = "0" if new[0] != "0" else "1"
    for named in (other, new[:8] + other * 2, (await hashes(proposal.store))[0]):
        with pytest.raises(BadInputError, match="has the hash"):
            await planned(proposal, named)


async def test_the_policy_in_force_is_nothing_to_propose(proposal: DirectJob, says: Says) -> None:
    says(ONE)
    with pytest.raises(BadInputError, match="is the policy that is in force"):
        await planned(proposal)
