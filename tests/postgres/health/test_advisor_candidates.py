"""Which indexes a statement may want, and what remains of all that pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from postgres.health.advisor_candidates import (
    Candidate,
    Choice,
    Gain,
    Proposal,
    candidates,
    choose,
    guess,
    merged,
    why_none,
)
from postgres.health.advisor_catalog import AdvisedTable, Catalog, TableColumn
from postgres.health.advisor_probe import choose_value
from postgres.health.advisor_statements import Statement, Use, read_wants
from postgres.health.index_terms import plain_terms, written
from postgres.health.statement_text import UnreadableError

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
STATEMENT = Statement(queryid=1, text="SELECT 1", calls=10, total_ms=1000, rows=100, since=NOW)


def column(name: str, distinct: float | None = 5000, *, has_btree: bool = True) -> TableColumn:
    return TableColumn(name=name, cast_to="pg_catalog.text", distinct=distinct, has_btree=has_btree)


ORDERS = AdvisedTable(
    oid=1, schema="public", name="orders", kind="r", rows=100_000, is_visible=True, may_read=True,
    writes=100, updates=10, hot_updates=5,
    columns=MappingProxyType({
        each.name: each
        for each in (
            column("id", 100_000), column("customer_id"), column("product_id", 2000),
            column("created_at", 90_000), column("status", 3), column("email"),
            column("data", has_btree=False),
        )
    }),
    indexed=(("id",),),
)  # fmt: skip
CUSTOMERS = replace(
    ORDERS, oid=2, name="customers", rows=50_000,
    columns=MappingProxyType({"id": column("id", 50_000), "email": column("email", 50_000)}),
)  # fmt: skip
CATALOG = Catalog(tables=(ORDERS, CUSTOMERS), since=NOW, now=NOW, own_functions=frozenset())


def wanted(sql: str, catalog: Catalog = CATALOG, rows_min: float = 10_000) -> list[str]:
    """The columns of all candidates, with * where they need a probe."""
    found = candidates(read_wants(sql), catalog, rows_min=rows_min)
    return [
        f"{each.table.name}: {written(each.terms)['columns']}{'*' * each.needs_probe}"
        for each in found
    ]


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT * FROM orders WHERE customer_id = $1", ["orders: customer_id"]),
        ("SELECT * FROM orders WHERE $1 = customer_id", ["orders: customer_id"]),
        ("SELECT * FROM orders WHERE customer_id = ANY ($1)", ["orders: customer_id"]),
        ("SELECT * FROM orders WHERE customer_id IN ($1, $2)", ["orders: customer_id"]),
        ("SELECT * FROM orders WHERE created_at BETWEEN $1 AND $2", ["orders: created_at"]),
        ("SELECT * FROM orders WHERE created_at > now() - interval $1", ["orders: created_at"]),
        ("SELECT * FROM orders ORDER BY created_at DESC LIMIT $1", ["orders: created_at"]),
        ("SELECT * FROM orders WHERE lower(email) = $1", ["orders: lower(email)"]),
        ("SELECT * FROM orders WHERE status = $1", ["orders: status*"]),
        ("SELECT * FROM orders WHERE id = $1", []),
        ("SELECT * FROM orders WHERE email LIKE $1", []),
        ("SELECT * FROM orders WHERE data = $1", []),
        ("DELETE FROM orders WHERE customer_id = $1", ["orders: customer_id"]),
        (
            "SELECT * FROM orders o JOIN customers c ON o.customer_id = c.id WHERE c.email = $1",
            ["orders: customer_id", "customers: email"],
        ),
        (
            "SELECT * FROM orders WHERE customer_id = $1 AND created_at > $2",
            ["orders: customer_id", "orders: created_at", "orders: customer_id, created_at"],
        ),
        (
            "WITH o AS (SELECT * FROM orders WHERE product_id = $1) SELECT * FROM o WHERE id = 1",
            ["orders: product_id"],
        ),
    ],
)
def test_what_a_statement_compares_becomes_a_candidate(sql: str, columns: list[str]) -> None:
    assert sorted(wanted(sql)) == sorted(columns)


def test_two_columns_are_tried_in_the_order_of_how_selective_they_are() -> None:
    sql = "SELECT * FROM orders WHERE status = $1 AND customer_id = $2"
    assert wanted(sql) == ["orders: customer_id", "orders: status*", "orders: customer_id, status"]


@pytest.mark.parametrize(
    ("catalog", "why"),
    [
        (replace(CATALOG, tables=(replace(ORDERS, rows=500),)), "small"),
        (replace(CATALOG, tables=(replace(ORDERS, rows=-1),)), "never analyzed"),
        (replace(CATALOG, tables=(replace(ORDERS, kind="v"),)), "view"),
        (replace(CATALOG, tables=(replace(ORDERS, kind="p"),)), "partitions"),
        (replace(CATALOG, tables=(replace(ORDERS, indexed=(("customer_id", "id"),)),)), "indexes"),
    ],
)
def test_why_there_is_nothing_to_try_is_said(catalog: Catalog, why: str) -> None:
    sql = "SELECT * FROM orders WHERE customer_id = $1"
    assert wanted(sql, catalog) == []
    assert why in why_none(read_wants(sql), catalog, rows_min=10_000)


@pytest.mark.parametrize("sql", ["INSERT INTO orders VALUES (1)", "VACUUM orders", "SELECT 1 +"])
def test_what_no_index_would_help_is_not_read(sql: str) -> None:
    with pytest.raises(UnreadableError):
        read_wants(sql)


def choice(columns: Sequence[str], after: float, before: float = 1000) -> Choice:
    made = Candidate(table=ORDERS, terms=plain_terms(columns), columns=tuple(columns))
    return Choice(candidate=made, cost_before=before, cost_after=after, size_bytes=1)


def test_the_narrowest_of_those_that_are_about_as_good_is_chosen() -> None:
    narrow, wide = choice(["customer_id"], 25), choice(["customer_id", "status"], 9)
    assert choose([wide, narrow]) == narrow
    much_better = choice(["customer_id", "created_at"], 9, before=100_000)
    assert choose([much_better, choice(["customer_id"], 9000, before=100_000)]) == much_better
    assert choose([]) is None


def proposal(columns: Sequence[str], saved_ms: float, size: int | None = 10) -> Proposal:
    gain = Gain(statement=STATEMENT, cost_before=9, cost_after=1, saved_ms=saved_ms)
    return Proposal(
        table=ORDERS, terms=plain_terms(columns), columns=tuple(columns), size_bytes=size,
        gains=(gain,),
    )  # fmt: skip


def test_a_narrow_proposal_goes_into_a_wider_one_that_begins_with_it() -> None:
    found = merged([
        proposal(["a"], 5), proposal(["b"], 50), proposal(["a", "c"], 7), proposal(["b"], 1),
    ])  # fmt: skip
    assert [(each.columns, each.saved_ms, len(each.gains)) for each in found] == [
        (("b",), 51, 2),
        (("a", "c"), 12, 2),
    ]


def test_without_a_planner_one_equal_column_of_a_table_that_is_read_whole_is_guessed() -> None:
    wants = read_wants("SELECT * FROM orders WHERE customer_id = $1 ORDER BY created_at")
    found = candidates(wants, CATALOG, rows_min=10_000)
    guessed = guess(found, [("public", "orders")], STATEMENT, wants)
    assert guessed is not None
    assert (guessed.columns, guessed.use) == (("customer_id",), Use.EQUAL)
    assert guess(found, [], STATEMENT, wants) is None
    many = replace(STATEMENT, rows=10 * 6000)
    assert guess(found, [("public", "orders")], many, wants) is None


STATUS = {"common": ["done", "stuck"], "frequencies": [0.995, 0.005], "bounds": None}
DATES = {"common": None, "frequencies": None, "bounds": [str(n) for n in range(101)]}


def test_a_probe_takes_the_value_whose_frequency_fits_the_rows_that_were_counted() -> None:
    wants = read_wants("SELECT * FROM orders WHERE status = $1")
    rare = replace(STATEMENT, rows=10 * 500)
    value = choose_value("=", STATUS, rare, wants, ORDERS)
    assert value is not None
    assert value.text == "stuck"
    assert value.hint == "a value that 0.50% of the rows have; 500 rows a call were counted"
    often = replace(STATEMENT, rows=10 * 99_000)
    assert choose_value("=", STATUS, often, wants, ORDERS) is None


def test_rows_say_nothing_of_a_value_where_they_are_counted_or_cut() -> None:
    for sql in (
        "SELECT count(*) FROM orders WHERE status = $1",
        "SELECT * FROM orders WHERE status = $1 LIMIT $2",
        "SELECT status FROM orders WHERE status = $1 GROUP BY status",
    ):
        assert choose_value("=", STATUS, STATEMENT, read_wants(sql), ORDERS) is None


def test_a_range_is_probed_at_its_end_unless_most_rows_were_asked_for() -> None:
    wants = read_wants("SELECT * FROM orders WHERE created_at > $1")
    few, many = replace(STATEMENT, rows=100), replace(STATEMENT, rows=10 * 50_000)
    newest = choose_value(">", DATES, few, wants, ORDERS)
    oldest = choose_value("<", DATES, few, wants, ORDERS)
    assert (newest and newest.text, oldest and oldest.text) == ("99", "1")
    assert choose_value(">", DATES, many, wants, ORDERS) is None
