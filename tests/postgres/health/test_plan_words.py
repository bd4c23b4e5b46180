"""What is said of a plan: its nodes without their filters, and the one thing that stands out."""

from __future__ import annotations

import pytest

from postgres.health.explain import PlanNode
from postgres.health.plan_words import NODES_SHOWN_MAX, drawn, stands_out, tables_of


def node(node_type: str, *children: PlanNode, **more: object) -> PlanNode:
    values: dict[str, object] = {"cost": 10.0, "rows": 5.0, "children": children, **more}
    return PlanNode(node_type=node_type, **values)  # type: ignore[arg-type]


def scan(relation: str = "orders", **more: object) -> PlanNode:
    return node("Seq Scan", schema="public", relation=relation, **more)


def test_a_plan_is_drawn_without_what_only_passes_on() -> None:
    lookup = node("Index Scan", schema="public", relation="users", index="users_pkey", rows=1.0)
    plan = node("Limit", node("Gather", node("Nested Loop", scan(rows=12345.0), lookup)))
    assert drawn(plan) == (
        "Limit: 5 rows, cost 10",
        "└ Nested Loop: 5 rows, cost 10",
        "└── Seq Scan on orders: 12,345 rows, cost 10",
        "└── Index Scan on users by users_pkey: 1 rows, cost 10",
    )
    assert tables_of(plan) == {("public", "orders"), ("public", "users")}


def test_wide_plans_are_cut() -> None:
    lines = drawn(node("Append", *(scan(f"part_{n}") for n in range(400))))
    assert len(lines) == NODES_SHOWN_MAX + 1
    assert lines[-1] == "… and 389 more nodes"


@pytest.mark.parametrize(
    ("plan", "rows", "said", "asks"),
    [
        (scan(has_filter=True), 2e6, "reads all 2,000,000 rows of public.orders to find", True),
        (scan(), 2e6, "no index helps", False),
        (scan(has_filter=True), 9_999, "Nothing stands out", False),
        (node("Sort", rows=1e5), 0, "sorts about 100,000 rows", True),
        (node("Nested Loop", scan(rows=1e5), scan("x")), 0, "nested loop", False),
        (node("Index Scan", schema="public", relation="orders"), 2e6, "Nothing stands out", False),
    ],
)
def test_what_stands_out(plan: PlanNode, rows: float, said: str, asks: object) -> None:
    remark = stands_out(plan, {("public", "orders"): rows})
    assert said in remark.text
    assert remark.asks_for_index is asks


def test_a_search_through_a_table_comes_before_a_larger_one_that_is_read_whole() -> None:
    both = node("Hash Join", scan("big"), scan("orders", has_filter=True))
    rows = {("public", "big"): 9e6, ("public", "orders"): 2e4}
    assert "public.orders" in stands_out(both, rows).text
