"""Which standby would take over: chosen by what was seen, the same for the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from postgres.cluster.words import ClusterSeen, NodeSeen, Role, Sender

STREAMING: Final = "streaming"
SYNC: Final = frozenset({"sync", "quorum"})


def closest(seen: ClusterSeen, primary: NodeSeen) -> str:
    """The standby to hand over to: synchronous, then of the same region, then the closest."""

    def rank(node: NodeSeen) -> tuple[bool, bool, bool, int, str]:
        sender = sender_of(primary, node.name)
        behind = bytes_behind(sender) if sender else None
        return (
            sender is None or sender.state != STREAMING,
            sender is None or sender.sync_state not in SYNC,
            node.region != primary.region,
            2**62 if behind is None else behind,
            node.name,
        )

    able = [each for each in seen.nodes if each.is_reached and each.role is Role.STANDBY]
    return min(able, key=rank).name if able else ""


def furthest(seen: ClusterSeen, leader: str) -> str:
    """The standby, other than `leader`, that has received most; '' for none. Pure."""
    able = [
        each
        for each in seen.nodes
        if each.is_reached and each.role is Role.STANDBY and each.name != leader
    ]
    return max(able, key=lambda each: (reach(each), each.name)).name if able else ""


def reach(node: NodeSeen | None) -> int:
    """How far a standby can come: what it has received, or replayed from the archive."""
    return max(node.received or 0, node.position or 0) if node else 0


def sender_of(primary: NodeSeen, name: str) -> Sender | None:
    """How the primary sees a standby; None: it has no connection of it. Pure."""
    return next((each for each in primary.senders if each.name == name), None)


def bytes_behind(sender: Sender) -> int | None:
    """How much is not flushed or not replayed there; None: nobody can tell. Pure."""
    behind: Sequence[int | None] = (sender.flush_behind, sender.replay_behind)
    return None if None in behind else max(each or 0 for each in behind)
