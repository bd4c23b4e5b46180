"""Whether our own store lives on a cluster whose servers may be broken or swapped by us.

A drill that takes the store away with it takes away what records, guards and ends the drill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import asyncpg
import sqlalchemy as sa
import sqlalchemy.exc as sa_exc

from jobs.operation import JobError
from postgres.cluster.look import look_at
from postgres.cluster.words import NodeSeen, NodeSpec
from store.connect import Store
from store.quick import Statement

LIMIT: Final = timedelta(seconds=5)
WHERE_TO_READ: Final = "docs/deploy.md, “The store on a cluster”"

# Made once by initdb, and the same on all servers that were ever copied from that one.
_SYSTEM: Final = Statement(
    sa.text("SELECT system_identifier::text AS system FROM pg_control_system()")
)
# asyncpg's own confusion at a server's farewell is the last.
_FAILURES: Final = (
    OSError, asyncpg.PostgresError, asyncpg.InterfaceError, sa_exc.SQLAlchemyError,
    asyncpg.InternalClientError,
)  # fmt: skip


class Shared(StrEnum):
    """Whether two are one cluster."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """Whether the store is on a cluster. `why`: what kept us from telling; '' when we can."""

    shared: Shared
    why: str = ""


def sharing_of(store: str, store_problem: str, nodes: Sequence[NodeSeen]) -> Sharing:
    """Hold the store's system identifier ('': not known) against what the nodes said. Pure.

    A single silent node leaves it open: the inventory may name a server of another cluster.
    """
    if store and store in {each.system_identifier for each in nodes}:
        return Sharing(shared=Shared.YES)
    if not store:
        return Sharing(
            shared=Shared.UNKNOWN,
            why=f"the store does not say which cluster it is ({store_problem})",
        )
    silent = [
        f"{each.name} ({each.problem or 'it keeps that to itself'})"
        for each in nodes
        if not each.system_identifier
    ]
    if silent or not nodes:
        what = ", ".join(silent) or "no server of it is named"
        return Sharing(
            shared=Shared.UNKNOWN, why=f"not all servers say which cluster they are: {what}"
        )
    return Sharing(shared=Shared.NO)


async def look_for_sharing(
    store: Store, specs: Sequence[NodeSpec], *, clock: Callable[[], datetime]
) -> Sharing:
    """Ask the store and all nodes side by side, within `LIMIT`. Never raises for who is silent."""
    (system, problem), nodes = await asyncio.gather(
        _system_of(store), look_at(specs, clock=clock, limit=LIMIT)
    )
    return sharing_of(system, problem, nodes)


async def shares_store(
    store: Store, specs: Sequence[NodeSpec], *, clock: Callable[[], datetime]
) -> bool | None:
    """Whether our store lives on the cluster of these nodes; None: nobody can tell."""
    match (await look_for_sharing(store, specs, clock=clock)).shared:
        case Shared.YES:
            return True
        case Shared.NO:
            return False
        case Shared.UNKNOWN:
            return None


async def refuse_shared_store(
    store: Store, database: str, specs: Sequence[NodeSpec], *, clock: Callable[[], datetime]
) -> None:
    """Nothing, when the store is known to live elsewhere: what a drill asks before it begins.

    Raises:
        JobError: it lives on the cluster of `database`, or nobody can tell. Nothing has changed.
    """
    sharing = await look_for_sharing(store, specs, clock=clock)
    if objection := objection_of(sharing, database):
        raise objection


def objection_of(sharing: Sharing, database: str) -> JobError | None:
    """Why no drill may be held on a database's cluster, or None. Pure."""
    match sharing.shared:
        case Shared.NO:
            return None
        case Shared.YES:
            return JobError(
                f"Twokey's own store lives on the cluster of {database}: a drill there would take "
                "away what records it, guards it and ends it.",
                next_step=f"Move the store to a cluster of its own ({WHERE_TO_READ}), or hold this "
                "drill by hand.",
            )
        case Shared.UNKNOWN:
            return JobError(
                f"Whether Twokey's own store lives on the cluster of {database} cannot be told: "
                f"{sharing.why}.",
                next_step="See that the store and each server answer and let our login use "
                "pg_control_system() (`twokey doctor` looks at both), then ask again.",
            )


async def _system_of(store: Store) -> tuple[str, str]:
    """The store's system identifier, or '' and why it is not known."""
    try:
        async with asyncio.timeout(LIMIT.total_seconds()):
            [row] = await store.rows(_SYSTEM, {})
    except _FAILURES as error:
        return "", str(error).splitlines()[0] if str(error) else "no answer"
    return str(row["system"]), ""
