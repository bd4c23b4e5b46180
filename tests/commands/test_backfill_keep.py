"""A backfill that keeps what it overwrites: said before, put back, dropped, watched afterwards."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from commands import aside, backfill, drop_aside, restore_aside
from jobs.health_settings import MonitoringSettings
from jobs.operation import Answer, JobError, Mode, Plan, Risk
from postgres.server import Server
from store.connect import Store
from store.kept_aside import KeptRow, open_kept
from store.tables import nodes, samples
from store.watches import open_watches
from tests.commands.conftest import NOW, DirectJob, JobMaker, connected, facts
from tests.commands.test_aside import KilledError, Lives
from tests.store.test_store import insert_request

_numbers = itertools.count(1)
STATES = "SELECT state, count(*) FROM {} GROUP BY state ORDER BY state"


@dataclass(kw_only=True)
class Shop:
    """A table of the test's own with 2,000 rows, all of them new, and a job."""

    job: DirectJob
    table: str
    conn: Any

    def asked(self, **more: Any) -> backfill.Params:
        given = {"set": "state = 'paid'", "keep": "7d", "rows": 500, "ranges": 1, **more}
        return backfill.Params(database="shop", table=f"public.{self.table}", **given)

    async def fill(self, **more: Any) -> tuple[Plan, Answer]:
        params = self.asked(**more)
        planned = await backfill.plan(self.job, params)
        assert await backfill.pins(self.job, params, planned) == planned.pins
        return planned, await backfill.run(self.job, params, planned)

    async def put_back(self, name: str, **more: Any) -> tuple[Plan, Answer]:
        params = restore_aside.Params(database="shop", kept=name, **more)
        planned = await restore_aside.plan(self.job, params)
        return planned, await restore_aside.run(self.job, params, planned)

    async def states(self) -> dict[str, int]:
        rows = await self.conn.fetch(STATES.format(self.table))
        return {row["state"]: row["count"] for row in rows}

    async def kept(self) -> list[KeptRow]:
        async with self.job.store.begin() as conn:
            return list(await open_kept(conn, "shop"))


@pytest.fixture
async def world(job: JobMaker, shop: Server, store: Store) -> AsyncIterator[Shop]:
    made = job()
    async with store.begin() as conn:
        made.request_id = await insert_request(conn, state="done", database="shop")
    # It waits for nobody here.
    unheld = replace(made.database.migrations.backfill, dead_max=0, slower_max=0)
    migrations = replace(made.database.migrations, backfill=unheld)
    made.database = replace(made.database, migrations=migrations)
    table = f"paid{next(_numbers)}"
    async with connected(shop) as conn:
        await conn.execute(f"""
            CREATE TABLE {table} (id int PRIMARY KEY, state text NOT NULL, note text);
            INSERT INTO {table} SELECT i, 'new', 'n' || i FROM generate_series(1, 2000) i;
            ANALYZE {table};
        """)
        yield Shop(job=made, table=table, conn=conn)
        # Requests have the same number in each test: none may go on with another one's backfill.
        await conn.execute(
            f"DROP TABLE {table}; DROP SCHEMA IF EXISTS twokey_aside, twokey_migrate CASCADE"
        )


async def test_the_plan_says_where_old_values_go_what_they_take_and_that_they_come_back(
    world: Shop,
) -> None:
    plain = await backfill.plan(world.job, world.asked(keep=""))
    made = await backfill.plan(world.job, world.asked())

    name = f"{world.table}_20261122t120000"
    assert (plain.risk, made.risk) == (Risk.DESTRUCTIVE, Risk.RECOVERABLE)
    assert plain.undo is None
    assert made.undo == (
        f"/db restore-aside shop {name}, for 7 d: where a row still holds what this wrote"
    )
    said = facts(made)["Old values"]
    assert said.startswith(f"kept for 7 d in twokey_aside.{name}: about ")
    assert "at most 10 GB; it takes about 2 times as long" in said
    assert f"INSERT INTO twokey_aside.{name}" in made.statements[0]
    assert made.pins["kept"] == name
    assert any("in the very statement" in step for step in made.steps)
    assert any("keep=7d" in warning for warning in plain.warnings)
    assert not any("overwritten" in warning for warning in made.warnings)
    assert (made.estimate_seconds or 0) > (plain.estimate_seconds or 0)


async def test_what_is_estimated_is_what_it_takes(world: Shop) -> None:
    await world.conn.execute(
        f"INSERT INTO {world.table} SELECT i, 'new' FROM generate_series(2001, 20000) i;"
        f" ANALYZE {world.table}"
    )
    _, answer = await world.fill()
    settings = replace(
        world.job.database.migrations.backfill,
        keep_max=int(int(answer.numbers["kept_bytes"]) / 1.3),
    )
    migrations = replace(world.job.database.migrations, backfill=settings)
    world.job.database = replace(world.job.database, migrations=migrations)
    world.job.now += timedelta(seconds=1)
    with pytest.raises(JobError, match=r"take about .* may be kept") as refused:
        await world.fill(set="state = 'sent'")
    assert "keep_max" in refused.value.next_step


FIRES = """
    CREATE TRIGGER t BEFORE UPDATE ON {0} FOR EACH ROW
        EXECUTE FUNCTION suppress_redundant_updates_trigger()
"""
REFERRED_TO = """
    ALTER TABLE {0} ADD UNIQUE (id, state);
    CREATE TABLE lines (a int, b text,
                        FOREIGN KEY (a, b) REFERENCES {0} (id, state) ON UPDATE SET NULL)
"""


@pytest.mark.parametrize(
    ("made", "undone"), [(FIRES, "DROP TRIGGER t ON {0}"), (REFERRED_TO, "DROP TABLE lines")]
)
async def test_what_it_changes_elsewhere_is_not_kept_and_stays_destructive(
    world: Shop, made: str, undone: str
) -> None:
    await world.conn.execute(made.format(world.table))
    planned = await backfill.plan(world.job, world.asked())
    assert planned.risk is Risk.DESTRUCTIVE
    assert any("not what is changed elsewhere" in warning for warning in planned.warnings)
    await world.conn.execute(undone.format(world.table))


async def test_it_is_listed_has_a_button_and_comes_back_whole(world: Shop) -> None:
    _, answer = await world.fill(where="id > 500")

    assert world.job.steps[0] == ("look", Mode.RETRYABLE)
    assert await world.states() == {"new": 500, "paid": 1500}
    (row,) = await world.kept()
    assert (row.what, row.original, row.rows) == (
        "values", f"public.{world.table}.state", 1500,
    )  # fmt: skip
    assert row.bytes == answer.numbers["kept_bytes"]
    assert row.bytes > 0
    listed = await aside.answer(world.job, aside.Params(database="shop"))
    assert listed.table is not None
    assert listed.table.rows[0][2:5:2] == ("values", "1,500")
    assert row.kept in dict(answer.facts)["Old values"]
    call = backfill.undo(world.asked(), answer.numbers)
    assert call is not None
    assert (call.operation, call.within) == ("restore-aside", timedelta(days=7))

    planned, back = await world.put_back(str(call.params["kept"]))

    assert planned.risk is Risk.RECOVERABLE
    assert facts(planned)["Rows"] == "1,500"
    assert any("still holds what the backfill wrote" in step for step in planned.steps)
    assert back.numbers == {"rows": 1500, "conflicts": 0, "gone": 0}
    assert await world.states() == {"new": 2000}
    assert await world.kept() == []
    assert await world.conn.fetchval("SELECT to_regclass($1)", row.kept) is None


async def test_what_somebody_wrote_since_stays_unless_told_otherwise(world: Shop) -> None:
    _, answer = await world.fill()
    name = str(answer.numbers["kept"])
    await world.conn.execute(f"""
        UPDATE {world.table} SET state = 'sent' WHERE id <= 30;
        UPDATE {world.table} SET note = 'other' WHERE id = 40;
        DELETE FROM {world.table} WHERE id > 1990;
    """)

    _, back = await world.put_back(name)

    assert back.numbers == {"rows": 1960, "conflicts": 30, "gone": 10}
    assert "30 rows have other values today, and keep them" in back.lines[0]
    assert "With overwrite=true" in back.lines[1]
    assert await world.states() == {"new": 1960, "sent": 30}
    assert [row.kept for row in await world.kept()] == [f"twokey_aside.{name}"]

    planned, all_of_it = await world.put_back(name, overwrite=True)

    assert planned.risk is Risk.DESTRUCTIVE
    assert any("lose what they were changed to" in warning for warning in planned.warnings)
    assert all_of_it.numbers == {"rows": 30, "conflicts": 0, "gone": 10}
    assert await world.states() == {"new": 1990}


async def test_what_a_killed_worker_was_putting_back_is_gone_on_with(world: Shop) -> None:
    _, answer = await world.fill()
    lives = Lives(**{name: getattr(world.job, name) for name in world.job.__dataclass_fields__},
                  dies_after="fill")  # fmt: skip
    params = restore_aside.Params(database="shop", kept=str(answer.numbers["kept"]))
    planned = await restore_aside.plan(lives, params)
    with suppress(KilledError):
        await restore_aside.run(lives, params, planned)

    back = await restore_aside.run(lives, params, planned)

    assert back.numbers["conflicts"] == 0
    assert await world.states() == {"new": 2000}
    assert await world.kept() == []


async def test_a_run_that_stopped_is_known_and_goes_on_keeping_or_comes_back(world: Shop) -> None:
    stops = f"state = 'paid' || (0 / ({1500} - id))::text"
    with pytest.raises(JobError, match="cannot be computed") as failed:
        await world.fill(set=stops)
    (row,) = await world.kept()
    name = row.kept.partition(".")[2]
    assert f"/db restore-aside shop {name}" in failed.value.next_step
    assert row.bytes > 0
    await world.conn.execute(f"DELETE FROM {world.table} WHERE id = 1500")
    first = world.job.request_id
    planned = await backfill.plan(world.job, world.asked(set=stops, resume=first, keep=""))
    assert planned.pins["kept"] == name

    _, answer = await world.fill(set=stops, resume=first, keep="")

    assert answer.numbers["rows"] == 1999
    _, back = await world.put_back(name)
    assert back.numbers["rows"] == 1999
    assert await world.states() == {"new": 1999}


async def test_what_was_put_back_half_way_is_not_gone_on_with(world: Shop) -> None:
    stops = f"state = 'paid' || (0 / ({1500} - id))::text"
    with pytest.raises(JobError, match="cannot be computed"):
        await world.fill(set=stops)
    await world.conn.execute(f"UPDATE {world.table} SET state = 'sent' WHERE id = 5")
    (row,) = await world.kept()
    _, back = await world.put_back(row.kept)
    assert back.numbers["conflicts"] == 1
    with pytest.raises(JobError, match="no backfill"):
        await backfill.plan(world.job, world.asked(set=stops, resume=world.job.request_id))


async def test_what_was_dropped_or_began_without_it_is_not_gone_on_with(world: Shop) -> None:
    stops = f"state = 'paid' || (0 / ({1500} - id))::text"
    with pytest.raises(JobError, match="cannot be computed"):
        await world.fill(set=stops)
    (row,) = await world.kept()
    params = drop_aside.Params(database="shop", kept=row.kept)
    await drop_aside.run(world.job, params, await drop_aside.plan(world.job, params))
    with pytest.raises(JobError, match="not there any more: it was put back or dropped"):
        await backfill.plan(world.job, world.asked(set=stops, resume=world.job.request_id))
    assert await world.kept() == []

    world.job.now += timedelta(seconds=1)
    with pytest.raises(JobError, match="cannot be computed"):
        await world.fill(set=stops, keep="")
    with pytest.raises(JobError, match="keeps nothing"):
        await backfill.plan(world.job, world.asked(set=stops, resume=world.job.request_id))


async def test_a_run_that_could_not_begin_leaves_nothing_listed(world: Shop) -> None:
    await world.conn.execute("CREATE SCHEMA twokey_aside AUTHORIZATION pg_monitor")
    with pytest.raises(JobError, match="belongs to pg_monitor"):
        await world.fill()
    assert await world.states() == {"new": 2000}
    assert await world.kept() == []


@pytest.mark.parametrize("keep", ["", "7d"])
async def test_what_follows_is_watched_against_before_with_the_way_back_where_there_is_one(
    world: Shop, store: Store, keep: str
) -> None:
    world.job.database = replace(world.job.database, monitoring=MonitoringSettings())
    at = NOW - timedelta(minutes=5)
    async with store.begin() as conn:
        await conn.execute(
            nodes.insert().values(
                database="shop", node="shop", region="", collector="w", at=at, ok=True, seen_at=at,
                problem="", next_step="", numbers={}, detail={"role": "primary"},
            )
        )  # fmt: skip
        await conn.execute(
            samples.insert().values(database="shop", node="shop", at=at, numbers={"deadlocks": 2.0})
        )
    _, answer = await world.fill(keep=keep)
    assert "compared with before for 15 min" in answer.lines[-1]
    async with store.begin() as conn:
        (watch,) = await open_watches(conn)
    assert (watch.subject, watch.before) == (
        f"backfill of public.{world.table}", {"deadlocks": 2.0},
    )  # fmt: skip
    assert watch.until == NOW + timedelta(minutes=15)
    if keep:
        assert watch.undo["operation"] == "restore-aside"
        assert watch.undo["params"] == {"database": "shop", "kept": answer.numbers["kept"]}
    else:
        assert watch.undo == {}
        assert backfill.undo(world.asked(keep=keep), answer.numbers) is None


def test_only_old_values_of_a_backfill_may_be_written_over_todays() -> None:
    assert restore_aside.OPERATION.risk is Risk.DESTRUCTIVE
    for wrong in ("0d", "367d", "soon"):
        with pytest.raises(ValueError, match="validation error"):
            backfill.Params(database="shop", table="a.b", set="a = 1", keep=wrong)
