"""What the heaviest statements look for: columns that are compared, ranged over and sorted by.

`read_statements` asks pg_stat_statements; the rest is pure and reads PostgreSQL's own grammar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from postgres.health.explain import Session
from postgres.health.statement_text import StatementKind, UnreadableError, kind_of, nodes, parsed

# Of others' statements, whoever lacks this sees neither number nor text.
SEES_ALL: Final = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all"

WHERE_EXTENSIONS: Final = """
    SELECT extname, quote_ident(nspname) AS schema
      FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
     WHERE extname IN ('pg_stat_statements', 'hypopg')
"""

# Columns that some versions lack are read by name. The texts are read once, and last.
HEAVIEST: Final = """
    WITH top AS MATERIALIZED (
        SELECT s.queryid, sum(s.calls)::bigint AS calls, sum(s.total_exec_time) AS total_ms,
               sum(s.rows)::bigint             AS rows,
               min((to_jsonb(s) ->> 'stats_since')::timestamptz) AS since
          FROM {schema}.pg_stat_statements(false) s
         WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND coalesce((to_jsonb(s) ->> 'toplevel')::boolean, true)
           AND s.queryid IS NOT NULL AND s.calls > 0
         GROUP BY s.queryid
         ORDER BY sum(s.total_exec_time) DESC
         LIMIT $1
    )
    SELECT t.queryid, t.calls, t.total_ms, t.rows, t.since, x.query AS text
      FROM top t
      JOIN (SELECT DISTINCT ON (queryid) queryid, left(query, 20001) AS query
              FROM {schema}.pg_stat_statements(true)
             WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())) x
     USING (queryid)
     ORDER BY t.total_ms DESC
"""

SINCE: Final = "SELECT stats_reset AS since FROM {schema}.pg_stat_statements_info"
HAS_SINCE: Final = "SELECT to_regclass($1 || '.pg_stat_statements_info') IS NOT NULL AS there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement and what it took since `since`; None: PostgreSQL 13 does not say."""

    queryid: int
    text: str
    calls: int
    total_ms: float
    rows: int
    since: datetime | None

    @property
    def mean_ms(self) -> float:
        """Milliseconds a call."""
        return self.total_ms / self.calls

    @property
    def rows_per_call(self) -> float:
        """Rows that a call returns, or changes."""
        return self.rows / self.calls


class Use(StrEnum):
    """How a statement uses a column."""

    EQUAL = "equal"
    RANGE = "range"
    SORT = "sort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column as a statement names it; `alias` None: without its table."""

    alias: str | None
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`column sign value`, where the value has no column in it: one may be tried in its place."""

    node: Any
    side: str  # the attribute of `node` that holds the value
    column: Column
    sign: str


@dataclass(kw_only=True)
class Wants:
    """What one statement looks for. `tree` is pglast's, and its tables may be given schemas."""

    tree: Any
    kind: StatementKind
    tables: dict[str, Any] = field(default_factory=dict)  # alias -> RangeVar
    uses: list[tuple[Column, Use]] = field(default_factory=list)
    calls: list[tuple[str, Column]] = field(default_factory=list)  # lower(email) = …
    comparisons: list[Comparison] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    changed: str = ""  # the table that an UPDATE writes to, and its columns
    sets: set[str] = field(default_factory=set)
    is_plain: bool = False  # a call's rows are the rows that were found


async def read_statements(session: Session, schema: str, *, count_max: int) -> list[Statement]:
    """The heaviest statements of the session's database. `schema` is quoted by the server."""
    there = (await session.fetch(HAS_SINCE, schema))[0]["there"]
    since = None
    if there:
        since = (await session.fetch(SINCE.replace("{schema}", schema)))[0]["since"]
    rows = await session.fetch(HEAVIEST.replace("{schema}", schema), count_max)
    return [Statement(**{**row, "since": row["since"] or since}) for row in rows]


def read_wants(text: str) -> Wants:
    """What a statement looks for.

    Raises:
        UnreadableError: it cannot be read, or is nothing that an index would help.
    """
    _, tree = parsed(text)
    kind = kind_of(tree)
    if kind not in {StatementKind.SELECT, StatementKind.UPDATE, StatementKind.DELETE}:
        raise UnreadableError("it is no SELECT, UPDATE or DELETE")
    wants = Wants(tree=tree, kind=kind, is_plain=_is_plain(tree, kind))
    named = {node.ctename for node in nodes(tree) if type(node).__name__ == "CommonTableExpr"}
    for node in nodes(tree):
        match type(node).__name__:
            case "RangeVar" if node.schemaname or node.relname not in named:
                wants.tables[node.alias.aliasname if node.alias else node.relname] = node
            case "A_Expr":
                _compare(wants, node)
            case "SortBy":
                _use(wants, node.node, Use.SORT)
            case "FuncCall":
                wants.functions.add(node.funcname[-1].sval)
            case _:
                pass
    if kind is StatementKind.UPDATE:
        wants.changed = tree.relation.relname
        wants.sets = {target.name for target in tree.targetList if target.name}
    return wants


def written_columns(
    read: Sequence[tuple[Statement, Wants]],
) -> Mapping[str, Counter[str]]:
    """How many calls set which columns, by the table's name: for HOT updates that would be lost."""
    found: dict[str, Counter[str]] = {}
    for statement, wants in read:
        if wants.kind is StatementKind.UPDATE:
            counts = found.setdefault(wants.changed, Counter())
            for column in wants.sets:
                counts[column] += statement.calls
    return found


def _compare(wants: Wants, node: Any) -> None:
    from pglast import enums  # noqa: PLC0415 - a heavy import, for those who need it

    kinds = enums.A_Expr_Kind
    sign = node.name[-1].sval if node.name else ""
    match node.kind:
        case kinds.AEXPR_OP if sign in _TURNED:
            _compare_sides(wants, node, sign)
        case kinds.AEXPR_OP_ANY if sign == "=":
            _use(wants, node.lexpr, Use.EQUAL)
            _use(wants, node.rexpr, Use.EQUAL)
        case kinds.AEXPR_IN if sign == "=":
            _use(wants, node.lexpr, Use.EQUAL)
        case kinds.AEXPR_BETWEEN:
            _use(wants, node.lexpr, Use.RANGE)
        case _:
            pass  # also LIKE: whether its pattern has a beginning is not known


def _compare_sides(wants: Wants, node: Any, sign: str) -> None:
    use = Use.EQUAL if sign == "=" else Use.RANGE
    sides = (("lexpr", "rexpr", sign), ("rexpr", "lexpr", _TURNED[sign]))
    for side, other, turned in sides:
        looked_at, value = getattr(node, side), getattr(node, other)
        _use(wants, looked_at, use)
        column = column_of(looked_at)
        if column is not None and not _has_column(value):
            wants.comparisons.append(Comparison(node=node, side=other, column=column, sign=turned))
        if use is Use.EQUAL and (call := _call_of(looked_at)) is not None:
            wants.calls.append(call)


def column_of(node: Any) -> Column | None:
    """The column that a node is, perhaps behind a cast; None: it is something else."""
    if type(node).__name__ == "TypeCast":
        node = node.arg
    if type(node).__name__ != "ColumnRef":
        return None
    names = [getattr(part, "sval", None) for part in node.fields]
    if None in names:
        return None
    return Column(alias=names[-2] if len(names) > 1 else None, name=str(names[-1]))


def _use(wants: Wants, node: Any, use: Use) -> None:
    column = column_of(node)
    if column is not None and (column, use) not in wants.uses:
        wants.uses.append((column, use))


def _call_of(node: Any) -> tuple[str, Column] | None:
    """`lower(email)`: a function of one column and nothing else."""
    if type(node).__name__ != "FuncCall" or len(node.args or ()) != 1:
        return None
    column = column_of(node.args[0])
    return None if column is None else (node.funcname[-1].sval, column)


def _has_column(value: Any) -> bool:
    return any(type(node).__name__ in {"ColumnRef", "SubLink"} for node in nodes(value))


def _is_plain(tree: Any, kind: StatementKind) -> bool:
    """Whether a call's rows are the rows that were found: no LIMIT, grouping, or aggregate."""
    if kind is not StatementKind.SELECT:
        return True
    targets = [target.val for target in tree.targetList or ()]
    calls = any(type(node).__name__ == "FuncCall" for node in nodes(targets))
    parts = (tree.groupClause, tree.limitCount, tree.distinctClause, tree.withClause, tree.larg)
    return not calls and not any(parts)


_TURNED: Final = {"=": "=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
