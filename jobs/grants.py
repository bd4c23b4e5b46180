"""What the runner needs of approvals. `approvals.service.Approvals` is one of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.words import Person, PersonId, RequestId, State, Why


class Voter(Protocol):
    """Who voted in whose seat, and by which accounts they were known then."""

    @property
    def person(self) -> PersonId: ...
    @property
    def slack(self) -> str: ...
    @property
    def seat(self) -> PersonId: ...
    @property
    def seat_slack(self) -> str: ...


class Grant(Protocol):
    """A request as it is stored."""

    @property
    def state(self) -> State: ...
    @property
    def plan(self) -> str:
        """The canonical text that people agreed to, with the call that it answers."""
        ...

    @property
    def asked_by(self) -> PersonId: ...
    @property
    def asked_by_slack(self) -> str: ...
    @property
    def channel(self) -> str: ...
    @property
    def votes(self) -> Sequence[Voter]: ...


class Ruling(Protocol):
    """What was decided, with a sentence for people."""

    @property
    def ok(self) -> bool: ...
    @property
    def why(self) -> Why | None: ...
    @property
    def problem(self) -> str: ...
    @property
    def next_step(self) -> str: ...


class Grants(Protocol):
    """The part of the approval service that a worker calls. See `Approvals` for each."""

    async def begin(
        self, conn: AsyncConnection, request_id: RequestId, *, people: Mapping[PersonId, Person]
    ) -> Ruling: ...

    async def resume(self, conn: AsyncConnection, request_id: RequestId) -> Ruling: ...

    async def finish(
        self,
        conn: AsyncConnection,
        request_id: RequestId,
        *,
        ok: bool,
        summary: str,
        numbers: Mapping[str, int | float | str],
    ) -> Ruling: ...

    async def send_back(
        self, conn: AsyncConnection, request_id: RequestId, *, problem: str
    ) -> Ruling: ...

    async def load(self, request_id: RequestId) -> Grant | None: ...
