"""What is killed, lost, full or stubborn while something is applied: the state is known after."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres.account import server_account
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.apply import BlockedError, UnknownOutcomeError, apply_alone, apply_short
from postgres.migrate.ledger import begin_line, open_unit
from postgres.migrate.words import StatementKind, Tool
from postgres.server import Binaries, Server, create
from tests.postgres.conftest import FAST, run_sql
from tests.postgres.migrate.applying import (
    QUICK,
    Told,
    apply_now,
    other,
    silent,
    unit_of,
    until,
)
from tests.postgres.migrate.proxy import proxied

ROOT = Path(__file__).parents[3]
ROUGH = {
    **FAST, "max_connections": "40", "max_prepared_transactions": "5", "autovacuum_naptime": "1s",
}  # fmt: skip
TABLES = """
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT nspname FROM pg_namespace
                     WHERE nspname IN ('public', 'twokey_migrate') LOOP
            EXECUTE format('DROP SCHEMA %I CASCADE', name);
        END LOOP;
        CREATE SCHEMA public;
    END $$;
    CREATE TABLE orders (id int PRIMARY KEY, note text, customer int);
    INSERT INTO orders SELECT n, 'n', n % 10 FROM generate_series(1, 200) AS n;
"""
FILE = """\
UPDATE orders SET note = note || '+';
CREATE INDEX CONCURRENTLY orders_customer ON orders (customer);
UPDATE orders SET note = note || '-';
"""
ONE = "UPDATE orders SET note = note || '+';\nUPDATE orders SET note = note || '-'"
BUILD = "CREATE INDEX CONCURRENTLY orders_customer ON orders (customer)"
COMMIT = b"COMMIT;"
HOLDS = "INSERT INTO orders VALUES (1000, 'n', 1)"


@pytest.fixture(scope="module")
def rough(binaries: Binaries) -> Iterator[Server]:
    """A server whose backends may be killed."""
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        server = asyncio.run(_started(binaries, Path(name)))
        try:
            yield server
        finally:
            asyncio.run(server.remove())


async def _started(binaries: Binaries, home: Path) -> Server:
    server = await create(binaries, home / "rough", settings=ROUGH, sync=False)
    await server.start()
    for statement in ("CREATE DATABASE shop", "CREATE ROLE migbot LOGIN"):
        await run_sql(server.dsn(), statement)
    return server


@pytest.fixture
async def dsn(rough: Server) -> str:
    """A database with one table in it."""
    await run_sql(rough.dsn("shop"), TABLES)
    return rough.dsn("shop")


@pytest.fixture
async def conn(dsn: str) -> AsyncIterator[Any]:
    """A connection to it, which a crash may end."""
    made = await asyncpg.connect(dsn)
    yield made
    await made.close() if not made.is_closed() else None


async def stand(dsn: str) -> tuple[str, list[tuple[str, bool]], int]:
    """What the rows say, which indexes there are and whether they are valid, how often booked."""
    made = await asyncpg.connect(dsn)
    try:
        notes = await made.fetchval("SELECT string_agg(DISTINCT note, ',') FROM orders")
        rows = await made.fetch(
            "SELECT indexrelid::regclass::text AS name, indisvalid FROM pg_index"
            " WHERE indrelid = 'orders'::regclass AND NOT indisprimary ORDER BY 1"
        )
        booked = await made.fetchval("SELECT count(*) FROM twokey_migrate.applied")
    finally:
        await made.close()
    return notes, [(row["name"], row["indisvalid"]) for row in rows], booked


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("cut", [COMMIT, b"'-'", 60])
async def test_a_connection_that_is_cut_in_a_transaction_does_it_once(
    dsn: str, cut: bytes | int, *, answered: bool
) -> None:
    await apply_now(dsn, unit_of("SELECT 1", version="0000"))
    where: Any = {"cut_on": cut} if isinstance(cut, bytes) else {"cut_at": cut}
    if cut == COMMIT:
        where["nth"] = 2  # the first is that of our schema
    with short_folder() as folder:
        async with proxied(dsn, folder, answered=answered, **where) as (proxy, through):
            done = await apply_now(through, unit_of(ONE))
    assert proxy.is_cut
    assert done.was_done == (cut == COMMIT and answered)
    assert await stand(dsn) == ("n+-", [], 2)


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("cut", [b"CREATE INDEX", b"'-'", 45, 75, 115])
async def test_a_connection_that_is_cut_between_statements_does_each_once(
    dsn: str, cut: bytes | int, *, answered: bool
) -> None:
    where: Any = {"cut_on": cut} if isinstance(cut, bytes) else {"cut_at": cut}
    with short_folder() as folder:
        async with proxied(dsn, folder, answered=answered, **where) as (proxy, through):
            await apply_now(through, unit_of(FILE))
    assert proxy.is_cut
    assert await stand(dsn) == ("n+-", [("orders_customer", True)], 1)


@pytest.mark.parametrize("answered", [False, True])
async def test_short_statements_whose_commit_was_not_answered_are_done_once(
    dsn: str, *, answered: bool
) -> None:
    with short_folder() as folder:
        async with proxied(dsn, folder, answered=answered, cut_on=COMMIT) as (proxy, through):
            done = await apply_short(
                parse_dsn(through), [HOLDS, HOLDS.replace("1000", "1001")], limits=QUICK,
                tell=silent,
            )  # fmt: skip
    assert proxy.is_cut
    assert done.was_done is answered
    made = await asyncpg.connect(dsn)
    assert await made.fetchval("SELECT count(*) FROM orders WHERE id >= 1000") == 2
    await made.close()


async def test_a_server_that_does_not_come_back_is_an_unknown_outcome(dsn: str) -> None:
    limits = replace(QUICK, reconnect=timedelta(seconds=0.3))
    with short_folder() as folder:
        async with proxied(dsn, folder, stays_shut=True, cut_on=b"'-'") as (_, through):
            with pytest.raises(UnknownOutcomeError, match="is not known"):
                await apply_now(through, unit_of(ONE), limits=limits)


async def test_processes_that_die_one_after_the_other_do_each_statement_once(dsn: str) -> None:
    moments = ["after 0", "before 1", "after 1"]
    assert [await _life(dsn, FILE, moment) for moment in moments] == [-9] * 3
    assert not (await apply_now(dsn, unit_of(FILE))).was_done
    assert await stand(dsn) == ("n+-", [("orders_customer", True)], 1)


async def test_a_process_that_dies_while_an_index_is_built_leaves_it_to_the_next(
    dsn: str, conn: Any
) -> None:
    async with other(dsn, HOLDS) as holder:
        process = await _start(dsn, FILE, "never")
        await until(lambda: _builder(conn))
        process.kill()
        await process.wait()
        told = Told()
        # It waits until the server has noticed, and clears what is left then.
        going_on = asyncio.create_task(apply_now(dsn, unit_of(FILE), tell=told))
        await until(lambda: _told(told, "was cut short; looking"))
        await holder.execute("ROLLBACK")
        await going_on
    assert await stand(dsn) == ("n+-", [("orders_customer", True)], 1)


async def test_a_server_that_is_killed_within_a_transaction_has_changed_nothing(
    dsn: str, conn: Any
) -> None:
    async with other(dsn, "LOCK TABLE orders") as holder:
        patient = replace(QUICK, lock=timedelta(seconds=20))
        applying = asyncio.create_task(
            apply_now(dsn, unit_of(f"CREATE TABLE new ();\n{ONE}"), limits=patient)
        )
        pid = await until(lambda: conn.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'twokey apply 0%'"
            " AND wait_event_type = 'Lock'"
        ))  # fmt: skip
        # The postmaster ends all others then, and recovers as after a crash.
        os.kill(pid, signal.SIGKILL)
        await applying
        assert holder.is_closed()
    assert await stand(dsn) == ("n+-", [], 1)


@pytest.mark.parametrize("sql", [BUILD, "REINDEX TABLE CONCURRENTLY orders"])
async def test_a_backend_that_is_ended_leaves_nothing_half_built(
    dsn: str, conn: Any, sql: str
) -> None:
    if sql != BUILD:
        await conn.execute("CREATE INDEX orders_customer ON orders (customer)")
    async with other(dsn, HOLDS) as holder:
        applying = asyncio.create_task(apply_alone(parse_dsn(dsn), sql, limits=QUICK, tell=silent))
        pid = await until(lambda: _builder(conn))
        assert await conn.fetchval("SELECT pg_terminate_backend($1)", pid)
        await until(lambda: _gone(conn, pid))
        assert await conn.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid") > 0
        await holder.execute("ROLLBACK")
        await applying
    rows = await conn.fetch("SELECT indexrelid::regclass::text AS n, indisvalid FROM pg_index"
                            " WHERE indrelid = 'orders'::regclass ORDER BY 1")  # fmt: skip
    assert [tuple(row) for row in rows] == [("orders_customer", True), ("orders_pkey", True)]


async def test_a_partition_that_is_half_detached_is_detached_when_readers_are_gone(
    dsn: str, conn: Any
) -> None:
    await conn.execute(
        "CREATE TABLE log (day int) PARTITION BY LIST (day);"
        " CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1)"
    )
    async with other(dsn, "SELECT FROM log") as holder:

        async def tell(text: str, fraction: float | None) -> None:
            if "trying again (2" in text:
                await holder.execute("ROLLBACK")

        await apply_alone(
            parse_dsn(dsn), "ALTER TABLE log DETACH PARTITION log_1 CONCURRENTLY", limits=QUICK,
            tell=tell,
        )  # fmt: skip
    assert await conn.fetchval("SELECT count(*) FROM pg_inherits") == 0


@pytest.mark.parametrize(
    ("sql", "before", "evidence", "was_done"),
    [
        ("ALTER TYPE mood ADD VALUE 'new'", "CREATE TYPE mood AS ENUM ('old', 'new')",
         {"type": "'mood'::regtype::oid::bigint"}, True),
        ("ALTER TYPE mood ADD VALUE 'new'", "CREATE TYPE mood AS ENUM ('old')",
         {"type": "'mood'::regtype::oid::bigint"}, False),
        ("DROP INDEX CONCURRENTLY gone", "SELECT 1", {"index": "5"}, True),
        ("DROP INDEX CONCURRENTLY here", "CREATE INDEX here ON orders (note)",
         {"index": "'here'::regclass::oid::bigint"}, False),
        ("DROP INDEX CONCURRENTLY here", "CREATE INDEX here ON orders (note)",
         {"index": "5"}, True),
        ("VACUUM orders", "SELECT 1", {}, False),
    ],
)  # fmt: skip
async def test_what_was_begun_is_decided_by_the_catalog(
    dsn: str, conn: Any, sql: str, before: str, evidence: dict[str, str], *, was_done: bool
) -> None:
    await conn.execute("DROP TYPE IF EXISTS mood")
    await conn.execute(before)
    found = {key: await conn.fetchval(f"SELECT {value}") for key, value in evidence.items()}
    await _begin(dsn, conn, sql, found)
    done = await apply_alone(parse_dsn(dsn), sql, limits=QUICK, tell=silent, key="it")
    assert done.was_done is was_done


async def test_what_nobody_can_tell_is_not_done_again(dsn: str, conn: Any) -> None:
    sql = "CREATE DATABASE other"
    await _begin(dsn, conn, sql, {})
    with pytest.raises(UnknownOutcomeError, match="nobody can tell whether it was done"):
        await apply_alone(parse_dsn(dsn), sql, limits=QUICK, tell=silent, key="it")
    assert not await conn.fetchval("SELECT true FROM pg_database WHERE datname = 'other'")


async def test_readers_never_wait_longer_than_one_lock_wait(dsn: str, conn: Any) -> None:
    slowest, done = 0.0, False

    async def read() -> None:
        nonlocal slowest
        reader = await asyncpg.connect(dsn)
        while not done:
            began = time.monotonic()
            await reader.fetchval("SELECT count(*) FROM orders", timeout=20)
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.005)
        await reader.close()

    async with other(dsn, "SELECT FROM orders"):
        reading = asyncio.create_task(read())
        limits = replace(QUICK, tries=8)
        with pytest.raises(BlockedError):
            await apply_now(dsn, unit_of("ALTER TABLE orders ADD a int"), limits=limits)
        done = True
        await reading
    assert 0.03 < slowest < 5, "it queued behind us, and not for long"


async def test_an_autovacuum_gives_way_with_and_without_the_right_to_hasten_it(
    dsn: str, conn: Any
) -> None:
    for user in ("postgres", "migbot"):
        await conn.execute("DROP TABLE IF EXISTS slow")
        await conn.execute(
            "CREATE TABLE slow (id int, x text) WITH (autovacuum_vacuum_threshold = 0,"
            " autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100,"
            " autovacuum_vacuum_cost_limit = 1);"
            " INSERT INTO slow SELECT n, repeat('x', 200) FROM generate_series(1, 20000) AS n;"
            " GRANT ALL ON SCHEMA public TO migbot; GRANT CREATE ON DATABASE shop TO migbot;"
            f" ALTER TABLE slow OWNER TO {user}; DELETE FROM slow WHERE id % 10 = 1"
        )
        await until(lambda: conn.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
            " AND query LIKE '%public.slow'"
        ))  # fmt: skip
        done = await apply_short(
            parse_dsn(dsn.replace("postgres@", f"{user}@")), ["ALTER TABLE slow ADD a int"],
            limits=replace(QUICK, lock=timedelta(milliseconds=200), tries=6), tell=silent,
        )  # fmt: skip
        if user == "migbot":
            assert (
                "(of the server itself), whose work our user may not" in done.waits[0].blockers[0]
            )
        assert not done.was_done
    await conn.execute("DROP TABLE slow")


async def test_a_prepared_transaction_in_the_way_is_named(dsn: str, conn: Any) -> None:
    await conn.execute("BEGIN; LOCK TABLE orders; PREPARE TRANSACTION 'left behind'")
    try:
        with pytest.raises(BlockedError, match="the prepared transaction 'left behind'"):
            await apply_now(dsn, unit_of("ALTER TABLE orders ADD a int"))
    finally:
        await conn.execute("ROLLBACK PREPARED 'left behind'")


async def test_two_at_once_do_it_once(dsn: str) -> None:
    done = await asyncio.gather(apply_now(dsn, unit_of(FILE)), apply_now(dsn, unit_of(FILE)))
    assert sorted(each.was_done for each in done) == [False, True]
    assert await stand(dsn) == ("n+-", [("orders_customer", True)], 1)


async def test_nothing_is_done_beside_a_session_of_ours_that_does_not_end(
    dsn: str, conn: Any
) -> None:
    await conn.execute("SELECT pg_advisory_lock(hashtextextended('twokey apply', 7203))")
    limits = replace(QUICK, life=timedelta(seconds=0.3))
    with pytest.raises(BlockedError, match=rf"process {conn.get_server_pid()}, idle"):
        await apply_now(dsn, unit_of(ONE), limits=limits)
    assert await conn.fetchval("SELECT to_regnamespace('twokey_migrate')") is None


async def test_a_statement_that_gives_our_lock_back_is_rolled_back(dsn: str, conn: Any) -> None:
    unit = unit_of("CREATE TABLE new ();\nSELECT pg_advisory_unlock_all()")
    with pytest.raises(PostgresError, match="given back the lock"):
        await apply_now(dsn, unit)
    assert await conn.fetchval("SELECT to_regclass('new')") is None


async def test_a_procedure_that_would_commit_cannot(dsn: str, conn: Any) -> None:
    await conn.execute(
        "CREATE PROCEDURE sly() LANGUAGE plpgsql AS 'BEGIN INSERT INTO orders VALUES (-1);"
        " COMMIT; END'"
    )
    with pytest.raises(PostgresError, match="invalid transaction termination"):
        await apply_now(dsn, unit_of("CALL sly()", kind=StatementKind.OPAQUE))
    assert await conn.fetchval("SELECT count(*) FROM orders WHERE id < 0") == 0


async def test_a_tool_with_a_dirty_flag_has_it_set_meanwhile_and_taken_back(
    dsn: str, conn: Any
) -> None:
    stood: Any = {"tool": Tool.GOLANG_MIGRATE, "version": "1", "book_after": ("1",)}
    with pytest.raises(PostgresError, match="no_such"):
        await apply_now(dsn, unit_of(f"{BUILD};\nSELECT no_such()", **stood))
    flag = "SELECT version || ' ' || dirty FROM schema_migrations"
    assert await conn.fetchval(flag) == "1 true"
    await apply_now(dsn, unit_of(f"{BUILD};\nSELECT 1", **stood))
    assert await conn.fetchval(flag) == "1 false"
    await conn.execute("UPDATE schema_migrations SET dirty = true")
    again = unit_of("VACUUM orders", **{**stood, "version": "2", "book_before": ("1",)})
    with pytest.raises(PostgresError, match="begun by somebody else"):
        await apply_now(dsn, again)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system with room for a small table, where the server may write."""
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        mounted = subprocess.run(
            ["/bin/mount", "-t", "tmpfs", "-o", "size=3m,mode=755", "tmpfs", name],
            check=False, capture_output=True,
        )  # fmt: skip
        if mounted.returncode:
            pytest.skip("this account cannot mount a small file system")
        account = server_account()
        place = Path(name) / "space"
        place.mkdir()
        if account is not None:
            shutil.chown(place, account.uid, account.gid)
        yield place
        subprocess.run(["/bin/umount", "--lazy", name], check=True)


async def test_a_disk_that_fills_takes_everything_back(
    dsn: str, conn: Any, small_disk: Path
) -> None:
    await conn.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    try:
        await conn.execute(
            "CREATE TABLE big (x text) TABLESPACE small;"
            " INSERT INTO big SELECT repeat('x', 1000) FROM generate_series(1, 1500)"
        )
        unit = unit_of(f"{ONE};\nUPDATE big SET x = x || 'y'", kind=StatementKind.DATA)
        with pytest.raises(PostgresError, match=r"disk is full\. Nothing has changed") as failed:
            await apply_now(dsn, unit)
        assert "Make room" in failed.value.next_step
        assert await stand(dsn) == ("n", [], 0)
    finally:
        await conn.execute("DROP TABLE IF EXISTS big")
        await conn.execute("DROP TABLESPACE small")


@contextmanager
def short_folder() -> Iterator[Path]:
    """A socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="tk") as name:
        yield Path(name)


async def _begin(dsn: str, conn: Any, sql: str, evidence: dict[str, Any]) -> None:
    """What a life that was killed has left in the ledger."""
    await apply_alone(parse_dsn(dsn), "VACUUM orders", limits=QUICK, tell=silent)
    statement = unit_of(sql).review.statements[0]
    await open_unit(conn, "it", title="it", statements=1)
    await begin_line(conn, "it", statement, evidence)


async def _start(dsn: str, sql: str, moment: str) -> Any:
    asked = json.dumps({"dsn": dsn, "sql": sql, "moment": moment})
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.postgres.migrate.applier", asked, cwd=ROOT
    )


async def _life(dsn: str, sql: str, moment: str) -> int:
    return int(await (await _start(dsn, sql, moment)).wait())


async def _builder(conn: Any) -> Any:
    return await conn.fetchval(
        "SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%' LIMIT 1"
    )


async def _gone(conn: Any, pid: int) -> bool:
    return await conn.fetchval("SELECT 1 FROM pg_stat_activity WHERE pid = $1", pid) is None


async def _told(told: Told, part: str) -> bool:
    return told.has(part)
