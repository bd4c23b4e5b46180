"""What is the matter with the indexes that are there: invalid, duplicate, redundant, unused.

`read_indexes` looks, `judge` is pure. Nothing is proposed that backs a constraint, identifies
rows for replication, or belongs to a partitioned index; and "unused" is only said where the
server has counted for long enough since its statistics began.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from postgres.health.explain import Session

UNUSED_AFTER: Final = timedelta(days=30)
UNUSED_BYTES_MIN: Final = 1 << 20
INDEXES_MAX: Final = 50_000
FINDINGS_MAX: Final = 50
_UNIQUE: Final = "it keeps values unique"

# Sizes are pages as of the last vacuum or analyze: no lock is taken and no file looked at.
READ: Final = """
    SELECT i.indexrelid AS oid, i.indrelid AS table_oid, n.nspname AS schema,
           t.relname AS table_name, c.relname AS name,
           m.amname AS method, i.indisunique AS is_unique,
           i.indisvalid AS is_valid, i.indisreplident AS is_identity,
           i.indisexclusion AS is_exclusion, i.indnkeyatts AS key_count, i.indnatts AS count,
           i.indkey::int2[] AS columns, i.indclass::oid[] AS classes,
           i.indcollation::oid[] AS collations, i.indoption::int2[] AS options,
           CASE WHEN i.indexprs IS NOT NULL THEN pg_get_expr(i.indexprs, i.indrelid) ELSE '' END
               AS expressions,
           CASE WHEN i.indpred IS NOT NULL THEN pg_get_expr(i.indpred, i.indrelid) ELSE '' END
               AS predicate,
           coalesce(k.conindid IS NOT NULL, false) AS in_constraint,
           c.relispartition OR c.relkind = 'I'     AS is_partitioned,
           coalesce(e.objid IS NOT NULL, false)    AS in_extension,
           coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_equal,
           c.relpages::bigint * current_setting('block_size')::bigint AS size_bytes,
           pg_stat_get_numscans(c.oid)             AS scans,
           coalesce(b.index_relid IS NOT NULL, false) AS is_being_built
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_class t ON t.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = t.relnamespace
      JOIN pg_am m ON m.oid = c.relam
      LEFT JOIN (SELECT DISTINCT conindid FROM pg_constraint WHERE contype IN ('p', 'u', 'x', 'f'))
                k ON k.conindid = i.indexrelid
      LEFT JOIN pg_depend e ON e.classid = 'pg_class'::regclass AND e.objid = c.oid
                           AND e.deptype = 'e'
      LEFT JOIN pg_stat_progress_create_index b ON b.index_relid = i.indexrelid
     WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_t(oast|emp)'
     LIMIT $1
"""

# Statistics begin at a reset, and anew after a crash: then only pg_stat_bgwriter says so.
COUNTED: Final = """
    SELECT greatest(d.stats_reset, b.stats_reset) AS since, clock_timestamp() AS now,
           pg_is_in_recovery() AS is_standby
      FROM pg_stat_database d, pg_stat_bgwriter b
     WHERE d.datname = current_database()
"""

SCANS: Final = """
    SELECT o.oid, pg_stat_get_numscans(o.oid) AS scans FROM unnest($1::oid[]) AS o (oid)
"""

# Foreign keys by the columns that refer: without an index each DELETE there reads the table.
FOREIGN_KEYS: Final = """
    SELECT conrelid AS table_oid, conkey AS columns FROM pg_constraint WHERE contype = 'f'
"""

DEFINITIONS: Final = """
    SELECT o.oid, pg_get_indexdef(o.oid) AS definition FROM unnest($1::oid[]) AS o (oid)
"""


class Flaw(StrEnum):
    """What may be the matter with an index."""

    INVALID = "invalid"
    DUPLICATE = "duplicate"
    REDUNDANT = "redundant"
    UNUSED = "unused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index as the catalog has it. `size_bytes` is as of the last vacuum."""

    oid: int
    table_oid: int
    schema: str
    table_name: str
    name: str
    method: str
    is_unique: bool
    is_valid: bool
    is_identity: bool
    is_exclusion: bool
    key_count: int
    count: int
    columns: tuple[int, ...]
    classes: tuple[int, ...]
    collations: tuple[int, ...]
    options: tuple[int, ...]
    expressions: str
    predicate: str
    in_constraint: bool
    is_partitioned: bool
    in_extension: bool
    nulls_equal: bool
    size_bytes: int
    scans: int
    is_being_built: bool

    @property
    def text(self) -> str:
        """The index, for people."""
        return f"{self.schema}.{self.name}"

    @property
    def table(self) -> str:
        """Its table, for people."""
        return f"{self.schema}.{self.table_name}"

    @property
    def needed(self) -> str | None:
        """Why it must stay whatever its use, or None."""
        reasons = (
            (self.in_constraint, "it backs a constraint"),
            (self.is_exclusion, "it excludes rows"),
            (self.is_identity, "it identifies rows for replication"),
            (self.is_partitioned, "it belongs to a partitioned index"),
            (self.in_extension, "it belongs to an extension"),
            (self.is_unique, _UNIQUE),
        )
        return next((reason for holds, reason in reasons if holds), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Since when a node counts scans; None: since it was made. `scans` by the index's oid."""

    node: str
    since: datetime | None
    now: datetime
    scans: Mapping[int, int]

    @property
    def is_long_enough(self) -> bool:
        """Whether what was not used meanwhile may be called unused."""
        return self.since is not None and self.now - self.since >= UNUSED_AFTER


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What `read_indexes` saw. `references`: columns of foreign keys, by the table's oid."""

    indexes: tuple[Index, ...]
    references: Mapping[int, tuple[frozenset[int], ...]]
    counted: Counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An index with a flaw. `by`: what does its work; `but`: why it is not to be dropped as yet."""

    index: Index
    flaw: Flaw
    by: Index | None = None
    but: str = ""


async def read_indexes(session: Session, node: str) -> Looked:
    """All indexes of the session's database.

    Raises:
        asyncpg.PostgresError: the server does not answer what anybody may ask it.
    """
    indexes = [
        Index(**{
            **row,
            **{name: tuple(row[name]) for name in ("columns", "classes", "collations", "options")},
        })
        for row in await session.fetch(READ, INDEXES_MAX)
    ]  # fmt: skip
    references: dict[int, list[frozenset[int]]] = defaultdict(list)
    for row in await session.fetch(FOREIGN_KEYS):
        references[row["table_oid"]].append(frozenset(row["columns"]))
    counted = (await session.fetch(COUNTED))[0]
    return Looked(
        indexes=tuple(indexes),
        references={oid: tuple(found) for oid, found in references.items()},
        counted=Counted(
            node=node,
            since=counted["since"],
            now=counted["now"],
            scans={each.oid: each.scans for each in indexes},
        ),
    )


async def read_scans(session: Session, node: str, oids: Sequence[int]) -> Counted:
    """How often a replica has used these indexes; it counts on its own.

    Raises:
        asyncpg.PostgresError: the server does not answer what anybody may ask it.
    """
    counted = (await session.fetch(COUNTED))[0]
    scans = {row["oid"]: row["scans"] for row in await session.fetch(SCANS, list(oids))}
    return Counted(node=node, since=counted["since"], now=counted["now"], scans=scans)


def judge(looked: Looked, *, bytes_min: int = UNUSED_BYTES_MIN) -> list[Finding]:
    """Each index with its worst flaw, the largest first. "Unused" is as this node has it. Pure."""
    by_table: dict[int, list[Index]] = defaultdict(list)
    for index in looked.indexes:
        by_table[index.table_oid].append(index)
    found: list[Finding] = []
    for table_oid, indexes in by_table.items():
        found += _judge_table(indexes, looked, looked.references.get(table_oid, ()), bytes_min)
    ranks = list(Flaw)
    found.sort(key=lambda each: (ranks.index(each.flaw), -each.index.size_bytes, each.index.text))
    return found[:FINDINGS_MAX]


def used_elsewhere(
    finding: Finding, replicas: Iterable[Counted], silent: Sequence[str]
) -> Finding | None:
    """An "unused" one in the light of the replicas; None: it is used on one of them. Pure."""
    if finding.flaw is not Flaw.UNUSED:
        return finding
    but = finding.but
    for replica in replicas:
        if replica.scans.get(finding.index.oid, 0) > 0:
            return None
        if not replica.is_long_enough:
            but = but or f"{replica.node} has counted for too short a time"
    if silent:
        but = but or f"{', '.join(silent)} could not be asked"
    return Finding(index=finding.index, flaw=finding.flaw, by=finding.by, but=but)


def _judge_table(
    indexes: Sequence[Index],
    looked: Looked,
    references: Sequence[frozenset[int]],
    bytes_min: int,
) -> list[Finding]:
    found: list[Finding] = []
    kept = list(indexes)
    relied_on: set[int] = set()
    # One after the other: of three that are alike, one stays.
    for index in sorted(indexes, key=_order):
        finding = _flaw(index, kept, looked, bytes_min)
        # What does another one's work will be used once that one is gone.
        if finding is None or (finding.flaw is Flaw.UNUSED and index.oid in relied_on):
            continue
        found.append(_guarded(finding, kept, references))
        kept.remove(index)
        if finding.by is not None:
            relied_on.add(finding.by.oid)
    return found


def _flaw(index: Index, kept: Sequence[Index], looked: Looked, bytes_min: int) -> Finding | None:
    if not index.is_valid:
        building = index.is_being_built or index.is_partitioned
        return None if building else Finding(index=index, flaw=Flaw.INVALID)
    others = [other for other in kept if other.oid != index.oid and other.is_valid]
    # A unique one may go when another keeps the same unique; `_alike` sees to it.
    if index.needed in {None, _UNIQUE}:
        for other in others:
            if _alike(index, other):
                return Finding(index=index, flaw=Flaw.DUPLICATE, by=other)
    if index.needed is not None:
        return None
    for other in others:
        if _begins(index, other):
            return Finding(index=index, flaw=Flaw.REDUNDANT, by=other)
    if looked.counted.is_long_enough and not index.scans and index.size_bytes >= bytes_min:
        return Finding(index=index, flaw=Flaw.UNUSED)
    return None


def _alike(index: Index, other: Index) -> bool:
    """Whether the other one is the same, and at least as strict."""
    return _shape(index) == _shape(other) and (other.is_unique or not index.is_unique)


def _shape(index: Index) -> tuple[object, ...]:
    return (index.method, index.columns, index.classes, index.collations, index.options,
            index.key_count, index.expressions, index.predicate, index.nulls_equal)  # fmt: skip


def _begins(index: Index, other: Index) -> bool:
    """Whether a wider btree begins with all that this one has."""
    plain = index.method == other.method == "btree" and not index.expressions + other.expressions
    size = index.key_count
    return (
        plain
        and index.count == size < other.key_count
        and index.predicate == other.predicate
        and index.columns == other.columns[:size]
        and index.classes == other.classes[:size]
        and index.collations == other.collations[:size]
        and index.options == other.options[:size]
    )


def _guarded(
    finding: Finding, kept: Sequence[Index], references: Sequence[frozenset[int]]
) -> Finding:
    """With the reason why it had better stay, if it is the last that serves a foreign key."""
    if finding.flaw is not Flaw.UNUSED:
        return finding
    others = [each for each in kept if each.oid != finding.index.oid]
    for columns in references:
        if _serves(finding.index, columns) and not any(_serves(one, columns) for one in others):
            return Finding(
                index=finding.index,
                flaw=finding.flaw,
                but="it serves a foreign key: without it, deleting what is referred to reads the"
                " whole table",
            )
    return finding


def _serves(index: Index, columns: frozenset[int]) -> bool:
    leading = frozenset(index.columns[: len(columns)])
    return index.is_valid and not index.predicate and leading == columns


def _order(index: Index) -> tuple[int, int, int]:
    """Who is judged first, and so goes first: the narrow and the new."""
    return (int(index.needed is not None), index.key_count, -index.oid)
