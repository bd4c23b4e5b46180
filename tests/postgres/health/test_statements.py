"""What a statement is, and what may be told of its text."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.health.deltas import SECONDS_MIN
from postgres.health.statement_deltas import Kind
from postgres.health.statement_watch import StatementWatch
from postgres.health.statements import StatementsAt, find_statements, kind_of, told
from tests.postgres.health.conftest import Pair, connected, sql


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("SELECT 1", Kind.ORDINARY),
        ("  /* app */ -- note\n (select 1) UNION (select 2)", Kind.ORDINARY),
        ("with a AS (SELECT 1) DELETE FROM b", Kind.ORDINARY),
        ("merge INTO a USING b ON true WHEN MATCHED THEN DO NOTHING", Kind.ORDINARY),
        ("BEGIN", Kind.UTILITY),
        ("/*x*/ commit", Kind.UTILITY),
        ("SET search_path = a", Kind.UTILITY),
        ("COPY orders TO STDOUT", Kind.UTILITY),
        ("<insufficient privilege>", Kind.ORDINARY),
        ("", Kind.ORDINARY),
        ("SELECT /* twokey-monitor */ 1", Kind.OURS),
    ],
)
def test_what_a_statement_is(text: str, kind: Kind) -> None:
    assert kind_of(text) is kind


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT * FROM orders WHERE id = $1", "SELECT * FROM orders WHERE id = $1"),
        ("SELECT 'it''s', E'a\\'b', $x$c$x$, \"it's\"", "SELECT '…', '…', '…', \"it's\""),
        ("SELECT 1 -- it's ana@example.org\n, 'x'", "SELECT 1 \n, '…'"),
        ("SELECT /* user=ana' */ 'y'", "SELECT  '…'"),
        ("SELECT 'never ends", "SELECT '…'"),
        ("SELECT $1, U&'d', B'01'", "SELECT $1, '…', '…'"),
        ("ALTER ROLE ana PASSWORD 'x'", "ALTER ROLE …"),
        ("/* x */ set secret.key = 'x'", "SET SECRET …"),
        ("DO $$ BEGIN PERFORM 1; END $$", "DO BEGIN …"),
    ],
)
def test_what_is_told_of_a_text(text: str, shown: str) -> None:
    assert told(text) == shown


@given(st.text(alphabet="'\"$e\\x -/*\n", max_size=40))
def test_no_text_is_too_odd_to_be_told(text: str) -> None:
    assert told(f"SELECT {text} FROM a").startswith("SELECT")


@given(st.text(alphabet=st.characters(exclude_characters="'\\\0"), max_size=30))
def test_no_quoted_literal_is_ever_told(literal: str) -> None:
    assert told(f"SELECT '{literal}', 1") == "SELECT '…', 1"


def test_a_long_text_says_that_it_was_cut() -> None:
    assert told("SELECT " + "a" * 8000).endswith("a …")


def test_each_version_of_the_extension_is_asked_for_what_it_has() -> None:
    oldest, newest = (
        StatementsAt(space="public", version=(1, 8)),
        StatementsAt(space="public", version=(1, 12)),
    )
    for word in ("toplevel", "stats_since"):
        assert (word in oldest.counters(), word in newest.counters()) == (False, True)
    assert ("_info" in oldest.moment(), "_info" in newest.moment()) == (False, True)


async def test_what_is_asked_of_version_1_8_runs(pair: Pair) -> None:
    oldest = StatementsAt(space="public", version=(1, 8))
    async with connected(pair.primary) as conn:
        assert len((await conn.fetch(oldest.counters()))[0]) == 14
        assert (await conn.fetchrow(oldest.moment()))["reset"] is None


async def test_an_extension_of_an_older_postgresql_says_how_to_update_it(pair: Pair) -> None:
    await sql(pair.primary, "CREATE DATABASE upgraded")
    await sql(
        pair.primary, 'CREATE SCHEMA "Odd"',
        "CREATE EXTENSION pg_stat_statements SCHEMA \"Odd\" VERSION '1.7'", database="upgraded",
    )  # fmt: skip
    async with connected(pair.primary, "upgraded") as conn:
        assert "ALTER EXTENSION" in str(await find_statements(conn, limit=5))
        await conn.execute("ALTER EXTENSION pg_stat_statements UPDATE")
        found = await find_statements(conn, limit=5)
        assert isinstance(found, StatementsAt)
        assert found.space == '"Odd"'
        assert await conn.fetch(found.counters())


async def test_an_extension_that_tracks_nothing_is_said(pair: Pair) -> None:
    async with connected(pair.primary) as conn:
        await conn.execute("SET pg_stat_statements.track = 'none'")
        assert "track nothing" in str(await find_statements(conn, limit=5))


class Timed:
    """Seconds that pass with each reading of texts."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Slow:
    """A real connection on which texts take four seconds, or fail."""

    def __init__(self, conn: Any, timed: Timed, *, fails: bool = False) -> None:
        self.conn, self.timed, self.fails, self.read = conn, timed, fails, 0

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        if "left(query" in query:
            self.read += 1
            self.timed.now += 4
            if self.fails:
                raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")
        return await self.conn.fetch(query, *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.conn, name)


async def test_texts_that_are_slow_to_read_are_read_seldom(pair: Pair) -> None:
    timed = Timed()
    watch = StatementWatch(limit=5, clock=timed)
    async with connected(pair.primary) as conn:
        slow = Slow(conn, timed)
        for expected, seconds in ((1, 30), (1, 1900), (1, 100), (2, 0)):
            await sql(
                pair.primary, f"CREATE TABLE seldom{seconds} ()", f"DROP TABLE seldom{seconds}"
            )
            await watch.look(slow, database=5)
            assert slow.read == expected
            timed.now += seconds


async def test_texts_that_cannot_be_read_cost_no_numbers(pair: Pair) -> None:
    timed = Timed()
    watch = StatementWatch(limit=5, clock=timed)
    async with connected(pair.primary) as conn:
        slow = Slow(conn, timed, fails=True)
        first = await watch.look(slow, database=5)
        # Looks that are closer together say nothing about what was between.
        await sql(pair.primary, "SELECT 1", f"SELECT pg_sleep({2 * SECONDS_MIN})")
        second = await watch.look(slow, database=5)
    assert "texts of statements cannot be read" in first.note
    assert second.numbers["qps"]
    assert slow.read == 1
