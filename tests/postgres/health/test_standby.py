"""A real standby, from both sides: idle, paused, and cut off."""

from __future__ import annotations

from postgres.health.collect import Collected
from postgres.health.lag import merge
from postgres.health.tiers import Due
from tests.postgres.health.conftest import Pair, Watch, Watcher, sql, until

USUAL = Due()


async def _caught_up(primary: Watcher) -> None:
    async def streams() -> bool:
        numbers = (await primary(USUAL)).numbers
        return numbers["replicas_streaming"] == 1 and numbers["replication_lag_bytes"] == 0

    await until(streams)


async def test_an_idle_standby_is_not_late(pair: Pair, watch: Watch) -> None:
    primary, copy = watch(pair.primary), watch(pair.standby)
    await _caught_up(primary)
    seen, standby = await primary(USUAL), await copy()
    assert seen.numbers["replication_lag_ms"] == 0
    assert standby.detail["role"] == "standby"
    assert standby.detail["system"] == seen.detail["system"]
    assert standby.detail["standby"]["status"] == "streaming"
    assert standby.numbers["replication_lag_ms"] is None  # of the primary alone
    assert standby.numbers["database_bytes"]
    assert merge(seen, [standby], 1, names=["west"]).numbers["replicas_missing"] == 0
    assert standby.detail["notes"] == []
    assert standby.numbers["archive_failing_s"] is None


async def test_a_standby_has_rates_of_its_own(pair: Pair, watch: Watch) -> None:
    copy = watch(pair.standby)
    await copy()
    await sql(pair.standby, "SELECT count(*) FROM pg_class")
    seen = await copy(USUAL)
    assert seen.numbers["tps"]
    assert seen.numbers["wal_bytes_s"] is None
    assert seen.numbers["qps"] is not None


async def test_a_paused_standby_is_late_for_as_long_as_it_lacks_what_was_written(
    pair: Pair, watch: Watch
) -> None:
    primary, copy = watch(pair.primary), watch(pair.standby)
    await _caught_up(primary)
    await sql(pair.standby, "SELECT pg_wal_replay_pause()")
    try:
        await sql(pair.primary, "CREATE TABLE paused AS SELECT generate_series(1, 1000) AS n")

        async def is_late() -> bool:
            return ((await primary(USUAL)).numbers["replication_lag_ms"] or 0) > 300

        await until(is_late)
        seen, standby = await primary(USUAL), await copy(USUAL)
        assert (seen.numbers["replication_lag_bytes"] or 0) > 10_000
        assert standby.detail["standby"]["paused"] is True
        assert merge(seen, [standby], 1).numbers["replicas_missing"] == 0
    finally:
        await sql(pair.standby, "SELECT pg_wal_replay_resume()")
        await sql(pair.primary, "DROP TABLE IF EXISTS paused")
    await _caught_up(primary)


async def test_a_standby_that_is_cut_off_is_missing_and_late(pair: Pair, watch: Watch) -> None:
    primary, copy = watch(pair.primary), watch(pair.standby)
    await _caught_up(primary)
    await sql(pair.standby, "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
    await pair.standby.reload()
    await sql(
        pair.primary,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_replication",
    )
    try:
        found: list[tuple[Collected, Collected]] = []

        async def is_cut_off() -> bool:
            found[:] = [(await primary(USUAL), await copy(USUAL))]
            return (
                found[0][0].numbers["replicas_streaming"] == 0
                and found[0][1].detail["standby"]["status"] != "streaming"
            )

        await until(is_cut_off)
        await sql(pair.primary, "CREATE TABLE gone AS SELECT generate_series(1, 1000) AS n")
        await primary(USUAL)

        async def is_late() -> bool:
            found[:] = [(await primary(USUAL), await copy(USUAL))]
            both = merge(found[0][0], [found[0][1]], 1, names=["west"])
            return (both.numbers["replication_lag_ms"] or 0) > 100

        await until(is_late)
        seen, standby = found[0]
        both = merge(seen, [standby], 1, names=["west"])
        assert both.numbers["replicas_missing"] == 1
        assert (both.numbers["replication_lag_bytes"] or 0) > 10_000
        assert both.replicas[-1]["state"] == "disconnected"
        assert "west does not stream" in both.notes[0]
        assert seen.numbers["replication_lag_ms"] is None  # the primary alone says nothing
        assert (seen.numbers["slots_inactive"], seen.detail["slots"][0]["active"]) == (1, False)
        assert (seen.numbers["slot_retained_bytes_max"] or 0) > 10_000
    finally:
        await sql(pair.standby, "ALTER SYSTEM RESET primary_conninfo")
        await pair.standby.reload()
        await sql(pair.primary, "DROP TABLE IF EXISTS gone")
    await _caught_up(primary)
