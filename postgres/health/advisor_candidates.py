"""Which indexes might help a statement, and which of those that do are proposed. Pure.

What is proposed was judged by the planner (`postgres.health.advisor`): a candidate is only a
question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from postgres.health.advisor_catalog import AdvisedTable, Catalog
from postgres.health.advisor_statements import Statement, Use, Wants
from postgres.health.index_terms import Terms, call_terms, plain_terms

CANDIDATES_MAX: Final = 16
_EQUAL_MAX: Final = 3
_OTHER_MAX: Final = 2
# A column with fewer values than this matches more than 5 % of the rows on average.
FEW_VALUES: Final = 20
ALMOST: Final = 0.9
MUCH: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An index that a statement may want, `use`: for what its first column is looked at.

    `needs_probe`: it pays for rare values alone.
    """

    table: AdvisedTable
    terms: Terms
    columns: tuple[str, ...]
    use: Use = Use.EQUAL
    needs_probe: bool = False

    @property
    def width(self) -> int:
        """How many keys it has."""
        return len(self.terms.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A candidate that the planner took. Costs are the planner's, of the whole statement."""

    candidate: Candidate
    cost_before: float
    cost_after: float
    size_bytes: int

    @property
    def saving(self) -> float:
        """The share of the statement's cost that goes, 0 to 1."""
        return 1 - self.cost_after / self.cost_before


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What a statement gains. `hint`: what it rests on, '' for the plan of any value.

    `saved_ms` is of all its calls that were counted; None: nobody has tried it.
    """

    statement: Statement
    cost_before: float
    cost_after: float | None
    saved_ms: float | None
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An index that pays. `size_bytes` None: not tried, as hypopg is missing."""

    table: AdvisedTable
    terms: Terms
    columns: tuple[str, ...]
    size_bytes: int | None
    gains: tuple[Gain, ...]
    hot_lost: float = 0.0  # cheap (HOT) updates that would not be any more, of those counted

    @property
    def saved_ms(self) -> float:
        """What all its statements would have saved, in milliseconds."""
        return sum(gain.saved_ms or 0.0 for gain in self.gains)

    @property
    def is_tried(self) -> bool:
        """Whether the planner was asked."""
        return self.size_bytes is not None


def candidates(wants: Wants, catalog: Catalog, *, rows_min: float) -> list[Candidate]:
    """The indexes that a statement may want, narrow ones first."""
    wanted = _wanted(wants, catalog, rows_min)
    found: dict[tuple[int, str], Candidate] = {}
    for table, uses in wanted.values():
        for columns in _column_lists(table, uses):
            first = columns[0]
            if len(columns) > 1 and _is_almost_unique(table, first):
                continue
            if any(have[: len(columns)] == columns for have in table.indexed):
                continue
            terms = plain_terms(columns)
            found[table.oid, terms.canonical] = Candidate(
                table=table,
                terms=terms,
                columns=columns,
                use=next(use for use in Use if first in uses[use]),
                needs_probe=first in uses[Use.EQUAL] and _has_few(table, first),
            )
    for function, column in wants.calls:
        for table in _tables(wants, catalog, column.alias, column.name):
            if table.kind == "r" and table.rows >= rows_min:
                terms = call_terms(function, column.name)
                found[table.oid, terms.canonical] = Candidate(
                    table=table, terms=terms, columns=(column.name,)
                )
    return sorted(found.values(), key=lambda each: each.width)[:CANDIDATES_MAX]


def why_none(wants: Wants, catalog: Catalog, *, rows_min: float) -> str:
    """Why a statement has no candidate, in few words."""
    tables = [catalog.find(each.schemaname, each.relname) for each in wants.tables.values()]
    known = [table for table in tables if table is not None]
    if not known:
        return ""  # the catalogue, or nothing: not worth a word
    if any(table.kind == "v" for table in known):
        return "reads a view: not looked into"
    if any(table.kind == "p" for table in known):
        return "reads a partitioned table: look at its partitions"
    if any(table.rows < 0 for table in known):
        return "reads a table that was never analyzed"
    if all(table.rows < rows_min for table in known):
        return "reads small tables"
    return "has its indexes, or compares nothing that one helps"


def returns_much(statement: Statement, wants: Wants, catalog: Catalog) -> bool:
    """Whether it gives back so much of its one table that reading it whole is right."""
    if not wants.is_plain or len(wants.tables) != 1:
        return False
    (named,) = wants.tables.values()
    table = catalog.find(named.schemaname, named.relname)
    return table is not None and statement.rows_per_call > MUCH * table.rows


def choose(choices: Sequence[Choice]) -> Choice | None:
    """The narrowest of those that are about as good as the best; None: there is none."""
    if not choices:
        return None
    least = min(choice.cost_after for choice in choices)
    before = choices[0].cost_before
    # Half as much again, or 2 % of what it cost before: no reason for one more column.
    good = [each for each in choices if each.cost_after <= max(least * 1.5, least + before / 50)]
    return min(good, key=lambda each: (each.candidate.width, each.cost_after))


def guess(
    found: Sequence[Candidate],
    scanned: Iterable[tuple[str, str]],
    statement: Statement,
    wants: Wants,
) -> Candidate | None:
    """Without a planner to ask: one column of a table that is read whole for few of its rows.

    What is compared comes before what is ranged over; what is only sorted by is left.
    """
    whole = set(scanned)
    single = [
        each
        for each in found
        if each.width == 1
        and not each.needs_probe
        and each.use is not Use.SORT
        and (each.table.schema, each.table.name) in whole
        and not (wants.is_plain and statement.rows_per_call * FEW_VALUES > each.table.rows)
    ]
    return max(single, key=lambda each: (each.use is Use.EQUAL, _values(each)), default=None)


def merged(proposals: Iterable[Proposal]) -> list[Proposal]:
    """One for each index: the same are added up, and one that a wider one begins with goes in it.

    Sorted by what they save.
    """
    same: dict[tuple[int, str], Proposal] = {}
    for each in proposals:
        key = (each.table.oid, each.terms.canonical)
        same[key] = _added(same[key], each) if key in same else each
    kept: list[Proposal] = []
    for each in sorted(same.values(), key=lambda one: -len(one.terms.keys)):
        wider = next((one for one in kept if _begins(one, each)), None)
        if wider is None:
            kept.append(each)
        else:
            kept[kept.index(wider)] = _added(wider, each)
    return sorted(kept, key=lambda one: (-one.saved_ms, one.table.text, one.columns))


def _added(one: Proposal, other: Proposal) -> Proposal:
    sizes = [each.size_bytes for each in (one, other) if each.size_bytes is not None]
    return Proposal(
        table=one.table,
        terms=one.terms,
        columns=one.columns,
        size_bytes=max(sizes, default=None),
        gains=(*one.gains, *other.gains),
        hot_lost=one.hot_lost,
    )


def _begins(wide: Proposal, narrow: Proposal) -> bool:
    """Whether the wider one serves what the narrow one would."""
    count = len(narrow.terms.keys)
    return wide.table.oid == narrow.table.oid and wide.terms.keys[:count] == narrow.terms.keys


def _values(candidate: Candidate) -> float:
    column = candidate.table.columns.get(candidate.columns[0])
    return (column.distinct if column else None) or 0.0


def _wanted(
    wants: Wants, catalog: Catalog, rows_min: float
) -> Mapping[int, tuple[AdvisedTable, dict[Use, list[str]]]]:
    """The uses of columns of tables that are large enough, by the table's oid."""
    found: dict[int, tuple[AdvisedTable, dict[Use, list[str]]]] = {}
    for column, use in wants.uses:
        for table in _tables(wants, catalog, column.alias, column.name):
            if table.kind not in {"r", "m"} or table.rows < rows_min:
                continue
            if not table.columns[column.name].has_btree:
                continue
            uses = found.setdefault(table.oid, (table, {each: [] for each in Use}))[1]
            if column.name not in uses[use]:
                uses[use].append(column.name)
    return found


def _tables(wants: Wants, catalog: Catalog, alias: str | None, name: str) -> list[AdvisedTable]:
    """The tables that a column may be of: by its alias, or all that have such a column."""
    ranges = [wants.tables[alias]] if alias in wants.tables else list(wants.tables.values())
    tables = [catalog.find(each.schemaname, each.relname) for each in ranges]
    return [table for table in tables if table is not None and name in table.columns]


def _column_lists(table: AdvisedTable, uses: Mapping[Use, Sequence[str]]) -> list[tuple[str, ...]]:
    equal = sorted(uses[Use.EQUAL], key=lambda name: -(table.columns[name].distinct or 0))
    equal = equal[:_EQUAL_MAX]
    others = [*uses[Use.RANGE][:_OTHER_MAX], *uses[Use.SORT][:_OTHER_MAX]]
    lists: list[tuple[str, ...]] = [(name,) for name in (*equal, *others)]
    lists += list(combinations(equal, 2))
    lists += [(first, then) for first in equal for then in others if first != then]
    return list(dict.fromkeys(lists))


def _has_few(table: AdvisedTable, column: str) -> bool:
    distinct = table.columns[column].distinct
    return distinct is not None and distinct < FEW_VALUES


def _is_almost_unique(table: AdvisedTable, column: str) -> bool:
    """Then an index of it finds the row, and no second column helps."""
    return (table.columns[column].distinct or 0) >= ALMOST * table.rows
