"""Checks before a change of roles: what was looked at, what was found, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from postgres.cluster.words import AgentSeen, NodeSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is still good enough. Bytes and spans; see `jobs.cluster_settings.FailoverLimits`."""

    lag_bytes: int
    lag: timedelta
    reply_age: timedelta
    transaction_age: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at. A failed one stops everything, unless it only `warns`.

    `passes`: it may be over at the next look, as the standby of an idle server is "behind" for
    the moment that a checkpoint's record is under way.
    """

    name: str
    is_met: bool
    found: str
    next_step: str = ""
    warns: bool = False
    passes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """All checks, and who would hand over to whom ('': nobody can)."""

    leader: str
    candidate: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """What stops it."""
        return tuple(each for each in self.checks if not each.is_met and not each.warns)

    @property
    def warnings(self) -> tuple[Check, ...]:
        """What people should know before they agree."""
        return tuple(each for each in self.checks if not each.is_met and each.warns)

    @property
    def is_worth_another_look(self) -> bool:
        """Whether all that stops it may be over in a moment."""
        return bool(self.failed) and all(each.passes for each in self.failed)

    @property
    def is_passed(self) -> bool:
        """Whether nothing stops it."""
        return not self.failed


def replays(node: NodeSeen) -> Check:
    """A standby whose replay is paused would not come up. Pure."""
    return Check(
        name="Candidate replays",
        is_met=not node.is_replay_paused,
        found=f"Replay is paused on {node.name}." if node.is_replay_paused else "It replays.",
        next_step=f"SELECT pg_wal_replay_resume() on {node.name}.",
    )


def at_rest(agent: AgentSeen) -> Iterator[Check]:
    """Whether the agent has nothing else in hand. Pure."""
    yield Check(
        name="Not in maintenance mode",
        is_met=not agent.is_paused,
        found="The cluster is paused." if agent.is_paused else "It is not.",
        next_step="End it with `patronictl resume`, if nobody works on the cluster.",
    )
    yield Check(
        name="Nothing else is scheduled",
        is_met=not agent.scheduled,
        found=f"{agent.scheduled}." if agent.scheduled else "Nothing is.",
        next_step="Wait for it, or take it back with `patronictl flush`.",
    )
