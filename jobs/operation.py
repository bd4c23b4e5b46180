"""The contract between an operation (one file in `commands/`) and everything else.

An operation knows its parameters, plans a change read-only, and carries it out in
steps. It knows nothing of Slack, of votes, or of other operations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import BaseModel, JsonValue, SecretStr

from approvals.in_force import Policies
from approvals.words import ExplainedError
from jobs.backup_settings import BackupSettings
from jobs.cluster_settings import ClusterSettings
from jobs.drawing import Role
from jobs.health_settings import MonitoringSettings, Node
from jobs.migration_settings import MigrationSettings


class Kind(StrEnum):
    """A query only reads and is answered at once; a change becomes a request."""

    QUERY = "query"
    CHANGE = "change"


class Risk(StrEnum):
    """The worst that a change can do when it goes wrong. Rules match on it."""

    NONE = "none"  # reads only, or writes only what is ours
    RECOVERABLE = "recoverable"  # can be undone without loss
    DISRUPTIVE = "disruptive"  # people notice: locks, restarts, failover
    DESTRUCTIVE = "destructive"  # data can be lost


class Mode(StrEnum):
    """What may happen to a step whose outcome is unknown after a crash."""

    RETRYABLE = "retryable"  # run it again from its start
    RESUMABLE = "resumable"  # run it again from its last checkpoint
    ONCE = "once"  # never run it again: stop and ask a person


class Pin(StrEnum):
    """A fact of the target that a plan relies on. `jobs.pinned` reads each of them."""

    SYSTEM_IDENTIFIER = "system_identifier"  # the very cluster
    TIMELINE = "timeline"  # nobody was promoted
    PRIMARY = "primary"  # the node that answered, and whether it is the primary
    SCHEMA = "schema"  # no DDL
    VERIFIED_BACKUP = "verified_backup"  # the way back that the plan counts on still exists


# What each change of a target relies on, unless it says otherwise.
TARGET_PINS: Final = frozenset({Pin.SYSTEM_IDENTIFIER, Pin.TIMELINE, Pin.PRIMARY})


class Tier(StrEnum):
    """How much a database matters. Each has an RTO (`RTO`), from the guide's table."""

    CRITICAL = "critical"
    IMPORTANT = "important"
    STANDARD = "standard"
    ARCHIVE = "archive"


RTO: Mapping[Tier, timedelta] = {
    Tier.CRITICAL: timedelta(minutes=15),
    Tier.IMPORTANT: timedelta(hours=1),
    Tier.STANDARD: timedelta(hours=4),
    Tier.ARCHIVE: timedelta(hours=24),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalQuery:
    """A query whose answer says that a restored copy is usable.

    `expect` is the text of the first column of the first row; None: any row will do.
    """

    name: str
    sql: str
    expect: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A PostgreSQL cluster in the inventory."""

    name: str
    dsn: SecretStr
    environment: str
    tier: Tier
    channel: str
    backup_folder: Path
    critical_queries: tuple[CriticalQuery, ...] = ()
    backups: BackupSettings = field(default_factory=BackupSettings)
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)
    region: str = ""
    replicas: tuple[Node, ...] = ()  # the other servers of its cluster
    migrations: MigrationSettings = field(default_factory=MigrationSettings)
    cluster: ClusterSettings | None = None  # None: one server, as far as anybody said


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a change would do, as data, for the people who must agree and for the runner.

    Everything is JSON: `approvals.plans.plan_hash` hashes the canonical form. `pins` are
    facts of the target that must still hold when the run starts: those that `Operation.pinned`
    names are added by the shell, others are the plan's own (see `Operation.pins`).
    `statements` are shown as they are: SQL brings its own semicolons.
    """

    title: str
    steps: tuple[str, ...]
    statements: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    estimate_seconds: int | None = None
    undo: str | None = None
    pins: Mapping[str, str] = field(default_factory=dict)
    # What only the plan can know and rules may match on, such as {"kind": "ddl"}.
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    # Where the parameters decide: one of `Operation.risks`. None: the operation's.
    risk: Risk | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows for people; every cell is already text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class ChartKind(StrEnum):
    """How points are drawn."""

    LINE = "line"
    AREA = "area"
    BAR = "bar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a chart; None where there is no point."""

    name: str
    values: tuple[float | None, ...]
    role: Role = Role.MEASURED


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Points for people; every series has one value per label. `alt` says it in words."""

    title: str
    kind: ChartKind
    labels: tuple[str, ...]
    series: tuple[Series, ...]
    alt: str
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A button that opens another operation's form, filled in: what helps, to be asked for."""

    text: str
    operation: str
    params: Mapping[str, JsonValue]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a query found, or what a change brought: drawn by the shell.

    Order on the screen: title, lines, statements, facts, charts, table, suggestions.
    `statements` are SQL to be copied: they stand in a code block, as they are.
    """

    title: str
    lines: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    table: Table | None = None
    statements: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    # When it was looked at, where that may be a while ago: set by the shell.
    at: datetime | None = None
    # For a change: numbers worth keeping and showing, such as {"size_bytes": 1}.
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)
    # For a change that `ends_in_order`: it did so because a person asked, before all was done.
    # Without it the run is done, also where the asking came too late to change anything.
    is_stopped: bool = False


class JobError(ExplainedError):
    """An operation could not do its work. What it says reaches the card."""


class Session(Protocol):
    """One read-only connection to a target, for looks that are more than one statement."""

    async def fetch(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """All rows."""
        ...

    async def execute(self, query: str) -> str:
        """Several statements, without parameters."""
        ...


class Reader(Protocol):
    """A read-only look at a target database, with a short statement timeout."""

    def session(
        self, *, limit: timedelta, settings: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[Session]:
        """A connection of its own that only reads; each statement may take `limit`.

        Raises:
            JobError: as `rows`, for whatever fails inside the block as well.
        """
        ...

    async def rows(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """All rows of a query in a read-only transaction.

        Raises:
            JobError: the database cannot be reached, or the query failed or took too long.
        """
        ...

    async def recent_rows(self, query: str, *, age_max: timedelta) -> Sequence[Mapping[str, Any]]:
        """The rows of a query, at most `age_max` old: for facts that only people read.

        Raises:
            JobError: as `rows`.
        """
        ...


class Context(Protocol):
    """What an operation may use to plan a change or to answer a query."""

    @property
    def database(self) -> Database:
        """The target; operations without one get a `JobError`."""
        ...

    @property
    def databases(self) -> Mapping[str, Database]:
        """Every database of the inventory, by its name: for queries about all of them."""
        ...

    @property
    def reader(self) -> Reader:
        """The target, read-only."""
        ...

    @property
    def store(self) -> Any:
        """`store.connect.Store`: our own database, for catalogues such as `store.backups`."""
        ...

    @property
    def policies(self) -> Policies:
        """The policy in force, and the one that the file proposes."""
        ...

    @property
    def now(self) -> datetime:
        """The time, aware, in UTC."""
        ...


class Attempt(Protocol):
    """One attempt at one step."""

    @property
    def number(self) -> int:
        """1 for the first attempt."""
        ...

    @property
    def checkpoint(self) -> JsonValue:
        """What `save` stored last, also by an attempt that died; None at first."""
        ...

    async def save(self, checkpoint: JsonValue) -> None:
        """Store how far the step is. Raises `FencedError` if another took over."""
        ...


class Job(Context, Protocol):
    """A run in progress: an operation's only way to act and to speak."""

    @property
    def folder(self) -> Path:
        """A private folder of this run; removed when the run has ended, however it ended."""
        ...

    @property
    def request_id(self) -> int:
        """The request that this run carries out."""
        ...

    @property
    def run_key(self) -> str:
        """Unique for this run and the same after a resume, such as `run-17`."""
        ...

    async def step(
        self,
        name: str,
        body: Callable[[Attempt], Awaitable[JsonValue]],
        *,
        mode: Mode,
        time_limit: timedelta,
        attempts: int = 1,
    ) -> JsonValue:
        """Run `body` once as a step, or give back what it returned before a crash.

        A step's intent is stored before `body` starts and its outcome after. `attempts`
        counts tries of a failing `retryable` or `resumable` body (with backoff between);
        after a crash `mode` decides. Cancelling and time limits cancel `body`.
        """
        ...

    @property
    def is_paused(self) -> bool:
        """Whether a person has asked this run to wait, and nobody yet to go on."""
        ...

    @property
    def is_cancelled(self) -> bool:
        """Whether a person has asked this run to stop; from then on it stays so, in every life."""
        ...

    @property
    def cancelled_by(self) -> str:
        """Who has asked it to stop; '' while nobody has."""
        ...

    async def until_cancelled(self) -> None:
        """Return once a person has asked this run to stop: at once if so before, else maybe never.

        To be waited for beside what is worked at; cancelling the wait changes nothing.
        """
        ...

    async def report(self, text: str, *, fraction: float | None = None) -> None:
        """Tell how it goes. Cheap: the runner limits the rate. `fraction` is 0 to 1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoCall:
    """What undoes a change that is done: another operation, with these parameters.

    It becomes a request of its own, with its own plan and votes, and only until `within`
    has passed since the change was done.
    """

    operation: str
    params: Mapping[str, JsonValue]
    within: timedelta


Planner = Callable[[Context, Any], Awaitable[Plan]]
Runner = Callable[[Job, Any, Plan], Awaitable[Answer]]
Answerer = Callable[[Context, Any], Awaitable[Answer]]
# From the parameters and the numbers of the answer; None where there is nothing to undo.
Undoer = Callable[[Any, Mapping[str, JsonValue]], UndoCall | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Something `/db` can do, found by its file in `commands/`.

    The fields of `params`, in their order, are what one types after the name; a field
    called `database` names the target, which the shell looks up in the inventory.

    A query has `answer`; a change has `plan` and `run`. A change with `reads` and `answer`
    only reads with the parameters of which `reads` says so, and is answered as a query then.

    `risk` is the worst that it can do; `lesser_risks` are what a plan of it may say instead.

    The run of one that `is_pausable` looks at `Job.is_paused` between its parts; its card has a
    button for that.

    The run of one that `ends_in_order` is not cut short when a person stops it: its body goes on,
    sees `Job.is_cancelled`, and brings what it has begun to a safe end by itself, with an
    `Answer` that `is_stopped`. Only its time limit and its worker's own reasons cancel it (see
    `jobs.pulse.Interrupt`). `abort_words` say before the click what stopping it would mean.

    One that `is_beside` neither waits for another change of its database nor makes it wait: what
    ends a session must not queue behind the run that the session holds up.

    A query with `patience` may take that long: people first get a word that it is being looked
    at. One with `is_cached` is answered from memory for as long as its database's inventory
    entry says (`monitoring.cache_for`), with its age and a button to look anew.

    One that `is_routed` gets a database that leads to its one writable server, whichever node of
    `cluster:` that is. One that looks at the nodes itself, or at our own store alone, is not: its
    database is as the inventory says, and nothing is asked before it.

    `pinned` are the facts of the target that must not move between the plan and the run.
    Nobody writes code for them: they are read when it is planned, shown with the plan, and
    read again under the target's lock. A change that does not touch its target says
    `frozenset()`. `pins` reads the current value of what the plan pinned on its own besides;
    it gets that plan.
    """

    name: str
    summary: str
    kind: Kind
    risk: Risk
    params: type[BaseModel]
    example: str
    answer: Answerer | None = None
    plan: Planner | None = None
    run: Runner | None = None
    pinned: frozenset[Pin] = TARGET_PINS
    pins: Callable[[Context, Any, Plan], Awaitable[Mapping[str, str]]] | None = None
    time_limit: timedelta = timedelta(hours=6)
    undo: Undoer | None = None
    lesser_risks: frozenset[Risk] = frozenset()
    is_beside: bool = False
    patience: timedelta | None = None
    is_cached: bool = False
    reads: Callable[[Any], bool] | None = None
    is_pausable: bool = False
    is_routed: bool = True
    ends_in_order: bool = False
    abort_words: str = ""

    def is_query(self, params: BaseModel) -> bool:
        """Whether these parameters ask for an answer, and not for a change."""
        return self.kind is Kind.QUERY or (self.reads is not None and self.reads(params))
