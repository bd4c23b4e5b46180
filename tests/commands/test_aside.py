"""What was kept aside is listed, put back, dropped when somebody asks, and told of once."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from commands import aside, drop_aside, restore_aside
from jobs.kept_aside import enter_kept, prepare_aside, tell_due
from jobs.operation import JobError
from postgres.migrate.aside import with_aside
from postgres.migrate.aside_words import AsideBounds
from postgres.migrate.reverse import read_reverse_facts
from postgres.migrate.words import Review, ReviewedStatement, StatementKind
from postgres.server import Server
from store.connect import Store
from store.kept_aside import open_kept
from store.tables import outbox
from tests.commands.conftest import NOW, DirectJob, JobMaker, connected, facts
from tests.store.test_store import insert_request

_numbers = itertools.count(1)


@dataclass(kw_only=True)
class Shop:
    """A table of the test's own, and a job."""

    job: DirectJob
    server: Server
    table: str
    conn: Any

    async def drop(self, sql: str) -> str:
        """Run a statement in the form that keeps aside; the name of what is kept."""
        sql = sql.format(self.table)
        review = Review(
            statements=(
                ReviewedStatement(
                    index=0, sql=sql, line=1, node="", kind=StatementKind.DESTRUCTIVE
                ),
            )
        )
        read = await read_reverse_facts(self.conn, sql)
        plan = with_aside(review, read, AsideBounds())
        assert not plan.problems
        await self.conn.execute(plan.review.statements[0].sql)
        (row,) = await enter_kept(self.job, plan.kept)
        await enter_kept(self.job, plan.kept)  # as a run that is repeated does
        return row.kept.partition(".")[2]

    async def put_back(self, name: str) -> Any:
        params = restore_aside.Params(database="shop", kept=name)
        planned = await restore_aside.plan(self.job, params)
        assert await restore_aside.pins(self.job, params, planned) == planned.pins
        return planned, await restore_aside.run(self.job, params, planned)

    async def end(self, name: str = "") -> Any:
        params = drop_aside.Params(database="shop", kept=name)
        planned = await drop_aside.plan(self.job, params)
        assert await drop_aside.pins(self.job, params, planned) == planned.pins
        return planned, await drop_aside.run(self.job, params, planned)

    async def listed(self) -> Any:
        return await aside.answer(self.job, aside.Params(database="shop"))


@pytest.fixture
async def world(job: JobMaker, shop: Server, store: Store) -> AsyncIterator[Shop]:
    made = job()
    async with store.begin() as conn:
        made.request_id = await insert_request(conn, state="done", database="shop")
    await prepare_aside(made.database)
    table = f"kept{next(_numbers)}"
    async with connected(shop) as conn:
        await conn.execute(f"""
            CREATE TABLE {table} (id int PRIMARY KEY, note text NOT NULL, n int);
            CREATE INDEX {table}_note ON {table} (note);
            INSERT INTO {table} SELECT i, 'n' || i, i FROM generate_series(1, 2000) i;
            ANALYZE {table};
        """)
        yield Shop(job=made, server=shop, table=table, conn=conn)
        await conn.execute(f"DROP TABLE IF EXISTS {table}")
        for row in await conn.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'twokey_aside'::regnamespace"
            " AND relkind = 'r'"
        ):
            await conn.execute(f'DROP TABLE twokey_aside."{row["relname"]}"')


async def test_a_dropped_table_is_listed_and_put_back(world: Shop) -> None:
    name = await world.drop("DROP TABLE {}")
    listed = await world.listed()

    planned, answer = await world.put_back(f"public.{world.table}")

    assert listed.table is not None
    (row,) = listed.table.rows
    assert row[:3] == (name, f"public.{world.table}", "table")
    assert row[4:7] == ("2,000", "0 s ago", "7 d")
    assert "SET SCHEMA public" in planned.statements[0]
    assert answer.title == f"public.{world.table} is back"
    assert await world.conn.fetchval(f"SELECT count(*) FROM {world.table}") == 2000
    assert (await world.listed()).table is None


async def test_a_dropped_column_is_filled_in_by_its_key_with_all_that_stood_on_it(
    world: Shop,
) -> None:
    name = await world.drop("ALTER TABLE {} DROP COLUMN note")

    _, answer = await world.put_back(name)

    assert answer.numbers == {"rows": 2000, "conflicts": 0, "gone": 0}
    assert (
        await world.conn.fetchval(f"SELECT count(*) FROM {world.table} WHERE note = 'n' || id")
        == 2000
    )
    assert await world.conn.fetchval(
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = $1::text::regclass"
        " AND attname = 'note'", world.table,
    )  # fmt: skip
    assert await world.conn.fetchval("SELECT to_regclass($1)", f"{world.table}_note")
    assert await world.conn.fetchval("SELECT to_regclass($1)", f"twokey_aside.{name}") is None
    assert (await world.listed()).table is None


async def test_where_today_differs_the_copy_stays_and_it_is_said(world: Shop) -> None:
    name = await world.drop("ALTER TABLE {} DROP COLUMN note")
    await world.conn.execute(f"DELETE FROM {world.table} WHERE id = 1")
    await world.conn.execute(f"INSERT INTO {world.table} (id) VALUES (3000)")

    _, answer = await world.put_back(name)

    said = " ".join(answer.lines)
    assert "1 kept rows have no place any more" in said
    assert "Rows of today do not fit" in said  # NOT NULL: the new row has none
    assert f"The copy stays at twokey_aside.{name}" in said
    assert [row[0] for row in (await world.listed()).table.rows] == [name]


async def test_removed_rows_come_back_where_they_are_missing(world: Shop) -> None:
    name = await world.drop("TRUNCATE {}")
    await world.conn.execute(f"INSERT INTO {world.table} VALUES (5, 'today', 5)")

    planned, answer = await world.put_back(name)

    assert "what stands there today stays" in " ".join(planned.steps)
    assert answer.numbers == {"rows": 1999, "conflicts": 1, "gone": 0}
    assert "1 rows have other values today" in answer.lines[0]


class KilledError(Exception):
    """The worker is gone."""


@dataclass(kw_only=True)
class Lives(DirectJob):
    """A job whose worker is killed after a step's effect, before its outcome is stored."""

    dies_after: str
    known: dict[str, Any] = field(default_factory=dict)

    async def step(self, name: str, body: Any, **more: Any) -> Any:
        if name in self.known:
            return self.known[name]
        result = await DirectJob.step(self, name, body, **more)
        if name == self.dies_after:
            self.dies_after = ""
            raise KilledError
        self.known[name] = result
        return result


@pytest.mark.parametrize("sql", ["DROP TABLE {}", "ALTER TABLE {} DROP COLUMN note"])
@pytest.mark.parametrize("step", ["put back", "fill", "finish 2", "finish 5", "drop the copy"])
async def test_a_life_after_a_killed_one_goes_on(world: Shop, sql: str, step: str) -> None:
    name = await world.drop(sql)
    job = Lives(**{each.name: getattr(world.job, each.name) for each in fields(world.job)},
                dies_after=step)  # fmt: skip
    params = restore_aside.Params(database="shop", kept=name)
    planned = await restore_aside.plan(job, params)
    with suppress(KilledError):
        await restore_aside.run(job, params, planned)

    answer = await restore_aside.run(job, params, planned)

    assert answer.lines == ()
    count = f"SELECT count(*) FROM {world.table} WHERE note = 'n' || id"
    assert await world.conn.fetchval(count) == 2000
    assert (await world.listed()).table is None


async def test_nothing_is_put_back_over_something_else(world: Shop) -> None:
    name = await world.drop("DROP TABLE {}")
    await world.conn.execute(f"CREATE TABLE {world.table} (id int)")

    with pytest.raises(JobError, match="is there again"):
        await world.put_back(name)
    with pytest.raises(JobError, match="Nothing of that name"):
        await world.put_back("nope")


async def test_what_is_not_due_is_dropped_by_its_name_alone(world: Shop) -> None:
    name = await world.drop("DROP TABLE {}")
    with pytest.raises(JobError, match="Nothing that is kept aside of shop is due"):
        await world.end()

    planned, answer = await world.end(name)

    assert "7 d are left" in planned.warnings[1]
    assert planned.statements == (f"DROP TABLE twokey_aside.{name};",)
    assert answer.title == f"Dropped for good: public.{world.table}"
    assert await world.conn.fetchval("SELECT to_regclass($1)", f"twokey_aside.{name}") is None
    assert (await world.listed()).table is None


async def test_what_is_due_is_dropped_together_and_nothing_else(world: Shop) -> None:
    old = await world.drop("ALTER TABLE {} DROP COLUMN n")
    world.job.now = NOW + timedelta(days=6)
    young = await world.drop("TRUNCATE {}")
    world.job.now = NOW + timedelta(days=8)

    await world.end()

    async with world.job.store.begin() as conn:
        (left,) = await open_kept(conn, "shop")
    assert left.kept == f"twokey_aside.{young}"
    assert await world.conn.fetchval("SELECT to_regclass($1)", f"twokey_aside.{old}") is None


async def test_another_table_under_a_name_that_was_agreed_to_is_not_dropped(world: Shop) -> None:
    name = await world.drop("TRUNCATE {}")
    params = drop_aside.Params(database="shop", kept=name)
    planned = await drop_aside.plan(world.job, params)
    await world.conn.execute(f"DROP TABLE twokey_aside.{name}")
    await world.conn.execute(f"CREATE TABLE twokey_aside.{name} (a int)")

    assert await drop_aside.pins(world.job, params, planned) != planned.pins


async def test_what_stands_there_unknown_is_said(world: Shop) -> None:
    await world.conn.execute("CREATE TABLE twokey_aside.stray (a int)")

    answer = await world.listed()

    assert "not known to us: stray" in " ".join(answer.lines)


async def test_the_channel_hears_once_that_the_time_is_up_and_nothing_is_dropped(
    world: Shop, store: Store
) -> None:
    name = await world.drop("DROP TABLE {}")
    databases = {"shop": replace(world.job.database, channel="C0ASIDE")}

    told = [await tell_due(store, databases, now=NOW + timedelta(days=days)) for days in (6, 7, 8)]

    async with store.begin() as conn:
        query = sa.select(outbox.c.payload).where(outbox.c.channel == "C0ASIDE")
        (payload,) = (await conn.execute(query)).scalars()
    assert told == [0, 1, 0]
    assert payload["answer"]["suggestions"][0]["operation"] == "drop-aside"
    assert await world.conn.fetchval("SELECT to_regclass($1)", f"twokey_aside.{name}")
    assert facts(await world.listed())
