"""What is decided about applying without any server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres.errors import PostgresError
from postgres.health.blocking import Backend
from postgres.migrate.alone_catalog import is_like
from postgres.migrate.alone_words import Alone, AloneKind, Name, alone_of
from postgres.migrate.apply_errors import explained, place
from postgres.migrate.apply_guards import check_locks, check_session, check_statements
from postgres.migrate.apply_transaction import pause_seconds
from postgres.migrate.apply_words import (
    ApplyLimits,
    ExceededError,
    Expected,
    UnknownOutcomeError,
)
from postgres.migrate.blockers import Block, Held, held_of, told
from postgres.migrate.book_state import BookState, as_before, book_state, is_done, objection
from postgres.migrate.words import (
    BookEntry,
    Direction,
    Lock,
    Migration,
    ReviewedStatement,
    StatementKind,
    Tool,
)
from tests.postgres.migrate.applying import unit_of

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEY = (7 << 32) + 5
HELD = Held(transaction="3/9", tables={}, advisory=frozenset({5}))


def one(sql: str) -> list[ReviewedStatement]:
    return [ReviewedStatement(index=0, sql=sql, line=3, node="", kind=StatementKind.DATA)]


def migration(**more: Any) -> Migration:
    words = {"tool": Tool.DBMATE, "version": "2", "name": "two", "path": Path("2.sql")}
    return Migration(**{**words, "up": "", "sha256": "", **more})


def entry(version: str, **more: Any) -> BookEntry:
    return BookEntry(version=version, **more)


HEADS = {"book_before": ("1",), "book_after": ("2",)}


@pytest.mark.parametrize(
    ("words", "entries", "state"),
    [
        ({}, None, BookState.NOT_APPLIED),
        ({}, [entry("1")], BookState.NOT_APPLIED),
        ({}, [entry("2")], BookState.APPLIED),
        ({}, [entry("2", is_complete=False)], BookState.BEGUN),
        ({"is_repeatable": True, "checksum": "a"}, [entry("2", checksum="a")], BookState.APPLIED),
        (
            {"is_repeatable": True, "checksum": "b"},
            [entry("2", checksum="a")],
            BookState.NOT_APPLIED,
        ),
        (HEADS, [entry("1")], BookState.NOT_APPLIED),
        (HEADS, [entry("2")], BookState.APPLIED),
        (HEADS, [entry("2", is_complete=False)], BookState.BEGUN),
        (HEADS, [entry("3")], BookState.ELSEWHERE),
        (HEADS, [entry("1"), entry("x")], BookState.ELSEWHERE),
        (HEADS, [entry("9", is_complete=False)], BookState.ELSEWHERE),
        (HEADS, [], BookState.ELSEWHERE),
        ({"book_after": ("1",)}, [], BookState.NOT_APPLIED),
        ({"book_after": ("1",)}, [entry("-1", is_complete=False)], BookState.BEGUN),
    ],
)
def test_the_book_says_how_a_migration_stands(
    words: dict[str, Any], entries: list[BookEntry] | None, state: BookState
) -> None:
    assert book_state(migration(**words), entries) is state


HALF = [entry("1"), entry("2", is_complete=False)]
DIRTY = [entry("2", is_complete=False, covers_earlier=True)]


@pytest.mark.parametrize(
    ("words", "entries", "begun", "stood"),
    [
        ({}, HALF, {"2": Direction.UP}, [entry("1")]),
        ({}, HALF, {"2": Direction.DOWN}, [entry("1"), entry("2")]),
        ({}, HALF, {"3": Direction.UP}, HALF),
        ({}, HALF, {}, HALF),
        ({}, [entry("2")], {"2": Direction.UP}, [entry("2")]),
        (HEADS, DIRTY, {"2": Direction.UP}, [entry("1", covers_earlier=True)]),
        (HEADS, DIRTY, {"2": Direction.DOWN}, [entry("2", covers_earlier=True)]),
        ({"book_after": ("2",)}, DIRTY, {"2": Direction.UP}, []),
        (HEADS, DIRTY, {}, DIRTY),
    ],
)
def test_what_we_have_begun_ourselves_counts_as_still_to_be_done(
    words: dict[str, Any],
    entries: list[BookEntry],
    begun: dict[str, Direction],
    stood: list[BookEntry],
) -> None:
    found = as_before(entries, [migration(version="1"), migration(**words)], begun)
    assert found is not None
    assert list(found) == stood


def test_what_is_done_depends_on_the_way() -> None:
    assert is_done(Direction.UP, BookState.APPLIED)
    assert is_done(Direction.DOWN, BookState.NOT_APPLIED)
    assert not is_done(Direction.UP, BookState.BEGUN)
    assert not is_done(Direction.DOWN, BookState.ELSEWHERE)
    assert objection(migration(), Direction.UP, BookState.BEGUN) is not None
    assert objection(migration(), Direction.UP, BookState.ELSEWHERE) is not None
    assert objection(migration(), Direction.UP, BookState.NOT_APPLIED) is None


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("COMMIT", "begins or ends"),
        ("/* x */ commit and chain", "begins or ends"),
        ("BEGIN", "begins or ends"),
        ("start transaction", "begins or ends"),
        ("END;", "begins or ends"),
        ("ABORT", "begins or ends"),
        ("ROLLBACK", "begins or ends"),
        ("ROLLBACK PREPARED 'x'", "begins or ends"),
        ("PREPARE TRANSACTION 'x'", "ends the transaction"),
        ("DISCARD ALL", "empties our session"),
        ("COPY t (a) FROM STDIN WITH CSV", "copies from or to a client"),
        ("COPY (SELECT 1) TO STDOUT", "copies from or to a client"),
        ("SELECT 1; SELECT 2", "several statements"),
        (" -- nothing", "is empty"),
        (";", "is empty"),
    ],
)
def test_what_must_not_be_sent_is_refused(sql: str, said: str) -> None:
    with pytest.raises(PostgresError, match=said):
        check_statements(one(sql))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'COMMIT'; -- ;",
        "ROLLBACK TO SAVEPOINT a",
        "ROLLBACK TRANSACTION TO a",
        "PREPARE x AS SELECT 1",
        "COPY t FROM '/tmp/x'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END",
        "DO $$ BEGIN PERFORM 1; END $$",
    ],
)
def test_what_only_looks_like_it_is_not(sql: str) -> None:
    check_statements(one(sql))


def test_a_session_that_is_not_as_it_was_stops_everything() -> None:
    check_session(HELD, HELD, is_in_transaction=True, key=KEY, where="it")
    chained = Held(transaction="3/10", tables={}, advisory=frozenset({5}))
    with pytest.raises(UnknownOutcomeError, match="ended the transaction itself"):
        check_session(HELD, chained, is_in_transaction=True, key=KEY, where="it")
    with pytest.raises(UnknownOutcomeError):
        check_session(HELD, HELD, is_in_transaction=False, key=KEY, where="it")
    freed = Held(transaction="3/9", tables={}, advisory=frozenset({6}))
    with pytest.raises(PostgresError, match="given back the lock"):
        check_session(HELD, freed, is_in_transaction=True, key=KEY, where="it")


@pytest.mark.parametrize(
    ("held", "index", "stops"),
    [
        ({"s.a": Lock.SHARE}, 0, False),
        ({"s.a": Lock.ACCESS_EXCLUSIVE}, 0, True),
        ({"s.b": Lock.ROW_EXCLUSIVE}, 0, True),
        ({"s.b": Lock.ROW_SHARE}, 0, False),  # in nobody's way
        ({"s.a": Lock.EXCLUSIVE}, 1, False),  # rehearsed of the second statement
        ({"s.a": Lock.EXCLUSIVE}, 0, True),
        ({"s.book": Lock.SHARE_ROW_EXCLUSIVE}, 0, False),  # held before the file began
        ({"s.book": Lock.ACCESS_EXCLUSIVE}, 0, True),
    ],
)
def test_locks_count_against_what_was_rehearsed_so_far(
    held: dict[str, Lock], index: int, *, stops: bool
) -> None:
    expected = Expected(locks={0: {"s.a": Lock.SHARE}, 1: {"s.a": Lock.EXCLUSIVE}}, seconds={})
    base = Held(transaction="", tables={"s.book": Lock.SHARE_ROW_EXCLUSIVE}, advisory=frozenset())
    now = Held(transaction="", tables=held, advisory=frozenset())
    if not stops:
        check_locks(base, now, expected, first=0, last=index, where="it")
        return
    with pytest.raises(ExceededError, match="which blocks"):
        check_locks(base, now, expected, first=0, last=index, where="it")


def row(kind: str | None, mode: str, **more: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("schema", "name", "table_schema", "table_name", "objid"))
    return {**nothing, "locktype": "relation", "kind": kind, "mode": mode, **more}


def test_locks_are_those_of_tables_that_others_know() -> None:
    index = {"schema": "s", "name": "i", "table_schema": "s", "table_name": "a"}
    found = held_of(
        [
            row("r", "ShareLock", schema="s", name="a"),
            row("r", "RowExclusiveLock", schema="s", name="a"),
            row("i", "AccessExclusiveLock", **index),
            row("i", "AccessShareLock", **{**index, "table_name": "other"}),
            row("r", "AccessExclusiveLock", schema="pg_catalog", name="pg_class"),
            row("r", "RowExclusiveLock", schema="twokey_migrate", name="units"),
            row(None, "AccessExclusiveLock"),  # made by this transaction
            row(None, "ExclusiveLock", locktype="advisory", objid=5),
            row(None, "ExclusiveLock", locktype="virtualxid", virtualtransaction="3/9"),
        ]
    )
    assert found == Held(
        transaction="3/9", tables={"s.a": Lock.ACCESS_EXCLUSIVE}, advisory=frozenset({5})
    )


def backend(**more: Any) -> Backend:
    words: dict[str, Any] = {"key": 4711, "user": "app", "seen_at": NOON, **more}
    return Backend(**words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            {"state": "active", "query": "SELECT 'x'", "xact_start": NOON - timedelta(minutes=5)},
            "process 4711 (app), which runs SELECT ?, its transaction open for 5 min",
        ),
        (
            {"state": "idle in transaction", "application": "web", "query": "SELECT 1"},
            "process 4711 (app, web), idle in transaction, last: SELECT ?",
        ),
        ({"backend_type": "autovacuum worker", "user": ""},
         "process 4711 (autovacuum worker), an autovacuum"),
        ({"backend_type": "autovacuum worker", "query": "VACUUM t (to prevent wraparound)"},
         "process 4711 (app), an autovacuum to prevent wraparound, which does not give way"),
        ({"query": "<insufficient privilege>", "user": ""},
         "process 4711 (of the server itself), whose work our user may not see (GRANT pg_monitor)"),
        ({"key": "gid", "xact_start": NOON - timedelta(hours=3)},
         "the prepared transaction 'gid', its transaction open for 3 h"),
        ({"application": "x" * 99, "state": "idle"}, f"process 4711 (app, {'x' * 39}…), idle"),
    ],
)  # fmt: skip
def test_who_blocks_is_told_without_literals(words: dict[str, Any], text: str) -> None:
    assert told(backend(**words)) == text


def test_many_blockers_are_counted_and_an_autovacuum_gives_way() -> None:
    block = Block(backends=tuple(backend(key=n, state="idle") for n in range(5)), wanted="t")
    assert block.text.endswith("; and 2 more")
    assert not block.has_autovacuum
    worker = backend(backend_type="autovacuum worker")
    assert Block(backends=(worker,), wanted="").has_autovacuum
    wraps = backend(backend_type="autovacuum worker", query="VACUUM t (to prevent wraparound)")
    assert not Block(backends=(wraps,), wanted="").has_autovacuum
    hidden = backend(query="<insufficient privilege>", user="")
    assert Block(backends=(hidden,), wanted="").has_autovacuum


def test_pauses_grow_up_to_a_limit_and_are_spread() -> None:
    limits = ApplyLimits()
    assert [pause_seconds(n, limits, 0.5) for n in (1, 2, 5, 30)] == [0.25, 0.5, 4.0, 4.0]
    assert pause_seconds(1, limits, 0.0) == 0.125
    assert pause_seconds(30, limits, 1.0) == 6.0


def test_a_statement_may_take_as_long_as_its_rehearsal_allows() -> None:
    limits = ApplyLimits()
    expected = Expected(locks={}, seconds={0: 0.1, 1: 30.0}, factor=3.0)
    seconds = [
        limits.seconds_max(each, expected)
        for each in unit_of("SELECT 1; SELECT 2; SELECT 3").review.statements
    ]
    assert seconds == [2.0, 90.0, limits.additive.total_seconds()]
    assert limits.seconds_max(one("UPDATE")[0], None) == limits.statement.total_seconds()


@pytest.mark.parametrize(
    ("sql", "alone"),
    [
        ("DROP INDEX CONCURRENTLY IF EXISTS s.i",
         Alone(kind=AloneKind.DROP_INDEX, name=Name(name="i", schema="s"), is_lenient=True)),
        ("REINDEX INDEX CONCURRENTLY i",
         Alone(kind=AloneKind.REINDEX, name=Name(name="i"), scope="index")),
        ("REINDEX TABLE t", Alone(kind=AloneKind.REPEATABLE, blocks=True)),
        ("ALTER TYPE e ADD VALUE 'x'",
         Alone(kind=AloneKind.ADD_VALUE, name=Name(name="e"), label="x")),
        ("ALTER TYPE e RENAME VALUE 'x' TO 'y'", Alone(kind=AloneKind.OTHER, blocks=True)),
        ("ALTER TABLE p DETACH PARTITION c CONCURRENTLY",
         Alone(kind=AloneKind.DETACH, table=Name(name="p"), partition=Name(name="c"),
               blocks=True)),
        ("ALTER TABLE t VALIDATE CONSTRAINT c", Alone(kind=AloneKind.REPEATABLE)),
        ("ALTER TABLE t DROP a", Alone(kind=AloneKind.OTHER, blocks=True)),
        ("VACUUM t", Alone(kind=AloneKind.REPEATABLE)),
        ("VACUUM FULL t", Alone(kind=AloneKind.REPEATABLE, blocks=True)),
        ("CREATE DATABASE d", Alone(kind=AloneKind.OTHER, blocks=True)),
        ("DROP TABLE t", Alone(kind=AloneKind.OTHER, blocks=True)),
    ],
)  # fmt: skip
def test_what_a_statement_is_about(sql: str, alone: Alone) -> None:
    assert alone_of(sql) == alone


@pytest.mark.parametrize(
    ("sql", "definition", "like"),
    [
        ("(a, b)", "CREATE INDEX i ON s.t USING btree (a, b)", True),
        ("(a, b)", "CREATE INDEX i ON s.t USING btree (b, a)", False),
        ("(a)", "CREATE UNIQUE INDEX i ON s.t USING btree (a)", False),
        ("(lower(a))", "CREATE INDEX i ON s.t USING btree (lower((a)::text))", True),
        ("(a) WHERE b", "CREATE INDEX i ON s.t USING btree (a) WHERE b", True),
        ("(a) WHERE b", "CREATE INDEX i ON s.t USING btree (a)", False),
        ("(a) INCLUDE (b)", "CREATE INDEX i ON s.t USING btree (a) INCLUDE (b)", True),
        ("USING gin (a)", "CREATE INDEX i ON s.t USING btree (a)", False),
        ("(a)", None, False),
    ],
)
def test_an_index_is_known_by_its_shape(sql: str, definition: str | None, *, like: bool) -> None:
    made = alone_of(f"CREATE INDEX CONCURRENTLY i ON s.t {sql}")
    assert is_like(definition, made.shape) is like


def test_names_are_quoted() -> None:
    assert Name(name='a"b', schema="S").quoted == '"S"."a""b"'


def test_errors_are_told_without_values_of_rows() -> None:
    error = asyncpg.NotNullViolationError("null value in column; Failing row contains (secret)")
    found = explained(error, place("UPDATE t SET a = 'x'", 4), left="Nothing has changed.")
    where = "line 4 (UPDATE t SET a = ?)"
    assert found.problem == f"{where}: rows break a constraint. Nothing has changed."
    wrong = asyncpg.InvalidTextRepresentationError('invalid input syntax for type integer: "Ada"')
    found = explained(wrong, where, left="")
    assert found.problem == f"{where}: invalid input syntax for type integer: …."
