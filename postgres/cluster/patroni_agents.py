"""The agents of a Patroni cluster, asked all at once: what they say, and who does not answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeVar

from postgres.cluster.patroni_rest import NoAnswerError, PatroniRest
from postgres.cluster.patroni_words import (
    Agent,
    Answer,
    Overview,
    agent,
    configuration,
    history,
    in_force,
    overview,
)
from postgres.cluster.words import NO_SETTINGS, AgentSeen, NodeSpec, Promotion
from postgres.errors import PostgresError
from postgres.together import together

T = TypeVar("T")
_FAILED: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What all agents said. `silent`: who did not, and why; `deaf`: why one cannot tell of all."""

    agents: Mapping[str, Agent] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=lambda: NO_SETTINGS)
    overviews: Mapping[str, Overview] = field(default_factory=dict)
    stored: Mapping[str, str] | None = None
    deaf: Mapping[str, str] = field(default_factory=lambda: NO_SETTINGS)

    @property
    def overview(self) -> Overview | None:
        """The DCS, as an agent that could read it tells; the inventory's first."""
        return next(iter(self.overviews.values()), None)

    @property
    def version(self) -> tuple[int, ...]:
        """The oldest that runs: what it does not know, the cluster cannot rely on."""
        return min((each.version for each in self.agents.values() if each.version), default=())

    @property
    def is_failsafe_active(self) -> bool:
        """Whether an agent leads without its DCS. It says so for another `ttl` when all is well."""
        return any(
            each.is_failsafe_active and each.member.role == "leader" and name not in self.overviews
            for name, each in self.agents.items()
        )

    @property
    def settings(self) -> Mapping[str, str]:
        """Those in force; empty: nobody could tell."""
        return NO_SETTINGS if self.stored is None else in_force(self.stored, self.version)


class Agents:
    """Questions to the agents of the nodes that have one."""

    def __init__(self, rest: PatroniRest, nodes: Sequence[NodeSpec], *, limit: timedelta) -> None:
        self._rest = rest
        self._limit = limit
        self._nodes = tuple(node for node in nodes if node.rest)

    async def listen(self) -> Heard:
        """Ask every agent of itself, of all and of the settings.

        Raises:
            PostgresError: the certificate authority's file cannot be read.
        """
        async with together() as group:
            own = {n.name: group.create_task(self._own(n)) for n in self._nodes}
            all_ = {
                n.name: group.create_task(self._read(n, "/cluster", overview)) for n in self._nodes
            }
            stored = [
                group.create_task(self._read(n, "/config", configuration)) for n in self._nodes
            ]
        told = {name: task.result() for name, task in own.items()}
        of_all = {name: task.result() for name, task in all_.items()}
        settings = (task.result() for task in stored)
        return Heard(
            agents={name: each for name, each in told.items() if isinstance(each, Agent)},
            silent={name: each for name, each in told.items() if isinstance(each, str)},
            overviews={name: each for name, each in of_all.items() if isinstance(each, Overview)},
            deaf={name: each for name, each in of_all.items() if isinstance(each, str)},
            stored=next((each for each in settings if not isinstance(each, str)), None),
        )

    async def stored(self) -> Mapping[str, str]:
        """GET /config, flat, of the first that can tell.

        Raises:
            PostgresError: nobody can.
        """
        return await self._first("/config", configuration)

    async def overview(self) -> Overview:
        """GET /cluster of the first that can tell.

        Raises:
            PostgresError: nobody can.
        """
        return await self._first("/cluster", overview)

    async def history(self) -> tuple[Promotion, ...]:
        """Every promotion that the DCS remembers, oldest first.

        Raises:
            PostgresError: nobody can tell.
        """
        return await self._first("/history", history)

    async def state(self, node: NodeSpec) -> str:
        """The state of a node as its own agent says it, or why it says nothing."""
        found = await self._own(node)
        return found.member.state if isinstance(found, Agent) else found

    async def _first(self, path: str, read: Callable[[str], T]) -> T:
        async with together() as group:
            tasks = [(n.name, group.create_task(self._read(n, path, read))) for n in self._nodes]
        why: dict[str, str] = {}
        for name, task in tasks:
            found = task.result()
            if not isinstance(found, str):
                return found
            why[name] = found
        raise no_answer(why)

    async def _own(self, node: NodeSpec) -> Agent | str:
        try:
            answer = await self._rest.get(node, "/patroni", limit=self._limit)
            return agent(node.name, answer)
        except NoAnswerError as error:
            return error.why
        except ValueError:
            return "its answer is not Patroni's"

    async def _read(self, node: NodeSpec, path: str, read: Callable[[str], T]) -> T | str:
        try:
            answer: Answer = await self._rest.get(node, path, limit=self._limit)
            if answer.status >= _FAILED:
                return f"{answer.said or 'no words'} ({answer.status})"
            return read(answer.text)
        except NoAnswerError as error:
            return error.why
        except ValueError:
            return "its answer is not Patroni's"


def no_answer(why: Mapping[str, str]) -> PostgresError:
    """Nobody can tell."""
    return PostgresError(
        f"{nobody(why)}.",
        next_step="See whether Patroni runs on the nodes, its REST API is open to the worker, and "
        "its DCS (such as etcd) answers.",
    )


def nobody(why: Mapping[str, str]) -> str:
    """The sentence for it, without its full stop."""
    told = "; ".join(f"{name}: {each}" for name, each in why.items())
    return f"No Patroni answers for the cluster ({told or 'no node has a `rest` address'})"


def seen_by(heard: Heard) -> AgentSeen:
    """What the agents said, in the words of all clusters. Pure."""
    ages = [each.dcs_age for each in heard.agents.values() if each.dcs_age is not None]
    of_all = heard.overview
    failsafe = heard.is_failsafe_active
    if of_all is None:
        return AgentSeen(
            problem=_problem(heard),
            members=tuple(each.member for each in heard.agents.values()),
            is_paused=any(each.is_paused for each in heard.agents.values()),
            dcs_age=max(ages, default=None),
            is_failsafe_active=failsafe,
            silent=heard.silent,
        )
    return AgentSeen(
        members=of_all.members,
        is_paused=of_all.is_paused,
        scheduled=of_all.scheduled,
        dcs_age=max(ages, default=None),
        is_failsafe_active=failsafe,
        settings=heard.settings,
        pending_restart=of_all.pending_restart,
        silent=heard.silent,
    )


def _problem(heard: Heard) -> str:
    if not heard.agents:
        return nobody(heard.silent)
    who = ", ".join(heard.agents)
    why = "; ".join(f"{name}: {heard.deaf.get(name, '')}" for name in heard.agents)
    if heard.is_failsafe_active:
        why += "; failsafe mode keeps the primary"
    return f"Patroni runs on {who}, but its DCS may be down: it cannot tell of the cluster ({why})"
