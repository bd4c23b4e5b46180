"""What befalls a node on purpose, and what its machine says of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from postgres.cluster.words import ClusterKind, HostSettings, NodeSpec
from postgres.errors import PostgresError


class Fault(StrEnum):
    """What befalls a node. There is none that takes its agent alone."""

    SERVER = "server"  # the server's processes
    HOST = "host"  # agent and server
    NETWORK = "network"  # it is parted from all others, and lives on


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What would be hit. `servers`: the postmaster first. `agent`: None where none runs.

    `sees`: whether the account that was asked sees the server's processes and may end them.
    """

    sees: bool
    servers: tuple[int, ...]
    agent: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """What the script did. `refused`: why it did nothing. `left`: servers that live on."""

    refused: str
    servers: tuple[int, ...]
    left: tuple[int, ...]
    agent: int | None
    is_agent_alive: bool


def objection(node: NodeSpec, fault: Fault, kind: ClusterKind) -> tuple[str, str] | None:
    """Why this cannot befall this node, and the next step; None when it can. Pure."""
    host = node.host
    if host is None:
        return (
            f"Nobody has said how to run programs where {node.name} lives.",
            f"Give {node.name} a `host:` with `via`, `data` and `programs` in the inventory.",
        )
    match fault:
        case Fault.NETWORK:
            return _network_objection(node.name, host, kind)
        case Fault.SERVER | Fault.HOST:
            if kind is ClusterKind.PATRONI:
                return _agent_objection(node.name, host, fault)
            return None
        case _:
            assert_never(fault)


def aim_of(answer: str) -> Aim:
    """What `fault_scripts.AIM` says. Pure."""
    words = [line.split(maxsplit=1) for line in answer.splitlines()[1:] if line.strip()]
    single = {each[0]: each[1] if each[1:] else "" for each in words}
    agent = single.get("agent")
    return Aim(
        sees="sees" in single,
        servers=tuple(int(each[1]) for each in words if each[0] == "server"),
        agent=int(agent) if agent else None,
    )


def hit_of(answer: str) -> Hit:
    """What `fault_scripts.INJECT` says. Pure."""
    words = [line.split(maxsplit=1) for line in answer.splitlines()[1:] if line.strip()]
    single = {each[0]: each[1] if each[1:] else "" for each in words}
    agent = single.get("agent")
    return Hit(
        refused=single.get("refused", ""),
        servers=tuple(int(each[1]) for each in words if each[0] == "server"),
        left=tuple(int(each[1]) for each in words if each[0] == "left"),
        agent=int(agent) if agent else None,
        is_agent_alive="alive" in single,
    )


def judged(name: str, fault: Fault, hit: Hit) -> str:
    """What was done, in words. Pure.

    Raises:
        PostgresError: it is not what was asked for.
    """
    if hit.refused:
        raise _nothing(name, hit.refused)
    if hit.left and hit.agent and not hit.is_agent_alive:
        raise PostgresError(
            f"{name}'s agent is gone while its server lives ({_processes(hit.left)}): it takes "
            "writes, and nobody will stop it when another is promoted.",
            next_step=f"Stop the server at once: on {name}'s machine, "
            f"kill -9 {' '.join(map(str, hit.left))}. See what starts it again.",
        )
    if hit.left:
        minded = f" Its agent (process {hit.agent}) goes on to mind it." if hit.agent else ""
        raise PostgresError(
            f"{name}'s server lives though it was killed ({_processes(hit.left)}): part of it "
            f"has died, or something starts it again.{minded}",
            next_step=f"See on {name}'s machine what starts it, such as systemd's Restart=, or "
            "whether a process hangs in the kernel.",
        )
    if fault is Fault.HOST and hit.is_agent_alive:
        raise PostgresError(
            f"{name}'s server was killed, and its agent lives on (process {hit.agent}).",
            next_step="Let the agent start the server, and see why it could not be ended.",
        )
    killed = f"killed the server ({_processes(hit.servers)})"
    if fault is Fault.HOST and hit.agent:
        return f"{killed} and its agent (process {hit.agent})"
    if hit.agent and not hit.is_agent_alive:
        return f"{killed}; its agent (process {hit.agent}) ended meanwhile"
    return killed


def _agent_objection(name: str, host: HostSettings, fault: Fault) -> tuple[str, str] | None:
    if host.agent_pid is None:
        return (
            f"Nobody has said where {name}'s agent notes its process id: it must be held.",
            f"Give {name}'s `host:` an `agent_pid`, such as /run/patroni.pid.",
        )
    if fault is Fault.HOST and not host.agent_start:
        return (
            f"Nobody has said what starts {name}'s agent again.",
            f"Give {name}'s `host:` an `agent_start`, such as [systemctl, start, patroni].",
        )
    return None


def _network_objection(name: str, host: HostSettings, kind: ClusterKind) -> tuple[str, str] | None:
    match kind:
        case ClusterKind.PAIR:
            return (
                f"A pair has no agents: parted from the others, {name} would go on to take writes.",
                "Rehearse a split on a Patroni cluster that is there to be broken.",
            )
        case ClusterKind.PATRONI:
            if host.network_cut and host.network_mend:
                return None
            return (
                f"Nobody has said how {name} is parted from the others and comes back.",
                f"Give {name}'s `host:` a `network_cut` and a `network_mend`.",
            )
        case _:
            assert_never(kind)


def _nothing(name: str, why: str) -> PostgresError:
    return PostgresError(
        f"{name} was left alone: {why}. Nothing happened.",
        next_step=f"See whether {name}'s server and its agent run, and whether `host.via`, `data` "
        "and `agent_pid` lead to them. A drill never kills an agent alone.",
    )


def _processes(pids: tuple[int, ...]) -> str:
    others = len(pids) - 1
    more = f" and {others} other{'s' if others > 1 else ''}" if others > 0 else ""
    return f"process {pids[0]}{more}" if pids else "no process"
