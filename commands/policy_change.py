"""Propose the policy file as the policy in force: decided by the people of the old one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from approvals.in_force import InForce, Policies
from approvals.policy_diff import differences
from approvals.policy_file import LoadedPolicy
from approvals.proof import Holds, Proof
from approvals.proofs import prove
from approvals.rules import POLICY_CHANGE
from approvals.words import BadInputError, PolicyHash, RequestId
from jobs.operation import (
    Answer,
    Attempt,
    Context,
    Job,
    JobError,
    Kind,
    Mode,
    Operation,
    Plan,
    Risk,
)

DAYS: Final = timedelta(days=90)
PAST_MAX: Final = 200
OPEN_MAX: Final = 200
# A plan is made while somebody waits for the ack; `twokey policy check` has no such limit.
PROOF_SECONDS_MAX: Final = 0.8
DECISIONS_MAX: Final = 20_000
PUT_LIMIT: Final = timedelta(minutes=1)
IN_FORCE: Final = "policy in force"
FILE: Final = "policy file"
_SHOWN: Final = 12  # characters of a hash, for people


class Params(BaseModel, extra="forbid"):
    """Which file is meant, if somebody wants to be sure."""

    hash: str = Field(
        default="",
        pattern=r"^[0-9a-f]{0,64}$",
        description="Hash of the new file, or its beginning, as twokey policy check says it",
    )


async def plan(context: Context, params: Params) -> Plan:
    """Every rule that differs, what the proofs say of the new policy, and what it would change."""
    policies = context.policies
    old = await _in_force(policies)
    new = policies.proposed()
    _checked(old, new, params)
    proofs = await _proofs(policies, new)
    glance = await policies.foreseen(new, since=context.now - DAYS, limit=PAST_MAX)
    moved, open_count = await policies.moved(old.policy.values, new.values, limit=OPEN_MAX)
    return Plan(
        title=f"Put the policy {new.hash[:_SHOWN]} in force",
        steps=(
            f"Put {new.hash[:_SHOWN]} in force instead of {old.policy.hash[:_SHOWN]}, signed",
            "Look at every open request again under it",
        ),
        statements=differences(old.policy, new),
        facts=(
            ("Policy in force", old.policy.hash),
            ("New policy", new.hash),
            ("Open requests that would meet another rule", f"{moved} of {open_count}"),
            (f"The last {DAYS.days} days", " ".join(glance.summary.lines)),
            *((f"Request {each.id}", each.text) for each in glance.changes),
        ),
        warnings=tuple(_warnings(proofs)),
        estimate_seconds=1,
        undo="Put the file back as it was and propose it.",
        pins={IN_FORCE: old.policy.hash, FILE: new.hash},
    )


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Put in force what was agreed to; a second time changes nothing."""
    del params  # the plan names the file by its hash
    new = job.policies.proposed()
    if new.hash != plan.pins[FILE]:
        raise JobError(
            "The policy file is no longer the one that was agreed to.",
            next_step="Ask again with /db policy-change, or put the file back as it was.",
        )

    async def body(_: Attempt) -> JsonValue:
        put = await job.policies.put(
            new,
            instead_of=PolicyHash(plan.pins[IN_FORCE]),
            request_id=RequestId(job.request_id),
        )
        return put.policy.hash

    done = await job.step("put in force", body, mode=Mode.RETRYABLE, time_limit=PUT_LIMIT)
    return Answer(
        title=f"The policy {str(done)[:_SHOWN]} is in force",
        lines=("Every bot and worker follows within seconds; open requests are looked at again.",),
        facts=(("Policy", str(done)), ("Before", plan.pins[IN_FORCE])),
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """What is in force and what the file says now."""
    del params, plan
    old = await _in_force(context.policies)
    return {IN_FORCE: old.policy.hash, FILE: context.policies.proposed().hash}


async def _in_force(policies: Policies) -> InForce:
    found = await policies.in_force()
    if found is None:
        raise JobError(
            "No policy is in force yet.", next_step="Start the bot: it puts the file in force."
        )
    return found


def _checked(old: InForce, new: LoadedPolicy, params: Params) -> None:
    """Nothing, if there is something to propose and it is what was meant."""
    if new.hash == old.policy.hash:
        raise BadInputError(
            "The policy file is the policy that is in force.",
            next_step="Change the file that the inventory names, then ask again.",
        )
    if not new.hash.startswith(params.hash):
        raise BadInputError(
            f"The policy file has the hash {new.hash[:_SHOWN]}, not {params.hash[:_SHOWN]}.",
            next_step="Look at the file on the host of the bot, then ask again.",
        )


async def _proofs(policies: Policies, new: LoadedPolicy) -> Sequence[Proof] | None:
    """The proofs of the new policy; None when there was no time for them."""
    proving = asyncio.to_thread(
        prove, new.values, policies.known, decisions_max=DECISIONS_MAX, why_nobody=_WHY_NOBODY
    )
    try:
        async with asyncio.timeout(PROOF_SECONDS_MAX):
            return await proving
    except TimeoutError:
        return None


_WHY_NOBODY: Final = "Not looked at here: twokey policy check asks the directory."


def _warnings(proofs: Sequence[Proof] | None) -> Sequence[str]:
    """What speaks against the new policy, and what is not known."""
    if proofs is None:
        return ["Its proofs take longer than a plan may: run twokey policy check on the new file."]
    return [_told(proof) for proof in proofs if proof.is_broken] + [
        f"Not proven here: {proof.claim}." for proof in proofs if proof.holds is Holds.NOT_PROVEN
    ]


def _told(proof: Proof) -> str:
    steps = "; ".join(step.rstrip(".") for step in proof.story)
    return f"Broken: {proof.claim}. {steps}."


OPERATION = Operation(
    name=POLICY_CHANGE,
    summary="Put the policy file in force, agreed to by the people of the old policy",
    kind=Kind.CHANGE,
    risk=Risk.DISRUPTIVE,
    params=Params,
    example="/db policy-change",
    plan=plan,
    run=run,
    pinned=frozenset(),
    pins=pins,
)
