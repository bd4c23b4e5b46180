"""How a drill that cannot go on is brought to a safe end: by what the servers say. Pure.

The old primary is brought back only when nobody else can be taking writes. After a promotion
there is no way back, only forward: the one that was lost follows the new primary.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from postgres.cluster.words import ClusterKind, ClusterSeen, Role


class SafeEnd(StrEnum):
    """What is to be done."""

    NOTHING = "nothing"  # all is as it was
    LIFT = "lift"  # take the fault back: nobody else writes
    FORWARD = "forward"  # somebody else is the primary: the lost one follows
    HANDS_OFF = "hands off"  # a person must look before anybody does anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    """What is to be done, and why. `primary`: whom the others follow afterwards."""

    end: SafeEnd
    why: str
    primary: str = ""


def safe_end(seen: ClusterSeen, *, victim: str, leader: str, is_injected: bool) -> Safety:
    """Decide by who takes writes.

    `leader`: who took writes before the fault; `victim`: who was lost on purpose.
    """
    writers = [each.name for each in seen.writable]
    match writers:
        case _ if not is_injected:
            return Safety(end=SafeEnd.NOTHING, why="Nothing was broken.", primary=leader)
        case [one] if one != victim:
            return Safety(end=SafeEnd.FORWARD, why=f"{one} takes writes.", primary=one)
        case [one]:
            return _unsure(seen, victim) or Safety(
                end=SafeEnd.LIFT, why=f"{one} takes writes itself.", primary=one
            )
        case []:
            return _nobody(seen, victim, leader)
        case _:
            return Safety(
                end=SafeEnd.HANDS_OFF, why=f"{' and '.join(writers)} take writes: a split brain."
            )


def _nobody(seen: ClusterSeen, victim: str, leader: str) -> Safety:
    if seen.kind is ClusterKind.PATRONI:
        # Its agents agree among themselves before anybody is the primary.
        return Safety(
            end=SafeEnd.LIFT, why="Nobody takes writes; Patroni decides who does.", primary=leader
        )
    return _unsure(seen, victim) or Safety(
        end=SafeEnd.LIFT, why="Nobody takes writes, and all others are standbys.", primary=leader
    )


def _unsure(seen: ClusterSeen, victim: str) -> Safety | None:
    """Hands off a pair of which another may have been promoted; None: none can have been."""
    unsure = [
        each.name
        for each in seen.nodes
        if each.name != victim and not (each.is_reached and each.role is Role.STANDBY)
    ]
    if seen.kind is ClusterKind.PATRONI or not unsure:
        return None
    return Safety(
        end=SafeEnd.HANDS_OFF,
        why=f"Whether {' and '.join(unsure)} takes writes cannot be told.",
    )
