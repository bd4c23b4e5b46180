"""What is looked at before a disaster is rehearsed, and how the plan tells it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from jobs.cluster_of import specs_of
from jobs.cluster_settings import ClusterSettings, DrillKind
from jobs.drill_beginning import beside_another
from jobs.drill_hands import DrillOrder
from jobs.drill_ways import WAYS, allowed, drill_checks, drill_limits, risk_of, victim_of
from jobs.failing_over import Outlook, evidence, look, refuse_failed, settings_of
from jobs.operation import Context, Database, Plan
from jobs.own_store import refuse_shared_store
from jobs.text import span_text
from postgres.cluster.checks import Check
from postgres.cluster.words import ClusterKind
from store.drills import StoredDrill, drills, open_drill

# Until the figures of an earlier drill are known. Seconds: the pre-flight, the ledger's baseline,
# the proof, the way back.
_ALWAYS_SECONDS: Final = 20
_REJOIN_SECONDS: Final = 10
_PAIR_SECONDS: Final = 1
_TTL: Final = "ttl"
_TTL_SECONDS: Final = 30  # Patroni's default
# Whoever must agree reads what was found of these; of the others, that they hold.
_SHOWN: Final = frozenset(
    {"Blast radius", "Candidate's lag in bytes", "Candidate's lag in time", "Verified backup"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillOutlook:
    """A drill that may begin. `earlier`: the last of this database and kind, None: the first."""

    order: DrillOrder
    outlook: Outlook
    checks: tuple[Check, ...]
    earlier: StoredDrill | None

    @property
    def pins(self) -> Mapping[str, str]:
        """What must still be so when it begins."""
        return {
            **self.outlook.pins,
            "kind": str(self.order.kind),
            "victim": self.order.victim,
        }


def kind_of(database: Database, asked: DrillKind | None) -> DrillKind:
    """Which disaster: the one that was asked for, else the inventory's usual one. Pure."""
    if asked is not None:
        return asked
    return database.cluster.drills.kind if database.cluster else DrillKind.RESTORE


async def look_ahead(context: Context, *, kind: DrillKind, to: str, back: bool) -> DrillOutlook:
    """See whether this drill may be done, everything but the proven backup.

    `to`: who would take over, '' for the closest.

    Raises:
        JobError: it may not; says what to do.
    """
    settings = settings_of(context)
    refuse_failed((allowed(settings, kind),))
    await refuse_shared_store(
        context.store, context.database.name, specs_of(settings), clock=lambda: context.now
    )
    outlook = await look(context, to=to, forced=False)
    found = outlook.preflight
    refuse_failed(found.checks)
    order = DrillOrder(
        kind=kind,
        leader=found.leader,
        candidate=found.candidate,
        victim=victim_of(kind, leader=found.leader, candidate=found.candidate),
        back=back,
    )
    own = drill_checks(
        settings,
        outlook.seen,
        kind=kind,
        victim=next(each for each in specs_of(settings) if each.name == order.victim),
        candidate=order.candidate,
        environment=context.database.environment,
    )
    refuse_failed(own)
    async with context.store.begin() as conn:
        before = await drills(conn, context.database.name, limit=1, kind=kind)
    return DrillOutlook(
        order=order,
        outlook=outlook,
        checks=(*found.checks, *own),
        earlier=before[0] if before else None,
    )


async def refuse_beside_another(context: Context) -> None:
    """One drill at a time, of all databases.

    Raises:
        JobError: another is under way.
    """
    async with context.store.begin() as conn:
        other = await open_drill(conn)
    if other is not None and other.is_alive:
        raise beside_another(other)


async def drill_plan(context: Context, *, kind: DrillKind, back: bool) -> Plan:
    """The plan of a drill on servers.

    Raises:
        JobError: it may not be done now; says what to do.
    """
    await refuse_beside_another(context)
    seen = await look_ahead(context, kind=kind, to="", back=back)
    proven = await evidence(context)
    refuse_failed(proven)
    settings, order = settings_of(context), seen.order
    checks = (*seen.checks, *proven)
    return Plan(
        title=f"Drill {kind}: {order.victim} of {context.database.name}",
        steps=tuple(_steps(settings, order)),
        facts=tuple(_facts(context.database, settings, seen, checks)),
        warnings=tuple(_warnings(settings, order, checks)),
        estimate_seconds=_estimate(seen),
        undo="An abort that knows how far it is; at its end all is as it was before",
        pins=seen.pins,
        attributes={"kind": str(kind)},
        risk=risk_of(kind, context.database.environment, is_synchronous=settings.is_synchronous),
    )


def limits_text(database: Database) -> str:
    """What it must prove, such as "applications connect, RTO 15 min, RPO 60 s"."""
    rto, rpo = drill_limits(database)
    loss = f"RPO below {span_text(rpo)}" if rpo else "no row lost"
    return f"applications connect, RTO within {span_text(rto)}, {loss}"


def _steps(settings: ClusterSettings, order: DrillOrder) -> Iterator[str]:
    way, is_pair = WAYS[order.kind], settings.kind is ClusterKind.PAIR
    yield "Tell the channel, and check everything again"
    yield (
        "Write a row every 10 ms through the application's endpoint, and note which are"
        " acknowledged"
    )
    yield way.says.format(victim=order.victim, candidate=order.candidate)
    if way.moves_primary and order.fault is not None:
        yield (
            f"Prove that {order.victim} is fenced, and promote {order.candidate}"
            if is_pair
            else "Wait until Patroni has promoted another server"
        )
    yield "Prove that applications write and read through their endpoint; count what was lost"
    yield f"Bring {order.victim} back, until every server streams"
    if way.moves_primary and order.back:
        yield f"Switch back to {order.leader}, with all checks of a planned switchover"
    yield "Compare the configuration with the one before, and report"


def _facts(
    database: Database, settings: ClusterSettings, seen: DrillOutlook, checks: tuple[Check, ...]
) -> Iterator[tuple[str, str]]:
    order = seen.order
    yield "Is lost" if order.fault else "Hands over", order.victim
    if WAYS[order.kind].moves_primary:
        yield "Takes over", order.candidate
    yield "People notice", WAYS[order.kind].notices
    yield "Passes when", limits_text(database)
    yield (
        "Ends at the latest",
        f"after {span_text(settings.drills.hard_limit)}: brought to a safe end",
    )
    for each in checks:
        if each.name in _SHOWN:
            yield each.name, each.found
    others = [each.name for each in checks if each.is_met and each.name not in _SHOWN]
    yield f"Checked, and well ({len(others)})", "; ".join(others)
    yield "Last drill of this kind", _last(seen.earlier)


def _last(earlier: StoredDrill | None) -> str:
    if earlier is None:
        return "There was none."
    return f"{earlier.started_at:%Y-%m-%d}: {earlier.end or 'no end is known'}"


def _warnings(
    settings: ClusterSettings, order: DrillOrder, checks: tuple[Check, ...]
) -> Iterator[str]:
    if WAYS[order.kind].moves_primary and order.fault and not settings.is_synchronous:
        yield (
            "Replication is asynchronous: what was acknowledged and not yet received is lost for"
            " good, applications' rows as well as the ledger's."
        )
    if settings.endpoint is None:
        yield (
            "Nobody has said what applications connect to (cluster.endpoint): it is proven"
            " through the servers' own addresses alone."
        )
    for each in checks:
        if not each.is_met:
            yield f"{each.found} {each.next_step}"


def _estimate(seen: DrillOutlook) -> int:
    """As long as the last one; else by what Patroni waits for. Seconds."""
    last = seen.earlier
    if last is not None and last.ended_at is not None and last.end == "passed":
        return max(1, round((last.ended_at - last.started_at).total_seconds()))
    agent = seen.outlook.seen.agent
    waits = float(agent.settings.get(_TTL, _TTL_SECONDS)) if agent else _PAIR_SECONDS
    lost = waits if seen.order.kind in {DrillKind.HOST_LOSS, DrillKind.NETWORK_SPLIT} else 0.0
    return round(_ALWAYS_SECONDS + lost + _REJOIN_SECONDS)
