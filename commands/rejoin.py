"""`/db rejoin orders east`: a server that was the primary follows the new one.

What only it had is thrown away: it was lost when the other one took over.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.failing_over import opened, settings_of
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
from postgres.cluster.words import ClusterKind, ClusterSeen, NodeSeen, Role

TIME_LIMIT: Final = timedelta(hours=6)  # pg_rewind copies what has changed, at worst all
_LIMIT: Final = timedelta(hours=5)


class Params(BaseModel, extra="forbid"):
    """Which server."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    node: str = Field(
        max_length=63,
        description="The server that is to follow, as /db replication names it",
        examples=["east"],
    )
    rebuild: bool = Field(
        default=False,
        description="Copy the primary anew, where the server cannot be rewound or its WAL is gone",
    )


async def plan(context: Context, params: Params) -> Plan:
    """Who would follow whom, and what that throws away.

    Raises:
        JobError: there is nobody to follow, or this one takes writes.
    """
    seen = await _look(context)
    primary, node = _roles(seen, params.node)
    is_pair = settings_of(context).kind is ClusterKind.PAIR
    if params.rebuild:
        how = f"Copy {primary.name} anew, and put the copy into the place of what it has"
    elif is_pair:
        how = "Rewind it to where the timelines part, where they do, and start it as a standby"
    else:
        how = "Have its Patroni start it; Patroni rewinds it where it must"
    return Plan(
        title=f"{params.node} follows {primary.name}",
        steps=(how, f"Wait until it streams from {primary.name}"),
        facts=(
            ("Primary", f"{primary.name}, timeline {primary.timeline}"),
            (params.node, node.problem or f"answers, timeline {node.timeline}"),
        ),
        warnings=(_loses(params.node),),
        pins=_pins(seen),
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """Who is the primary now."""
    del params, plan
    return _pins(await _look(context))


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Bring it back, and wait until it streams."""

    async def back(_: Attempt) -> JsonValue:
        primary, _node = _roles(await _look(job), params.node)
        async with opened(job) as cluster:
            follow = cluster.rebuild if params.rebuild else cluster.rejoin
            await follow(params.node, primary=primary.name, limit=_LIMIT, tell=job.report)
        return {"primary": primary.name}

    # Resumable: the servers say how far it is, and the next life goes on from there; a copy that
    # was not finished is begun again.
    await job.step("rejoin", back, mode=Mode.RESUMABLE, time_limit=TIME_LIMIT)
    return Answer(
        title=f"{params.node} follows {plan.pins['primary']}",
        lines=("It streams.",),
        numbers={"node": params.node, "primary": plan.pins["primary"]},
    )


async def _look(context: Context) -> ClusterSeen:
    async with opened(context) as cluster:
        return await cluster.look()


def _loses(node: str) -> str:
    return (
        f"What only {node} has is thrown away: copy its data folder first, if rows that it had"
        " acknowledged are still wanted."
    )


def _roles(seen: ClusterSeen, name: str) -> tuple[NodeSeen, NodeSeen]:
    """The primary, and the node that is to follow.

    Raises:
        JobError: as `plan`.
    """
    node = seen.node(name)
    if node is None:
        raise JobError(
            f"There is no node called {name}.",
            next_step=f"The nodes are: {', '.join(each.name for each in seen.nodes)}.",
        )
    if node.role is Role.PRIMARY:
        raise JobError(
            f"{name} answers as a primary: it does not follow while it may take writes.",
            next_step="If it is the one that should not, stop it first, so that nobody writes to"
            " it; then ask again.",
        )
    if seen.primary is None:
        raise JobError(
            "There is not exactly one primary that it could follow.",
            next_step="Look at /db replication first.",
        )
    return seen.primary, node


def _pins(seen: ClusterSeen) -> Mapping[str, str]:
    primary = seen.primary
    return {
        "primary": primary.name if primary else "nobody",
        "cluster": primary.system_identifier if primary else "",
        "cluster_timeline": str(primary.timeline) if primary else "",
    }


OPERATION = Operation(
    name="rejoin",
    summary="A server that was the primary follows the new one",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    params=Params,
    example="/db rejoin orders east",
    plan=plan,
    run=run,
    pins=pins,
    pinned=frozenset(),
    time_limit=TIME_LIMIT,
    is_routed=False,  # it looks at each node itself
)
