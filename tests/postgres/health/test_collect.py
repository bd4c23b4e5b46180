"""What a collector sees of real servers."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from postgres.errors import PostgresError
from postgres.health.collect import NodeCollector
from postgres.health.instance import instance_query, parse_instance
from postgres.health.metrics import METRICS
from postgres.health.tiers import Due
from postgres.ports import free_port
from postgres.server import Server
from tests.postgres.health.conftest import Pair, Watch, connected, sql, until

USUAL = Due()


async def test_every_metric_has_a_place_and_every_detail_of_the_contract_is_there(
    pair: Pair, watch: Watch
) -> None:
    seen = await watch(pair.primary)()
    of_the_store = {"growth_bytes_day", "days_until_full", "sample_age_s"}
    assert set(seen.numbers) == set(METRICS) - of_the_store
    assert {
        "role", "version", "timeline", "started", "notes", "settings", "blockers", "replicas",
        "slots", "archiver", "tables", "databases", "invalid_indexes", "volume",
        "statements_missing",
    } <= set(seen.detail)  # fmt: skip
    assert (seen.detail["role"], seen.detail["version"][:2]) == ("primary", "17")
    assert seen.detail["notes"] == []
    assert json.loads(json.dumps({**seen.detail, **seen.numbers}))


async def test_a_second_look_has_rates_and_takes_the_rare_things_from_the_first(
    pair: Pair, watch: Watch
) -> None:
    look = watch(pair.primary)
    first = await look()
    await sql(pair.primary, "CREATE TEMP TABLE a AS SELECT 1", "SELECT count(*) FROM pg_class")
    second = await look(USUAL)
    assert first.numbers["tps"] is None
    assert second.numbers["tps"]
    assert second.numbers["qps"]
    assert second.numbers["database_bytes"] == first.numbers["database_bytes"] is not None
    assert second.detail["databases"] == first.detail["databases"] != []
    assert {size.what for size in first.sizes} >= {"database", "wal"}
    assert second.sizes == ()
    assert second.numbers["collection_ms"]


async def test_connections_are_counted_by_what_they_do(pair: Pair, watch: Watch) -> None:
    look = watch(pair.primary)
    async with connected(pair.primary) as idle, connected(pair.primary) as in_transaction:
        await in_transaction.execute("BEGIN")
        await idle.execute("SELECT 1")
        numbers = (await look(USUAL)).numbers
    assert numbers["connections_total"] == 3  # those two and the monitor's own
    assert numbers["connections_idle"] == 1
    assert numbers["connections_idle_in_transaction"] == 1
    assert numbers["connections_usable"] == 27
    assert numbers["pool_usage_pct"] == pytest.approx(100 * 3 / 27)
    assert (numbers["idle_in_transaction_s_max"] or 0) > 0
    assert (numbers["transaction_s_max"] or 0) > 0


async def test_who_waits_for_a_lock_is_named_with_who_holds_it(pair: Pair, watch: Watch) -> None:
    look = watch(pair.primary)
    await sql(pair.primary, "CREATE TABLE IF NOT EXISTS counted (n int)")
    async with connected(pair.primary) as holder, connected(pair.primary) as waiter:
        await holder.execute("BEGIN; LOCK TABLE counted IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.create_task(waiter.execute("SELECT * FROM counted"))

        async def waits() -> bool:
            return (await look(USUAL)).numbers["lock_waits"] == 1

        await until(waits)
        seen = await look(USUAL)
        (blocked,), (root,) = seen.detail["blockers"], seen.detail["roots"]
        assert blocked["blocked_by"] == [root["pid"]] == [holder.get_server_pid()]
        assert (blocked["pid"], blocked["user"]) == (waiter.get_server_pid(), "postgres")
        assert (root["state"], root["application"]) == ("idle in transaction", "shop")
        assert seen.numbers["connections_waiting"] == 1
        assert 0 < (seen.numbers["lock_wait_s_max"] or 0) < 10
        await holder.execute("ROLLBACK")
        await waiting


async def test_utility_statements_and_our_own_do_not_dilute_the_average(
    pair: Pair, watch: Watch
) -> None:
    look = watch(pair.primary)
    await sql(pair.primary, "SELECT pg_sleep(0)")
    await look()
    async with connected(pair.primary) as conn:
        for _ in range(20):
            await conn.execute("BEGIN")
            await conn.execute("COMMIT")
        await conn.fetchval("SELECT pg_sleep($1)", 0.05)
        await conn.reset()
    seen = await look(USUAL)
    assert (seen.numbers["query_ms_avg"] or 0) > 20
    utility = {d.text for d in seen.statements if d.is_utility}
    assert {"BEGIN …", "COMMIT …"} <= utility
    assert not any("twokey-monitor" in (d.text or "") for d in seen.statements)


async def test_no_literal_of_a_statement_is_told(pair: Pair, watch: Watch) -> None:
    look = watch(pair.primary)
    await look()
    await sql(
        pair.primary,
        "CREATE ROLE temporary_one PASSWORD 'hush-hush'",
        "DROP ROLE temporary_one",
        "SELECT 'hush-hush' AS said, 4711",
        "DO $$ BEGIN PERFORM 'hush-hush'; END $$",
    )
    texts = [d.text or "" for d in (await look(USUAL)).statements]
    assert "CREATE ROLE …" in texts
    assert any(text.startswith("SELECT $1 AS said") for text in texts)
    assert not any("hush" in text or "4711" in text for text in texts)


async def test_a_text_is_told_once(pair: Pair, watch: Watch) -> None:
    look = watch(pair.primary)
    await look()
    for expected in ("SELECT $1, $2, $3, $4", None):
        await sql(pair.primary, "SELECT 1, 2, 3, 4")
        found = [d.text for d in (await look(USUAL)).statements]
        assert ("SELECT $1, $2, $3, $4" in found) == (expected is not None)


async def test_a_login_without_privileges_says_what_it_lacks(pair: Pair, watch: Watch) -> None:
    seen = await watch(pair.primary, user="guest")()
    assert "GRANT pg_monitor TO guest" in seen.detail["notes"][0]
    assert "pg_monitor" in seen.detail["statements_missing"]
    unknown = ("connections_active", "pool_usage_pct", "replicas_streaming", "qps")
    assert [seen.numbers[name] for name in unknown] == [None] * 4
    assert seen.numbers["up"] == 1
    assert seen.numbers["xid_age_pct"] is not None


async def test_a_connection_that_was_cut_costs_nothing(pair: Pair, watch: Watch) -> None:
    look = watch(pair.primary)
    await look()
    await sql(
        pair.primary,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'twokey-monitor'",
    )
    seen = await look(USUAL)
    assert seen.numbers["tps"] is not None
    assert seen.detail["notes"] == []


async def test_a_server_that_is_not_there_is_an_error_for_people() -> None:
    dsn = SecretStr(f"postgresql://mon:secret@127.0.0.1:{free_port()}/orders")
    with pytest.raises(PostgresError, match="cannot be looked at") as failure:
        await NodeCollector(dsn, name="orders").collect(datetime.now(UTC), USUAL)
    assert failure.value.next_step
    assert "secret" not in failure.value.problem


async def test_a_tier_that_fails_is_a_note_and_costs_no_other(pair: Pair, watch: Watch) -> None:
    await sql(pair.primary, "CREATE DATABASE closed")
    await sql(
        pair.primary, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC",
        database="closed",
    )  # fmt: skip
    seen = await watch(pair.primary, database="closed")()
    assert any(
        note.startswith("Which server this is could not be read") for note in seen.detail["notes"]
    )
    assert seen.detail["system"] is None
    assert seen.numbers["connections_total"]
    assert seen.numbers["database_bytes"]


async def test_a_session_of_ours_cannot_block_or_write(pair: Pair, watch: Watch) -> None:
    look = watch(pair.primary)
    await look(USUAL)
    conn = await look.collector._connection.open()
    names = ("lock_timeout", "statement_timeout", "jit", "default_transaction_read_only")
    shown = [await conn.fetchval(f"SHOW {name}") for name in names]
    assert shown == ["500ms", "5s", "off", "on"]
    assert (await look()).detail["settings"]["statement_timeout"] == "0ms"


async def test_the_hour_of_an_earlier_worker_goes_on(pair: Pair, watch: Watch) -> None:
    now = datetime.now(UTC).timestamp()
    earlier = {"hour": {"since": now - 900, "events": {"deadlocks": [[now - 600, 4]]}}}
    seen = await watch(pair.primary, earlier=earlier)(USUAL)
    assert seen.numbers["deadlocks"] == 4


async def test_an_old_server_is_read_with_the_columns_it_has(old: Server, watch: Watch) -> None:
    look = watch(old)
    await look()
    await sql(old, "SELECT 1")
    seen = await look()
    assert seen.detail["version"].startswith("15")
    assert seen.numbers["tps"]
    assert seen.detail["notes"] == []
    assert "restart the server" in seen.detail["statements_missing"]


async def test_the_statement_for_13_asks_for_nothing_newer(old: Server) -> None:
    query = instance_query(13)
    assert "waitstart" not in query
    assert "sessions_" not in query
    async with connected(old) as conn:
        found = parse_instance(await conn.fetchval(query))
    assert found.counters.databases[found.database_oid].bad_sessions is None


async def test_a_missing_extension_says_what_to_do(pair: Pair, watch: Watch) -> None:
    await sql(pair.primary, "CREATE DATABASE plain")
    seen = await watch(pair.primary, database="plain")(USUAL)
    assert "loaded, but not created here" in seen.detail["statements_missing"]
    assert seen.numbers["qps"] is None


async def test_invalid_indexes_are_named(pair: Pair, watch: Watch) -> None:
    await sql(pair.primary, "CREATE TABLE twins (n int)", "INSERT INTO twins VALUES (1), (1)")
    with pytest.raises(Exception, match="could not create unique index"):
        await sql(pair.primary, "CREATE UNIQUE INDEX CONCURRENTLY twins_n ON twins (n)")
    seen = await watch(pair.primary)()
    assert seen.detail["invalid_indexes"] == ["public.twins_n"]
    assert seen.numbers["invalid_indexes"] == 1
    await sql(pair.primary, "DROP TABLE twins")


async def test_an_unused_slot_and_a_prepared_transaction_are_counted(
    pair: Pair, watch: Watch
) -> None:
    await sql(pair.primary, "SELECT pg_create_physical_replication_slot('forgotten', true)")
    seen: Any = await watch(pair.primary)(USUAL)
    slots = {slot["name"]: slot for slot in seen.detail["slots"]}
    assert slots["forgotten"]["active"] is False
    assert seen.numbers["slots_inactive"] == 1
    await sql(pair.primary, "SELECT pg_drop_replication_slot('forgotten')")


async def test_a_connection_whose_state_is_confused_is_given_up_for_a_new_one(
    pair: Pair, watch: Watch
) -> None:
    """What asyncpg says when the server cuts a connection just as it is used again."""
    connection = watch(pair.primary).collector._connection
    first = await connection.open()

    async def work(conn: Any) -> int:
        if conn is first:
            raise asyncpg.InternalClientError("cannot switch to state 12")
        return int(await conn.fetchval("SELECT 1"))

    assert await connection.run(work) == 1
    assert first.is_closed()


async def test_the_root_of_a_queue_is_not_who_waits_in_it(pair: Pair, watch: Watch) -> None:
    look = watch(pair.primary)
    await sql(pair.primary, "CREATE TABLE IF NOT EXISTS queued (n int)")
    async with (
        connected(pair.primary) as holder,
        connected(pair.primary) as alters,
        connected(pair.primary) as reads,
    ):
        await holder.execute("BEGIN; LOCK TABLE queued IN ACCESS SHARE MODE")
        waiting = [asyncio.create_task(alters.execute("ALTER TABLE queued ADD m int"))]

        async def wait(count: int) -> bool:
            return (await look(USUAL)).numbers["lock_waits"] == count

        await until(lambda: wait(1))
        waiting.append(asyncio.create_task(reads.execute("SELECT * FROM queued")))
        await until(lambda: wait(2))
        roots = (await look(USUAL)).detail["roots"]
        await holder.execute("ROLLBACK")
        await asyncio.gather(*waiting)
    assert [root["pid"] for root in roots] == [holder.get_server_pid()]
    await sql(pair.primary, "DROP TABLE queued")
