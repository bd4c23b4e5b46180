"""What people type for a backfill: what passes, what is refused, and that nothing escapes."""

from __future__ import annotations

from typing import Any

import pglast
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postgres.migrate.backfill_nodes import TermsError
from postgres.migrate.backfill_terms import TEXT_CHARS_MAX, Terms, Written, read_terms, written

USERS = frozenset({"users"})


def read(set_text: str, where: str = "") -> Terms:
    return read_terms(set_text, where, table=USERS)


def write(set_text: str, where: str = "") -> Written:
    return written(read(set_text, where))


@pytest.mark.parametrize(
    ("set_text", "where", "assignments", "condition"),
    [
        ("a=split_part(name,' ',1)", "", "a = split_part(name, ' ', 1)", ""),
        ("a = b", "users.a IS NULL", "a = b", "a IS NULL"),
        ('"We Ird" = users."A"', "", '"We Ird" = "A"', ""),
        ("a = default, b = NULL", "", "a = DEFAULT, b = NULL", ""),
        ("a = x::int", "y::text = ''", "a = CAST(x AS integer)", "CAST(y AS text) = ''"),
        ("a = trim(b)", "", "a = pg_catalog.btrim(b)", ""),
        ("a = (b->>'c')::numeric(10,2)", "", "a = CAST(b ->> 'c' AS numeric(10, 2))", ""),
        ("a = current_date", "a in (1,2) and not b", "a = CURRENT_DATE", "a IN (1, 2) AND NOT b"),
        ("a = b operator(public.=) c", "", "a = b OPERATOR(public.=) c", ""),
        ("a = E'it''s; --' || $$ ; $$", "", "a = 'it''s; --' || ' ; '", ""),
        ("a = n + 1", "n between 1 and 2", "a = n + 1", "n BETWEEN 1 AND 2"),
        ("a = case when b > 0 then c[1] end", "", "a = CASE WHEN b > 0 THEN (c)[1] END", ""),
    ],
)
def test_what_is_run_is_written_anew(
    set_text: str, where: str, assignments: str, condition: str
) -> None:
    assert write(set_text, where) == Written(assignments=assignments, where=condition)


@pytest.mark.parametrize(
    ("set_text", "where", "problem"),
    [
        ("", "", "does not read"),
        ("a", "", "does not read"),
        ("a = 1; DROP TABLE users", "", "does not read"),
        ("a = 1", "true; DROP TABLE users", "does not read"),
        ("a = 1", "true) OR (true", "does not read"),
        ("a = 1", "DEFAULT", "does not read"),
        ("a = 1 WHERE true", "", "condition stands in the assignments"),
        ("a = 1 FROM other", "", "no FROM"),
        ("a = 1 RETURNING *", "", "no RETURNING"),
        ("a = 1", "true RETURNING *", "no RETURNING"),
        ("a = 1 -- all", "", "a comment"),
        ("a = 1", "b /* c */ IS NULL", "a comment"),
        ("a = (SELECT 1)", "", "a sub-select"),
        ("a = 1", "EXISTS (SELECT FROM other)", "a sub-select"),
        ("a = ARRAY(SELECT 1)", "", "a sub-select"),
        ("(a, b) = (1, 2)", "", "several columns"),
        ("a[1] = 2", "", "A part of a column"),
        ("a.b = 2", "", "A part of a column"),
        ("a = 1, a = 2", "", "a is set twice"),
        ("a = $1", "", "a parameter"),
        ("a = 1", "CURRENT OF c", "CURRENT OF"),
        ("a = other.b", "", "no column of this table"),
        ("a = users.*", "", "no name"),
        ("a = x.y.z", "", "no name"),
        ("a = (b).c", "", "A field of a value"),
        ("a = count(*)", "", "aggregate"),
        ("a = row_number() OVER ()", "", "aggregate or over a window"),
        ("a = array_agg(b ORDER BY c)", "", "aggregate"),
        ("a = xmlelement(name b)", "", "XmlExpr"),
        ("a = CAST(b AS SETOF int)", "", "SETOF"),
        ("a = " + "NOT " * 60 + "b", "", "nested"),
        ("a = '" + "x" * TEXT_CHARS_MAX + "'", "", "characters"),
        ("a = '\ud800'", "", "does not read"),
        ("a = '\x00'", "", "does not read"),
    ],
)
def test_what_is_refused(set_text: str, where: str, problem: str) -> None:
    with pytest.raises(TermsError, match=problem) as refused:
        read(set_text, where)
    assert refused.value.next_step


@pytest.mark.parametrize("printed", ["2", "b; DROP TABLE users", "a = 1", "lower(b)", ""])
def test_what_was_written_anew_must_mean_the_same(
    monkeypatch: pytest.MonkeyPatch, printed: str
) -> None:
    terms = read("a = public.lower(b)")
    monkeypatch.setattr("pglast.stream.RawStream.__call__", lambda *_: printed)
    with pytest.raises(TermsError, match="written anew"):
        written(terms)


@pytest.mark.parametrize(
    ("set_text", "where", "fills"),
    [
        ("a = 1", "a IS NULL", True),
        ("a = 1", "b > 1 AND (users.a IS NULL AND c)", True),
        ("a = 1, b = 2", "a IS NULL AND b IS NULL", True),
        ("a = 1, b = 2", "a IS NULL", False),
        ("a = 1", "a IS NULL OR b", False),
        ("a = 1", "NOT (a IS NULL)", False),
        ("a = 1", "a IS NOT NULL", False),
        ("a = 1", "(a + 1) IS NULL", False),
        ("a = 1", "(a IS NULL) IS NOT TRUE", False),
        ("a = 1", "", False),
    ],
)
def test_only_a_condition_that_says_so_proves_that_nothing_is_overwritten(
    *, set_text: str, where: str, fills: bool
) -> None:
    assert read(set_text, where).fills_null is fills


@pytest.mark.parametrize(
    ("where", "drifts"),
    [
        ("b < now()", True),
        ("b < current_date", True),
        ("random() < 0.5", True),
        ("b < '2026-11-01'", False),
        ("c = current_user", False),
    ],
)
def test_a_condition_that_changes_by_itself_is_known(*, where: str, drifts: bool) -> None:
    assert read("a = now()", where).is_drifting is drifts


def test_everything_that_is_named_is_known() -> None:
    terms = read(
        'a = public.f(x, 1) || now()::public.mood, b = y COLLATE "C"',
        "z OPERATOR(public.~~) 'a' AND q BETWEEN 1 AND 2 AND r LIKE E'\\\\'",
    )
    assert terms.assigned == ("a", "b")
    assert terms.columns == {"x", "y", "z", "q", "r"}
    assert {(each.text, each.args) for each in terms.functions} == {("public.f", 2), ("now", 0)}
    assert terms.types == {("public", "mood")}
    assert terms.operators == {
        ("||",), ("public", "~~"), ("<",), ("<=",), (">",), (">=",), ("~~",)
    }  # fmt: skip
    assert terms.collations == {("C",)}
    assert terms.has_backslash


def test_what_the_catalog_says_is_what_is_called() -> None:
    terms = read("a = f(x)::mood", "g(y)")
    made = written(
        terms,
        functions={("f",): ("public", "f"), ("g",): ("Odd Schema", "g")},
        types={("mood",): ("public", "mood")},
    )
    assert made.assignments == "a = CAST(public.f(x) AS public.mood)"
    assert made.where == '"Odd Schema".g(y)'


PIECES = st.sampled_from(
    [
        "a", "b", "users.a", '"x;y"', "1", "'s'", "E'\\''", "$$q$$", "NULL", "f(", ")", "(", "[1]",
        "::int", "::mood", " AND ", " OR ", " = ", "<>", "||", ",", ";", "--", "/*", "*/", "'", '"',
        "$1", "$x$", " WHERE ", " RETURNING *", " FROM t", "SELECT ", " UNION ", "DROP TABLE t",
        " IS NULL", " IN (", "CASE WHEN ", " THEN ", " END", "\n", "\\", "%", "%I", "{}", "\x00",
        "é", "\u2028", "U&'\\0027'", "operator(pg_catalog.+)", ' COLLATE "C"', "now()", "- ",
    ]
)  # fmt: skip
TEXTS = st.one_of(st.lists(PIECES, max_size=8).map("".join), st.text(max_size=30))


@settings(max_examples=400, deadline=None)
@given(value=TEXTS, where=TEXTS)
@example(value="E'\\'' || $$;$$", where='"x;y" IS NULL')
@example(value="U&'\\0027'", where="")
def test_nothing_that_is_typed_gets_out_of_its_place(value: str, where: str) -> None:
    try:
        made = write(f"a = {value}", where)
    except TermsError:
        return
    # As the engine puts it together: text of ours before, between, and behind.
    sql = f"UPDATE public.users SET {made.assignments}\n WHERE id > $1::text::int AND id <= 2"
    sql += f" AND ({made.where}\n)" if made.where else ""
    (parsed,) = pglast.parse_sql(sql)
    statement: Any = parsed.stmt
    assert type(statement).__name__ == "UpdateStmt"
    assert not any((statement.fromClause, statement.returningClause, statement.withClause))
    assert statement.targetList[0].name == "a"
    # `id > … AND id <= …` come first, and the whole condition is one part beside them.
    args = statement.whereClause.args
    assert [part.lexpr.fields[0].sval for part in args[:2]] == ["id", "id"]
    assert len(args) == 2 + bool(made.where)
    # Once more through the same door it stays as it is.
    assert write(made.assignments, made.where) == made
