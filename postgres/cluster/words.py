"""What is said about a cluster: its servers as the inventory names them, and as they were seen.

LSNs are byte positions (pg_wal_lsn_diff(lsn, '0/0')), ages and lags are seconds, and what nobody
could tell is None: it is never taken for zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from postgres.dsn import Target

NO_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({})


class ClusterKind(StrEnum):
    """Who decides which server is the primary."""

    PATRONI = "patroni"  # its agents and their DCS do, and we ask them
    PAIR = "pair"  # people do, and we carry it out


class Role(StrEnum):
    """What a server says that it is."""

    PRIMARY = "primary"  # not in recovery
    STANDBY = "standby"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """How programs are run where a node lives.

    `via`: put before each command, such as ("ssh", "db1"); (): this machine. `data`, `programs`:
    the data folder and PostgreSQL's programs there. `agent_pid`: the file with the process id of
    the agent (Patroni); `agent_start`: the command that starts it again. `start`: what starts the
    server where `pg_ctl` must not, such as ("systemctl", "start", "postgresql@15-main").
    `network_cut`, `network_mend`: commands, run as we are, that part the node from all others
    and bring it back: for clusters that are there to be broken.
    """

    via: tuple[str, ...] = ()
    data: Path
    programs: Path
    agent_pid: Path | None = None
    agent_start: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    network_cut: tuple[str, ...] = ()
    network_mend: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """A server of a cluster. `target` leads to this very server, never to "the primary".

    `name` is also its Patroni member's name, or a pair's `application_name`. `rest`: the base
    address of its Patroni, such as http://10.0.0.1:8008.
    """

    name: str
    target: Target
    region: str = ""
    rest: str = ""
    host: HostSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A standby as the server that sends to it sees it: pg_stat_replication.

    `*_behind`: bytes behind the sender's own position. `replay_lag`: as it was reported, None
    also when nothing is written. `reply_age`: since it last answered, by the clocks of both: all
    else is as old as that.
    """

    name: str
    address: str
    state: str  # startup, catchup, streaming, backup, stopping
    sync_state: str  # async, potential, sync, quorum
    flush_behind: int | None = None
    replay_behind: int | None = None
    replay_lag: float | None = None
    reply_age: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A replication slot. `retained`: bytes of WAL that it holds back."""

    name: str
    kind: str  # physical, logical
    is_active: bool
    retained: int | None = None
    wal_status: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """A server as it answered; `problem`: why it did not, '' when it did.

    `position`: where a primary writes, or up to where a standby has replayed. `replay_age`: how
    long ago the last transaction that a standby replayed was committed: large also when nothing
    is written. `message_age`: since a standby last heard from who sends to it. `clock_ahead`: its
    clock against ours. `is_writable`: a primary without default_transaction_read_only.
    """

    name: str
    region: str
    problem: str = ""
    role: Role | None = None
    is_writable: bool = False
    system_identifier: str = ""
    timeline: int | None = None
    position: int | None = None
    received: int | None = None
    replay_age: float | None = None
    is_replay_paused: bool = False
    receiver: str = ""  # a standby's pg_stat_wal_receiver.status
    message_age: float | None = None
    clock_ahead: float | None = None
    started_at: datetime | None = None
    version: int = 0  # server_version_num
    senders: tuple[Sender, ...] = ()
    slots: tuple[Slot, ...] = ()
    base_backups: int = 0
    oldest_transaction: float | None = None  # age, s
    prepared_transactions: int = 0
    sync_names: str = ""  # synchronous_standby_names

    @property
    def is_reached(self) -> bool:
        """Whether it answered."""
        return not self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node as its agent's cluster sees it. `lag`: bytes, as old as the agent's loop."""

    name: str
    role: str  # leader, replica, sync_standby, quorum_standby, standby_leader
    state: str  # running, streaming, stopped, ...
    timeline: int | None = None
    lag: int | None = None
    tags: Mapping[str, str] = field(default_factory=lambda: NO_SETTINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSeen:
    """What Patroni says of the cluster. `problem`: nobody could tell us, and why.

    `settings`: those in force (ttl, loop_wait, ... in seconds), after clamping; `asked.ttl` stands
    beside a `ttl` that was clamped. `silent`: the agents that did not answer us themselves, though
    others may tell of them.
    """

    problem: str = ""
    members: tuple[Member, ...] = ()
    is_paused: bool = False
    scheduled: str = ""  # a switchover that is scheduled, in words
    dcs_age: float | None = None  # s since it last spoke with the DCS
    is_failsafe_active: bool = False
    settings: Mapping[str, str] = field(default_factory=lambda: NO_SETTINGS)
    pending_restart: tuple[str, ...] = ()
    silent: Mapping[str, str] = field(default_factory=lambda: NO_SETTINGS)  # agents: why

    @property
    def leader(self) -> str:
        """Who holds the leader key; '' for nobody."""
        return next(
            (each.name for each in self.members if each.role in {"leader", "standby_leader"}), ""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSeen:
    """All nodes, looked at within the same second, in the inventory's order."""

    at: datetime
    kind: ClusterKind
    nodes: tuple[NodeSeen, ...]
    agent: AgentSeen | None = None  # None: a pair has none

    def node(self, name: str) -> NodeSeen | None:
        """The node of this name."""
        return next((each for each in self.nodes if each.name == name), None)

    @property
    def writable(self) -> tuple[NodeSeen, ...]:
        """Primaries that take writes: one, or something is wrong."""
        return tuple(each for each in self.nodes if each.is_writable)

    @property
    def primary(self) -> NodeSeen | None:
        """The one writable node; None where there is none, or more than one."""
        return self.writable[0] if len(self.writable) == 1 else None


class Outcome(StrEnum):
    """What became of a change of roles."""

    DONE = "done"
    NOTHING = "nothing"  # the old primary is still the primary
    UNKNOWN = "unknown"  # nobody may go on before a person has looked


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The end of a switchover or failover, as the nodes themselves tell it.

    `said`: the agent's words, which alone prove nothing. `seconds`: until the new primary was
    seen writable. `next_step`: '' when there is nothing to do.
    """

    outcome: Outcome
    primary: str = ""
    timeline: int | None = None
    seconds: float = 0.0
    said: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A timeline's beginning. `lsn`: where the one before ended."""

    timeline: int  # the one that ended
    lsn: int
    reason: str = ""
    at: datetime | None = None
    leader: str = ""
