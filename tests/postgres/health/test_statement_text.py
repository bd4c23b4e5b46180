"""What may be shown of a statement, and what can be planned."""

from __future__ import annotations

import pytest

from postgres.health.statement_text import (
    StatementKind,
    UnreadableError,
    as_select,
    is_query,
    kind_of,
    parsed,
    shown,
)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (
            "select *\n from t where email = 'ana@acme.example' and n > 12.5 -- me\n /* u=1 */",
            "select * from t where email = ? and n > ?",
        ),
        ("SELECT a::text, count(*)/**/FROM s.t\n WHERE b IN ($1,$2)",
         "SELECT a::text, count(*) FROM s.t WHERE b IN ($1,$2)"),
        ("select $q$ secret $q$, E'a\\n', U&'x', x'ff', b'1'", "select ?, ?, ?, ?, ?"),
        ("ALTER ROLE app PASSWORD 'hunter2'", "ALTER ROLE"),
        ("create user mapping for ana server s options (password 'hunter2')", "CREATE USER"),
        ("COPY t FROM PROGRAM 'curl -u me:hunter2'", "COPY"),
        ("VACUUM (ANALYZE) orders", "VACUUM"),
        ("BEGIN; update t set a = 'x'; alter role r password 'hunter2';",
         "BEGIN; update t set a = ?; ALTER ROLE"),
        ("CREATE INDEX CONCURRENTLY x ON t (a)", "CREATE INDEX CONCURRENTLY"),
        ("hunter2 is no SQL", "(utility statement)"),
        ("update t set a = 'half of a sec", "update t set a ="),
        ("select 1 /* cut in a comm", "select ?"),
        ('select * from "half of a na', "select * from"),
        ("'hunter2", "(nothing that can be shown)"),
        ("select é, 'geheim', ü from t", "select é, ?, ü from t"),
        ("select é, 'gehe", "select é,"),
        ("", ""),
    ],
)  # fmt: skip
def test_what_is_shown_has_no_literal_and_no_name_of_a_utility_statement(
    text: str, seen: str
) -> None:
    assert shown(text) == seen


def test_long_statements_are_shortened() -> None:
    line = shown("select " + ", ".join(f"column_{n}" for n in range(500)), chars_max=60)
    assert len(line) <= 60
    assert line.endswith("…")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("select 1", StatementKind.SELECT),
        ("with x as (select 1) select * from x;", StatementKind.SELECT),
        ("values (1)", StatementKind.SELECT),
        ("select 1 into made", StatementKind.UTILITY),
        ("insert into t values ($1)", StatementKind.INSERT),
        ("update t set a = $1", StatementKind.UPDATE),
        ("delete from t", StatementKind.DELETE),
        ("merge into t using s on t.a = s.a when matched then delete", StatementKind.MERGE),
        ("create table x ()", StatementKind.UTILITY),
        ("explain analyze delete from t", StatementKind.UTILITY),
        ("alter role x password 'y'", StatementKind.UTILITY),
    ],
)
def test_kinds(text: str, kind: StatementKind) -> None:
    assert kind_of(parsed(text)[1]) is kind
    assert is_query(text) or kind is StatementKind.UTILITY


@pytest.mark.parametrize(
    ("text", "planned"),
    [
        ("select now() - interval $1", "select now() - $1::interval"),
        ("select interval $1 day to second", "select $1::interval day to second"),
        ("select interval(3) $1, timestamp(3) $2", "select $1::interval(3), $2::timestamp(3)"),
        ("select time with time zone $1", "select $1::time with time zone"),
        ("select date $1, numeric(5,2) $2", "select $1::date, $2::numeric(5,2)"),
        ("select EXTRACT($1 FROM a) from t", "select date_part($1::text, a) from t"),
        ("select a from t limit $1 offset $2", "select a from t limit $1 offset $2"),
    ],
)
def test_constants_that_were_replaced_inside_of_a_type_become_casts(
    text: str, planned: str
) -> None:
    assert parsed(text)[0] == planned


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("select 1; drop table t", "several statements"),
        ("select * from t where a = 'cut", "cut off"),
        ("", "empty"),
        ("select " + "1," * 20_000 + "1", "longer than 20,000"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        parsed(text)


@pytest.mark.parametrize(
    ("text", "select"),
    [
        ("update t set a = $1 where b = $2", "SELECT 1 FROM t WHERE b = $1"),
        ("update only t x set a = $1 from s where s.b = x.b and s.c = $3 and x.d = $2",
         "SELECT 1 FROM ONLY t AS x, s WHERE s.b = x.b AND s.c = $2 AND x.d = $1"),
        ("delete from t using s where s.a = t.a and s.b = $1",
         "SELECT 1 FROM t, s WHERE s.a = t.a AND s.b = $1"),
        ("delete from t", "SELECT 1 FROM t"),
        ("delete from t where current of c", None),
        ("with s as (select 1) delete from t using s", None),
        ("insert into t values ($1)", None),
    ],
)  # fmt: skip
def test_the_rows_that_a_write_finds_can_be_selected(text: str, select: str | None) -> None:
    assert as_select(parsed(text)[1]) == select
