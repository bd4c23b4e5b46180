"""A cluster that Patroni keeps: asked over its REST API, judged by what its servers answer.

Patroni decides and carries out; we ask once, and then look at the servers until exactly one of
them takes writes. No word of Patroni's ends a change of roles but a refusal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import SecretStr

from postgres.cluster.adapter import Tell
from postgres.cluster.look import look_at
from postgres.cluster.patroni_agents import Agents, Heard, no_answer, seen_by
from postgres.cluster.patroni_rest import NoAnswerError, PatroniRest
from postgres.cluster.patroni_verdict import (
    Asked,
    Move,
    may_begin,
    refusal,
    reinitialize_refused,
    unknown,
    verdict,
    writable,
)
from postgres.cluster.patroni_words import Overview
from postgres.cluster.words import (
    AgentSeen,
    ClusterKind,
    ClusterSeen,
    NodeSeen,
    NodeSpec,
    Promotion,
    Role,
    Verdict,
)
from postgres.errors import PostgresError
from postgres.programs import run_program
from postgres.together import together

# For each question of a look. Patroni gives its DCS up after retry_timeout, 10 s by default: what
# takes longer than this counts as no answer.
LOOK_LIMIT: Final = timedelta(seconds=4)
# While roles change, an old primary that hangs must not hide for long that the new one writes.
_GLANCE_LIMIT: Final = timedelta(seconds=1)
_EVERY_SECONDS: Final = 0.1
_REJOIN_EVERY_SECONDS: Final = 0.3
_START_LIMIT: Final = timedelta(seconds=30)
_REINITIALIZE_LIMIT: Final = timedelta(seconds=15)


class PatroniCluster:
    """Implements `postgres.cluster.adapter.Cluster`."""

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        *,
        user: str = "",
        password: SecretStr | None = None,
        ca: Path | None = None,
        clock: Callable[[], datetime],
        look_limit: timedelta = LOOK_LIMIT,
    ) -> None:
        self._nodes = tuple(nodes)
        self._clock = clock
        self._look_limit = look_limit
        self._rest = PatroniRest(user=user, password=password, ca=ca)
        self._agents = Agents(self._rest, self._nodes, limit=look_limit)
        self._asking: set[asyncio.Task[Asked]] = set()

    @property
    def kind(self) -> ClusterKind:
        """Patroni."""
        return ClusterKind.PATRONI

    @property
    def nodes(self) -> Sequence[NodeSpec]:
        """The servers that the inventory names, in its order."""
        return self._nodes

    async def look(self) -> ClusterSeen:
        """Ask all nodes and all agents at once. Never raises."""
        async with together() as group:
            servers = group.create_task(self._servers(self._look_limit))
            agents = group.create_task(self._listen())
        return ClusterSeen(
            at=self._clock(), kind=self.kind, nodes=servers.result(), agent=agents.result()
        )

    async def switch(self, *, leader: str, candidate: str, limit: timedelta, tell: Tell) -> Verdict:
        """A planned switchover; see `Cluster.switch`."""
        return await self._change(Move(leader=leader, candidate=candidate), limit, tell)

    async def fail_over(
        self, *, leader: str, candidate: str, limit: timedelta, tell: Tell
    ) -> Verdict:
        """Ask Patroni to promote `candidate`; see `Cluster.fail_over`.

        Patroni does so when the leader key is free: a leader that died without a word holds it
        for up to `ttl`. If a standby was promoted meanwhile, that is the answer.
        """
        move = Move(leader=leader, candidate=candidate, is_forced=True)
        return await self._change(move, limit, tell)

    async def rejoin(self, node: str, *, primary: str, limit: timedelta, tell: Tell) -> None:
        """Wait until the node's own agent has it follow; start the agent where we know how."""
        spec = self._spec(node)
        self._spec(primary)
        end = time.monotonic() + limit.total_seconds()
        await self._start_agent(spec, tell)
        await tell(f"Waiting for {node} to follow {primary}.")
        await self._until_follows(spec, primary, end)

    async def rebuild(self, node: str, *, primary: str, limit: timedelta, tell: Tell) -> None:
        """Have the node's own agent copy `primary` anew; see `Cluster.rebuild`."""
        spec = self._spec(node)
        self._spec(primary)
        end = time.monotonic() + limit.total_seconds()
        seen = {each.name: each for each in await self._servers(self._look_limit)}[node]
        if seen.role is Role.PRIMARY:
            raise PostgresError(
                f"{node} answers as a primary: it is not replaced by a copy.",
                next_step="Look at /db replication first; stop it if it must not take writes.",
            )
        await self._start_agent(spec, tell)
        answer = await self._rest.post(
            spec, "/reinitialize", {"force": "true"}, limit=_REINITIALIZE_LIMIT
        )
        if answer.status != HTTPStatus.OK:
            raise reinitialize_refused(node, answer)
        await tell(f"Patroni copies {primary} to {node} anew.")
        await self._until_follows(spec, primary, end, since=seen.started_at)

    async def _until_follows(
        self, spec: NodeSpec, primary: str, end: float, *, since: datetime | None = None
    ) -> None:
        """Wait. `since`: the start of a server that is about to be replaced: it does not count.

        Raises:
            PostgresError: it does not follow by `end`.
        """
        while True:
            seen = await self._servers(_GLANCE_LIMIT)
            why = follows(seen, spec.name, primary)
            started = next(each.started_at for each in seen if each.name == spec.name)
            if not why and (since is None or started != since):
                return
            if time.monotonic() > end:
                break
            await asyncio.sleep(_REJOIN_EVERY_SECONDS)
        raise PostgresError(
            f"{spec.name} does not follow {primary}: {why or 'it is still the old one'}. Its"
            f" Patroni says: {await self._agents.state(spec)}.",
            next_step=f"Read Patroni's log on {spec.name}. In maintenance mode it starts no"
            " server; one that cannot be rewound is copied anew by /db rejoin with rebuild=true.",
        )

    async def settings(self) -> Mapping[str, str]:
        """The dynamic configuration, flat, who the `members` are, and `members.NAME.TAG`."""
        async with together() as group:
            stored = group.create_task(self._agents.stored())
            overview = group.create_task(self._agents.overview())
        members = overview.result().members
        tags = {
            f"members.{member.name}.{name}": value
            for member in members
            for name, value in member.tags.items()
        }
        names = ", ".join(sorted(member.name for member in members))
        return MappingProxyType({**stored.result(), "members": names, **tags})

    async def history(self) -> tuple[Promotion, ...]:
        """Every promotion that the DCS remembers, oldest first."""
        return await self._agents.history()

    async def close(self) -> None:
        """Hang up. What Patroni was asked for goes on without us."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        await self._rest.close()

    async def _servers(self, limit: timedelta) -> tuple[NodeSeen, ...]:
        return await look_at(self._nodes, clock=self._clock, limit=limit)

    async def _listen(self) -> AgentSeen:
        try:
            return seen_by(await self._agents.listen())
        except PostgresError as error:
            return AgentSeen(problem=error.problem.rstrip("."))

    async def _change(self, move: Move, limit: timedelta, tell: Tell) -> Verdict:
        """Ask once, and look until it is known what became of it."""
        began = time.monotonic()
        heard, seen = await self._before(move)
        if over := verdict(seen, move, Asked(), seconds=0.0):  # asked for again
            return replace(over, said=f"{over.primary} was the primary already")
        await tell(f"Asking Patroni for a {move.noun} from {move.leader} to {move.candidate}.")
        asking = asyncio.create_task(self._ask(move, heard, limit))
        # It outlives us when the servers answer first: hanging up on Patroni while it waits for
        # the end of the change would only fill its log with broken pipes.
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        return await self._outcome(move, heard, asking, began=began, limit=limit, tell=tell)

    async def _before(self, move: Move) -> tuple[Heard, tuple[NodeSeen, ...]]:
        """What the agents and the servers say right before.

        Raises:
            PostgresError: nobody can be asked, or agents or servers speak against it.
        """
        self._spec(move.leader)
        self._spec(move.candidate)
        if move.leader == move.candidate:
            raise PostgresError(
                f"{move.leader} cannot take over from itself.",
                next_step="Choose a standby as the candidate.",
            )
        async with together() as group:
            hearing = group.create_task(self._agents.listen())
            looking = group.create_task(self._servers(self._look_limit))
        heard = hearing.result()
        seen = looking.result()
        if objection := may_begin(seen, move):
            raise objection
        if heard.overview is None and not _is_promoted(seen, move):
            raise no_answer(heard.deaf)
        if heard.overview and heard.overview.member(move.candidate) is None:
            raise PostgresError(
                f"Patroni knows no member {move.candidate}.",
                next_step=f"Start Patroni on {move.candidate}; the inventory's names must be its "
                "members' names.",
            )
        return heard, seen

    async def _ask(self, move: Move, heard: Heard, limit: timedelta) -> Asked:
        """Ask one agent for the change; another one only if the first cannot have heard it."""
        why: dict[str, str] = {}
        for node in self._listeners(move, heard):
            try:
                answer = await self._rest.post(node, move.path, move.body, limit=limit)
            except NoAnswerError as error:
                if error.was_sent:
                    return Asked(lost=f"Patroni on {node.name}: {error.why}")
                why[node.name] = error.why
            else:
                return Asked(answer=answer)
        raise no_answer(why)

    def _listeners(self, move: Move, heard: Heard) -> list[NodeSpec]:
        """Whom to ask, best first: those that have just read the DCS.

        In a switchover the leader is the last to be lost; in a failover it is the first.
        """
        first, second = move.leader, move.candidate
        if move.is_forced:
            first, second = second, ""
        able = [node for node in self._nodes if node.name in heard.overviews]
        last = move.leader if move.is_forced else ""
        return sorted(
            able, key=lambda node: (node.name != first, node.name != second, node.name == last)
        )

    async def _outcome(
        self,
        move: Move,
        heard: Heard,
        asking: asyncio.Task[Asked],
        *,
        began: float,
        limit: timedelta,
        tell: Tell,
    ) -> Verdict:
        told = ""
        while True:
            asked = asking.result() if asking.done() else Asked()
            if asked.said != told:
                told = asked.said
                await tell(f"Patroni says: {told}. Asking the servers.")
            seen = await self._servers(_GLANCE_LIMIT)
            seconds = time.monotonic() - began
            if asked.is_refused and not _is_promoted(seen, move):
                raise refusal(asked, move, heard.overview or Overview(members=()), heard.settings)
            if end := verdict(seen, move, asked, seconds=seconds):
                return end
            if seconds > limit.total_seconds():
                return unknown(seen, move, asked, seconds=seconds)
            await asyncio.sleep(_EVERY_SECONDS)

    async def _start_agent(self, node: NodeSpec, tell: Tell) -> None:
        """Start the node's Patroni if nothing listens there and the inventory says how."""
        host = node.host
        if host is None or not host.agent_start or not node.rest:
            return
        try:
            await self._rest.get(node, "/liveness", limit=self._look_limit)
        except NoAnswerError as error:
            if error.was_sent:  # it is there, though it hangs
                return
        else:
            return
        await tell(f"Starting Patroni on {node.name}.")
        done = await run_program(
            [*host.via, *host.agent_start], time_limit=_START_LIMIT, as_server=not host.via
        )
        if done.code:
            raise PostgresError(
                f"Patroni on {node.name} could not be started: {done.last_words}.",
                next_step=f"Start it by hand on {node.name}: {node.name} then follows by itself.",
            )

    def _spec(self, name: str) -> NodeSpec:
        found = next((node for node in self._nodes if node.name == name), None)
        if found is None:
            raise PostgresError(
                f"The cluster has no node {name}.",
                next_step=f"It has {', '.join(node.name for node in self._nodes)}.",
            )
        return found


def _is_promoted(seen: Sequence[NodeSeen], move: Move) -> bool:
    """Whether somebody else leads by now: Patroni refuses a failover that it has just made."""
    return any(each.name != move.leader for each in writable(seen))


def follows(seen: Sequence[NodeSeen], node: str, primary: str) -> str:
    """Why `node` does not stream from `primary`; '' when it does. Pure."""
    own = next((each for each in seen if each.name == node), None)
    above = next((each for each in seen if each.name == primary), None)
    if above is None or not above.is_reached or above.role is not Role.PRIMARY:
        return f"{primary} is no primary that answers"
    if own is None or not own.is_reached:
        return f"it does not answer ({own.problem if own else 'unknown'})"
    if own.role is not Role.STANDBY:
        return "it is a primary itself"
    if own.timeline != above.timeline:
        return f"it is on timeline {own.timeline}, not {above.timeline}"
    sent = [each for each in above.senders if each.name == node and each.state == "streaming"]
    return "" if sent and own.receiver == "streaming" else "it does not stream"
