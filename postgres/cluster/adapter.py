"""What the rest asks of a cluster, whoever decides there who is the primary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from postgres.cluster.words import ClusterKind, ClusterSeen, NodeSpec, Promotion, Verdict

Tell = Callable[[str], Awaitable[None]]


class Cluster(Protocol):
    """A cluster that can be looked at and told to change roles.

    Nothing here decides whether it may: `postgres.cluster.preflight` does, right before.
    Everything ends within its limit, and a cancelled call leaves the servers as they are.
    """

    @property
    def kind(self) -> ClusterKind:
        """Which adapter this is."""
        ...

    @property
    def nodes(self) -> Sequence[NodeSpec]:
        """The servers that the inventory names, in its order."""
        ...

    async def look(self) -> ClusterSeen:
        """Ask all nodes at once, and the agent. Never raises: what fails is said in the answer."""
        ...

    async def switch(self, *, leader: str, candidate: str, limit: timedelta, tell: Tell) -> Verdict:
        """A planned switchover, without loss: both nodes are there.

        Raises:
            PostgresError: it was refused before anything happened.
        """
        ...

    async def fail_over(
        self, *, leader: str, candidate: str, limit: timedelta, tell: Tell
    ) -> Verdict:
        """Make `candidate` the primary though `leader` is gone.

        A pair proves first that the old primary is fenced, and refuses without the proof.

        Raises:
            PostgresError: it was refused before anything happened.
        """
        ...

    async def rejoin(self, node: str, *, primary: str, limit: timedelta, tell: Tell) -> None:
        """Bring a node back as a standby of `primary` and wait until it streams.

        Raises:
            PostgresError: it does not follow; says what to do.
        """
        ...

    async def rebuild(self, node: str, *, primary: str, limit: timedelta, tell: Tell) -> None:
        """Replace all that a node has by a fresh copy of `primary`, and wait until it streams.

        For one that cannot be rewound, or whose WAL is gone.

        Raises:
            PostgresError: it is a primary, or the copy failed; says what stands.
        """
        ...

    async def settings(self) -> Mapping[str, str]:
        """What a configuration consists of, to be compared before and after: names to texts.

        Raises:
            PostgresError: it cannot be read.
        """
        ...

    async def history(self) -> tuple[Promotion, ...]:
        """Every promotion that is known, oldest first.

        Raises:
            PostgresError: nobody can tell.
        """
        ...

    async def close(self) -> None:
        """Hang up."""
        ...
