"""A primary hands over, or is replaced: what is looked at before, how it is done, how it went.

Whoever takes over is decided when it is planned, and checked again right before. A run that died
begins by looking: the servers say what is true, never what was intended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, assert_never

from pydantic import JsonValue

from jobs.backup_state import states
from jobs.cluster_of import cluster_of, limits_of
from jobs.cluster_settings import ClusterSettings
from jobs.operation import Attempt, Context, Job, JobError
from jobs.text import span_text
from postgres.cluster.adapter import Cluster
from postgres.cluster.bouncer import Bouncer, Held, held, let_go
from postgres.cluster.checks import Check, Preflight
from postgres.cluster.preflight import switch_preflight
from postgres.cluster.preflight_forced import forced_preflight
from postgres.cluster.verify import verify
from postgres.cluster.words import ClusterKind, ClusterSeen, NodeSpec, Outcome, Role, Verdict
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError

CLOSE_LIMIT: Final = timedelta(seconds=5)
PROOF_LIMIT: Final = timedelta(seconds=60)
_LOOK_EVERY_SECONDS: Final = 0.5
_LOOKS_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who hands over to whom. `forced`: `leader` is lost, and hands nothing over."""

    leader: str
    candidate: str
    forced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What was seen and checked. `seen.at` says when."""

    settings: ClusterSettings
    seen: ClusterSeen
    preflight: Preflight

    @property
    def pins(self) -> Mapping[str, str]:
        """What must still be so when it begins."""
        primary = self.seen.primary
        candidate = self.seen.node(self.preflight.candidate)
        asked = primary or candidate
        return {
            "leader": self.preflight.leader,
            "candidate": self.preflight.candidate,
            "takes_writes": primary.name if primary else "nobody",
            "cluster": asked.system_identifier if asked else "",
            "cluster_timeline": str(asked.timeline if asked else ""),
        }


class Standing(StrEnum):
    """How far a change of roles is, as the servers say."""

    BEFORE = "before"
    DONE = "done"
    BETWEEN = "between"  # nobody takes writes, or somebody else, or more than one


def settings_of(context: Context) -> ClusterSettings:
    """The cluster of the target.

    Raises:
        JobError: the inventory names none.
    """
    if context.database.cluster is None:
        raise JobError(
            f"Nobody has said which servers {context.database.name} consists of.",
            next_step="Name them under `cluster:` in the inventory; twokey.example.yml shows how.",
        )
    return context.database.cluster


@asynccontextmanager
async def opened(context: Context) -> AsyncIterator[Cluster]:
    """The target's cluster, closed at the end; errors are the operation's."""
    settings_of(context)
    try:
        cluster = cluster_of(context.database, clock=lambda: context.now)
        try:
            yield cluster
        finally:
            async with asyncio.timeout(CLOSE_LIMIT.total_seconds()):
                await cluster.close()
    except PostgresError as error:
        raise JobError(error.problem, next_step=error.next_step) from error


async def look(context: Context, *, to: str, forced: bool) -> Outlook:
    """See all nodes and hold them against what must be so.

    Raises:
        JobError: there is no cluster, or nobody can tell who was the primary.
    """
    async with opened(context) as cluster:
        return await _look(cluster, settings_of(context), to=to, forced=forced)


async def _look(cluster: Cluster, settings: ClusterSettings, *, to: str, forced: bool) -> Outlook:
    looks = 0
    while True:
        seen, looks = await cluster.look(), looks + 1
        checked = _checked(seen, settings, to=to, forced=forced)
        if looks == _LOOKS_MAX or not checked.is_worth_another_look:
            return Outlook(settings=settings, seen=seen, preflight=checked)
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _checked(seen: ClusterSeen, settings: ClusterSettings, *, to: str, forced: bool) -> Preflight:
    limits = limits_of(settings.limits)
    if forced:
        return forced_preflight(seen, limits, leader=lost_leader(seen), candidate=to)
    return switch_preflight(seen, limits, candidate=to)


def lost_leader(seen: ClusterSeen) -> str:
    """Who was the primary, when none answers: the one that is missing. Pure.

    Raises:
        JobError: more than one is, and nobody remembers.
    """
    if writable := seen.writable:
        return writable[0].name
    if seen.agent and seen.agent.leader:
        return seen.agent.leader
    missing = [each.name for each in seen.nodes if each.role is not Role.STANDBY]
    match missing:
        case [name]:
            return name
        case []:
            raise JobError(
                "Every node answers and is a standby: which was the primary cannot be told.",
                next_step="See their logs for who was demoted and why, then promote by hand what"
                " has received most; /db replication shows it.",
            )
        case _:
            raise JobError(
                f"{' and '.join(missing)} do not answer: which was the primary cannot be told.",
                next_step="Bring one of them back, or take those that never were it out of the"
                " inventory's `cluster.nodes`.",
            )


async def evidence(context: Context) -> tuple[Check, ...]:
    """What our own records say: whether there is a proven way back."""
    settings, now = settings_of(context), context.now
    async with context.store.begin() as conn:
        (known,) = await states(conn, [context.database], now)
    proven = [line for line in known.verified if line.verified_ok and line.is_usable]
    age = now - proven[0].ended_at if proven else None
    most = settings.limits.backup_age
    return (
        Check(
            name="Verified backup",
            is_met=age is not None and age <= most,
            found=f"The newest proven one is {span_text(age)} old (limit {span_text(most)})."
            if age is not None
            else "No backup has ever been restored as a test.",
            next_step=f"/db backup {context.database.name}, then /db verify"
            f" {context.database.name}.",
        ),
    )


def refuse_failed(checks: tuple[Check, ...]) -> None:
    """Stop here unless everything is met.

    Raises:
        JobError: says the first thing to mend, and how many more there are.
    """
    failed = [each for each in checks if not each.is_met and not each.warns]
    if not failed:
        return
    first, more = failed[0], len(failed) - 1
    others = f" Also: {', '.join(each.name for each in failed[1:])}." if more else ""
    raise JobError(
        f"{first.name}: {first.found}{others} Nothing was changed.", next_step=first.next_step
    )


def standing(seen: ClusterSeen, order: Order) -> Standing:
    """How far it is. Pure: by who takes writes alone."""
    names = [each.name for each in seen.writable]
    if names == [order.candidate]:
        return Standing.DONE
    if names == [order.leader] and not order.forced:
        return Standing.BEFORE
    if not names and order.forced:
        return Standing.BEFORE
    return Standing.BETWEEN


async def change_primary(job: Job, attempt: Attempt, order: Order) -> JsonValue:
    """Carry it out, or find out what became of it when an earlier life did.

    Raises:
        JobError: it was refused, did not happen, or nobody can tell: it says which.
    """
    settings = settings_of(job)
    async with opened(job) as cluster:
        if attempt.checkpoint is None:
            outlook = await _look(cluster, settings, to=order.candidate, forced=order.forced)
            refuse_failed(outlook.preflight.checks)
            await attempt.save({"at": job.now.isoformat()})
        else:
            await let_go(bouncers_of(settings))  # an earlier life may have held them
            if found := await _ended_already(cluster, order, settings):
                if found.outcome is Outcome.DONE:
                    await _rest(cluster, job, order, settings)
                return _result(found, order)
        async with held(bouncers_of(settings), limit=settings.limits.pause) as clients:
            verdict = await _act(cluster, job, order, settings.limits.timeout)
            if verdict.outcome is Outcome.DONE:
                await lead(cluster, clients, order.candidate)
    return _result(verdict, order)


async def _rest(cluster: Cluster, job: Job, order: Order, settings: ClusterSettings) -> None:
    """What an earlier life, which died after the promotion, may not have come to."""
    await lead(cluster, Held(bouncers_of(settings)), order.candidate)
    if not order.forced:
        await cluster.rejoin(
            order.leader, primary=order.candidate, limit=settings.limits.timeout, tell=job.report
        )


async def lead(cluster: Cluster, clients: Held, primary: str) -> None:
    """Have poolers find `primary` whose configuration says where it is.

    Raises:
        PostgresError: one could not be told.
    """
    await clients.lead(spec_of(cluster, primary).target)


def spec_of(cluster: Cluster, name: str) -> NodeSpec:
    """The node of this name, which the plan has named."""
    return next(each for each in cluster.nodes if each.name == name)


def bouncers_of(settings: ClusterSettings) -> tuple[Bouncer, ...]:
    """The poolers whose clients wait meanwhile. Pure."""
    return tuple(
        Bouncer(
            admin=parse_dsn(each.admin.get_secret_value()),
            database=each.database,
            config=each.config,
        )
        for each in settings.bouncers
    )


async def confirm(job: Job, order: Order) -> JsonValue:
    """Prove that applications can write where they should, and that every standby follows.

    After a forced failover the lost node is not waited for.

    Raises:
        JobError: it is not proven; says what is missing.
    """
    settings = settings_of(job)
    endpoint = settings.endpoint
    async with opened(job) as cluster:
        nodes = [n for n in cluster.nodes if not (order.forced and n.name == order.leader)]
        proof = await verify(
            nodes,
            primary=order.candidate,
            endpoint=parse_dsn(endpoint.get_secret_value()) if endpoint else None,
            key=job.run_key,
            limit=PROOF_LIMIT,
            clock=lambda: job.now,
        )
    if not proof.is_proven:
        raise JobError(
            f"{order.candidate} is the primary now, but it is not proven that it works:"
            f" {proof.found}",
            next_step=proof.next_step,
        )
    return {"found": proof.found, "seconds": round(proof.seconds, 3), "tries": proof.tries}


async def _act(cluster: Cluster, job: Job, order: Order, limit: timedelta) -> Verdict:
    if order.forced:
        return await cluster.fail_over(
            leader=order.leader, candidate=order.candidate, limit=limit, tell=job.report
        )
    return await cluster.switch(
        leader=order.leader, candidate=order.candidate, limit=limit, tell=job.report
    )


async def _ended_already(
    cluster: Cluster, order: Order, settings: ClusterSettings
) -> Verdict | None:
    """What an earlier life brought about; None: it is to be done (a pair: to be gone on with)."""
    end = asyncio.get_running_loop().time() + settings.limits.timeout.total_seconds()
    while True:
        seen = await cluster.look()
        match standing(seen, order):
            case Standing.DONE:
                node = seen.primary
                return Verdict(
                    outcome=Outcome.DONE,
                    primary=order.candidate,
                    timeline=node.timeline if node else None,
                    said="It was done before the worker was started again.",
                )
            case Standing.BEFORE:
                return None
            case Standing.BETWEEN if settings.kind is ClusterKind.PAIR and not seen.writable:
                return None  # its adapter goes on where the servers stand
            case Standing.BETWEEN:
                if asyncio.get_running_loop().time() > end:
                    return Verdict(outcome=Outcome.UNKNOWN, said=_who_writes(seen))
            case other:
                assert_never(other)
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _who_writes(seen: ClusterSeen) -> str:
    names = [each.name for each in seen.writable]
    return f"{' and '.join(names) or 'Nobody'} takes writes"


def _result(verdict: Verdict, order: Order) -> JsonValue:
    match verdict.outcome:
        case Outcome.DONE:
            return {
                "primary": verdict.primary,
                "timeline": verdict.timeline,
                "seconds": round(verdict.seconds, 3),
                "said": verdict.said,
            }
        case Outcome.NOTHING:
            raise JobError(
                f"{order.leader} is still the primary: {verdict.said or 'nothing happened'}.",
                next_step=verdict.next_step or "Look at /db replication, and ask again.",
            )
        case Outcome.UNKNOWN:
            raise JobError(
                f"Nobody can tell who is the primary now: {verdict.said or 'no answer'}.",
                next_step=verdict.next_step
                or "Look at /db replication before anybody does anything; two that take writes"
                " are worse than none.",
            )
        case other:
            assert_never(other)
