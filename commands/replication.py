"""`/db replication orders`: its servers, how far each is behind, and what is wrong. Always live.

The lag is told from both sides, as each can be wrong alone: the sender's numbers are as old as
the standby's last answer, and a standby that is cut off thinks that it is up to date.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field

from jobs.cluster_of import cluster_of, limits_of
from jobs.cluster_settings import FailoverLimits
from jobs.operation import Answer, Context, Database, JobError, Kind, Operation, Risk
from jobs.replication_words import facts, finding_lines, headline, node_table, suggestions
from postgres.cluster.judge import judge
from postgres.cluster.look import look_at
from postgres.cluster.words import ClusterKind, ClusterSeen, NodeSpec
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError

PATIENCE: Final = timedelta(seconds=20)
LIMIT: Final = timedelta(seconds=3)
UNNAMED: Final = (
    "The inventory does not name the servers of {name}: this is what its own DSN and `replicas:`"
    " tell. To have each looked at, and to switch between them, write under it"
    " `cluster: {{kind: patroni, nodes: [{{name: east, dsn: env:EAST_DSN, rest:"
    " http://10.0.0.1:8008}}, ...]}}` (kind `pair` without Patroni); a node's name is its"
    " Patroni member's name, or the application_name of its standby."
)


class Params(BaseModel, extra="forbid"):
    """Which database."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


async def answer(context: Context, params: Params) -> Answer:
    """All nodes as they are now, their slots, the agent's words, and what is wrong.

    Raises:
        JobError: a DSN of the inventory cannot be understood.
    """
    cluster = context.database.cluster
    seen = await (_of_dsns(context) if cluster is None else _of_cluster(context))
    findings = judge(
        seen,
        limits_of(cluster.limits if cluster else FailoverLimits()),
        is_synchronous=cluster is not None and cluster.is_synchronous,
    )
    unnamed = () if cluster else (UNNAMED.format(name=params.database),)
    return Answer(
        title=headline(params.database, seen, findings),
        lines=(*finding_lines(findings), *unnamed),
        facts=tuple(facts(seen)),
        table=node_table(seen),
        suggestions=tuple(suggestions(params.database, seen, findings)) if cluster else (),
    )


async def _of_cluster(context: Context) -> ClusterSeen:
    cluster = cluster_of(context.database, clock=lambda: context.now)
    try:
        return await cluster.look()
    finally:
        await cluster.close()


async def _of_dsns(context: Context) -> ClusterSeen:
    try:
        nodes = _named(context.database)
    except PostgresError as error:
        raise JobError(error.problem, next_step=error.next_step) from error
    found = await look_at(nodes, clock=lambda: context.now, limit=LIMIT)
    return ClusterSeen(at=context.now, kind=ClusterKind.PAIR, nodes=found)


def _named(database: Database) -> list[NodeSpec]:
    """What the inventory has of it: its own DSN, and its replicas."""
    places = [
        (database.name, database.dsn, database.region),
        *((each.name, each.dsn, each.region) for each in database.replicas),
    ]
    return [
        NodeSpec(name=name, target=parse_dsn(dsn.get_secret_value()), region=region)
        for name, dsn, region in places
    ]


OPERATION = Operation(
    name="replication",
    summary="The servers of a database: roles, lag from both sides, slots, and what is wrong",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db replication orders",
    answer=answer,
    patience=PATIENCE,
    is_routed=False,  # it looks at each node itself
)
