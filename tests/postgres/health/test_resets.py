"""Whatever resets a real server's counters, no rate is made of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import asyncpg
import pytest

from postgres.health.tiers import Due
from postgres.server import Server, create, find_binaries
from tests.postgres.health.conftest import (
    FAST,
    PEOPLE,
    Watch,
    Watcher,
    connected,
    home_of,
    sql,
    until,
)

USUAL = Due()
RATES = ("tps", "cache_hit_pct", "temp_bytes_s")


@pytest.fixture(scope="module")
def shaken() -> Iterator[Server]:
    """A server of this file's own, which archives in vain."""
    binaries = find_binaries(os.environ, major=17)
    settings = {**FAST, "archive_mode": "on", "archive_command": "false", "wal_level": "replica"}
    with home_of("shaken") as home:
        server = asyncio.run(create(binaries, home / "data", settings=settings, sync=False))
        asyncio.run(server.start())
        try:
            asyncio.run(sql(server, PEOPLE, "CREATE TABLE t AS SELECT generate_series(1, 9) AS n"))
            yield server
        finally:
            asyncio.run(server.remove())


@pytest.fixture
async def look(shaken: Server, watch: Watch) -> Watcher:
    """A collector that has looked twice, so that it would have rates."""
    made = watch(shaken)
    await made(USUAL)

    async def has_rates() -> bool:
        await _work(shaken)
        return bool((await made(USUAL)).numbers["tps"])

    await until(has_rates)
    return made


async def _work(server: Server) -> None:
    await sql(server, *["SELECT count(*) FROM t"] * 5)


# Comes first: after a crash PostgreSQL starts the archiver ten seconds late.
async def test_archiving_that_fails_is_timed_from_when_it_was_first_seen(
    shaken: Server, watch: Watch
) -> None:
    look = watch(shaken)
    await sql(shaken, "CREATE TABLE IF NOT EXISTS w (n int)", "SELECT pg_switch_wal()")

    async def fails() -> bool:
        return bool((await look(USUAL)).detail["archiver"]["is_failing"])

    await until(fails)
    first = await look(USUAL)
    since = first.detail["archiver"]["failing_since"]
    again = await watch(shaken, earlier=first.detail)(USUAL)
    assert again.detail["archiver"]["failing_since"] == since
    assert (again.numbers["archive_failing_s"] or 0) > (first.numbers["archive_failing_s"] or 0) > 0


async def test_a_reset_of_the_statistics_is_said(shaken: Server, look: Watcher) -> None:
    await sql(shaken, "SELECT pg_stat_reset()")
    seen = await look(USUAL)
    assert [seen.numbers[name] for name in RATES] == [None] * 3
    assert any("pg_stat_reset" in note for note in seen.detail["notes"])
    assert (seen.numbers["statistics_age_s"] or 99) < 20
    await _work(shaken)
    assert (await look(USUAL)).numbers["tps"]


async def test_a_reset_of_the_statements_is_said(shaken: Server, look: Watcher) -> None:
    await sql(shaken, "SELECT pg_stat_statements_reset()")
    seen = await look(USUAL)
    assert seen.numbers["qps"] is None
    assert seen.statements == ()
    assert any("pg_stat_statements was reset" in note for note in seen.detail["notes"])
    assert seen.numbers["tps"] is not None


async def test_a_restart_is_survived_and_said(shaken: Server, look: Watcher) -> None:
    await shaken.stop()
    await shaken.start()
    seen = await look(USUAL)
    assert [seen.numbers[name] for name in RATES] == [None] * 3
    assert any("restarted" in note for note in seen.detail["notes"])
    await _work(shaken)
    assert (await look(USUAL)).numbers["tps"]


async def test_an_immediate_stop_is_survived_and_said(shaken: Server, look: Watcher) -> None:
    await shaken.stop("immediate")
    await shaken.start()
    seen = await look(USUAL)
    assert [seen.numbers[name] for name in RATES] == [None] * 3
    assert any("restarted" in note for note in seen.detail["notes"])


async def test_a_crash_of_one_process_resets_counters_under_the_same_start_time(
    shaken: Server, look: Watcher
) -> None:
    before = await look(USUAL)
    async with connected(shaken) as victim:
        os.kill(victim.get_server_pid(), signal.SIGKILL)

        async def cut() -> bool:
            try:
                await victim.fetchval("SELECT 1")
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                return True
            return False

        await until(cut)

    async def answers() -> bool:
        try:
            await sql(shaken, "SELECT 1")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            return False
        return True

    await until(answers)
    seen = await look(USUAL)
    assert seen.detail["started"] == before.detail["started"]
    assert [seen.numbers[name] for name in (*RATES, "qps")] == [None] * 4
    assert any("crashed" in note for note in seen.detail["notes"])


async def test_deadlocks_of_the_last_hour_are_counted(shaken: Server, look: Watcher) -> None:
    before = (await look(USUAL)).numbers["deadlocks"] or 0
    async with connected(shaken) as one, connected(shaken) as two:
        await one.execute("SET deadlock_timeout = '10ms'; BEGIN; SELECT pg_advisory_xact_lock(1)")
        await two.execute("SET deadlock_timeout = '10ms'; BEGIN; SELECT pg_advisory_xact_lock(2)")
        found = await asyncio.gather(
            one.execute("SELECT pg_advisory_xact_lock(2)"),
            two.execute("SELECT pg_advisory_xact_lock(1)"),
            return_exceptions=True,
        )
        assert any(isinstance(each, asyncpg.DeadlockDetectedError) for each in found)
    assert (await look(USUAL)).numbers["deadlocks"] == before + 1
