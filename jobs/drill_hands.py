"""What a drill does to servers and asks of them: each part ends within a limit, and says when.

Every part is the body of a step and returns JSON with `at` and `text`. What a dead worker began
is found out from the servers: nothing is broken a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import JsonValue

from jobs.cluster_settings import ClusterSettings, DrillKind
from jobs.drill_ways import WAYS
from jobs.failing_over import PROOF_LIMIT, bouncers_of, lead, opened, spec_of
from jobs.operation import Attempt, Job, JobError
from jobs.text import span_text
from postgres.cluster.adapter import Cluster
from postgres.cluster.bouncer import Held, held
from postgres.cluster.faults import Fault, inject, is_in_force, lift
from postgres.cluster.host import Host
from postgres.cluster.verify import verify
from postgres.cluster.words import ClusterKind, ClusterSeen, NodeSeen, NodeSpec, Outcome
from postgres.dsn import parse_dsn

INJECT_LIMIT: Final = timedelta(seconds=60)
REJOIN_LIMIT: Final = timedelta(minutes=5)
_LOOK_EVERY_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillOrder:
    """What is rehearsed, and on whom. `back`: whether the old primary is the primary again."""

    kind: DrillKind
    leader: str
    candidate: str
    victim: str
    back: bool

    @property
    def fault(self) -> Fault | None:
        """What is broken; None: nothing."""
        return WAYS[self.kind].fault

    @property
    def moves_primary(self) -> bool:
        """Whether somebody takes over from somebody."""
        return WAYS[self.kind].moves_primary


class StopAskedError(Exception):
    """A drill is to be brought to a safe end: a person asked, or its time is up."""


def told(at: datetime, text: str, **more: Any) -> dict[str, JsonValue]:
    """What a part returns."""
    return {"at": at.isoformat(), "text": text, **more}


async def inject_fault(
    job: Job, attempt: Attempt, order: DrillOrder, started: Mapping[str, str]
) -> JsonValue:
    """Break what is to be broken, once. `started`: when each server began, before.

    Raises:
        PostgresError: it was not, or not wholly: says which.
    """
    assert order.fault is not None  # noqa: S101 - whoever calls has looked
    async with opened(job) as cluster:
        victim = spec_of(cluster, order.victim)
        begun = attempt.checkpoint
        if isinstance(begun, Mapping) and not await _is_untouched(
            cluster, order, victim, started.get(order.victim, "")
        ):
            at = datetime.fromisoformat(str(begun["at"]))
            return told(at, f"An earlier worker broke {order.victim}.")
        # Before it is done: whoever comes after us must know that it may have been.
        at = job.now
        await attempt.save({"at": at.isoformat()})
        text = await inject(victim, order.fault, limit=INJECT_LIMIT)
        return told(at, text[:1].upper() + text[1:])


async def _is_untouched(
    cluster: Cluster, order: DrillOrder, victim: NodeSpec, started: str
) -> bool:
    """Whether a fault that an earlier life was about to inject never was."""
    assert order.fault is not None  # noqa: S101
    if await is_in_force(victim, order.fault):
        return False
    node = (await cluster.look()).node(victim.name)
    return node is not None and node.is_reached and began(node) == started


def began(node: NodeSeen) -> str:
    """When a server began, as a text; '' where it does not answer."""
    return node.started_at.isoformat() if node.started_at else ""


async def await_primary(
    job: Job,
    settings: ClusterSettings,
    order: DrillOrder,
    started: Mapping[str, str],
    *,
    is_stopped: Callable[[], bool],
) -> JsonValue:
    """Wait until exactly one server takes writes that is not the one that was broken.

    `detected`: the first look that saw the primary gone, if any did.

    Raises:
        JobError: two take writes, or nobody does in time.
        StopAskedError: it is to be brought to a safe end.
    """
    limit = settings.limits.timeout
    end = asyncio.get_running_loop().time() + limit.total_seconds()
    detected: datetime | None = None
    async with opened(job) as cluster:
        while True:
            seen = await cluster.look()
            if detected is None and _is_missed(seen, order, started):
                detected = seen.at
            if is_new(seen, order, started):
                await _lead(cluster, settings, seen)
                return _promoted(seen, detected)
            _refuse_two(seen)
            if is_stopped():
                raise StopAskedError
            if asyncio.get_running_loop().time() > end:
                raise JobError(
                    f"Nobody has taken over from {order.victim} within {span_text(limit)}.",
                    next_step="See the agents' logs; `cluster.limits.timeout` must be longer than"
                    " Patroni's ttl.",
                )
            await asyncio.sleep(_LOOK_EVERY_SECONDS)


def is_new(seen: ClusterSeen, order: DrillOrder, started: Mapping[str, str]) -> bool:
    """Whether one server alone takes writes, and has begun to since the fault. Pure."""
    primary = seen.primary
    if primary is None:
        return False
    if primary.name != order.victim:
        return True
    # An agent may start a crashed server again instead of promoting another.
    return order.fault is Fault.SERVER and began(primary) != started.get(order.victim, "")


def _is_missed(seen: ClusterSeen, order: DrillOrder, started: Mapping[str, str]) -> bool:
    node = seen.node(order.victim)
    return node is None or not node.is_reached or began(node) != started.get(order.victim, "")


def _refuse_two(seen: ClusterSeen) -> None:
    if len(seen.writable) > 1:
        names = " and ".join(each.name for each in seen.writable)
        raise JobError(
            f"{names} both take writes: a split brain.",
            next_step="Stop the applications and change nothing else: whatever is written to the"
            " wrong one will be lost. /db replication shows timelines and positions.",
        )


def _promoted(seen: ClusterSeen, detected: datetime | None) -> JsonValue:
    primary = seen.primary
    assert primary is not None  # noqa: S101 - is_new said so
    return told(
        seen.at,
        f"{primary.name} takes writes, timeline {primary.timeline}",
        primary=primary.name,
        detected=detected.isoformat() if detected else None,
    )


async def _lead(cluster: Cluster, settings: ClusterSettings, seen: ClusterSeen) -> None:
    """Have poolers find the new primary whose configuration says where it is."""
    bouncers = [each for each in bouncers_of(settings) if each.config is not None]
    primary = seen.primary
    if not bouncers or primary is None or cluster.kind is not ClusterKind.PATRONI:
        return
    async with held(bouncers, limit=settings.limits.pause) as clients:
        await lead(cluster, clients, primary.name)


async def await_loss(job: Job, settings: ClusterSettings, order: DrillOrder) -> JsonValue:
    """Wait until the loss of a standby is seen, while the primary goes on to take writes.

    Raises:
        JobError: it is not, or the primary takes no writes any more.
    """
    end = asyncio.get_running_loop().time() + settings.limits.timeout.total_seconds()
    async with opened(job) as cluster:
        while True:
            seen = await cluster.look()
            node = seen.node(order.victim)
            if node is not None and not node.is_reached:
                writers = " and ".join(each.name for each in seen.writable) or "nobody"
                return told(seen.at, f"{order.victim} does not answer, {writers} takes writes")
            if asyncio.get_running_loop().time() > end:
                raise JobError(
                    f"{order.victim} still answers.",
                    next_step="See what starts it again on its machine: a drill must not race it.",
                )
            await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def prove(
    job: Job, settings: ClusterSettings, *, primary: str, without: str
) -> dict[str, JsonValue]:
    """Whether applications can write through their endpoint, and every standby has it (`proven`).

    `without`: who is lost, and is not waited for.
    """
    endpoint = settings.endpoint
    async with opened(job) as cluster:
        found = await verify(
            [each for each in cluster.nodes if each.name != without],
            primary=primary,
            endpoint=parse_dsn(endpoint.get_secret_value()) if endpoint else None,
            key=job.run_key,
            limit=PROOF_LIMIT,
            clock=lambda: job.now,
        )
    text = found.found if found.is_proven else f"{found.found} {found.next_step}"
    return told(job.now, text.strip(), proven=found.is_proven)


async def lead_clients(job: Job, settings: ClusterSettings, *, primary: str) -> None:
    """Have poolers find the primary whose configuration says where it is; nobody waits.

    Raises:
        PostgresError: one could not be told.
    """
    async with opened(job) as cluster:
        await lead(cluster, Held(bouncers_of(settings)), primary)


async def bring_back_all(job: Job, order: DrillOrder, *, primary: str) -> JsonValue:
    """Have every other server follow `primary`, the one that was broken too.

    Raises:
        PostgresError: one does not; says which and what to do.
    """
    async with opened(job) as cluster:
        if order.fault is Fault.NETWORK:
            await lift(
                spec_of(cluster, order.victim), order.fault, kind=cluster.kind, limit=INJECT_LIMIT
            )
        others = [each.name for each in cluster.nodes if each.name != primary]
        for name in others:
            await cluster.rejoin(name, primary=primary, limit=REJOIN_LIMIT, tell=job.report)
    follow = "follows" if len(others) == 1 else "follow"
    return told(job.now, f"{' and '.join(others) or 'nobody else'} {follow} {primary}")


async def take_back(job: Job, settings: ClusterSettings, order: DrillOrder) -> str:
    """Take the fault back, as nobody else takes writes; what was done, in words.

    A pair's primary that was fenced comes back as a standby alone, as the other may have been
    told to promote itself: that one goes on to.

    Raises:
        JobError: the other was not promoted.
        PostgresError: it could not be; says what stands.
    """
    async with opened(job) as cluster:
        victim, is_pair = spec_of(cluster, order.victim), cluster.kind is ClusterKind.PAIR
        if is_pair and order.moves_primary and (await Host(victim).look()).has_standby_signal:
            verdict = await cluster.fail_over(
                leader=order.leader, candidate=order.candidate,
                limit=settings.limits.timeout, tell=job.report,
            )  # fmt: skip
            if verdict.outcome is not Outcome.DONE:
                raise JobError(
                    f"{order.victim} was fenced, and {order.candidate} was not promoted:"
                    f" {verdict.said or 'no answer'}.",
                    next_step=verdict.next_step or "Look at /db replication.",
                )
            return f"{order.candidate} was promoted, as {order.victim} was fenced"
        # A switchover that ended half-way has stopped it.
        if fault := order.fault or (Fault.SERVER if is_pair else None):
            await lift(victim, fault, kind=cluster.kind, limit=REJOIN_LIMIT)
    return f"{order.victim} was brought back"


async def configuration(job: Job) -> dict[str, str]:
    """What the cluster is configured with, to be compared.

    Raises:
        PostgresError: it cannot be read.
    """
    async with opened(job) as cluster:
        return dict(await cluster.settings())
