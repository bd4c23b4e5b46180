"""Where a change of a pair's roles begins: what an earlier life has done already. Pure.

Nothing is remembered between two lives but what stands on the servers. The old primary's
`standby.signal` is written after the candidate has replayed everything, and before it is told to
promote: without it nobody was promoted, and the old primary may be started again.
"""

from __future__ import annotations

from enum import StrEnum

from postgres.cluster.candidates import STREAMING, sender_of
from postgres.cluster.host_words import HostSeen
from postgres.cluster.words import NodeSeen, Role
from postgres.errors import PostgresError


class Begin(StrEnum):
    """What there is to do first."""

    HAND_OVER = "hand over"  # from the beginning
    STOPPING = "stopping"  # the leader was told to stop and has not ended yet
    STOPPED = "stopped"  # the leader has ended; the candidate is no primary yet
    BOTH_STANDBY = "both standby"  # the leader has come back as a standby already
    PROMOTED = "promoted"  # the candidate leads; the old one may have to come back


def where_switch_begins(leader: NodeSeen, candidate: NodeSeen, host: HostSeen) -> Begin:
    """What a switchover has to do, by what was just seen. `host`: the leader's machine.

    Raises:
        PostgresError: it cannot begin. Nothing has changed.
    """
    match leader.role, candidate.role:
        case Role.PRIMARY, Role.PRIMARY:
            raise two_primaries(leader.name, candidate.name)
        case _, Role.PRIMARY:
            return Begin.PROMOTED
        case Role.PRIMARY, _:
            _check_hand_over(leader, candidate)
            return Begin.HAND_OVER
        case Role.STANDBY, Role.STANDBY:
            return Begin.BOTH_STANDBY
        case Role.STANDBY, _:
            raise PostgresError(
                f"{leader.name} is a standby, and {candidate.name} does not answer "
                f"({candidate.problem}).",
                next_step=f"Start {candidate.name}. If it is lost, fail over to {leader.name}.",
            )
        case _:
            return _without_leader(leader, host)


def where_failover_begins(leader: NodeSeen, candidate: NodeSeen) -> Begin:
    """What a failover has to do, by what was just seen.

    Raises:
        PostgresError: it cannot begin. Nothing has changed.
    """
    match leader.role, candidate.role:
        case Role.PRIMARY, Role.PRIMARY:
            raise two_primaries(leader.name, candidate.name)
        case _, Role.PRIMARY:
            return Begin.PROMOTED
        case Role.PRIMARY, _:
            raise PostgresError(
                f"{leader.name} still takes writes, so there is nothing to force.",
                next_step="Ask for a switchover: it loses nothing.",
            )
        case _, None:
            raise PostgresError(
                f"{candidate.name} does not answer, so it cannot take over: {candidate.problem}.",
                next_step=f"Start {candidate.name}, or restore from a backup: /db restore.",
            )
        case Role.STANDBY, _:
            return Begin.BOTH_STANDBY
        case _:
            return Begin.STOPPED


def two_primaries(one: str, other: str) -> PostgresError:
    """The error that nobody may go on from."""
    return PostgresError(
        f"{one} and {other} are both primaries.",
        next_step="Keep applications away from one of them at once, and find out which holds the "
        "data that counts; stop the other, and bring it back as a standby.",
    )


def _check_hand_over(leader: NodeSeen, candidate: NodeSeen) -> None:
    if not candidate.is_reached:
        raise PostgresError(
            f"{candidate.name} does not answer: {candidate.problem}.",
            next_step=f"Start it and wait until it streams from {leader.name}.",
        )
    sender = sender_of(leader, candidate.name)
    if sender is None or sender.state != STREAMING or candidate.timeline != leader.timeline:
        raise PostgresError(
            f"{candidate.name} does not stream from {leader.name}: what it lacks would be lost.",
            next_step=f"See {candidate.name}'s log and wait until it streams: /db replication. Its"
            f" application_name must be {candidate.name}.",
        )
    if candidate.is_replay_paused:
        raise PostgresError(
            f"Replay is paused on {candidate.name}.",
            next_step="SELECT pg_wal_replay_resume() there, and wait until it has caught up.",
        )


def _without_leader(leader: NodeSeen, host: HostSeen) -> Begin:
    if host.is_frozen:
        raise PostgresError(
            f"{leader.name}'s server is frozen: {leader.problem}.",
            next_step="Let it go on (kill -CONT), or end it for good and ask for a failover.",
        )
    return Begin.STOPPING if host.is_alive else Begin.STOPPED
