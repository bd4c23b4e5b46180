"""The order of Alembic's revisions, and what is left of the SQL that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from postgres.migrate.folders.alembic_order import Revision, linear
from postgres.migrate.folders.alembic_sql import read_script


def path(name: str) -> Path:
    return Path(f"{name}_x.py")


def rev(name: str, *parents: str, depends_on: bool = False) -> Revision:
    return Revision(revision=name, parents=parents, name="", path=path(name), depends_on=depends_on)


def test_a_branch_is_followed_to_its_end_before_the_next_begins() -> None:
    found = [rev("m", "y", "c"), rev("c", "a"), rev("y", "b"), rev("b", "a"), rev("a")]
    placed, problems = linear(found, ["m"])
    assert [each.revision.revision for each in placed] == ["a", "b", "y", "c", "m"]
    assert [each.after for each in placed] == [("a",), ("b",), ("y",), ("y", "c"), ("m",)]
    assert [each.before for each in placed][1:] == [each.after for each in placed][:-1]
    assert problems == ()


def test_two_newest_revisions_are_refused_by_name() -> None:
    _, problems = linear([rev("a"), rev("b", "a"), rev("c", "a")], ["b", "c"])
    assert "more than one newest revision: b (b_x.py) and c (c_x.py)" in problems[0]


def test_a_dependency_between_branches_is_refused_by_name() -> None:
    _, problems = linear([rev("a"), rev("b", "a", depends_on=True)], ["b"])
    assert "Revision b (b_x.py) depends on a revision of another branch" in problems[0]


@pytest.mark.parametrize(
    ("sql", "kept", "is_transactional"),
    [
        ("BEGIN; SELECT 1; COMMIT;", "SELECT 1;", True),
        ("SELECT 1;", "SELECT 1;", False),
        ("BEGIN; SELECT 1; COMMIT; VACUUM; BEGIN; COMMIT;", "SELECT 1;\nVACUUM;", False),
        ("BEGIN; COMMIT;", "", True),
        ("BEGIN; SELECT 'COMMIT; x'; COMMIT;", "SELECT 'COMMIT; x';", True),
        ("BEGIN; UPDATE alembic_version SET version_num='b'; COMMIT;", "", True),
        ("UPDATE x.alembic_version SET a=1", "UPDATE x.alembic_version SET a=1;", False),
        ("INSERT INTO alembic_versions SELECT 1", "INSERT INTO alembic_versions SELECT 1;", False),
        ("BEGIN; SELECT 'ä', 1; SELECT 2; COMMIT", "SELECT 'ä', 1;\nSELECT 2;", True),
    ],
)
def test_transactions_and_alembics_own_notes_are_taken_out_by_the_grammar(
    sql: str, kept: str, *, is_transactional: bool
) -> None:
    script = read_script(sql, table="", schema="")
    assert (script.sql, script.is_transactional) == (kept, is_transactional)
