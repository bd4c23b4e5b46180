"""What a file says, and what is said of a file that says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from postgres.errors import PostgresError
from postgres.migrate.changes.expressions import ExpressionError, read_expression
from postgres.migrate.changes.model import EXAMPLES, ChangeError
from postgres.migrate.changes.words import ChangeKind, ExpandContract, ShadowColumn
from tests.postgres.migrate.changes.examples import EMAIL, NAMES, TENANT, change_of


def test_the_guides_names_are_read() -> None:
    change = change_of(NAMES)
    assert change.kind is ChangeKind.EXPAND_CONTRACT
    assert (change.schema, change.table) == ("public", "User")
    what = change.what
    assert isinstance(what, ExpandContract)
    assert [column.name for column in what.columns] == ["firstName", "lastName"]
    assert what.forward["firstName"].text == "split_part(name, ' ', 1)"
    assert what.reverse["name"].text == 'concat("firstName", \' \', "lastName")'
    assert what.indexes[0].create == (
        'CREATE INDEX CONCURRENTLY "User_lastName_idx" ON public."User" ("lastName")'
    )
    assert what.drop == ("name",)


def test_a_shadow_has_names_and_a_cast_of_its_own() -> None:
    what = change_of(TENANT).what
    assert isinstance(what, ShadowColumn)
    assert (what.shadow, what.old) == ("tenant_id__new", "tenant_id__old")
    assert what.up.text == "CAST(tenant_id AS bigint)"
    assert change_of(EMAIL).title == "public.User: email becomes text"


def test_assignments_may_stand_as_sql() -> None:
    text = NAMES.replace(
        """      set:
        firstName: SPLIT_PART("name", ' ', 1)
        lastName: SPLIT_PART("name", ' ', 2)
""",
        """      set: |
        "firstName" = split_part(NEW.name, ' ', 1), "lastName" = split_part(NEW.name, ' ', 2)
""",
    )
    assert change_of(text).what == change_of(NAMES).what


@pytest.mark.parametrize(
    ("instead", "of", "says"),
    [
        ("kind: expand", "kind: expand_contract", "kind: there is no such kind"),
        ("version: 2", "version: 1", "version: Input should be 1"),
        ("sett:", "set:", "sync.set: it is not there"),
        ("validates:", "validate:", "validates: there is no such key"),
        ("table: a.b.c", "table: public.User", "table: 'a.b.c' is no table"),
        ("table: pg_catalog.pg_class", "table: public.User", "table: pg_catalog is Post"),
        ("table: twokey_migrate.x", "table: public.User", "no name that it could have"),
        ("now()", "SPLIT_PART(\"name\", ' ', 1)", "sync.set: now gives another value"),
        ("(SELECT 1)", "SPLIT_PART(\"name\", ' ', 1)", "sync.set: a value of one row has no S"),
        ("name FROM x", "SPLIT_PART(\"name\", ' ', 1)", "more than one expression"),
        ("name; DROP TABLE x", "SPLIT_PART(\"name\", ' ', 1)", "more than an expression"),
        ('upper("lastName")', "SPLIT_PART(\"name\", ' ', 1)", "lastName, a new column"),
        ("42", "SPLIT_PART(\"name\", ' ', 1)", "computed from no column"),
        ('DROP COLUMN "x"', 'ADD COLUMN "firstName" text', "expand: that does more than add"),
        ('ADD COLUMN "firstName" text NOT NULL', 'ADD COLUMN "firstName" text', "a constraint"),
        ("ADD COLUMN \"firstName\" text DEFAULT ''", 'ADD COLUMN "firstName" text', "a default"),
        ("ALTER TABLE orders ADD", 'ALTER TABLE "User" ADD', "no ALTER TABLE of public.User"),
        ("drop: [firstName]", "drop: [name]", "contract.drop: firstName is a new column"),
        ("not_null: [name]", "not_null: [firstName, lastName]", "adds no column name"),
        ("UNIQUE (name)", 'CHECK (length("firstName") < 100)', "Only|only CHECK"),
        ("CHECK (name <> '')", 'CHECK (length("firstName") < 100)', "about no new column"),
        ("DELETE FROM a", 'SELECT count(*) = 0 FROM public."User" WHERE "firstName" IS NULL',
         "checks: that is no question"),
        ("SELECT 1 FROM twokey_migrate.change_marks",
         'SELECT count(*) = 0 FROM public."User" WHERE "firstName" IS NULL', "our own bookkeeping"),
        ('CREATE INDEX i ON x ("lastName")',
         'CREATE INDEX "User_lastName_idx" ON "User" ("lastName")', "no CREATE INDEX on"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_key_and_an_example(
    instead: str, of: str, says: str
) -> None:
    assert of in NAMES
    with pytest.raises(ChangeError, match=says) as error:
        change_of(NAMES.replace(of, instead, 1))
    assert error.value.problem.startswith("user_names.yml, ")
    assert "For example: " in error.value.next_step


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("up: lower(name)", "up: it is to be computed from email"),
        ("up: email_new || email", "up: it is to be computed"),
        ("old: email", "three names"),
        ("default: lower(name)", "a default names no column"),
        ("views: {old: app, new: app}", "two names"),
        ("views: {old: twokey_x, new: app}", "no name that it could have"),
        ("indexes: all", "indexes: Input should be 'copy' or 'none'"),
        ("backfill: {ranges: 99}", "backfill.ranges: Input should be less"),
    ],
)
def test_a_shadow_that_makes_no_sense_is_refused(more: str, says: str) -> None:
    with pytest.raises(ChangeError, match=says):
        change_of(f"{EMAIL}    {more}\n")


def test_a_name_that_is_no_file_of_ours_is_refused() -> None:
    with pytest.raises(ChangeError, match="a change is called by"):
        change_of(NAMES, name="../../etc/passwd")


def test_the_files_of_the_page_are_changes() -> None:
    page = (Path(__file__).parents[4] / "docs" / "migrations.md").read_text()
    texts = [part.partition("```")[0] for part in page.split("```yaml\n")[1:]]
    kinds = [change_of(text).kind for text in texts if "kind: " in text]
    assert set(kinds) == set(ChangeKind)


def test_every_example_is_yaml_that_can_be_pasted() -> None:
    for key, text in EXAMPLES.items():
        assert list(yaml.safe_load(text)) == [key]


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("LOWER(a)", "lower(a)"),
        ("a::bigint", "CAST(a AS bigint)"),
        ("CASE WHEN a > 1 THEN b END", "CASE WHEN a > 1 THEN b END"),
        ("E'a\\\\b' || \"X y\"", "'a\\b' || \"X y\""),
        ('NEW.a COLLATE "C"', 'a COLLATE "C"'),
        ("data->>'k'", "data ->> 'k'"),
    ],
)  # fmt: skip
def test_an_expression_is_printed_and_not_pasted(text: str, printed: str) -> None:
    assert read_expression(text).text == printed


@pytest.mark.parametrize(
    "text",
    ["", "a, b", "a AS b", "*", "t.a", "count(*)", "a OVER ()", "random()", "current_date", "$1",
     "nextval('s')", "a -- b\n, c", "(SELECT a)", "a INTO b", "x" * 5000],
)  # fmt: skip
def test_what_is_more_than_a_value_of_the_row_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError) as error:
        read_expression(text)
    assert isinstance(error.value, PostgresError)
    assert error.value.next_step


def test_a_renamed_column_is_renamed_everywhere() -> None:
    found = read_expression("CASE WHEN email LIKE '%email%' THEN lower(email) ELSE name END")
    assert found.sql(row="NEW", names={"email": 'e "x"'}) == (
        'CASE WHEN new."e ""x""" LIKE \'%email%\' THEN lower(new."e ""x""") ELSE new.name END'
    )
