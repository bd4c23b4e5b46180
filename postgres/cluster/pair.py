"""A primary and a standby without an agent: people decide, and this carries it out.

There is no third voter here, so nothing is ever promoted unattended, and never without a proof
that the other one takes no writes. Every change begins by looking: what an earlier life began is
gone on with, or taken back, by what stands on the servers alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, assert_never

from postgres.cluster.adapter import Tell
from postgres.cluster.host import Host
from postgres.cluster.host_words import HostSeen
from postgres.cluster.look import look_at
from postgres.cluster.pair_begin import Begin, where_failover_begins, where_switch_begins
from postgres.cluster.pair_steps import Deadline, session
from postgres.cluster.pair_stopped import go_on_stopped, promote_over_standby
from postgres.cluster.pair_switch import Move, fence, hand_over, prepare, take_over
from postgres.cluster.rewind import Return, bring_back, rebuild
from postgres.cluster.words import (
    ClusterKind,
    ClusterSeen,
    NodeSeen,
    NodeSpec,
    Outcome,
    Promotion,
    Verdict,
)
from postgres.errors import PostgresError
from postgres.together import unbroken

LOOK_LIMIT: Final = timedelta(seconds=3)
_GLANCE_LIMIT: Final = timedelta(seconds=1)
_LOOK_EVERY_SECONDS: Final = 0.1
_STOPPING_SHARE: Final = 0.3
_RETURN_LIMIT: Final = timedelta(seconds=10)  # at least, after a promotion that took long

# Who leads and who follows is not configuration, and a conninfo may hold a password.
_SETTINGS: Final = """
    SELECT name, coalesce(setting, '') || coalesce(unit, '') AS value
      FROM pg_settings
     WHERE source IN ('configuration file', 'command line')
       AND name NOT IN ('primary_conninfo', 'primary_slot_name', 'promote_trigger_file')
     ORDER BY name
"""


class PairCluster:
    """Implements `postgres.cluster.adapter.Cluster`."""

    def __init__(self, nodes: Sequence[NodeSpec], *, clock: Callable[[], datetime]) -> None:
        self._nodes = tuple(nodes)
        self._clock = clock

    @property
    def kind(self) -> ClusterKind:
        """A pair."""
        return ClusterKind.PAIR

    @property
    def nodes(self) -> Sequence[NodeSpec]:
        """The servers that the inventory names, in its order."""
        return self._nodes

    async def look(self) -> ClusterSeen:
        """Ask both nodes at once. Never raises."""
        return await self._look(LOOK_LIMIT)

    async def switch(self, *, leader: str, candidate: str, limit: timedelta, tell: Tell) -> Verdict:
        """A planned switchover; see `Cluster.switch`.

        Ends when the old primary follows, or says in `next_step` that it does not. `seconds`:
        until the new one was a primary, checkpoint included. A cancellation waits until somebody
        takes writes, and so does `limit`: what is taken back may take 45 s more, and the old
        primary's return has 10 s at least.
        """
        move = self._move(leader, candidate, limit, tell)
        verdict = await self._switch(move, await self._begin_switch(move))
        if verdict.outcome is not Outcome.DONE:
            return verdict
        problem = ""
        try:
            await self._return(move)
        except PostgresError as error:
            problem = f"{error.problem} {error.next_step}"
        return await self._with_timeline(replace(verdict, next_step=problem))

    async def fail_over(
        self, *, leader: str, candidate: str, limit: timedelta, tell: Tell
    ) -> Verdict:
        """Promote `candidate` once `leader` is proven to be gone; see `Cluster.fail_over`.

        Whoever starts the old primary afterwards gets a standby. It is not brought back here.
        """
        move = self._move(leader, candidate, limit, tell)
        seen = await self.look()
        begin = where_failover_begins(_node(seen, leader), _node(seen, candidate))
        match begin:
            case Begin.PROMOTED:
                verdict = _done_before(move)
            case Begin.BOTH_STANDBY:
                verdict = await unbroken(take_over(move))
            case _:
                await fence(move)
                await tell(f"Promoting {candidate}.")
                verdict = await unbroken(take_over(move))
        return await self._with_timeline(verdict)

    async def rejoin(self, node: str, *, primary: str, limit: timedelta, tell: Tell) -> None:
        """Bring a node back, rewound if it must be; see `Cluster.rejoin`.

        What only the node has, because it was a primary that crashed, is lost by that.
        """
        await bring_back(self._back(node, primary, Deadline(limit), tell))

    async def rebuild(self, node: str, *, primary: str, limit: timedelta, tell: Tell) -> None:
        """Replace a node's folder by a fresh copy of `primary`, for one that cannot be rewound.

        Raises:
            PostgresError: it is a primary, or the copy failed; says what stands.
        """
        await rebuild(self._back(node, primary, Deadline(limit), tell))

    async def settings(self) -> Mapping[str, str]:
        """What both nodes are configured with, as `NODE.NAME`."""
        found: dict[str, str] = {}
        for node in self._nodes:
            async with session(node) as conn:
                rows = await conn.rows(_SETTINGS)
            found |= {f"{node.name}.{row['name']}": row["value"] for row in rows}
        return MappingProxyType(found)

    async def history(self) -> tuple[Promotion, ...]:
        """What the newest timeline's history file says; the times are those of the files."""
        answers = await asyncio.gather(
            *(self._history_of(node) for node in self._nodes), return_exceptions=True
        )
        known = [each for each in answers if not isinstance(each, BaseException)]
        for error in answers:
            if not known and isinstance(error, BaseException):
                raise error
        return max(known, key=lambda each: each[-1].timeline if each else 0)

    async def close(self) -> None:
        """Hang up: nothing is held open."""

    async def _look(self, limit: timedelta) -> ClusterSeen:
        nodes = await look_at(self._nodes, clock=self._clock, limit=limit)
        return ClusterSeen(at=self._clock(), kind=self.kind, nodes=nodes)

    async def _begin_switch(self, move: Move) -> Begin:
        """Where it begins, after a leader that is just stopping has ended."""
        while True:
            seen, host = await asyncio.gather(self.look(), move.host.look())
            _check_host(move.host, host)
            leader, candidate = move.leader.name, move.candidate.name
            begin = where_switch_begins(_node(seen, leader), _node(seen, candidate), host)
            if begin is not Begin.STOPPING:
                return begin
            if not move.deadline.part(_STOPPING_SHARE):
                raise PostgresError(
                    f"{leader} does not answer, but its server lives.",
                    next_step=f"See its log. If it never ends, end it on its machine, then ask "
                    f"for a failover to {candidate}.",
                )
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _switch(self, move: Move, begin: Begin) -> Verdict:
        match begin:
            case Begin.PROMOTED:
                return _done_before(move)
            case Begin.HAND_OVER:
                await prepare(move)
                await move.tell(f"Stopping {move.leader.name}, then promoting.")
                return await unbroken(hand_over(move))
            case Begin.STOPPED | Begin.STOPPING:
                return await unbroken(go_on_stopped(move))
            case Begin.BOTH_STANDBY:
                return await unbroken(promote_over_standby(move))
            case other:
                assert_never(other)

    async def _return(self, move: Move) -> None:
        left = max(move.deadline.left, _RETURN_LIMIT)
        old, new = move.leader.name, move.candidate.name
        await bring_back(self._back(old, new, Deadline(left), move.tell))

    async def _with_timeline(self, verdict: Verdict) -> Verdict:
        if verdict.outcome is not Outcome.DONE:
            return verdict
        node = (await self._look(_GLANCE_LIMIT)).node(verdict.primary)
        return replace(verdict, timeline=node.timeline if node else None)

    async def _history_of(self, node: NodeSpec) -> tuple[Promotion, ...]:
        async with session(node) as conn:
            return await conn.histories()

    def _move(self, leader: str, candidate: str, limit: timedelta, tell: Tell) -> Move:
        if leader == candidate:
            raise PostgresError(
                f"{leader} cannot take over from itself.",
                next_step="Choose the standby as the candidate.",
            )
        spec = self._spec(leader)
        return Move(
            leader=spec,
            candidate=self._spec(candidate),
            host=Host(spec),
            deadline=Deadline(limit),
            tell=tell,
        )

    def _back(self, node: str, primary: str, deadline: Deadline, tell: Tell) -> Return:
        spec = self._spec(node)
        return Return(
            node=spec,
            primary=self._spec(primary),
            host=Host(spec),
            look=lambda: self._look(_GLANCE_LIMIT),
            deadline=deadline,
            tell=tell,
        )

    def _spec(self, name: str) -> NodeSpec:
        found = next((node for node in self._nodes if node.name == name), None)
        if found is None:
            raise PostgresError(
                f"The cluster has no node {name}.",
                next_step=f"It has {', '.join(node.name for node in self._nodes)}.",
            )
        return found


def _node(seen: ClusterSeen, name: str) -> NodeSeen:
    return next(each for each in seen.nodes if each.name == name)


def _done_before(move: Move) -> Verdict:
    return Verdict(
        outcome=Outcome.DONE,
        primary=move.candidate.name,
        said=f"{move.candidate.name} was the primary already",
    )


def _check_host(host: Host, seen: HostSeen) -> None:
    if not (seen.exists and seen.version and seen.is_owner and seen.sees_processes):
        raise PostgresError(
            f"{host.data} is no data folder that the account asked on {host.name}'s machine owns.",
            next_step="Correct `host.via` and `host.data`: programs run there as the server's "
            "account, on a machine with /proc.",
        )
