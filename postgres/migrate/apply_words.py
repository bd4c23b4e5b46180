"""The words of applying: what is to run, within which limits, and how it went. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

from postgres.errors import PostgresError
from postgres.health.blocking import Backend
from postgres.migrate.words import (
    Direction,
    Lock,
    Migration,
    Observation,
    Review,
    ReviewedStatement,
    StatementKind,
)

# What is happening, and how far it is (0 to 1) where somebody knows.
Tell = Callable[[str, float | None], Awaitable[None]]
# Something of the caller's, inside the transaction; what it raises rolls everything back.
InTransaction = Callable[[Any], Awaitable[None]]

# Who only reads, or locks rows, is in nobody's way but that of DDL, and which tables those are
# may depend on the rows: stronger than rehearsed counts from here on.
COUNTS_FROM: Final = Lock.ROW_EXCLUSIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One file, one way. `key`: the same whenever this file is run this way on this database."""

    key: str
    migration: Migration
    direction: Direction
    review: Review

    @property
    def title(self) -> str:
        """For people."""
        back = "" if self.direction is Direction.UP else " (back)"
        return f"{self.migration.title}{back}"

    @property
    def sql(self) -> str:
        """The file's text this way.

        Raises:
            PostgresError: there is no way back in the file.
        """
        if self.direction is Direction.UP:
            return self.migration.up
        if self.migration.down is None:
            raise PostgresError(
                f"{self.migration.title} has no way back in its file.",
                next_step="Write one, or ask for the way back that was worked out.",
            )
        return self.migration.down


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a rehearsal has shown, by a statement's index; the real run may do no more.

    `locks`: by schema.name. `factor`: how many times as long it may take; `floor_seconds` is
    allowed to everything.
    """

    locks: Mapping[int, Mapping[str, Lock]]
    seconds: Mapping[int, float]
    factor: float = 3.0
    floor_seconds: float = 2.0

    def seconds_max(self, index: int) -> float | None:
        """How long a statement may take; None: it was not rehearsed."""
        if (seconds := self.seconds.get(index)) is None:
            return None
        return max(self.floor_seconds, self.factor * seconds)

    def lock_on(self, table: str, *, first: int, last: int) -> Lock:
        """The strongest rehearsed lock on a table of the statements from `first` to `last`."""
        found = (
            self.locks.get(index, {}).get(table, Lock.NONE) for index in range(first, last + 1)
        )
        return max(found, default=Lock.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyLimits:
    """No wait is longer than these.

    `lock`: for one lock; nobody queues behind us any longer. `tries`: of a transaction.
    `additive`, `statement`: a statement that was not rehearsed, of the catalog alone and of any
    other kind. `whole`: after it, no further try. `alone`: a statement outside of transactions,
    `alone_wait`: of that, waiting for others. `again`: tries of such a one. `look`: from one look
    at it to the next. `idle`: the server ends our session when it hears nothing for so long.
    `life`: for an earlier session of ours to end, longer than `idle`. `tool`: for the tool's own
    lock. `reconnect`: for a server that is away. `lives`: connections that are tried. `cleanup`:
    for what was left half-built.
    """

    lock: timedelta = timedelta(milliseconds=200)
    tries: int = 30
    pause_seconds: float = 0.25
    pause_seconds_max: float = 4.0
    additive: timedelta = timedelta(seconds=10)
    statement: timedelta = timedelta(minutes=10)
    whole: timedelta = timedelta(minutes=10)
    alone: timedelta = timedelta(hours=12)
    alone_wait: timedelta = timedelta(minutes=30)
    again: int = 3
    look: timedelta = timedelta(seconds=2)
    idle: timedelta = timedelta(seconds=60)
    life: timedelta = timedelta(seconds=90)
    tool: timedelta = timedelta(seconds=60)
    reconnect: timedelta = timedelta(minutes=2)
    lives: int = 3
    cleanup: timedelta = timedelta(seconds=15)

    def seconds_max(self, statement: ReviewedStatement, expected: Expected | None) -> float:
        """How long a statement of a transaction may take."""
        rehearsed = expected.seconds_max(statement.index) if expected else None
        if rehearsed is not None:
            return rehearsed
        is_quick = statement.kind is StatementKind.ADDITIVE
        return (self.additive if is_quick else self.statement).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One try that was given up, or one long wait: in which statement, why, and who was it."""

    index: int
    reason: str
    seconds: float
    blockers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What was done. `was_done`: already, before this began; then nothing else is known.

    `seconds`: of the try that succeeded, without waiting in between; while a transaction is open
    its locks are held. `notes`: what people should know.
    """

    seconds: float = 0.0
    observations: tuple[Observation, ...] = ()
    waits: tuple[Wait, ...] = ()
    was_done: bool = False
    notes: tuple[str, ...] = field(default=())


class Observer(Protocol):
    """Looks at each statement on the connection that runs it."""

    async def before(self, conn: Any, statement: ReviewedStatement) -> None:
        """Right before the statement, inside its transaction where it has one."""
        ...

    async def after(self, conn: Any, statement: ReviewedStatement) -> Observation:
        """Right after it."""
        ...


class BlockedError(PostgresError):
    """A lock was not to be had; nothing has changed. `blockers`: who held it, at the last try."""

    def __init__(self, problem: str, *, next_step: str, blockers: Sequence[Backend] = ()) -> None:
        super().__init__(problem, next_step=next_step)
        self.blockers = tuple(blockers)


class ExceededError(PostgresError):
    """It would have done more than was rehearsed, or taken longer; it was rolled back."""


class UnknownOutcomeError(PostgresError):
    """Nobody can tell whether it was done. Stop, and let a person look."""
