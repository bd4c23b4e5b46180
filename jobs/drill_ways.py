"""What each kind of drill does to whom, and how much may be lost by it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from jobs.cluster_settings import DATA_LOSS_MAX, ClusterSettings, DrillKind
from jobs.operation import RTO, Database, Risk
from postgres.cluster.candidates import STREAMING, SYNC, sender_of
from postgres.cluster.checks import Check
from postgres.cluster.faults import Fault, objection
from postgres.cluster.words import ClusterKind, ClusterSeen, NodeSpec, Role

PRODUCTION: Final = "production"
# A cluster of production is two servers away from an outage even while one is lost on purpose.
_LEAVES_PRODUCTION: Final = 2
_LEAVES: Final = 1
# What a plan may say instead of the worst.
LESSER_RISKS: Final = frozenset({Risk.RECOVERABLE, Risk.DISRUPTIVE})


class Hits(StrEnum):
    """Who is lost."""

    PRIMARY = "primary"
    STANDBY = "standby"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What a kind does. `fault` None: nothing is broken."""

    hits: Hits
    fault: Fault | None
    says: str
    notices: str

    @property
    def moves_primary(self) -> bool:
        """Whether another server becomes the primary."""
        return self.hits is Hits.PRIMARY


WAYS: Final[Mapping[DrillKind, Way]] = {
    DrillKind.SWITCHOVER: Way(
        hits=Hits.PRIMARY,
        fault=None,
        says="{victim} hands over to {candidate}, as in a planned switchover",
        notices="Writes fail or wait for seconds; nothing is lost.",
    ),
    DrillKind.PRIMARY_CRASH: Way(
        hits=Hits.PRIMARY,
        fault=Fault.SERVER,
        says="Kill the server of {victim} (kill -9), as when its machine runs out of memory",
        notices="Every connection breaks, and writes fail until a primary is back.",
    ),
    DrillKind.HOST_LOSS: Way(
        hits=Hits.PRIMARY,
        fault=Fault.HOST,
        says="Kill the server and the agent of {victim} (kill -9), as when its machine is gone",
        notices="Every connection breaks, and writes fail until another server is promoted.",
    ),
    DrillKind.REPLICA_LOSS: Way(
        hits=Hits.STANDBY,
        fault=Fault.HOST,
        says="Kill all of {victim} (kill -9), a standby, as when its machine is gone",
        notices="What reads from it fails; writes should go on.",
    ),
    DrillKind.NETWORK_SPLIT: Way(
        hits=Hits.PRIMARY,
        fault=Fault.NETWORK,
        says="Part {victim} from all others, its agent from its DCS",
        notices="Writes fail until the others have a primary; the old one must step down.",
    ),
    DrillKind.RESTORE: Way(
        hits=Hits.NOBODY,
        fault=None,
        says="Restore the database elsewhere, as if all of its servers were gone",
        notices="Nobody notices: nothing is harmed.",
    ),
}


def risk_of(kind: DrillKind, environment: str, *, is_synchronous: bool) -> Risk:
    """The worst that it can do; in production always the worst of all, by its riskiest rule."""
    if environment == PRODUCTION:
        return Risk.DESTRUCTIVE
    match kind:
        case DrillKind.RESTORE:
            return Risk.RECOVERABLE
        case DrillKind.SWITCHOVER | DrillKind.REPLICA_LOSS:
            return Risk.DISRUPTIVE
        case _:
            return Risk.DISRUPTIVE if is_synchronous else Risk.DESTRUCTIVE


def drill_limits(database: Database) -> tuple[timedelta, timedelta]:
    """RTO and RPO that a drill must keep: the inventory's, else the tier's and the guide's."""
    drills = database.cluster.drills if database.cluster else None
    rto = (drills.rto if drills else None) or RTO[database.tier]
    return rto, drills.rpo if drills else DATA_LOSS_MAX


def victim_of(kind: DrillKind, *, leader: str, candidate: str) -> str:
    """Who is lost, or hands over; '' for nobody."""
    match WAYS[kind].hits:
        case Hits.PRIMARY:
            return leader
        case Hits.STANDBY:
            return candidate
        case Hits.NOBODY:
            return ""


def leaves(settings: ClusterSettings, environment: str) -> int:
    """So many servers must be well beside the one that is lost."""
    if settings.drills.leaves is not None:
        return settings.drills.leaves
    return _LEAVES_PRODUCTION if environment == PRODUCTION else _LEAVES


def drill_checks(
    settings: ClusterSettings,
    seen: ClusterSeen,
    *,
    kind: DrillKind,
    victim: NodeSpec,
    candidate: str,
    environment: str,
) -> tuple[Check, ...]:
    """What must hold for a drill beside what must hold for a switchover. Pure."""
    return (
        allowed(settings, kind),
        *_can_be_injected(settings, kind, victim),
        _blast_radius(settings, seen, kind, victim.name, environment),
        *_synchronous(settings, seen, kind, candidate),
    )


def allowed(settings: ClusterSettings, kind: DrillKind) -> Check:
    """Whether the inventory lets this disaster be rehearsed here."""
    kinds = settings.drills.kinds
    return Check(
        name="Kind of drill",
        is_met=kind in kinds,
        found=f"{kind} is allowed here."
        if kind in kinds
        else f"{kind} may not be rehearsed here; allowed: {', '.join(kinds) or 'none'}.",
        next_step=f"If it may, write it into `cluster.drills.kinds` of the inventory: [{kind}].",
    )


def _can_be_injected(
    settings: ClusterSettings, kind: DrillKind, victim: NodeSpec
) -> Iterator[Check]:
    fault = WAYS[kind].fault
    if fault is None:
        return
    if fault is Fault.NETWORK:
        is_sandbox = settings.is_sandbox and settings.kind is ClusterKind.PATRONI
        yield Check(
            name="A cluster to be broken",
            is_met=is_sandbox,
            found="It is a sandbox." if is_sandbox else "It is no sandbox of Patroni.",
            next_step="A split is rehearsed on a cluster with `sandbox: true` alone.",
        )
    against = objection(victim, fault, settings.kind)
    yield Check(
        name="It can be injected",
        is_met=against is None,
        found=against[0] if against else f"{victim.name}'s machine can be asked to.",
        next_step=against[1] if against else "",
    )


def _blast_radius(
    settings: ClusterSettings, seen: ClusterSeen, kind: DrillKind, victim: str, environment: str
) -> Check:
    lost = victim if WAYS[kind].fault else ""
    well = [each.name for each in seen.nodes if each.name != lost and _is_well(seen, each.name)]
    least = leaves(settings, environment)
    return Check(
        name="Blast radius",
        is_met=len(well) >= least,
        found=f"{len(well)} of {len(seen.nodes)} servers are well without"
        f" {lost or 'any loss'} (at least {least}).",
        next_step="Add a server, or say in `cluster.drills.leaves` of the inventory how many are"
        " enough while one is lost.",
    )


def _is_well(seen: ClusterSeen, name: str) -> bool:
    node, primary = seen.node(name), seen.primary
    if node is None or primary is None or not node.is_reached:
        return False
    if node.role is Role.PRIMARY:
        return True
    sender = sender_of(primary, name)
    return sender is not None and sender.state == STREAMING


def _synchronous(
    settings: ClusterSettings, seen: ClusterSeen, kind: DrillKind, candidate: str
) -> Iterator[Check]:
    primary = seen.primary
    if not settings.is_synchronous or not WAYS[kind].moves_primary or primary is None:
        return
    sender = sender_of(primary, candidate)
    state = sender.sync_state if sender else "not connected"
    yield Check(
        name="Nothing can be lost",
        is_met=state in SYNC,
        found=f"{candidate} is {state}.",
        next_step="The inventory says `synchronous: true`: wait until a standby is, or correct it.",
    )
