"""Definitions compared: what is missing, what nobody declared, what is otherwise."""

from __future__ import annotations

import pytest

from postgres.schema.drift import Drift, DriftKind, Scope, compare, definition_of

ORDERS = (
    "class public.orders r p f f",
    "column public.orders id integer NOT NULL",
    'constraint public.orders - "orders_pkey" PRIMARY KEY (id)',
)


def differences(
    declared: tuple[str, ...], actual: tuple[str, ...], scope: Scope = Scope.ALL
) -> list[tuple[str, str, str]]:
    return [(each.kind, each.what, each.name) for each in compare(declared, actual, scope=scope)]


def test_the_same_definitions_have_no_drift() -> None:
    assert differences(ORDERS, tuple(reversed(ORDERS))) == []


def test_a_column_of_another_type_shows_both_sides() -> None:
    other = "column public.orders id bigint NOT NULL"
    assert compare(ORDERS, (ORDERS[0], other, ORDERS[2]), scope=Scope.ALL) == (
        Drift(
            kind=DriftKind.DIFFERENT,
            what="column",
            name="public.orders: id",
            declared="integer NOT NULL",
            actual="bigint NOT NULL",
        ),
    )


def test_of_a_table_that_is_missing_its_columns_go_without_saying() -> None:
    index = "index public.by_id t f CREATE INDEX by_id ON public.orders USING btree (id)"
    assert differences((*ORDERS, index), ()) == [("missing", "class", "public.orders")]
    assert differences((), (*ORDERS, index)) == [("not declared", "class", "public.orders")]


def test_a_column_that_nobody_declared_is_found() -> None:
    there = (*ORDERS, "column public.orders note text")
    assert differences(ORDERS, there) == [("not declared", "column", "public.orders: note")]


AUDITED = (
    "trigger CREATE TRIGGER t AFTER INSERT ON public.x FOR EACH ROW EXECUTE FUNCTION"
    " twokey_audit.record_row_change() A"
)


@pytest.mark.parametrize(
    "line",
    [
        "class public.alembic_version r p f f",
        "column public._prisma_migrations id character varying(36) NOT NULL",
        "schema twokey_audit",
        "constraint public.alembic_version - alembic_version_pkc PRIMARY KEY (version_num)",
        AUDITED,
    ],
)
def test_what_tools_keep_for_themselves_is_no_drift(line: str) -> None:
    found = differences(ORDERS, (*ORDERS, line))
    assert found == []


def test_a_declaration_of_tables_says_nothing_about_views_and_functions() -> None:
    there = (
        *ORDERS,
        "class public.v v p f f",
        "column public.v id integer",
        "view public.v SELECT 1",
        "function f CREATE OR REPLACE FUNCTION public.f()\n RETURNS int",
        "extension citext 1.6 in public",
    )
    assert differences(ORDERS, there, Scope.TABLES) == []
    assert [what for _, what, _ in differences(ORDERS, there)] == ["class", "extension", "function"]


def test_another_version_of_an_extension_is_no_drift() -> None:
    assert (
        differences(("extension citext 1.5 in public",), ("extension citext 1.6 in public",)) == []
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('column public."Users" "e mail" text', 'public."Users": "e mail"'),
        ("constraint - public.dd dd_check CHECK ((VALUE <> ''::text))", "public.dd: dd_check"),
        ("trigger CREATE TRIGGER t BEFORE INSERT ON public.x FOR EACH ROW EXECUTE FUNCTION f() O",
         "public.x: t"),
        ("rule public.x CREATE RULE r AS\n    ON DELETE TO public.x DO INSTEAD NOTHING; O",
         "public.x: r"),
        ("function f CREATE OR REPLACE FUNCTION public.f(a integer DEFAULT f(1), b text)\n RETURNS",
         "public.f(a integer DEFAULT f(1), b text)"),
        ("type public.mood e 'a','b'", "public.mood"),
    ],
)  # fmt: skip
def test_a_line_is_known_by_its_name(line: str, said: str) -> None:
    assert definition_of(line).said == said


def test_a_trigger_that_fires_at_another_time_is_another() -> None:
    before = (
        "trigger CREATE TRIGGER t BEFORE INSERT ON public.x FOR EACH ROW EXECUTE FUNCTION f() O"
    )
    assert differences((before,), (before.replace("BEFORE", "AFTER"),)) == [
        ("different", "trigger", "public.x: t")
    ]


def test_a_line_of_a_shape_that_nobody_knows_is_compared_whole() -> None:
    assert sorted(differences(("wonder of the world",), ("wonder of the sea",))) == [
        ("missing", "wonder", "of the world"),
        ("not declared", "wonder", "of the sea"),
    ]
