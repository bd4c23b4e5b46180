"""Descriptions of indexes: what is understood, and what never gets into a statement."""

from __future__ import annotations

import pytest

from postgres.health.index_nodes import TermsError
from postgres.health.index_terms import (
    NAME_BYTES_MAX,
    create_template,
    index_name,
    plain_terms,
    read_terms,
    terms_of,
    written,
)


@pytest.mark.parametrize(
    ("columns", "where", "include", "template", "args"),
    [
        ("customer_id", "", "", "USING btree (%I)", ("customer_id",)),
        ("a, b DESC NULLS LAST", "", "", "USING btree (%I, %I DESC NULLS LAST)", ("a", "b")),
        ("lower(email)", "", "", "USING btree (%I(%I))", ("lower", "email")),
        ('"Odd ""name"', "", "", "USING btree (%I)", ('Odd "name',)),
        ("a", "", "b, c", "USING btree (%I) INCLUDE (%I, %I)", ("a", "b", "c")),
        ("a", "b IS NULL", "", "USING btree (%I) WHERE (%I IS NULL)", ("a", "b")),
        ("a", "b = 'it''s'", "", "USING btree (%I) WHERE (%I = %L)", ("a", "b", "it's")),
        ("a", "b % 2 = 0", "", "USING btree (%I) WHERE ((%I %% 2) = 0)", ("a", "b")),
        ("a text_pattern_ops", "", "", "USING btree (%I %I)", ("a", "text_pattern_ops")),
    ],
)
def test_what_people_write_becomes_a_template_that_the_server_fills(
    columns: str, where: str, include: str, template: str, args: tuple[str, ...]
) -> None:
    body = read_terms(columns, where=where, include=include).body()
    assert (body.template, body.args) == (template, args)


@pytest.mark.parametrize(
    ("columns", "where", "include"),
    [
        ("a) WHERE (b = 1", "", ""),
        ("a); DROP TABLE orders; --", "", ""),
        ("a) TABLESPACE pg_default --", "", ""),
        ("a) INCLUDE (b", "", ""),
        ("a) WITH (fillfactor = 10", "", ""),
        ("", "", ""),
        ("a b c d", "", ""),
        ("(SELECT 1)", "", ""),
        ("evil.f(a)", "", ""),
        ("count(*)", "", ""),
        ("a, " * 20 + "a", "", ""),
        ("lower(" * 12 + "a" + ")" * 12, "", ""),
        ("a", "EXISTS (SELECT FROM secrets)", ""),
        ("a", "b = 1; DROP TABLE orders", ""),
        ("a", "b = current_user", ""),
        ("a", "true) --", ""),
        ("a", "", "lower(b)"),
        ("a", "", "b) WHERE (c = 1"),
        ("a", "x" * 2000, ""),
        ("orders.a", "", ""),
    ],
)
def test_anything_else_is_refused(columns: str, where: str, include: str) -> None:
    with pytest.raises(TermsError) as refused:
        read_terms(columns, where=where, include=include)
    assert refused.value.next_step


@pytest.mark.parametrize(
    ("asked", "where", "definition"),
    [
        ("lower(email)", "", "btree (lower((email)::text))"),
        ("a ASC NULLS LAST", "", "btree (a)"),
        ("a DESC NULLS FIRST", "", "btree (a DESC)"),
        ("a", "s IN ('x', 'y')", "btree (a) WHERE (s = ANY (ARRAY['x'::text, 'y'::text]))"),
        ("a", "s = 'x' AND b > 1", "btree (a) WHERE (((s)::text = 'x'::text) AND (b > 1))"),
    ],
)
def test_an_index_is_known_again_as_the_server_writes_it(
    asked: str, where: str, definition: str
) -> None:
    there = terms_of(f"CREATE INDEX i ON public.t USING {definition}")
    assert read_terms(asked, where=where).canonical == there.canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [("a, b", "b, a"), ("a", "a DESC"), ("lower(a)", "upper(a)"), ("a", "a text_pattern_ops")],
)
def test_other_indexes_are_told_apart(one: str, other: str) -> None:
    assert read_terms(one).canonical != read_terms(other).canonical
    assert read_terms(one, unique=True).canonical != read_terms(one).canonical


@pytest.mark.parametrize(
    "definition",
    [
        "btree (a, lower((b)::text) DESC NULLS LAST) INCLUDE (c) WHERE (d IS NOT NULL)",
        'btree ("Select", "has ""quotes""")',
        "gin (tags)",
        "btree (((data ->> 'k'::text))) WHERE ((n % 2) = 0)",
    ],
)
def test_what_is_written_down_is_read_as_the_same_again(definition: str) -> None:
    terms = terms_of(f"CREATE INDEX i ON public.t USING {definition}")
    text = written(terms)
    again = read_terms(
        text["columns"], where=text["where"], include=text["include"], method=terms.method
    )
    assert again.canonical == terms.canonical


@pytest.mark.parametrize(
    "definition",
    ["btree (a) WITH (fillfactor='70')", "btree (public.own(a))", "btree (a) TABLESPACE fast"],
)
def test_what_cannot_be_asked_for_is_not_called_the_same(definition: str) -> None:
    with pytest.raises(TermsError):
        terms_of(f"CREATE INDEX i ON public.t USING {definition}")


def test_a_name_fits_and_is_the_same_for_the_same_index_only() -> None:
    name = index_name("public", "täble" * 20, plain_terms(["customer_id"]))
    assert len(name.encode()) <= NAME_BYTES_MAX
    assert name == index_name("public", "täble" * 20, plain_terms(["customer_id"]))
    assert name != index_name("public", "täble" * 20, plain_terms(["other"]))
    assert index_name("public", "orders", plain_terms(["a", "b"])).startswith("orders_a_b_tk")


def test_an_operator_class_of_an_extension_is_named_with_its_schema() -> None:
    terms = read_terms("a gin_trgm_ops", method="gin")
    made = create_template("public", "t", "i", terms, {"gin_trgm_ops": ("ext", "gin_trgm_ops")})
    assert made.template == "CREATE INDEX CONCURRENTLY %I ON %I.%I USING gin (%I %I.%I)"
    assert made.args == ("i", "public", "t", "a", "ext", "gin_trgm_ops")
