"""Files that cannot be one transaction, on a real server: whatever cuts them short, they go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.apply import BlockedError, ExceededError, Expected, apply_alone
from postgres.migrate.apply_errors import LostError
from postgres.migrate.apply_session import working
from postgres.migrate.ledger import read_begun, unfinished
from postgres.migrate.words import Observation, ReviewedStatement, StatementKind
from tests.conftest import Target
from tests.postgres.migrate.applying import QUICK, Told, apply_now, other, silent, unit_of, until

TABLES = """
    CREATE TABLE orders (id int PRIMARY KEY, note text, customer int);
    INSERT INTO orders SELECT n, 'n', n % 10 FROM generate_series(1, 500) AS n;
"""
FILE = """\
UPDATE orders SET note = note || '+';
CREATE INDEX CONCURRENTLY orders_customer ON orders (customer);
ALTER TABLE orders ADD a int;
"""
BUILD = "CREATE INDEX CONCURRENTLY orders_customer ON orders (customer)"
WRITES = "INSERT INTO orders VALUES (1000, 'secret', 1)"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    """A connection to a fresh database with a table in it."""
    made = await asyncpg.connect(target.dsn)
    await made.execute(TABLES)
    yield made
    await made.close()


async def booked(conn: Any) -> list[str]:
    rows = await conn.fetch("SELECT version FROM twokey_migrate.applied ORDER BY 1")
    return [row["version"] for row in rows]


async def indexes(conn: Any) -> list[tuple[str, bool]]:
    rows = await conn.fetch(
        "SELECT indexrelid::regclass::text AS name, indisvalid FROM pg_index"
        " WHERE indrelid = 'orders'::regclass AND NOT indisprimary ORDER BY 1"
    )
    return [(row["name"], row["indisvalid"]) for row in rows]


async def alone(target: Target, sql: str) -> Any:
    return await apply_alone(parse_dsn(target.dsn), sql, limits=QUICK, tell=silent)


async def builder(conn: Any) -> Any:
    return await conn.fetchval("SELECT pid FROM pg_stat_progress_create_index LIMIT 1")


async def test_each_statement_is_done_and_written_down(conn: Any, target: Target) -> None:
    done = await apply_now(target.dsn, unit_of(FILE))
    assert [each.index for each in done.observations] == [0, 1, 2]
    assert await indexes(conn) == [("orders_customer", True)]
    assert await conn.fetchval("SELECT DISTINCT note FROM orders") == "n+"
    assert await booked(conn) == ["0001"]
    assert await unfinished(conn) == ()
    assert (await apply_now(target.dsn, unit_of(FILE))).was_done


async def test_a_failure_says_what_stays_and_asked_again_it_goes_on(
    conn: Any, target: Target
) -> None:
    wrong = FILE + "ALTER TABLE orders ADD b no_such_type;"
    with pytest.raises(PostgresError, match="first 3 of its 4 statements are done and stay"):
        await apply_now(target.dsn, unit_of(wrong))
    (left,) = await unfinished(conn)
    assert (left.key, left.done, left.statements) == ("0001 up", 3, 4)
    assert await booked(conn) == []
    mended = unit_of(FILE + "ALTER TABLE orders ADD b int;")
    done = await apply_now(target.dsn, mended)
    assert done.notes == ("3 of 4 statements were done before.",)
    assert await conn.fetchval("SELECT DISTINCT note FROM orders") == "n+"
    assert await booked(conn) == ["0001"]


async def test_what_has_run_may_not_be_another_statement_afterwards(
    conn: Any, target: Target
) -> None:
    with pytest.raises(PostgresError):
        await apply_now(target.dsn, unit_of(FILE + "ALTER TABLE orders ADD b no_such_type;"))
    changed = FILE.replace("'+'", "'-'") + "ALTER TABLE orders ADD b int;"
    with pytest.raises(PostgresError, match="statement 1 was changed since"):
        await apply_now(target.dsn, unit_of(changed))


async def test_rows_that_break_a_unique_index_leave_no_half_built_one(
    conn: Any, target: Target
) -> None:
    sql = "CREATE UNIQUE INDEX CONCURRENTLY orders_once ON orders (customer)"
    with pytest.raises(PostgresError, match="some rows have the same values") as failed:
        await apply_now(target.dsn, unit_of(sql))
    assert "(customer)=" not in failed.value.problem
    assert await indexes(conn) == []
    begun = await read_begun(conn, "0001 up")
    assert begun is not None
    assert begun.lines == {}
    await conn.execute("DELETE FROM orders WHERE id > 10")
    await apply_now(target.dsn, unit_of(sql))
    assert await indexes(conn) == [("orders_once", True)]


async def test_old_transactions_are_named_while_they_are_waited_for(
    conn: Any, target: Target
) -> None:
    told = Told()
    async with other(target.dsn, WRITES) as holder:
        applying = asyncio.create_task(apply_now(target.dsn, unit_of(BUILD), tell=told))
        await until(lambda: _has(told, f"process {holder.get_server_pid()} (postgres, shop"))
        await holder.execute("ROLLBACK")
        done = await applying
    assert "INSERT INTO orders VALUES (?, ?, ?)" in done.waits[0].blockers[0]
    assert await indexes(conn) == [("orders_customer", True)]


async def test_old_transactions_are_waited_for_so_long_and_no_longer(
    conn: Any, target: Target
) -> None:
    impatient = replace(QUICK, alone_wait=timedelta(seconds=0.3), cleanup=timedelta(seconds=0.3))
    async with other(target.dsn, WRITES) as holder:
        with pytest.raises(BlockedError, match=f"process {holder.get_server_pid()} ") as failed:
            async with asyncio.timeout(15):  # long before `alone`
                await apply_now(target.dsn, unit_of(FILE), limits=impatient)
        assert "The first 1 of its 3 statements are done and stay" in failed.value.problem
    assert await booked(conn) == []
    await apply_now(target.dsn, unit_of(FILE))
    assert await indexes(conn) == [("orders_customer", True)]
    assert await conn.fetchval("SELECT DISTINCT note FROM orders") == "n+"


async def test_waiting_for_others_does_not_count_against_the_rehearsal(
    conn: Any, target: Target
) -> None:
    expected = Expected(locks={}, seconds={0: 0.01}, floor_seconds=0.5)
    async with other(target.dsn, WRITES) as holder:
        applying = asyncio.create_task(apply_now(target.dsn, unit_of(BUILD), expected=expected))
        await until(lambda: builder(conn))
        await asyncio.sleep(0.8)
        await holder.execute("ROLLBACK")
        assert (await applying).waits
    slow = "CREATE INDEX CONCURRENTLY slow ON orders (slowly(id))"
    await conn.execute(
        "CREATE FUNCTION slowly(int) RETURNS int IMMUTABLE LANGUAGE plpgsql"
        " AS 'BEGIN PERFORM pg_sleep(0.05); RETURN $1; END'"
    )
    with pytest.raises(ExceededError, match=r"was at work for .* the rehearsal took 0\.0 s"):
        await apply_now(target.dsn, unit_of(slow, version="0002"), expected=expected)
    assert await indexes(conn) == [("orders_customer", True)]


async def test_if_not_exists_does_not_hide_an_index_that_somebody_left_half_built(
    conn: Any, target: Target
) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await conn.execute("CREATE UNIQUE INDEX CONCURRENTLY theirs ON orders (customer)")
    sql = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS theirs ON orders (customer)"
    with pytest.raises(PostgresError, match="half-built by somebody else"):
        await apply_now(target.dsn, unit_of(sql))
    assert await indexes(conn) == [("theirs", False)], "it is not ours to drop"


@dataclass(frozen=True, slots=True)
class Between:
    """Somebody who does something right before a statement."""

    work: Callable[[], Awaitable[None]]

    async def before(self, conn: Any, statement: ReviewedStatement) -> None:
        await self.work()

    async def after(self, conn: Any, statement: ReviewedStatement) -> Observation:
        return Observation(index=statement.index, seconds=0)


async def test_an_invalid_index_that_appears_at_the_last_moment_is_not_taken_for_ours(
    conn: Any, target: Target
) -> None:
    async def build() -> None:
        with pytest.raises(asyncpg.UniqueViolationError):
            await conn.execute("CREATE UNIQUE INDEX CONCURRENTLY theirs ON orders (customer)")

    sql = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS theirs ON orders (customer)"
    with pytest.raises(PostgresError, match="there is no valid index such as it says"):
        await apply_now(target.dsn, unit_of(sql), observer=Between(build))
    assert await booked(conn) == []
    assert await indexes(conn) == [("theirs", False)]


async def test_an_index_of_that_name_that_is_somebody_elses_stops_it(
    conn: Any, target: Target
) -> None:
    await conn.execute("CREATE INDEX orders_customer ON orders (note)")
    with pytest.raises(PostgresError, match="Something else is called orders_customer"):
        await apply_now(target.dsn, unit_of(FILE))
    await conn.execute("DROP INDEX orders_customer")
    await conn.execute("CREATE INDEX orders_customer ON orders (customer)")
    with pytest.raises(PostgresError, match="is there already"):
        await apply_now(target.dsn, unit_of(FILE))
    lenient = "CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_customer ON orders (customer)"
    done = await apply_now(target.dsn, unit_of(lenient, version="0002"))
    assert "was there already" in done.notes[0]


async def test_a_cancel_ends_it_in_the_server_and_leaves_nothing_half_built(
    conn: Any, target: Target
) -> None:
    async with other(target.dsn, WRITES) as holder:
        applying = asyncio.create_task(apply_now(target.dsn, unit_of(FILE)))
        await until(lambda: builder(conn))
        applying.cancel()
        # What clears it waits for the same old transaction.
        await until(lambda: _none(builder(conn)))
        await holder.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await applying
    assert await _ours(conn) == 0
    assert await indexes(conn) == []
    await apply_now(target.dsn, unit_of(FILE))
    assert await indexes(conn) == [("orders_customer", True)]
    assert await conn.fetchval("SELECT DISTINCT note FROM orders") == "n+"


async def test_a_cancel_within_a_transaction_ends_it_in_the_server(
    conn: Any, target: Target
) -> None:
    unit = unit_of("UPDATE orders SET note = ''; SELECT pg_sleep(60)", kind=StatementKind.DATA)
    applying = asyncio.create_task(apply_now(target.dsn, unit))
    sleeping = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    await until(lambda: conn.fetchval(sleeping))
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying
    assert await _ours(conn) == 0
    assert await conn.fetchval("SELECT DISTINCT note FROM orders") == "n"


async def test_nothing_goes_on_in_the_server_when_its_connection_is_gone(
    conn: Any, target: Target
) -> None:
    async with working(parse_dsn(target.dsn), QUICK, what="it", tell=silent) as work:
        asleep = asyncio.create_task(work.execute("SELECT pg_sleep(60)", seconds_max=60))
        sleeping = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        await until(lambda: conn.fetchval(sleeping))
        work.conn.terminate()  # hangs up without a word
        with pytest.raises(LostError):
            await asleep
    assert await _ours(conn) == 0


async def test_one_statement_alone_may_be_asked_for_again(conn: Any, target: Target) -> None:
    assert not (await alone(target, BUILD)).was_done
    assert (await alone(target, BUILD)).was_done
    drop = "DROP INDEX CONCURRENTLY orders_customer"
    await alone(target, drop)
    assert await indexes(conn) == []
    await alone(target, BUILD)
    assert await indexes(conn) == [("orders_customer", True)], "another day, another wish"
    await conn.execute("ALTER TABLE orders ADD CONSTRAINT positive CHECK (customer >= 0) NOT VALID")
    for _ in range(2):
        await alone(target, "ALTER TABLE orders VALIDATE CONSTRAINT positive")
    assert await conn.fetchval("SELECT convalidated FROM pg_constraint WHERE conname = 'positive'")
    assert await unfinished(conn) == ()


async def test_session_settings_of_a_file_hold_for_what_follows_also_when_it_goes_on(
    conn: Any, target: Target
) -> None:
    start = "SET my.word = 'hello';\nVACUUM orders;\n"
    sql = start + "UPDATE orders SET note = current_setting('my.word');\nSELECT no_such();"
    unit = unit_of(sql)
    with pytest.raises(PostgresError, match="no_such"):
        await apply_now(target.dsn, _noded(unit))
    assert await conn.fetchval("SELECT DISTINCT note FROM orders") == "hello"
    more = start + "UPDATE orders SET note = current_setting('my.word');\n"
    more += "UPDATE orders SET note = note || current_setting('my.word');"
    await apply_now(target.dsn, _noded(unit_of(more)))
    assert await conn.fetchval("SELECT DISTINCT note FROM orders") == "hellohello"


def _noded(unit: Any) -> Any:
    """With the parser's name of a SET, as a review has it."""
    statements = tuple(
        replace(each, node="VariableSetStmt" if each.sql.startswith("SET") else "")
        for each in unit.review.statements
    )
    return replace(unit, review=replace(unit.review, statements=statements))


async def _has(told: Told, part: str) -> bool:
    return told.has(part)


async def _none(found: Any) -> bool:
    return await found is None


async def _ours(conn: Any) -> Any:
    return await conn.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'twokey apply%'"
        " AND datname = current_database() AND state <> 'idle'"
    )
