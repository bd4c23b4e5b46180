"""A second opinion on a statement: with values that the table really has in place of `$1`.

The generic plan knows no value: it takes a third of the rows for a range, and the average for
a skewed column. The values come from pg_stats and are people's data: they go into the statement
that is explained, and nowhere else. What is said of them is how frequent they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from postgres.health.advisor_catalog import AdvisedTable, Catalog
from postgres.health.advisor_statements import Comparison, Statement, Wants
from postgres.health.explain import Session
from postgres.health.statement_text import nodes

# A value that more of the rows have than this is nothing to look up by an index.
FREQUENCY_MAX: Final = 0.05
_OUTER_SHARE: Final = 100  # 1 / of the histogram: its newest or oldest part

STATISTICS: Final = """
    SELECT most_common_vals::text::text[] AS common, most_common_freqs::float8[] AS frequencies,
           histogram_bounds::text::text[] AS bounds
      FROM pg_stats
     WHERE schemaname = $1 AND tablename = $2 AND attname = $3 AND NOT inherited
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A statement with values in it, and what it rests on, in words without them."""

    sql: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    text: str
    hint: str


async def probe(
    session: Session, statement: Statement, wants: Wants, catalog: Catalog
) -> Probe | None:
    """The statement with values of the tables in it; None where there is nothing to try.

    Changes `wants.tree`.
    """
    hints: list[str] = []
    for comparison in wants.comparisons:
        table = _table(comparison, wants, catalog)
        if table is None:
            continue
        name = comparison.column.name
        rows = await session.fetch(STATISTICS, table.schema, table.name, name)
        if not rows:
            continue
        value = choose_value(comparison.sign, rows[0], statement, wants, table)
        if value is not None:
            _put(comparison, value.text, table.columns[name].cast_to)
            hints.append(f"{name} {comparison.sign} {value.hint}")
    if not hints:
        return None
    return Probe(sql=_text(wants.tree), hint="; ".join(hints))


def choose_value(
    sign: str, found: Mapping[str, Any], statement: Statement, wants: Wants, table: AdvisedTable
) -> _Value | None:
    """The value to try, by a row of `STATISTICS`; None: none would be telling. Pure."""
    asked = statement.rows_per_call / max(table.rows, 1.0)
    bounds = found["bounds"]
    if sign == "=":
        if not found["common"] or not wants.is_plain:
            return None
        pairs = list(zip(found["common"], found["frequencies"], strict=True))
        value, frequency = min(pairs, key=lambda pair: abs(pair[1] - asked))
        if frequency >= FREQUENCY_MAX:
            return None
        observed = f"{statement.rows_per_call:,.0f} rows a call were counted"
        return _Value(text=value, hint=f"a value that {frequency:.2%} of the rows have; {observed}")
    if not bounds or (wants.is_plain and asked >= FREQUENCY_MAX):
        return None
    far = max(1, len(bounds) // _OUTER_SHARE)
    if sign in {">", ">="}:
        return _Value(text=bounds[-1 - far], hint="the highest 1 % of its values")
    return _Value(text=bounds[far], hint="the lowest 1 % of its values")


def _table(comparison: Comparison, wants: Wants, catalog: Catalog) -> AdvisedTable | None:
    alias, name = comparison.column.alias, comparison.column.name
    ranges = [wants.tables[alias]] if alias in wants.tables else list(wants.tables.values())
    for each in ranges:
        table = catalog.find(each.schemaname, each.relname)
        if table is not None and name in table.columns:
            return table
    return None


def _put(comparison: Comparison, value: str, cast_to: str) -> None:
    """The value as a literal of the column's type; pglast quotes it when it writes the tree."""
    from pglast import ast, parse_sql  # noqa: PLC0415 - a heavy import, for those who need it

    # The type's name was quoted by the server, so the grammar reads it as it is.
    select: Any = parse_sql(f"SELECT NULL::{cast_to}")[0].stmt
    cast = select.targetList[0].val
    cast.arg = ast.A_Const(val=ast.String(sval=value))
    setattr(comparison.node, comparison.side, cast)


def _text(tree: Any) -> str:
    """The statement, with the parameters that are left numbered from 1."""
    from pglast.stream import RawStream  # noqa: PLC0415

    left = [node for node in nodes(tree) if type(node).__name__ == "ParamRef"]
    new = {number: place for place, number in enumerate(sorted({n.number for n in left}), 1)}
    for node in left:
        node.number = new[node.number]
    return str(RawStream()(tree))
