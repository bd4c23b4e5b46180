"""What a rehearsal found, and what follows from it for people and for the real run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import ValidationError

from jobs.rehearsals import (
    READS,
    WRITES,
    Copy,
    Rehearsal,
    RehearsedStatement,
    RehearsedUnit,
    Return,
    WayBack,
    blocked,
    estimate_of,
    expected_of,
    facts_for_people,
    from_json,
    is_fresh,
    locks_text,
    row_of,
    rows_for_people,
    seconds_text,
    subject_of,
    to_json,
    way_back_text,
    work_text,
)
from jobs.rehearsing import is_of_the_file, rehearsed_unit
from postgres.errors import PostgresError
from postgres.migrate.apply_words import BlockedError, Unit, UnknownOutcomeError
from postgres.migrate.words import (
    Direction,
    Lock,
    Migration,
    Observation,
    Review,
    ReviewedStatement,
    StatementKind,
    Tool,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
AE, SRE, RE = Lock.ACCESS_EXCLUSIVE, Lock.SHARE_ROW_EXCLUSIVE, Lock.ROW_EXCLUSIVE
ORDERS, OTHER, BOOK = "public.orders", "public.other", "public.schema_migrations"
NO_WAY = Return(outcome=WayBack.NONE)


def seen(seconds: float, index: int = 0, **more: Any) -> RehearsedStatement:
    observed = Observation(index=index, seconds=seconds, **more)
    return RehearsedStatement(line=index + 1, what="ALTER TABLE orders", seen=observed)


def unit(
    *statements: RehearsedStatement, key: str = "1:up", one: bool = True, problem: str = ""
) -> RehearsedUnit:
    return RehearsedUnit(
        key=key, title=f"{key} file", direction=Direction.UP, is_transactional=one,
        seconds=sum(each.seen.seconds for each in statements), statements=statements,
        problem=problem, next_step="Mend it." if problem else "", line=3 if problem else 0,
    )  # fmt: skip


def rehearsal(*units: RehearsedUnit, tables: Mapping[str, int] | None = None) -> Rehearsal:
    copy = Copy(
        backup_id="orders-1", to="end", data_bytes=1000, restore_seconds=2.0, reached_at=NOW,
        tables=tables or {}, book="schema_migrations",
    )  # fmt: skip
    return Rehearsal(copy=copy, units=units, way_back=NO_WAY)


def row(found: Rehearsal) -> Any:
    return row_of(found, database="orders", subject="s", at=NOW, request_id=7)


def file(version: str = "1", direction: Direction = Direction.UP, **more: Any) -> Unit:
    migration = Migration(
        tool=Tool.PLAIN, version=version, name="", path=Path(version), up="", sha256="a", **more
    )
    review = Review(statements=())
    return Unit(key=f"{version}:{direction}", migration=migration, direction=direction,
                review=review)  # fmt: skip


def test_a_subject_is_which_files_which_way_and_from_which_bytes() -> None:
    known = subject_of([file("1"), file("2")])
    assert known == subject_of([file("1"), file("2", down_sha256="b")])
    other = replace(file("2"), migration=replace(file("2").migration, sha256="x"))
    down = [file("1", Direction.DOWN, down_sha256="b"), file("1", Direction.DOWN, down_sha256="c")]
    rest = [
        subject_of(units)
        for units in (
            [file("2"), file("1")], [file("1")], [file("1"), other], [], [down[0]], [down[1]],
        )
    ]  # fmt: skip
    assert len({known, *rest}) == 7


def test_what_was_found_survives_the_store() -> None:
    back = Return(outcome=WayBack.LOSSY, seconds=1.0, lost=("public.orders has other values",))
    found = replace(
        rehearsal(unit(seen(0.5, locks={ORDERS: AE}, rewritten=(ORDERS,), wal_bytes=9))),
        way_back=back,
    )
    # With what earlier versions wrote besides.
    again = from_json({**to_json(found), "extra": {"pace": [1, 2]}, "note": "n"})
    assert to_json(again) == to_json(found)
    assert again.units[0].statements[0].seen.locks[ORDERS] is AE
    with pytest.raises(ValidationError):
        from_json({"units": 1})


def test_a_row_says_whether_all_could_be_applied_and_where_not() -> None:
    good = row(rehearsal(unit(seen(0.5)), unit(seen(0.25), key="2:up")))
    assert (good.ok, good.problem, good.seconds) == (True, "", 0.75)
    bad = row(rehearsal(unit(seen(0.5)), unit(key="2:up", problem="rows break it.")))
    assert (bad.ok, bad.problem) == (False, "2:up file, line 3: rows break it.")


def test_it_goes_stale() -> None:
    found = row(rehearsal())
    day = timedelta(days=1)
    assert is_fresh(found, now=NOW + day, age=day)
    assert not is_fresh(found, now=NOW + day + timedelta(seconds=1), age=day)


def test_the_real_run_may_do_as_much_as_was_rehearsed() -> None:
    found = rehearsal(unit(seen(2.0, 0, locks={ORDERS: AE}), seen(1.0, 1, locks={OTHER: RE})))
    expected = expected_of(row(found), "1:up", 3.0)
    assert expected is not None
    assert expected.locks == {0: {ORDERS: AE}, 1: {OTHER: RE}}
    assert expected.seconds == {0: 2.0, 1: 1.0}
    assert expected.seconds_max(0) == 6.0
    assert expected_of(row(found), "2:up", 3.0) is None
    failed = rehearsal(unit(seen(1.0)), unit(key="2:up", problem="no."))
    assert expected_of(row(failed), "1:up", 3.0) is None


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        ({}, 2.0),  # nobody knows
        ({ORDERS: 1000}, 2.0),
        ({ORDERS: 3000}, 6.0),  # it has grown since
        ({ORDERS: 500}, 2.0),  # shrunken: no less time for that
        ({OTHER: 9000}, 2.0),  # it was locked, and not worked on
    ],
)
def test_what_has_grown_since_has_more_time(now: Mapping[str, int], seconds: float) -> None:
    statement = seen(2.0, locks={ORDERS: AE, OTHER: AE}, scanned={ORDERS: 10})
    found = rehearsal(unit(statement), tables={ORDERS: 1000, OTHER: 1000})
    expected = expected_of(row(found), "1:up", 3.0, now)
    assert expected is not None
    assert expected.seconds == {0: seconds}


def test_an_estimate_is_a_range_scaled_by_size() -> None:
    found = rehearsal(unit(seen(10.0, 0, scanned={ORDERS: 1}), seen(1.0, 1)), tables={ORDERS: 100})
    assert estimate_of(found) == pytest.approx((8.8, 22.0))
    assert estimate_of(found, {ORDERS: 200}) == pytest.approx((16.8, 42.0))
    assert estimate_of(found, {ORDERS: 50}) == pytest.approx((4.8, 12.0))


def test_what_was_sampled_counts_as_work_on_what_it_locked() -> None:
    build = seen(4.0, locks={ORDERS: Lock.SHARE_UPDATE_EXCLUSIVE}, is_sampled=True)
    found = rehearsal(unit(build, one=False), tables={ORDERS: 100})
    assert estimate_of(found, {ORDERS: 200}) == pytest.approx((6.4, 16.0))


def test_in_a_transaction_a_lock_is_held_to_the_end() -> None:
    both = {ORDERS: AE, OTHER: SRE}
    found = rehearsal(
        unit(seen(1.0, 0, locks={ORDERS: AE}), seen(5.0, 1, locks=both)),
        unit(seen(4.0, 0, locks={OTHER: SRE}), key="2:up"),
    )
    held = blocked(found, READS)
    assert (held.table, held.seconds, held.lock) == (ORDERS, 6.0, AE)
    assert blocked(found, WRITES).seconds == 6.0


def test_outside_of_one_each_statement_holds_its_own() -> None:
    statements = (seen(1.0, 0, locks={ORDERS: SRE}), seen(5.0, 1, locks={ORDERS: SRE}))
    found = rehearsal(unit(*statements, one=False))
    assert blocked(found, WRITES).seconds == 5.0
    assert blocked(found, READS).table == ""


def test_the_tools_own_table_is_nobodys_trouble() -> None:
    found = rehearsal(unit(seen(1.0, locks={BOOK: SRE})))
    assert blocked(found, WRITES).table == ""
    assert locks_text(found.units[0].statements[0].seen, book="schema_migrations") == (
        "none that others notice"
    )
    assert rows_for_people(found)[0][2] == "none that others notice"


def test_facts_are_said_as_people_say_them() -> None:
    statement = seen(
        0.25, locks={ORDERS: AE}, rewritten=(ORDERS,), written={OTHER: 1200}, wal_bytes=2048
    )
    said = dict(facts_for_people(rehearsal(unit(statement))))
    assert said["Rehearsed on"] == "orders-1 to end, 2026-11-22 12:00 UTC, 1000 B"
    assert said["Reads wait"] == "250 ms on public.orders (ACCESS EXCLUSIVE)"
    assert said["Rewritten"] == ORDERS
    assert said["Rows changed"] == "1,200 of public.other"
    assert said["WAL"] == "2 kB"
    assert said["Expected"] == "200 ms to 500 ms"
    quiet = dict(facts_for_people(rehearsal(unit(seen(0.001)))))
    assert (quiet["Reads wait"], quiet["Rewritten"], quiet["Rows changed"]) == (
        "never", "nothing", "none",
    )  # fmt: skip


def test_work_is_said_by_table_and_at_most_so_much_of_it() -> None:
    observed = Observation(
        index=0, seconds=1, rewritten=("a.t",), scanned={"a.t": 9, "a.u": 1}, written={"a.v": 2}
    )
    assert work_text(observed) == "rewrites a.t; reads 1 row of a.u; writes 2 rows of a.v"
    assert work_text(Observation(index=0, seconds=1)) == "the catalog"
    many = Observation(index=0, seconds=1, locks={f"a.t{n}": AE for n in range(9)})
    assert locks_text(many).endswith("; and 5 more")


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (Return(outcome=WayBack.EXACT), "exact: definitions and contents are as before, by its"),
        (Return(outcome=WayBack.EXACT, is_written=False), "by statements worked out"),
        (Return(outcome=WayBack.SCHEMA_ONLY), "schema only: contents were not compared"),
        (Return(outcome=WayBack.LOSSY, lost=("t has 1 row",)), ": t has 1 row"),
        (Return(outcome=WayBack.DIFFERENT, differences=("index i is new",)), "index i is new"),
        (Return(outcome=WayBack.FAILED, problem="no such column."), "failed: no such column."),
        (Return(outcome=WayBack.NONE, problem="nobody wrote one"), "none: nobody wrote one"),
        (NO_WAY, "none"),
    ],
)
def test_every_way_back_is_said(way: Return, said: str) -> None:
    assert said in way_back_text(way)


@pytest.mark.parametrize(("seconds", "said"), [(0.0004, "0 ms"), (0.5, "500 ms"), (90, "1 min")])
def test_times_are_said_in_their_own_unit(seconds: float, said: str) -> None:
    assert seconds_text(seconds).startswith(said)


def test_a_statement_that_was_tried_again_counts_once_and_says_no_literal() -> None:
    statement = ReviewedStatement(
        index=0, sql="UPDATE t SET a = 'secret'", line=4, node="UpdateStmt",
        kind=StatementKind.DATA,
    )  # fmt: skip
    known = replace(file("1"), review=Review(statements=(statement,)))
    looks = [Observation(index=0, seconds=9.0), Observation(index=0, seconds=1.0)]
    found = rehearsed_unit(known, looks)
    assert found.seconds == 1.0
    assert "UPDATE" in found.statements[0].what
    assert "secret" not in found.statements[0].what


def explained(cause: BaseException | None, kind: type[PostgresError] = PostgresError) -> Any:
    error = kind("It failed.", next_step="Mend it.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (explained(None), True),
        (explained(asyncpg.UndefinedTableError("t")), True),
        (explained(asyncpg.CheckViolationError("c")), True),
        (explained(asyncpg.QueryCanceledError("its own statement_timeout")), True),
        (explained(asyncpg.InsufficientPrivilegeError("p")), True),
        (explained(asyncpg.DiskFullError("no space")), False),
        (explained(asyncpg.OutOfMemoryError("m")), False),
        (explained(asyncpg.AdminShutdownError("a")), False),
        (explained(asyncpg.InternalServerError("x")), False),
        (explained(asyncpg.ConnectionDoesNotExistError("gone")), False),
        (explained(OSError("reset")), False),
        (explained(explained(asyncpg.DiskFullError("no space"))), False),
        (explained(None, BlockedError), False),
        (explained(None, UnknownOutcomeError), False),
    ],
)
def test_a_copy_that_breaks_down_says_nothing_about_the_file(error: Any, *, is_so: bool) -> None:
    assert is_of_the_file(error) is is_so
