"""Where a database stands in its folder: what is applied, what comes next, what is refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.errors import PostgresError
from postgres.migrate.folders.folder import Folder
from postgres.migrate.standing import down_to, find, standing, up_to
from postgres.migrate.words import BookEntry, Migration, Tool


def made(version: str, **facts: object) -> Migration:
    values: dict[str, object] = {
        "tool": Tool.PLAIN,
        "name": "x",
        "path": Path(f"{version}_x.sql"),
        "up": "SELECT 1",
        "sha256": "s",
        "checksum": f"sum {version}",
    }
    return Migration(version=version, **{**values, **facts})  # type: ignore[arg-type]


def folder(*migrations: Migration, tool: Tool = Tool.PLAIN, **facts: object) -> Folder:
    return Folder(tool=tool, path=Path("db"), migrations=migrations, **facts)  # type: ignore[arg-type]


def entry(version: str, **facts: object) -> BookEntry:
    return BookEntry(version=version, **facts)  # type: ignore[arg-type]


A, B, C, D = (made(version) for version in ("001", "002", "003", "004"))


def versions(migrations: tuple[Migration, ...]) -> list[str]:
    return [each.version for each in migrations]


def test_without_a_table_everything_is_pending() -> None:
    stood = standing(folder(A, B), None)
    assert (stood.applied, stood.pending, stood.newest) == ((), (A, B), None)
    assert stood.problems == ()


def test_what_the_book_has_is_applied_and_the_rest_pending() -> None:
    stood = standing(folder(A, B, C), [entry("001"), entry("002", checksum="sum 002")])
    assert (stood.applied, stood.pending, stood.newest) == ((A, B), (C,), B)
    assert stood.problems == ()


@pytest.mark.parametrize(
    ("found", "entries", "because"),
    [
        (folder(A), [entry("001", checksum="other")], "001_x.sql has been changed after it was"),
        (folder(A, B, C), [entry("001"), entry("003")], "002_x.sql comes before 003_x.sql, which"),
        (folder(A), [entry("001"), entry("009", name="y")], "has 009 y, and its file is not in db"),
        (folder(A), [entry("001", is_complete=False)], "001_x.sql was begun and is not known to"),
        (folder(A, C), [entry("001")], "2 is missing between 001_x.sql and 003_x.sql"),
        (folder(A, made("007")), [], "2 to 6 is missing between 001_x.sql and 007_x.sql"),
        (folder(made("001", problem="001_x.sql is empty.")), [], "001_x.sql is empty."),
        (folder(A, problems=("a.sql has no name.",)), [], "a.sql has no name."),
    ],
)
def test_what_is_refused(found: Folder, entries: list[BookEntry], because: str) -> None:
    problems = standing(found, entries).problems
    assert len(problems) == 1
    assert because in problems[0]


@pytest.mark.parametrize(
    ("found", "entries"),
    [
        (folder(made("10"), made("20"), made("35")), []),  # room left on purpose
        (folder(made("20260101"), made("20260201")), []),  # dates
        (folder(made("1"), made("3"), made("4")), [entry("1"), entry("3")]),  # long ago
        (folder(made("2.1"), made("2.10")), []),
        (folder(made("001", problem="It is empty."), B), [entry("001")]),  # it is applied
        (folder(made("001", checksum="")), [entry("001", checksum="x")]),  # none to compare
        (folder(made("001", same_checksums=("x",))), [entry("001", checksum="x")]),
    ],
)
def test_what_is_no_problem(found: Folder, entries: list[BookEntry]) -> None:
    assert standing(found, entries).problems == ()


def test_a_tool_that_keeps_the_newest_alone_has_applied_everything_before_it() -> None:
    stood = standing(folder(A, B, C), [entry("002", covers_earlier=True)])
    assert (stood.applied, stood.pending, stood.problems) == ((A, B), (C,), ())


def test_a_baseline_needs_no_file_and_covers_what_is_older() -> None:
    found = folder(made("1.9"), made("1.10"), made("2"), tool=Tool.FLYWAY)
    stood = standing(found, [entry("1.10.0", covers_earlier=True, is_baseline=True)])
    assert versions(stood.applied) == ["1.9", "1.10"]
    assert versions(stood.pending) == ["2"]
    assert stood.problems == ()


def test_a_repeatable_one_runs_again_when_it_has_changed_and_always_last() -> None:
    views = made("R__views", is_repeatable=True, checksum="new")
    rules = made("R__rules", is_repeatable=True, checksum="same")
    entries = [entry("R__views", checksum="old"), entry("R__rules", checksum="same")]
    stood = standing(folder(A, views, rules, tool=Tool.FLYWAY), entries)
    assert stood.pending == (A, views)
    assert stood.applied == (rules,)
    assert stood.problems == ()


def test_a_repeatable_one_is_not_taken_back() -> None:
    views = made("R__views", is_repeatable=True, checksum="same")
    stood = standing(folder(A, B, views), [entry("001"), entry("002"), entry("R__views")])
    assert down_to(stood, "base") == (B, A)


def test_heads_that_no_point_of_the_order_has_are_refused() -> None:
    left = made("left", book_after=("left",))
    right = made("right", book_before=("left",), book_after=("left", "right"))
    found = folder(made("base", book_after=("base",)), left, right, tool=Tool.ALEMBIC)
    both = [entry("left", covers_earlier=True), entry("right", covers_earlier=True)]
    assert standing(found, both).problems == ()
    (problem,) = standing(found, both[1:]).problems
    assert "stands at right, between branches that right_x.sql is part of" in problem


def test_a_folder_of_thousands_is_compared_at_once_and_its_problems_have_a_bound() -> None:
    large = "x" * 10_000
    migrations = [made(f"{n:05}", up=large, checksum="new") for n in range(1, 4001)]
    began = time.process_time()
    stood = standing(folder(*migrations), [entry(m.version, checksum="old") for m in migrations])
    assert time.process_time() - began < 2
    assert len(stood.problems) == 51
    assert stood.problems[-1] == "There are 3950 more. Correct these first."


def test_golang_migrate_is_dirty_at_where_it_was_going_to() -> None:
    found = folder(A, B, tool=Tool.GOLANG_MIGRATE)
    below = BookEntry(version="-1", is_complete=False, covers_earlier=True)
    (problem,) = standing(found, [below]).problems
    assert problem.startswith("Version -1, or a way back to it, was begun and is not known")
    assert "migrate force" in problem


def test_a_changed_file_that_is_pending_is_no_problem() -> None:
    assert standing(folder(A, B), [entry("001")]).problems == ()


@pytest.mark.parametrize(
    ("version", "expected"),
    [(None, ["002", "003"]), ("002", ["002"]), ("3", ["002", "003"])],
)
def test_what_would_be_applied(version: str | None, expected: list[str]) -> None:
    assert versions(up_to(standing(folder(A, B, C), [entry("001")]), version)) == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [(None, ["003"]), ("001", ["003", "002"]), ("3", []), ("base", ["003", "002", "001"])],
)
def test_what_would_be_taken_back(version: str | None, expected: list[str]) -> None:
    entries = [entry("001"), entry("002"), entry("003")]
    assert versions(down_to(standing(folder(A, B, C, D), entries), version)) == expected


def test_what_is_not_there_is_said_with_what_is() -> None:
    stood = standing(folder(A, B), [entry("001")])
    with pytest.raises(PostgresError, match="001 x is applied already") as refusal:
        up_to(stood, "001")
    assert "002 x" in refusal.value.next_step
    with pytest.raises(PostgresError, match="no pending migration 9"):
        up_to(stood, "9")
    with pytest.raises(PostgresError, match="002 x is not applied yet"):
        down_to(stood, "002")
    with pytest.raises(PostgresError, match="nothing to take back"):
        down_to(standing(folder(A), []))


def test_a_version_is_found_by_its_number_or_by_how_it_begins() -> None:
    found = [made("a1b2"), made("a1c3"), made("007")]
    assert find(found, "a1b") == found[0]
    assert find(found, "a1") is None
    assert find(found, "7") == found[2]
    assert find(found, "9" * 5000) is None
    assert find(found, "") is None


numbers = st.lists(st.integers(min_value=1, max_value=30), unique=True, max_size=12)


@given(present=numbers, booked=numbers)
def test_whatever_the_history_nothing_runs_twice_or_behind_what_is_applied(
    present: list[int], booked: list[int]
) -> None:
    migrations = [made(str(number)) for number in sorted(present)]
    stood = standing(folder(*migrations), [entry(str(number)) for number in booked])
    assert sorted([*stood.applied, *stood.pending], key=lambda m: int(m.version)) == migrations
    assert {int(v) for v in versions(stood.applied)} == set(present) & set(booked)
    row = [int(version) for version in versions(stood.pending)]
    assert row == sorted(row)
    if not stood.problems:
        assert set(booked) <= set(present)
        assert all(number > max(booked, default=0) for number in row)
        whole = sorted({*([max(booked)] if booked else []), *row})
        assert (
            whole == list(range(whole[0], whole[-1] + 1)) or all(n % 5 == 0 for n in present)
            if whole
            else True
        )


@given(present=numbers, cut=st.integers(min_value=0, max_value=12))
def test_going_up_and_down_again_meets_the_same_migrations(present: list[int], cut: int) -> None:
    migrations = tuple(made(str(number)) for number in sorted(present))
    entries = [entry(each.version) for each in migrations[:cut]]
    stood = standing(folder(*migrations), entries)
    assert up_to(stood) == migrations[cut:]
    if migrations[:cut]:
        assert down_to(stood, "base") == migrations[:cut][::-1]
        assert down_to(stood, stood.applied[0].version) == migrations[1:cut][::-1]
