"""The words of migrations: files, locks, reviewed statements, and what was observed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType


class Tool(StrEnum):
    """Whose folder of migrations it is. What applied them must read our bookkeeping as its own."""

    ALEMBIC = "alembic"
    PRISMA = "prisma"
    FLYWAY = "flyway"
    GOLANG_MIGRATE = "golang-migrate"
    DBMATE = "dbmate"
    PLAIN = "plain"


class Direction(StrEnum):
    """Which way a migration is gone."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One migration of a folder.

    `checksum`: as its tool keeps it ('' where it keeps none). `sha256`: of the up SQL's bytes,
    `down_sha256` of the down SQL's ('' without one). `is_transactional`: what the file or its
    tool says; None: its statements decide. `path`: the file that a person would open.
    `book_before` and `book_after`: the versions that the tool's table holds before and after it,
    where the table holds the newest alone (Alembic, golang-migrate). `same_checksums`: others
    that the tool takes for this file's. `problem`: why it cannot be run, with the next step; ''
    when it can.
    """

    tool: Tool
    version: str
    name: str
    path: Path
    up: str
    sha256: str
    checksum: str = ""
    down: str | None = None
    down_sha256: str = ""
    is_transactional: bool | None = None
    down_is_transactional: bool | None = None
    is_repeatable: bool = False
    book_before: tuple[str, ...] = ()
    book_after: tuple[str, ...] = ()
    same_checksums: tuple[str, ...] = ()
    problem: str = ""

    @property
    def title(self) -> str:
        """Version and name, for people."""
        return f"{self.version} {self.name}".strip()


class Lock(IntEnum):
    """The lock levels of a relation, from nothing to the strongest; PostgreSQL's own order."""

    NONE = 0
    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @property
    def mode(self) -> str:
        """As pg_locks writes it, such as `AccessExclusiveLock`."""
        return "".join(part.capitalize() for part in self.name.split("_")) + "Lock"

    @property
    def words(self) -> str:
        """As the manual writes it, such as `ACCESS EXCLUSIVE`."""
        return self.name.replace("_", " ")

    @property
    def blocks(self) -> str:
        """What others cannot do meanwhile, for people."""
        if self is Lock.ACCESS_EXCLUSIVE:
            return "reads and writes"
        if self >= Lock.SHARE:
            return "writes"
        return "other DDL and VACUUM" if self is Lock.SHARE_UPDATE_EXCLUSIVE else "nothing"


def lock_of(mode: str) -> Lock:
    """The level that pg_locks calls `mode`. Raises KeyError for no lock of a relation."""
    return _MODES[mode]


_MODES: Mapping[str, Lock] = MappingProxyType({lock.mode: lock for lock in Lock})


class StatementKind(StrEnum):
    """What a statement is for those who must agree, from harmless to worst."""

    ADDITIVE = "additive"  # the catalog alone, under a lock held for milliseconds
    ONLINE = "online"  # takes long and blocks neither reads nor writes
    DATA = "data"  # changes rows
    BLOCKING = "blocking"  # scans or rewrites a table while others wait
    DESTRUCTIVE = "destructive"  # data can be lost
    OPAQUE = "opaque"  # nobody can tell before it runs: counts as the worst it can be

    @property
    def rank(self) -> int:
        """0 for the most harmless."""
        return list(StatementKind).index(self)


class Work(StrEnum):
    """What a statement does with the rows of a table."""

    CATALOG = "catalog"
    SCAN = "scan"
    REWRITE = "rewrite"
    UNKNOWN = "unknown"  # only a rehearsal tells


class Level(StrEnum):
    """How bad a finding is. An `error` refuses the migration unless the policy says otherwise."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a reviewer should know. `rewrite`: SQL that does the same safely.

    `line` counts from 1 within the file. `source`: `squawk` or `twokey`.
    """

    rule: str
    level: Level
    text: str
    line: int
    help: str = ""
    rewrite: tuple[str, ...] = ()
    source: str = "twokey"


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A table that a statement locks, with its size on the target (None: not there yet)."""

    table: str  # schema.name, unquoted parts as the catalog has them
    lock: Lock
    work: Work = Work.CATALOG
    size_bytes: int | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedStatement:
    """One statement, as PostgreSQL's own parser understands it.

    `node` is the parser's name, such as `IndexStmt`. `must_be_alone`: PostgreSQL refuses it
    inside a transaction. `low_seconds` to `high_seconds` is how long it should take; None: only
    a rehearsal tells. `original`: what the file says, where `sql` keeps aside what that drops.
    """

    index: int
    sql: str
    line: int
    node: str
    kind: StatementKind
    touched: tuple[Touched, ...] = ()
    must_be_alone: bool = False
    destroys: str = ""  # what is lost, such as `column users.name`
    findings: tuple[Finding, ...] = ()
    low_seconds: float | None = None
    high_seconds: float | None = None
    original: str = ""

    @property
    def lock(self) -> Lock:
        """The strongest lock that it takes on a table that exists."""
        return max((each.lock for each in self.touched), default=Lock.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What a file of SQL would do. `flags`: what the file itself tries, such as timeouts."""

    statements: tuple[ReviewedStatement, ...]
    findings: tuple[Finding, ...] = ()  # of the file as a whole
    is_transactional: bool = True  # all of it in one transaction

    @property
    def kind(self) -> StatementKind:
        """The worst of its statements."""
        kinds = [each.kind for each in self.statements]
        return max(kinds, key=lambda kind: kind.rank, default=StatementKind.ADDITIVE)

    @property
    def lock(self) -> Lock:
        """The strongest lock of its statements."""
        return max((each.lock for each in self.statements), default=Lock.NONE)

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """Those of the file and of each statement, the worst first."""
        found = [*self.findings, *(f for each in self.statements for f in each.findings)]
        return tuple(sorted(found, key=lambda f: (-list(Level).index(f.level), f.line)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one statement did where it ran: on a copy, or on the target.

    `locks`, `scanned` and `written` by schema.name: locks held on tables that existed, rows
    read one after the other, rows inserted, updated or deleted. `wal_bytes`: of the server
    meanwhile. `is_sampled`: the locks were looked at from outside, and joined with what is known
    of such a statement.
    """

    index: int
    seconds: float
    locks: Mapping[str, Lock] = field(default_factory=dict)
    rewritten: Sequence[str] = ()
    scanned: Mapping[str, int] = field(default_factory=dict)
    written: Mapping[str, int] = field(default_factory=dict)
    wal_bytes: int = 0
    is_sampled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BookEntry:
    """A line of a tool's bookkeeping. `is_complete` False: begun, and not known to have ended.

    `covers_earlier`: everything before this version counts as applied too, as with a tool that
    keeps the newest version alone. `is_baseline`: it says so of a version that needs no file.
    """

    version: str
    checksum: str = ""
    is_complete: bool = True
    name: str = ""
    covers_earlier: bool = False
    is_baseline: bool = False
