"""Facts of a made-up database, and short ways to ask for a review of it."""

from __future__ import annotations

from postgres.migrate.review.facts import (
    Column,
    Facts,
    FunctionFacts,
    TableConstraint,
    TableFacts,
    TypeFacts,
)
from postgres.migrate.review.reviewer import judge_file
from postgres.migrate.words import Review, ReviewedStatement

GB = 1_000_000_000


def _columns(*columns: Column) -> dict[str, Column]:
    return {column.name: column for column in columns}


ACC = TableFacts(
    name="public.acc",
    size_bytes=2 * GB,
    rows=5_000_000,
    columns=_columns(
        Column(name="id", type_name="int8", is_not_null=True),
        Column(name="email", type_name="varchar", typmod=54),
        Column(name="tenant_id", type_name="int4"),
        Column(name="price", type_name="numeric", typmod=(12 << 16 | 2) + 4),
        Column(name="bio", type_name="text"),
        Column(name="sure", type_name="int4"),
    ),
    constraints=(
        TableConstraint(
            name="acc_tenant", kind="f", columns=("tenant_id",), references="public.tenants"
        ),
        TableConstraint(name="acc_sure", kind="c", columns=("sure",), not_null="sure"),
        TableConstraint(
            name="acc_later", kind="c", columns=("bio",), not_null="bio", is_valid=False
        ),
    ),
    referenced_by=("public.orders",),
    index_columns={"acc_pkey": ("id",), "acc_email": ("email",)},
)
TENANTS = TableFacts(name="public.tenants", size_bytes=8192, rows=40, triggers=("noting",))
ORDERS = TableFacts(name="public.orders", size_bytes=GB, rows=2_000_000)
FACTS = Facts(
    tables={each.name: each for each in (ACC, TENANTS, ORDERS)},
    indexes={"public.acc_pkey": "public.acc", "public.acc_email": "public.acc"},
    functions={
        "lower": FunctionFacts(name="lower", catalog="i"),
        "length": FunctionFacts(name="length", catalog="i"),
        "now": FunctionFacts(name="now", catalog="s"),
        "count": FunctionFacts(name="count", catalog="i"),
        "pg_read_file": FunctionFacts(name="pg_read_file", catalog="v"),
        "gen_random_uuid": FunctionFacts(
            name="gen_random_uuid", catalog="v", extensions=frozenset({"pgcrypto"})
        ),
        "uuid_generate_v4": FunctionFacts(
            name="uuid_generate_v4", extensions=frozenset({"uuid-ossp"})
        ),
        "dblink_exec": FunctionFacts(name="dblink_exec", extensions=frozenset({"dblink"})),
        "tidy": FunctionFacts(name="tidy", is_made_by_people=True),
        "max": FunctionFacts(name="max", catalog="i", is_made_by_people=True),
        "setval": FunctionFacts(name="setval", catalog="v"),
    },
    types={name: TypeFacts(name=name) for name in ("text", "timestamptz", "uuid", "date")},
    is_read=True,
)


def judged(sql: str, *, says: bool | None = None, facts: Facts = FACTS) -> Review:
    """The review of a file, squawk aside."""
    return judge_file(sql, facts, major=17, name="0001_x.sql", says=says)


def one(sql: str) -> ReviewedStatement:
    """The review of a file's only statement."""
    (statement,) = judged(sql).statements
    return statement


def last(sql: str) -> ReviewedStatement:
    """The review of a file's last statement."""
    return judged(sql).statements[-1]


def rules(sql: str, *, says: bool | None = None) -> set[str]:
    """The rules of every finding in a file, notes about tables that are not there aside."""
    return {each.rule for each in judged(sql, says=says).all_findings} - {"unknown-table"}
