"""Doctor's look at where our own store lives: on which hosts, and on whose cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from bot.finding import Finding
from jobs.away import is_away
from jobs.cluster_of import specs_of
from jobs.cluster_settings import ClusterSettings
from jobs.operation import Database
from jobs.own_store import WHERE_TO_READ, Shared, Sharing, look_for_sharing
from postgres.errors import PostgresError
from store.connect import Store
from store.hosts import Host
from store.quick import Statement

LIMIT_SECONDS: Final = 8.0
_DURABILITY: Final = Statement(
    sa.text("""
    SELECT current_setting('synchronous_standby_names') AS standbys,
           current_setting('synchronous_commit')        AS commits
""")
)
# With these a commit waits for no standby, whatever stands in synchronous_standby_names.
_ALONE: Final = ("off", "local")


async def examine_store_place(
    store: Store, databases: Mapping[str, Database], *, clock: Callable[[], datetime]
) -> list[Finding]:
    """What a failover of the store's server, or of a database's, would do to Twokey."""
    clusters = [(each.name, each.cluster) for each in databases.values() if each.cluster]
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            looks = [_shared(store, *each, clock=clock) for each in clusters]
            own, shared = await asyncio.gather(_hosts(store), asyncio.gather(*looks))
    except TimeoutError:
        return [
            Finding(
                name="store's place", ok=False,
                says=f"Not all servers answered within {LIMIT_SECONDS:g} s.",
                fix="Look at the store's hosts and at the servers under `cluster:`.",
            )
        ]  # fmt: skip
    return [*own, *shared]


async def _hosts(store: Store) -> list[Finding]:
    """Nothing for a store on one host: there is nobody to fail over to."""
    if not store.reach.hosts:
        return []
    seen = await store.reach.survey()
    found = [of_host(host, timeline, problem) for host, timeline, problem in seen]
    try:
        [row] = await store.rows(_DURABILITY, {})
    except Exception as error:
        if not is_away(error):
            raise
        return found  # that the store does not answer is a finding of its own
    return [*found, of_durability(row["standbys"], row["commits"])]


def of_host(host: Host, timeline: int, problem: str) -> Finding:
    """What one of the store's hosts says. Pure. Who is not let in now is not after a failover."""
    name = f"store host {host}"
    if problem:
        return Finding(
            name=name, ok=False, says=f"It does not let us in: {problem}.",
            fix="Start it, or let Twokey's users in there as on the primary (pg_hba.conf): after "
            "a failover to it there would be no store.",
        )  # fmt: skip
    return Finding(name=name, ok=True, says="takes writes" if timeline else "a standby")


def of_durability(standbys: str, commits: str) -> Finding:
    """Whether a failover can lose what the store has acknowledged. Pure."""
    name = "store's replication"
    if standbys and commits not in _ALONE:
        return Finding(name=name, ok=True, says=f"synchronous ({standbys})")
    what = f"synchronous_commit is {commits}" if standbys else "no standby is synchronous"
    return Finding(
        name=name, ok=False,
        says=f"The store has several hosts and {what}: a failover can lose votes that were "
        "acknowledged, and forget that a step has begun.",
        fix="There: ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'; "
        f"SELECT pg_reload_conf(); and synchronous_commit = on (see {WHERE_TO_READ}).",
    )  # fmt: skip


async def _shared(
    store: Store, name: str, cluster: ClusterSettings, *, clock: Callable[[], datetime]
) -> Finding:
    try:
        sharing = await look_for_sharing(store, specs_of(cluster), clock=clock)
    except PostgresError as error:
        sharing = Sharing(shared=Shared.UNKNOWN, why=error.problem.rstrip("."))
    return of_sharing(name, sharing, drills=cluster.drills.kinds)


def of_sharing(database: str, sharing: Sharing, *, drills: Sequence[str]) -> Finding:
    """Whether the store would go down with a database's cluster. Pure."""
    name = f"store beside {database}"
    away = f"Move the store to a cluster of its own ({WHERE_TO_READ})."
    match sharing.shared:
        case Shared.NO:
            return Finding(name=name, ok=True, says="the store is on another cluster")
        case Shared.UNKNOWN:
            says = f"Whether the store is on the cluster of {database} cannot be told: "
            return Finding(
                name=name, ok=not drills, says=f"{says}{sharing.why}.",
                fix="Make the store and each server answer: until it is known no drill is held.",
            )  # fmt: skip
        case Shared.YES if drills:
            return Finding(
                name=name, ok=False,
                says=f"CRITICAL: the store is on the cluster of {database}, where drills "
                f"({', '.join(drills)}) are allowed: each is refused, as Twokey would go with it.",
                fix=f"{away} Or take `drills` out of the inventory.",
            )  # fmt: skip
        case Shared.YES:
            return Finding(
                name=name, ok=False,
                says=f"The store is on the cluster of {database}: Twokey would be away amid each "
                "failover of it that it carries out.",
                fix=away,
            )  # fmt: skip
