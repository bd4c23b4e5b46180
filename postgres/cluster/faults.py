"""Disasters on purpose: what befalls a node, whether it still does, and how it is taken back.

Nothing here asks who else takes writes: whoever injects or lifts has just looked at the cluster.
An agent never dies before its server, and none alone: its server would go on to take writes while
another is promoted (1249 acknowledged rows in 20 s were lost so in a trial).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Final, assert_never

from postgres.cluster import fault_scripts as scripts
from postgres.cluster.fault_words import Aim, Fault, aim_of, hit_of, judged, objection
from postgres.cluster.fence import Door, knock
from postgres.cluster.host import LIMIT, Host, StartAs
from postgres.cluster.words import ClusterKind, HostSettings, NodeSpec
from postgres.errors import PostgresError
from postgres.programs import run_program

__all__ = ["Fault", "inject", "is_in_force", "lift", "objection"]

# A stopped agent does not renew its leader key, and 20 s is the shortest that one lives.
_STOPPED_MAX: Final = timedelta(seconds=5)
_LOOK_EVERY_SECONDS: Final = 0.1


async def inject(node: NodeSpec, fault: Fault, *, limit: timedelta) -> str:
    """Let it happen; what was done, in words for people.

    Raises:
        PostgresError: it did not happen as it should; the text says whether nothing did.
    """
    match fault:
        case Fault.NETWORK:
            return await _cut(node, limit)
        case Fault.SERVER | Fault.HOST:
            return await _kill(node, fault, limit)
        case _:
            assert_never(fault)


async def is_in_force(node: NodeSpec, fault: Fault) -> bool | None:
    """Whether the node still suffers from it, as its machine says; None: that cannot tell.

    A host whose agent or server lives again is back. A node that is parted is one that lives on
    its machine and gives no answer at its address from here.
    """
    try:
        aim = await _aim(node)
    except PostgresError:
        return None
    if not aim.sees:
        return None
    match fault:
        case Fault.SERVER:
            return not aim.servers
        case Fault.HOST:
            return not aim.servers and aim.agent is None
        case Fault.NETWORK:
            return bool(aim.servers) and await knock(node) is Door.SILENT
        case _:
            assert_never(fault)


async def lift(node: NodeSpec, fault: Fault, *, kind: ClusterKind, limit: timedelta) -> None:
    """Take it back, as long as nobody else takes writes: the server comes back as what it was.

    A pair's server starts as what its data folder says; with Patroni the agent is started or
    goes on, and decides. Waits until somebody listens on the server's port again, or for one that
    was parted until its machine answers. What was lifted before is harmless.

    Raises:
        PostgresError: it could not be started, or does not listen within the limit.
    """
    end = time.monotonic() + limit.total_seconds()
    match fault:
        case Fault.NETWORK:
            await _mend(node, limit)
            await _until_it_answers(node, end, {Door.OPEN, Door.REFUSES})
            return
        case Fault.SERVER | Fault.HOST if kind is ClusterKind.PATRONI:
            await _start_agent(node, limit)
        case Fault.SERVER | Fault.HOST:
            await _start_server(node)
        case _:
            assert_never(fault)
    await _until_it_answers(node, end, {Door.OPEN})


async def _kill(node: NodeSpec, fault: Fault, limit: timedelta) -> str:
    host = Host(node)
    kind = ClusterKind.PATRONI if node.rest else ClusterKind.PAIR
    if problem := objection(node, fault, kind):
        raise PostgresError(f"{problem[0]} Nothing happened.", next_step=problem[1])
    try:
        await _aim(node)
    except PostgresError as error:
        raise PostgresError(
            f"{error.problem} Nothing happened.", next_step=error.next_step
        ) from error
    seconds = math.ceil(min(limit, _STOPPED_MAX).total_seconds())
    try:
        answer = await host.ask(
            scripts.INJECT,
            fault.value,
            _agent_file(node),
            str(max(seconds, 1)),
            limit=limit + LIMIT,
        )
    except PostgresError as error:
        raise PostgresError(
            f"Whether {node.name}'s server was killed is not known: {error.problem}",
            next_step=f"See on {node.name}'s machine whether its server and its agent live; "
            "while the server does, so must the agent.",
        ) from error
    return judged(node.name, fault, hit_of(answer))


async def _aim(node: NodeSpec) -> Aim:
    return aim_of(await Host(node).ask(scripts.AIM, _agent_file(node)))


async def _until_it_answers(node: NodeSpec, end: float, wanted: AbstractSet[Door]) -> None:
    while await knock(node) not in wanted:
        if time.monotonic() > end:
            raise PostgresError(
                f"{node.name} was to come back, and nobody listens at its address yet.",
                next_step=f"Read the log of {node.name}'s server on its machine.",
            )
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def _cut(node: NodeSpec, limit: timedelta) -> str:
    if problem := objection(node, Fault.NETWORK, ClusterKind.PATRONI):
        raise PostgresError(f"{problem[0]} Nothing happened.", next_step=problem[1])
    host = _settings(node)
    try:
        await _run(node, host.network_cut, limit)
    except PostgresError as error:
        await _take_back(node, error, limit)
    return f"parted {node.name} from all others"


async def _take_back(node: NodeSpec, error: PostgresError, limit: timedelta) -> None:
    """Half a cut is none.

    Raises:
        PostgresError: always; says whether it is whole again.
    """
    try:
        await _run(node, _settings(node).network_mend, limit)
    except PostgresError as again:
        raise PostgresError(
            f"{error.problem} Whether {node.name} is parted is not known: {again.problem}",
            next_step="Run its `network_mend` by hand.",
        ) from error
    raise PostgresError(
        f"{error.problem} `network_mend` has taken back what it may have done: nothing happened.",
        next_step=error.next_step,
    ) from error


async def _mend(node: NodeSpec, limit: timedelta) -> None:
    command = _settings(node).network_mend
    if not command:
        raise PostgresError(
            f"Nobody has said how {node.name} comes back into the network.",
            next_step=f"Give {node.name}'s `host:` a `network_mend`.",
        )
    await _run(node, command, limit)


async def _start_agent(node: NodeSpec, limit: timedelta) -> None:
    """Start the agent, or let it go on."""
    host, settings = Host(node), _settings(node)
    aim = await _aim(node)
    if aim.agent is not None:
        await host.ask(scripts.THAW, _agent_file(node))
        return
    if not settings.agent_start:
        raise PostgresError(
            f"{node.name}'s agent does not run, and nobody has said what starts it.",
            next_step=f"Start it by hand on {node.name}'s machine: it starts its server.",
        )
    done = await run_program(
        host.command(settings.agent_start), time_limit=limit, as_server=host.is_local
    )
    if done.code:
        raise PostgresError(
            f"{node.name}'s agent could not be started: {done.last_words.rstrip('.')}.",
            next_step=f"Start it by hand on {node.name}'s machine: it starts its server.",
        )


async def _start_server(node: NodeSpec) -> None:
    """Start a pair's server as what its data folder says that it is."""
    host = Host(node)
    seen = await host.look()
    if seen.is_alive:
        return
    role: StartAs = "standby" if seen.has_standby_signal else "primary"
    await host.start(role)


async def _run(node: NodeSpec, command: tuple[str, ...], limit: timedelta) -> None:
    done = await run_program(command, time_limit=limit, as_server=False)
    if done.code:
        raise PostgresError(
            f"{command[0]} failed for {node.name}: {done.last_words.rstrip('.')}.",
            next_step=f"Run it by hand and see what it lacks, then look at {node.name}.",
        )


def _settings(node: NodeSpec) -> HostSettings:
    if node.host is None:
        problem = objection(node, Fault.NETWORK, ClusterKind.PATRONI) or ("", "")
        raise PostgresError(problem[0], next_step=problem[1])
    return node.host


def _agent_file(node: NodeSpec) -> str:
    file = _settings(node).agent_pid
    return str(file) if file else ""
