"""A plan in few lines, and what stands out in it. Pure.

Shown are node types, tables, rows and cost; never a filter, in which a literal may stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from postgres.health.explain import PlanNode

NODES_SHOWN_MAX: Final = 12
# Below this, reading all of a table is what a planner should do.
BIG_ROWS: Final = 10_000
SORTED_ROWS: Final = 100_000
_LOOPED_ROWS: Final = 100_000
# They only pass on what is below.
_DULL: Final = frozenset({"Gather", "Gather Merge", "Result", "Materialize", "Memoize", "Hash"})

# How many rows a table has, by schema and name.
TableRows = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What stands out: one sentence, and whether an index could help."""

    text: str
    asks_for_index: bool = False


def drawn(plan: PlanNode) -> tuple[str, ...]:
    """One line for each node that matters, from the top, at most `NODES_SHOWN_MAX`."""
    lines = list(_lines(plan, 0))
    rest = len(lines) - NODES_SHOWN_MAX
    return tuple(lines[:NODES_SHOWN_MAX]) + ((f"… and {rest} more nodes",) if rest > 0 else ())


def tables_of(plan: PlanNode) -> frozenset[tuple[str, str]]:
    """The tables that it reads, by schema and name."""
    return frozenset(
        (node.schema, node.relation)
        for node in plan.nodes()
        if node.schema is not None and node.relation is not None
    )


def stands_out(plan: PlanNode, rows: TableRows) -> Remark:
    """The one thing that costs most, as far as a plan can tell."""
    scans = [
        (size, node)
        for node in plan.nodes()
        if node.node_type == "Seq Scan" and (size := _size(node, rows)) >= BIG_ROWS
    ]
    if scans:
        size, node = max(scans, key=lambda scan: (scan[1].has_filter, scan[0]))
        return _scan(node, size)
    sorts = [node for node in plan.nodes() if node.node_type == "Sort" and node.rows >= SORTED_ROWS]
    if sorts:
        return Remark(
            text=f"It sorts about {sorts[0].rows:,.0f} rows: an index in that order would save it,"
            " or more work_mem if it writes temporary files.",
            asks_for_index=True,
        )
    loops = [node for node in plan.nodes() if _is_long_loop(node)]
    if loops:
        return Remark(
            text="It looks up the inner side of a nested loop for each of about"
            f" {loops[0].children[0].rows:,.0f} rows: see whether these estimates are right"
            " (ANALYZE)."
        )
    return Remark(text="Nothing stands out in it: what it takes is calls, rows, or waiting.")


def _scan(node: PlanNode, size: float) -> Remark:
    name = f"{node.schema}.{node.relation}"
    if node.has_filter:
        return Remark(
            text=f"It reads all {size:,.0f} rows of {name} to find about {node.rows:,.0f}:"
            " an index may be missing.",
            asks_for_index=True,
        )
    return Remark(text=f"It asks for all {size:,.0f} rows of {name}: no index helps with that.")


def _size(node: PlanNode, rows: TableRows) -> float:
    return rows.get((node.schema or "", node.relation or ""), 0.0)


def _is_long_loop(node: PlanNode) -> bool:
    return (
        node.node_type == "Nested Loop"
        and bool(node.children)
        and node.children[0].rows >= _LOOPED_ROWS
    )


def _lines(node: PlanNode, depth: int) -> Iterator[str]:
    deeper = depth
    if node.node_type not in _DULL or not node.children:
        stem = f"└{'──' * (depth - 1)} " if depth else ""
        yield f"{stem}{_words(node)}"
        deeper = depth + 1
    for child in node.children:
        yield from _lines(child, deeper)


def _words(node: PlanNode) -> str:
    table = f" on {node.relation}" if node.relation is not None else ""
    index = f" by {node.index}" if node.index is not None else ""
    sub = f" ({node.relationship})" if node.relationship in {"SubPlan", "InitPlan"} else ""
    return f"{node.node_type}{table}{index}{sub}: {node.rows:,.0f} rows, cost {node.cost:,.0f}"
