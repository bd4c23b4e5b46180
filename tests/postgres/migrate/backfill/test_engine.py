"""Backfills on a real server: every row once, paused, cancelled, taken over, refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.backfill.batch import Batch, Reach, batch_session, run_batch
from postgres.migrate.backfill.ledger import (
    Claim,
    TakenOverError,
    add_sweep,
    ensure_ledger,
    finish,
    forget,
)
from postgres.migrate.backfill.prepare import claim_backfill
from postgres.migrate.backfill.spec import BatchDone
from tests.conftest import Target
from tests.postgres.migrate.backfill.support import (
    COUNT,
    HURRY,
    SLOW,
    SMALL,
    Switch,
    Told,
    counts,
    do,
    until,
)

WATCH = "twokey backfill watch"
OURS = """
    SELECT application_name FROM pg_stat_activity
     WHERE application_name LIKE 'twokey backfill%' AND datname = current_database()
"""
# What the watch looks at it looks at for a moment, and never waits for.
HELD = f"""
    SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE a.application_name LIKE 'twokey backfill%' AND a.datname = current_database()
       AND a.application_name <> '{WATCH}'
"""


@pytest.mark.parametrize("ranges", [1, 2, 4])
async def test_every_row_is_done_once(conn: Any, target: Target, ranges: int) -> None:
    told, seen = Told(), list[BatchDone]()
    spec = replace(COUNT, ranges=ranges)
    outcome = await do(target.dsn, spec, tell=told, on_batch=seen.append)
    assert await counts(conn) == {1: 2000}
    assert (outcome.rows, outcome.passed, outcome.batches) == (2000, 2000, len(seen))
    assert {each.worker for each in seen} == set(range(ranges))
    assert max(each.passed for each in seen) <= 100
    assert outcome.rows_left is None
    assert told.has("of about 2,000 rows")


async def test_asked_again_it_says_what_was_done_and_does_nothing(
    conn: Any, target: Target
) -> None:
    first = await do(target.dsn)
    again = await do(target.dsn)
    assert (again.rows, again.batches) == (first.rows, first.batches)
    assert again.notes == ("It was done already.",)
    assert await counts(conn) == {1: 2000}
    assert await conn.fetchval("SELECT count(*) FROM twokey_migrate.backfill_ranges") == 0


async def test_what_is_inserted_behind_the_end_meanwhile_is_swept_up(
    conn: Any, target: Target
) -> None:
    insert = "INSERT INTO rows (id) SELECT 5000 + i FROM generate_series(1, 250) AS i"
    assert (await _while_paused(conn, target, insert, COUNT)).rows == 2250
    assert await counts(conn) == {1: 2250}
    unswept = replace(COUNT, key="unswept", sweep=False)
    insert = "INSERT INTO rows (id) VALUES (9001), (9002)"
    assert (await _while_paused(conn, target, insert, unswept)).rows == 2250
    assert await counts(conn) == {0: 2, 2: 2250}


async def _while_paused(conn: Any, target: Target, statement: str, spec: Any) -> Any:
    switch = Switch(is_paused=True)
    work = asyncio.create_task(do(target.dsn, spec, control=switch))
    ledger = "SELECT to_regclass('twokey_migrate.backfills') IS NOT NULL"
    await until(lambda: conn.fetchval(ledger))
    mine = "SELECT epoch > 0 FROM twokey_migrate.backfills WHERE key = $1"
    await until(lambda: conn.fetchval(mine, spec.key))
    await conn.execute(statement)
    switch.is_paused = False
    return await work


async def test_a_value_of_null_does_not_go_on_for_ever(conn: Any, target: Target) -> None:
    spec = replace(
        COUNT, assignments_sql="note = nullif(note, note)", where_sql="note IS NULL OR note <> ''"
    )
    outcome = await do(target.dsn, spec)
    assert (outcome.rows, outcome.rows_left) == (2000, 2000)
    assert not outcome.left_is_more


async def test_a_condition_chooses_and_says_what_is_left(conn: Any, target: Target) -> None:
    spec = replace(COUNT, where_sql="n = 0 AND id % 10 = 3 -- every tenth")
    outcome = await do(target.dsn, spec)
    assert (outcome.rows, outcome.passed, outcome.rows_left) == (200, 2000, 0)
    assert await counts(conn) == {0: 1800, 1: 200}


async def test_an_empty_table_is_done_at_once(conn: Any, target: Target) -> None:
    await conn.execute("TRUNCATE rows")
    outcome = await do(target.dsn)
    assert (outcome.rows, outcome.batches) == (0, 0)


async def test_a_partitioned_table_is_walked_through_as_one(conn: Any, target: Target) -> None:
    await conn.execute(
        "DROP TABLE rows;"
        "CREATE TABLE rows (id int, n int DEFAULT 0, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF rows FOR VALUES FROM (0) TO (700);"
        "CREATE TABLE high PARTITION OF rows FOR VALUES FROM (700) TO (5000);"
        "INSERT INTO rows SELECT i FROM generate_series(1, 2000) AS i"
    )
    assert (await do(target.dsn)).rows == 2000
    assert await counts(conn) == {1: 2000}


async def test_triggers_of_the_table_fire_and_may_keep_a_row(conn: Any, target: Target) -> None:
    await conn.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.note := 'seen'; RETURN CASE WHEN OLD.id = 7 THEN NULL ELSE NEW END; END $$;"
        "CREATE TRIGGER keep BEFORE UPDATE ON rows FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    outcome = await do(target.dsn)
    assert (outcome.rows, outcome.passed) == (1999, 2000)
    assert await conn.fetchval("SELECT count(*) FROM rows WHERE note = 'seen'") == 1999


async def test_paused_it_holds_no_transaction_and_no_lock(conn: Any, target: Target) -> None:
    switch, told = Switch(), Told()
    seen: list[BatchDone] = []

    def pause_soon(done: BatchDone) -> None:
        seen.append(done)
        switch.is_paused |= len(seen) == 5

    work = asyncio.create_task(do(target.dsn, control=switch, tell=told, on_batch=pause_soon))
    await until(lambda: _has(told, "paused: it holds no lock"))
    await until(lambda: _rests(conn))  # the other range may have been within a batch
    stood = 0
    for nth in range(20):
        await asyncio.sleep(0.01)
        stood = stood if nth > 10 else len(seen)
        assert await conn.fetchval(HELD) == 0
        assert {row["application_name"] for row in await conn.fetch(OURS)} == {WATCH}
    assert len(seen) == stood <= 6
    await conn.execute("BEGIN; LOCK TABLE rows; COMMIT", timeout=30)  # nobody stands in the way
    switch.is_paused = False
    outcome = await work
    assert outcome.paused_seconds > 0.1
    assert await counts(conn) == {1: 2000}


async def _rests(conn: Any) -> bool:
    ours = {row["application_name"] for row in await conn.fetch(OURS)}
    return ours == {WATCH} and await conn.fetchval(HELD) == 0


async def _has(told: Told, text: str) -> bool:
    return told.has(text)


async def test_a_cancel_ends_the_batch_on_the_server_and_keeps_what_was_done(
    conn: Any, target: Target
) -> None:
    await conn.execute(SLOW.format(seconds=0.5))
    seen: list[BatchDone] = []
    work = asyncio.create_task(do(target.dsn, on_batch=seen.append))
    await until(lambda: _length(seen))
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await until(lambda: _nobody(conn))
    done = (await counts(conn)).get(1, 0)
    assert 0 < done < 2000
    ledger = "SELECT sum(rows) FROM twokey_migrate.backfill_ranges"
    assert await conn.fetchval(ledger) == done
    await conn.execute(HURRY)
    assert (await do(target.dsn)).rows == 2000
    assert await counts(conn) == {1: 2000}


async def _length(seen: list[BatchDone]) -> int:
    return len(seen)


async def _nobody(conn: Any) -> bool:
    return not await conn.fetch(OURS)


async def test_the_time_limit_stops_it_and_the_next_run_goes_on(conn: Any, target: Target) -> None:
    await conn.execute(SLOW.format(seconds=0.5))
    limits = replace(SMALL, time_limit=timedelta(milliseconds=200))
    with pytest.raises(PostgresError, match=r"stopped after \d+ s, at [\d,]+ of about") as stopped:
        await do(target.dsn, limits=limits)
    assert "goes on from there" in stopped.value.next_step
    await conn.execute(HURRY)
    await do(target.dsn)
    assert await counts(conn) == {1: 2000}


async def test_a_second_life_takes_over_and_the_first_does_nothing_more(
    conn: Any, target: Target
) -> None:
    await conn.execute(SLOW.format(seconds=0.5))
    seen: list[BatchDone] = []
    first = asyncio.create_task(do(target.dsn, on_batch=seen.append))
    await until(lambda: _length(seen))
    second = asyncio.create_task(do(target.dsn))
    await until(lambda: conn.fetchval("SELECT epoch = 2 FROM twokey_migrate.backfills"))
    await conn.execute(HURRY)
    with pytest.raises(PostgresError, match="Another worker has taken the backfill count over"):
        await first
    assert (await second).rows == 2000
    assert await counts(conn) == {1: 2000}


async def test_taking_over_waits_for_the_batch_that_is_at_work(conn: Any, target: Target) -> None:
    spec = replace(COUNT, ranges=1, assignments_sql="n = length(pg_sleep(0.005)::text) + 1")
    here = parse_dsn(target.dsn)
    first, statements = await claim_backfill(here, spec, SMALL, ("n",))
    async with batch_session(here, spec, first.table.key, SMALL) as other:
        work = asyncio.create_task(
            run_batch(
                other, statements, first, 0, rows=100, limits=SMALL, reach=Reach()
            )
        )  # fmt: skip
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'"
        await until(lambda: conn.fetchval(asleep, other.get_server_pid()))
        second, _ = await claim_backfill(here, spec, SMALL, ("n",))
        assert await work is not None
    assert second.passed == 100


async def test_a_life_that_was_taken_over_can_do_no_batch(conn: Any, target: Target) -> None:
    first, statements = await claim_backfill(parse_dsn(target.dsn), COUNT, SMALL, ("n",))
    second, _ = await claim_backfill(parse_dsn(target.dsn), COUNT, SMALL, ("n",))

    async def batch(claim: Claim) -> Batch | None:
        number = claim.left[0].number
        return await run_batch(
            conn, statements, claim, number, rows=50, limits=SMALL, reach=Reach()
        )

    with pytest.raises(TakenOverError):
        await batch(first)
    assert await counts(conn) == {0: 2000}
    with pytest.raises(TakenOverError):
        await finish(conn, first)
    with pytest.raises(TakenOverError):
        await add_sweep(conn, first, None)
    done = await batch(second)
    assert done is not None
    assert (done.passed, done.updated) == (50, 50)
    assert await counts(conn) == {0: 1950, 1: 50}


@pytest.mark.parametrize(
    "other",
    [
        {"assignments_sql": "n = n + 2"},
        {"where_sql": "n = 0"},
        {"table": "others"},
    ],
)
async def test_a_key_that_was_begun_with_something_else_is_refused(
    conn: Any, target: Target, other: dict[str, str]
) -> None:
    await conn.execute("CREATE TABLE others (id bigint PRIMARY KEY, n int)")
    with pytest.raises(PostgresError):
        await do(target.dsn, limits=replace(SMALL, time_limit=timedelta(0)))
    before = await counts(conn)
    with pytest.raises(PostgresError, match=r"was begun with other|is not the table") as refused:
        await do(target.dsn, replace(COUNT, **other))  # type: ignore[arg-type]
    assert refused.value.next_step
    assert await counts(conn) == before
    await do(target.dsn, replace(COUNT, ranges=1))  # how many ranges may change
    assert await counts(conn) == {1: 2000}


async def test_a_forgotten_key_begins_anew(conn: Any, target: Target) -> None:
    assert not await forget(conn, "count")
    await do(target.dsn)
    assert await forget(conn, "count")
    await do(target.dsn)
    assert await counts(conn) == {2: 2000}


async def test_rows_that_a_policy_hides_are_not_left_out_silently(
    conn: Any, target: Target
) -> None:
    role = f"guest_{target.name}"
    await conn.execute(
        f"CREATE ROLE {role} LOGIN; GRANT ALL ON rows TO {role};"
        f"GRANT CREATE ON DATABASE {target.name} TO {role};"
        "ALTER TABLE rows ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY even ON rows USING (id % 2 = 0)"
    )
    guest = target.dsn.replace("postgres@", f"{role}@", 1)
    try:
        with pytest.raises(PostgresError, match=r"Policies hide rows of public.rows"):
            await do(guest)
        await conn.execute("ALTER TABLE rows DISABLE ROW LEVEL SECURITY")
        outcome = await do(guest)
        assert any("GRANT pg_monitor" in note for note in outcome.notes)
        assert any("left to autovacuum" in note for note in outcome.notes)
        assert await counts(conn) == {1: 2000}
    finally:
        await conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_who_may_not_write_is_told_before_anything_happens(conn: Any, target: Target) -> None:
    role = f"guest_{target.name}"
    await conn.execute(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON rows TO {role}")
    guest = target.dsn.replace("postgres@", f"{role}@", 1)
    try:
        with pytest.raises(PostgresError, match="permission denied") as refused:
            await do(guest)
        assert "GRANT SELECT, UPDATE ON public.rows" in refused.value.next_step
        await conn.execute(f"GRANT UPDATE ON rows TO {role}")
        with pytest.raises(PostgresError, match="ledger of backfills cannot be written") as refused:
            await do(guest)
        assert "CREATE on the database" in refused.value.next_step
    finally:
        await conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_the_ledger_forgets_what_is_long_over(conn: Any, target: Target) -> None:
    await do(target.dsn)
    await conn.execute(
        "UPDATE twokey_migrate.backfills SET finished_at = now() - interval '31 days';"
        "INSERT INTO twokey_migrate.backfills (key, fingerprint, table_oid, table_name, total,"
        " finished_at) SELECT 'old' || i, '', 1, '', 1, now() - i * interval '1 second'"
        " FROM generate_series(1, 600) AS i;"
        "INSERT INTO twokey_migrate.backfills (key, fingerprint, table_oid, table_name, total)"
        " VALUES ('open', '', 1, '', 1)"
    )
    await ensure_ledger(conn)
    left = {row[0] for row in await conn.fetch("SELECT key FROM twokey_migrate.backfills")}
    assert len(left) <= 502
    assert "open" in left
    assert "count" not in left
    assert "old1" in left


async def test_batches_find_their_rows_by_the_index_whatever_the_statistics_say(
    conn: Any, target: Target
) -> None:
    # So small that a look at all of it would seem cheaper each time.
    await conn.execute("ALTER TABLE rows SET (autovacuum_enabled = off)")
    await conn.execute("DELETE FROM rows WHERE id > 400")
    await conn.execute("VACUUM (FULL, ANALYZE) rows")
    stats = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'rows'"
    before = await conn.fetchrow(stats)
    await do(target.dsn, replace(COUNT, ranges=1))

    async def seen() -> Any:
        now = await conn.fetchrow(stats)
        return now if sum(now) >= sum(before) + 8 else None

    after = await until(seen)
    assert after["seq_scan"] - before["seq_scan"] <= 3  # counted, and no batch
    assert after["idx_scan"] - before["idx_scan"] >= 8


async def test_a_table_that_grew_dead_is_vacuumed_before_it_goes_on(
    conn: Any, target: Target
) -> None:
    await conn.execute(
        "ALTER TABLE rows SET (autovacuum_enabled = off); CREATE INDEX ON rows (note)"
    )
    # Counted once, by sampling, they would be what is left of them then: most is pruned already.
    await conn.execute("ANALYZE rows")
    for _ in range(3):
        await conn.execute("UPDATE rows SET note = note || 'x'")
    async with asyncio.timeout(30):
        while not await conn.fetchval("SELECT n_dead_tup > 4000 FROM pg_stat_user_tables"):
            await conn.execute("SELECT pg_stat_force_next_flush()")
            await asyncio.sleep(0.05)
    outcome = await do(target.dsn)
    assert outcome.vacuums >= 1
    assert outcome.waited.get("dead rows", 0) > 0
    assert await counts(conn) == {1: 2000}


async def test_it_is_vacuumed_beside_the_work_unless_it_shall_not(
    conn: Any, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postgres.migrate.backfill.vacuum._ROWS_MIN", 100)
    await conn.execute(SLOW.format(seconds=0.05))
    await conn.execute("ALTER TABLE rows SET (autovacuum_enabled = off)")
    outcome = await do(target.dsn, limits=replace(SMALL, dead_max=0))
    assert outcome.vacuums >= 1
    none = replace(COUNT, key="none")
    outcome = await do(target.dsn, none, limits=replace(SMALL, dead_max=0, vacuum_share=0))
    assert outcome.vacuums == 0
    assert await counts(conn) == {2: 2000}
