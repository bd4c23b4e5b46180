"""`/db failover orders to=west`: another server becomes the primary.

Planned, the old one hands over and follows: nothing is lost. Forced is for a primary that is gone:
what it had acknowledged and nobody has received is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.failing_over import (
    Order,
    Outlook,
    change_primary,
    confirm,
    evidence,
    look,
    refuse_failed,
)
from jobs.operation import (
    Answer,
    Attempt,
    Context,
    Job,
    Kind,
    Mode,
    Operation,
    Plan,
    Risk,
    UndoCall,
)
from postgres.cluster.checks import Check
from postgres.cluster.words import ClusterKind

# Who must agree reads the evidence of these; of the others that they hold.
_SHOWN: Final = frozenset(
    {"Candidate's lag in bytes", "Candidate's lag in time", "Verified backup", "Nobody is further"}
)
UNDO_WITHIN: Final = timedelta(days=7)
TIME_LIMIT: Final = timedelta(hours=1)
# What is left for looking, beside the limit of the change itself.
_AROUND: Final = timedelta(minutes=2)
_CONFIRM_LIMIT: Final = timedelta(minutes=2)


class Params(BaseModel, extra="forbid"):
    """Who takes over, and whether the primary is gone."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    to: str = Field(
        default="",
        max_length=63,
        description="The node that takes over, as /db replication names it; the closest standby"
        " when left out",
        examples=["west"],
    )
    forced: bool = Field(
        default=False,
        description="The primary is gone: promote without it, and lose what nobody has received",
    )


async def plan(context: Context, params: Params) -> Plan:
    """Look at every server, check what must hold, and say who would take over.

    Raises:
        JobError: something speaks against it; says what to do.
    """
    outlook = await look(context, to=params.to, forced=params.forced)
    refuse_failed(outlook.preflight.checks)
    proven = await evidence(context)
    checks = (*outlook.preflight.checks, *proven)
    if not params.forced:
        refuse_failed(proven)
    found = outlook.preflight
    return Plan(
        title=_title(outlook, forced=params.forced),
        steps=tuple(_steps(outlook, forced=params.forced)),
        facts=tuple(_facts(outlook, checks)),
        warnings=tuple(f"{each.found} {each.next_step}" for each in checks if not each.is_met),
        estimate_seconds=round(outlook.settings.limits.timeout.total_seconds()),
        undo=None
        if params.forced
        else f"/db failover {context.database.name} to={found.leader}, with the same checks",
        pins=outlook.pins,
        attributes={
            "kind": "forced" if params.forced else "planned",
            "regions": "other" if _is_far(outlook) else "same",
        },
        risk=Risk.DESTRUCTIVE if params.forced else Risk.DISRUPTIVE,
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """Who is the primary now, and whether the same one would take over."""
    outlook = await look(context, to=plan.pins["candidate"], forced=params.forced)
    return outlook.pins


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Check again, change the primary, and prove that applications can write."""
    order = Order(
        leader=plan.pins["leader"], candidate=plan.pins["candidate"], forced=params.forced
    )

    async def change(attempt: Attempt) -> JsonValue:
        return await change_primary(job, attempt, order)

    async def prove(_: Attempt) -> JsonValue:
        return await confirm(job, order)

    limit = _limit(job)
    # Resumable: a second life begins by asking the servers what is true.
    done = await job.step("change primary", change, mode=Mode.RESUMABLE, time_limit=limit)
    proof = await job.step(
        "prove", prove, mode=Mode.RETRYABLE, time_limit=_CONFIRM_LIMIT, attempts=3
    )
    return _answer(order, done, proof)


def undo(params: Params, numbers: Mapping[str, JsonValue]) -> UndoCall | None:
    """Switch back: planned, with the same checks. After a loss the old primary must come first."""
    if params.forced:
        return None
    back = {"database": params.database, "to": numbers["from"]}
    return UndoCall(operation="failover", params=back, within=UNDO_WITHIN)


def _limit(job: Job) -> timedelta:
    cluster = job.database.cluster
    return _AROUND + (3 * cluster.limits.timeout if cluster else timedelta(0))


def _title(outlook: Outlook, *, forced: bool) -> str:
    found = outlook.preflight
    if forced:
        return f"Promote {found.candidate}: {found.leader} is lost"
    return f"Switch from {found.leader} to {found.candidate}"


def _steps(outlook: Outlook, *, forced: bool) -> Iterator[str]:
    leader, candidate = outlook.preflight.leader, outlook.preflight.candidate
    is_pair = outlook.settings.kind is ClusterKind.PAIR
    yield "Check everything again, right before"
    if forced:
        if is_pair:
            yield f"Prove that {leader} is fenced: its process is gone and its port refuses"
        yield f"Promote {candidate}"
    elif is_pair:
        yield f"Stop {leader} cleanly and wait until {candidate} has replayed its last record"
        yield f"Promote {candidate}; {leader} follows it"
    else:
        yield f"Patroni hands over from {leader} to {candidate}; {leader} follows it"
    yield (
        "Prove it: one node takes writes, a row written through the application's endpoint is"
        " read back, and every standby has it"
    )


def _facts(outlook: Outlook, checks: tuple[Check, ...]) -> Iterator[tuple[str, str]]:
    primary = outlook.seen.primary
    candidate = outlook.seen.node(outlook.preflight.candidate)
    yield "From", _place(outlook.preflight.leader, primary.region if primary else "")
    yield "To", _place(outlook.preflight.candidate, candidate.region if candidate else "")
    if candidate and candidate.timeline is not None:
        yield "Timeline", f"{candidate.timeline}, then {candidate.timeline + 1}"
    agent = outlook.seen.agent
    if agent and "ttl" in agent.settings:
        yield (
            "Patroni",
            ", ".join(
                f"{name} {agent.settings[name]} s"
                for name in ("ttl", "loop_wait", "retry_timeout")
                if name in agent.settings
            ),
        )
    for each in checks:
        if each.name in _SHOWN:
            yield each.name, each.found
    others = [each.name for each in checks if each.is_met and each.name not in _SHOWN]
    yield f"Checked, and well ({len(others)})", "; ".join(others)


def _place(name: str, region: str) -> str:
    return f"{name} ({region})" if region else name


def _is_far(outlook: Outlook) -> bool:
    primary = outlook.seen.node(outlook.preflight.leader)
    candidate = outlook.seen.node(outlook.preflight.candidate)
    return bool(primary and candidate and primary.region != candidate.region)


def _answer(order: Order, done: JsonValue, proof: JsonValue) -> Answer:
    assert isinstance(done, dict)  # noqa: S101 - what the steps of this file return
    assert isinstance(proof, dict)  # noqa: S101
    seconds = float(str(done["seconds"]))
    old = (
        f"{order.leader} must not come back by itself: /db rejoin makes it follow."
        if order.forced
        else f"{order.leader} follows."
    )
    return Answer(
        title=f"{order.candidate} is the primary",
        lines=(old, *([str(done["said"])] if done["said"] else [])),
        facts=(
            ("Timeline", str(done["timeline"])),
            ("Until it took writes", f"{seconds:.1f} s"),
            ("Applications", str(proof["found"])),
        ),
        numbers={
            "from": order.leader,
            "to": order.candidate,
            "seconds": seconds,
            "timeline": int(str(done["timeline"] or 0)),
        },
    )


OPERATION = Operation(
    name="failover",
    summary="Another server becomes the primary: planned, or because the primary is lost",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    lesser_risks=frozenset({Risk.DISRUPTIVE}),
    params=Params,
    example="/db failover orders to=west",
    plan=plan,
    run=run,
    pins=pins,
    # Its own, read from every node: a lost primary cannot be asked.
    pinned=frozenset(),
    undo=undo,
    time_limit=TIME_LIMIT,
    is_routed=False,  # it looks at each node itself
)
