"""`/db restore --into scratch`: a chosen moment to look at, and nothing that outlives its time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from pydantic import SecretStr, ValidationError

from commands import drop_recovered, drop_scratch, recover_table, restore, scratches
from commands.restore import Params
from jobs.operation import Answer, JobError, Mode, Plan, Risk
from jobs.placing import PlacePart
from jobs.reader import Readers
from postgres.errors import PostgresError
from postgres.restore.lasting import lasting_folders, read_lasting, remove_all
from store.backups import record_backup
from store.connect import Store
from store.marks import write_mark
from store.scratches import find_scratch
from tests.commands.archived import (
    Archived,
    add_request,
    make_archived,
    record_of,
    remove_archived,
)
from tests.commands.conftest import DirectJob

Maker = Callable[..., DirectJob]


@pytest.fixture(scope="module")
def archived() -> Iterator[Archived]:
    made = asyncio.run(make_archived())
    try:
        yield made
    finally:
        asyncio.run(remove_archived(made))


@pytest.fixture
async def job(archived: Archived, store: Store) -> AsyncIterator[Maker]:
    """Makes jobs on the archived shop; no scratch server is left."""
    readers = Readers()
    first = await add_request(store)

    def make(*, open_max: int = 3, request_id: int = first) -> DirectJob:
        database = archived.database(open_max=open_max)
        folder = archived.home / "runs" / f"run-{request_id}-1"
        folder.mkdir(parents=True, exist_ok=True)
        return DirectJob(
            database=database,
            store=store,
            reader=readers.of(database),
            folder=folder,
            request_id=request_id,
            now=datetime.now(UTC),
        )

    try:
        yield make
    finally:
        await remove_all(archived.home)
        await readers.close()


def at(archived: Archived) -> str:
    return f"{archived.good:%Y-%m-%d %H:%M:%S.%f} UTC"


def facts(plan: Plan | Answer) -> dict[str, str]:
    return dict(plan.facts)


async def test_the_plan_says_which_backup_and_wal_and_what_is_not_in_it(
    job: Maker, archived: Archived
) -> None:
    plan = await restore.plan(job(), Params(database="shop", to=at(archived)))
    assert plan.risk is Risk.NONE
    assert plan.attributes == {"into": "scratch"}
    assert facts(plan)["Backup"].startswith("shop-1 (full, native), ")
    assert facts(plan)["Recovered to"].startswith(at(archived))
    assert "of WAL, in" in facts(plan)["Not in the copy"]
    assert facts(plan)["Lives for"] == "4 h"
    assert plan.pins["backup"] == "shop-1"
    assert plan.pins["target"] == at(archived)
    assert len(plan.pins["manifest"]) == 64
    assert "never restored as a test" in plan.warnings[0]


async def test_what_is_lost_in_place_is_the_first_warning_before_anyone_agrees(
    job: Maker, archived: Archived, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def somewhere(*_: object) -> PlacePart:
        return PlacePart(
            steps=("Exchange",), facts=(), warnings=("Down for a while.",), pins={"place": "p"},
            undo="Back.",
        )  # fmt: skip

    monkeypatch.setattr(restore, "plan_place", somewhere)
    async with store.begin() as conn:
        await write_mark(conn, archived.mark)
    params = Params(database="shop", to=at(archived), into="place")
    plan = await restore.plan(job(), params)
    assert plan.risk is Risk.DESTRUCTIVE
    assert plan.attributes == {"into": "place"}
    assert plan.pins.keys() == {"backup", "manifest", "target", "place"}
    lost = re.fullmatch(
        rf"Everything committed after {re.escape(at(archived))} is lost:"
        r" at most (\d+) transactions?, at most (.+) of WAL, in .+\.",
        plan.warnings[0],
    )
    assert lost is not None
    assert int(lost[1]) >= 1
    assert plan.warnings[-1] == "Down for a while."
    assert plan.steps[-1] == "Exchange"


async def test_a_server_that_is_gone_does_not_keep_its_copy_from_being_planned(
    job: Maker, archived: Archived, store: Store
) -> None:
    made = job()
    gone = replace(made.database, dsn=SecretStr("postgresql://nobody@127.0.0.1:1/shop"))
    made.database, made.reader = gone, Readers().of(gone)
    async with store.begin() as conn:
        await write_mark(conn, archived.mark)
    plan = await restore.plan(made, Params(database="shop", to=at(archived)))
    assert facts(plan)["Not in the copy"].startswith("an unknown number of transactions")


async def test_a_span_of_time_is_pinned_as_the_moment_that_it_means(
    job: Maker, archived: Archived
) -> None:
    made = job()
    made.now = archived.good + timedelta(minutes=5)
    plan = await restore.plan(made, Params(database="shop", to="5 minutes ago"))
    assert plan.pins["target"] == at(archived)
    made.now += timedelta(hours=1)
    again = await restore.pins(made, Params(database="shop", to="5 minutes ago"), plan)
    assert again == plan.pins
    other = replace(plan, pins={**plan.pins, "backup": "shop-0"})
    assert await restore.pins(made, Params(database="shop"), other) == {}


async def test_without_a_target_it_is_the_end_of_the_newest_backup(job: Maker) -> None:
    plan = await restore.plan(job(), Params(database="shop"))
    assert plan.pins["target"] == "end"
    assert facts(plan)["WAL to replay"] == "the backup's own"
    assert facts(plan)["Recovered to"].startswith("the end of the backup, 20")


async def test_a_target_outside_is_refused_with_what_can_be_recovered(
    job: Maker, archived: Archived
) -> None:
    with pytest.raises(PostgresError, match="before the end of the oldest backup") as refused:
        await restore.plan(job(), Params(database="shop", to="2020-01-01 00:00:00 UTC"))
    assert f"Recoverable: {archived.facts.ended_at:%Y-%m-%d %H:%M:%S UTC}" in (
        refused.value.next_step
    )
    with pytest.raises(PostgresError, match="names no time zone"):
        await restore.plan(job(), Params(database="shop", to="2020-01-01 00:00:00"))


async def test_the_run_waits_for_the_archive_but_not_for_what_can_never_come(
    job: Maker, archived: Archived
) -> None:
    made = job()
    made.now = datetime.now(UTC) + timedelta(minutes=1)
    plan = await restore.plan(made, Params(database="shop", to="1 seconds ago"))
    assert plan.warnings[0].startswith("The archive does not reach that moment yet")
    made.now = archived.facts.ended_at + timedelta(seconds=10)
    with pytest.raises(PostgresError, match="before the end of the oldest backup"):
        await restore.plan(made, Params(database="shop", to="1 minute ago"))


async def test_a_backup_that_was_found_damaged_is_not_restored(
    job: Maker, archived: Archived, store: Store
) -> None:
    made = job()
    async with store.begin() as conn:
        await record_backup(conn, record_of(archived.facts, state="damaged"))
    with pytest.raises(JobError, match="shop-1 was found damaged"):
        await restore.plan(made, Params(database="shop", backup="shop-1"))
    with pytest.raises(PostgresError, match="no backup"):
        await restore.plan(made, Params(database="shop"))


async def test_no_scratch_server_lives_longer_than_is_allowed(job: Maker) -> None:
    with pytest.raises(JobError, match="may live for 2 d at most, not for 3d"):
        await restore.plan(job(), Params(database="shop", lifetime="3d"))
    with pytest.raises(ValidationError):
        Params(database="shop", lifetime="soon")


async def test_a_table_comes_back_out_of_the_moment_before_the_accident(
    job: Maker, archived: Archived, store: Store
) -> None:
    made = job()
    answer = await _restored(made, Params(database="shop", to=at(archived), lifetime="2h"))
    scratch_id = str(answer.numbers["scratch"])
    lasting = read_lasting(archived.home / "scratch" / scratch_id)
    assert await _count(lasting.dsn, "payments") == 4500
    assert lasting.dsn in answer.lines[0]
    assert facts(answer)["Lives until"].endswith("(2 h)")
    assert [name for name, _ in made.steps] == ["mark", "choose", "restore"]
    await _enforces_the_limit(job, archived, scratch_id, store)
    await _lists_it(made, lasting.dsn)
    await _brings_the_table_back(job, archived, scratch_id, store)
    await _drops_it(made, archived, scratch_id, store)


async def _enforces_the_limit(
    job: Maker, archived: Archived, scratch_id: str, store: Store
) -> None:
    second = job(open_max=1, request_id=await add_request(store))
    params = Params(database="shop", to=at(archived))
    with pytest.raises(JobError, match=f"1 scratch server of shop run already: {scratch_id}"):
        await restore.plan(second, params)
    pinned = await restore.plan(job(), params)
    with pytest.raises(JobError, match="run already"):
        await restore.run(second, params, pinned)


async def _lists_it(made: DirectJob, dsn: str) -> None:
    listed = await scratches.answer(made, scratches.Params(database="shop"))
    assert listed.table is not None
    assert listed.table.rows[0][-1] == dsn
    everywhere = await scratches.answer(made, scratches.Params())
    assert everywhere.table == listed.table
    elsewhere = await scratches.answer(made, scratches.Params(database="other"))
    assert elsewhere.table is None


async def _brings_the_table_back(
    job: Maker, archived: Archived, scratch_id: str, store: Store
) -> None:
    made = job(request_id=await add_request(store))
    params = recover_table.Params(database="shop", table="public.payments", from_=scratch_id)
    plan = await recover_table.plan(made, params)
    assert facts(plan)["Today's table"] == "is there, and stays as it is"
    assert await recover_table.pins(made, params, plan) == plan.pins
    answer = await recover_table.run(made, params, plan)
    schema = f"restored_{made.request_id}"
    assert answer.numbers["rows"] == 4500
    assert await archived.ask(f"SELECT count(*) FROM {schema}.payments") == 4500
    assert await archived.ask("SELECT count(*) FROM public.payments") == 0
    assert made.steps == [("copy", Mode.RETRYABLE)]
    await _refuses_what_it_cannot(made, params)
    call = recover_table.undo(params, answer.numbers)
    assert call is not None
    undo = drop_recovered.Params.model_validate(call.params)
    await archived.ask(f"CREATE TABLE {schema}.mine (id int)")
    with pytest.raises(JobError, match="holds more than the one recovered table"):
        await drop_recovered.plan(made, undo)
    await archived.ask(f"DROP TABLE {schema}.mine")
    dropping = await drop_recovered.plan(made, undo)
    assert dropping.statements == (f"DROP TABLE {schema}.payments;", f"DROP SCHEMA {schema};")
    assert await drop_recovered.pins(made, undo, dropping) == dropping.pins
    await drop_recovered.run(made, undo, dropping)
    assert await archived.ask("SELECT to_regnamespace($1)", schema) is None
    with pytest.raises(JobError, match=f"has no schema {schema}"):
        await drop_recovered.plan(made, undo)


async def _refuses_what_it_cannot(made: DirectJob, params: recover_table.Params) -> None:
    for wrong, why in (
        (params.model_copy(update={"table": "public.nothing"}), "has no table public.nothing"),
        (params.model_copy(update={"from_": "shop-0"}), "shop-0 is not known"),
        (params.model_copy(update={"database": "other"}), "is a copy of shop, not of other"),
    ):
        with pytest.raises((JobError, PostgresError), match=why):
            await recover_table.plan(made, wrong)


async def _drops_it(made: DirectJob, archived: Archived, scratch_id: str, store: Store) -> None:
    params = drop_scratch.Params(scratch=scratch_id)
    plan = await drop_scratch.plan(made, params)
    assert plan.attributes == {"environment": "production"}
    assert await drop_scratch.pins(made, params, plan) == plan.pins
    await drop_scratch.run(made, params, plan)
    assert lasting_folders(archived.home) == ()
    async with store.begin() as conn:
        found = await find_scratch(conn, scratch_id)
    assert found is not None
    assert found.state == "removed"
    with pytest.raises(JobError, match=f"{scratch_id} has ended already"):
        await drop_scratch.plan(made, params)
    ended = await scratches.answer(made, scratches.Params(database="shop"))
    assert facts(ended)[f"Ended: {scratch_id}"].startswith("removed, ")


async def test_a_restore_that_fails_at_the_end_leaves_nothing(
    job: Maker, archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise PostgresError("The store is away.", next_step="Wait.")

    monkeypatch.setattr("jobs.scratch_run.record_scratch", fails)
    made = job()
    with pytest.raises(PostgresError, match="store is away"):
        await _restored(made, Params(database="shop"))
    assert lasting_folders(archived.home) == ()
    assert list((archived.home / "scratch").iterdir()) == []


async def test_a_moment_just_now_is_there_although_nothing_was_written_since(
    job: Maker, archived: Archived
) -> None:
    await archived.ask("INSERT INTO payments VALUES (9999, 1, 'just now')")
    made = job()
    made.now = datetime.now(UTC) + timedelta(seconds=1)
    plan = await restore.plan(made, Params(database="shop", to="1 seconds ago"))
    assert "Commit a mark on the server" in plan.steps[0]
    answer = await restore.run(made, Params(database="shop", to="1 seconds ago"), plan)
    lasting = read_lasting(archived.home / "scratch" / str(answer.numbers["scratch"]))
    assert await _count(lasting.dsn, "payments") == 1


async def _restored(made: DirectJob, params: Params) -> Answer:
    return await restore.run(made, params, await restore.plan(made, params))


async def _count(dsn: str, table: str) -> int:
    conn = await asyncpg.connect(dsn, timeout=30)
    try:
        return int(await conn.fetchval(f"SELECT count(*) FROM {table}"))
    finally:
        await conn.close()
