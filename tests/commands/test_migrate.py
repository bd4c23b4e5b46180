"""`/db migrate`: what is pending, what it would do, applied as the tool would, and taken back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from commands import migrate
from commands.migrate import Params
from jobs.health_settings import MonitoringSettings, SchemaKind, SchemaSource
from jobs.migration_settings import MigrationSettings
from jobs.operation import Answer, JobError, Plan, Risk
from postgres.server import Server
from store.applied import newest_applied
from store.connect import Store
from store.kept_aside import open_kept
from store.tables import nodes, samples
from store.watches import open_watches
from tests.commands.conftest import NOW, DirectJob, JobMaker
from tests.postgres.migrate.test_alembic import itself, revision
from tests.postgres.migrate.test_alembic import project as alembic_project
from tests.store.test_applied import a_request

Write = Callable[..., Path]
ADD = "ALTER TABLE public.tickets ADD COLUMN note text"
DROP = "ALTER TABLE public.tickets DROP COLUMN note"
INDEX = "CREATE INDEX CONCURRENTLY tickets_cents ON public.tickets (cents)"


@pytest.fixture
async def dsn(shop: Server) -> AsyncIterator[str]:
    """A database of its own with a table, in the shop's cluster."""
    await execute(shop.dsn(), "DROP DATABASE IF EXISTS moving WITH (FORCE)")
    await execute(shop.dsn(), "CREATE DATABASE moving")
    await execute(
        shop.dsn("moving"),
        "CREATE TABLE tickets (id int PRIMARY KEY, cents int NOT NULL);"
        "INSERT INTO tickets SELECT n, n FROM generate_series(1, 1000) AS n; ANALYZE tickets",
    )
    yield shop.dsn("moving")
    await execute(shop.dsn(), "DROP DATABASE IF EXISTS moving WITH (FORCE)")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a dbmate file into the team's folder."""
    folder = tmp_path / "migrations"
    folder.mkdir()

    def written(version: str, up: str, down: str | None = None, *, option: str = "") -> Path:
        text = f"-- migrate:up{option}\n{up};\n"
        text += f"\n-- migrate:down{option}\n"
        if down is not None:
            text += f"{down};\n"
        path = folder / f"{version}_step.sql"
        path.write_text(text)
        return path

    return written


@pytest.fixture
def moving(job: JobMaker, dsn: str, tmp_path: Path, write: Write, store: Store) -> DirectJob:
    """A job on that database, whose inventory entry names the folder."""
    del write
    made = job()
    database = replace(
        made.database,
        name="moving",
        dsn=SecretStr(dsn),
        migrations=MigrationSettings(folder=tmp_path / "migrations"),
        monitoring=MonitoringSettings(is_on=False),
    )
    made.database = database
    made.databases = {"moving": database}
    made.reader = type(made.reader)(database, statement_timeout=timedelta(seconds=5))
    return made


async def planned(job: DirectJob, *words: str) -> Plan:
    return await migrate.plan(job, asked(*words))


def asked(*words: str) -> Params:
    fields = ("database", "action", "version")
    return Params.model_validate(dict(zip(fields, ("moving", *words), strict=False)))


async def done(job: DirectJob, *words: str) -> Answer:
    plan = await planned(job, *words)
    return await migrate.run(job, asked(*words), plan)


async def execute(dsn: str, query: str) -> None:
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute(query)
    finally:
        await conn.close()


async def value(dsn: str, query: str) -> Any:
    conn = await asyncpg.connect(dsn)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


VERSIONS = "SELECT string_agg(version, ',' ORDER BY version) FROM schema_migrations"
COLUMNS = """
    SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute
     WHERE attrelid = 'tickets'::regclass AND attnum > 0 AND NOT attisdropped
"""


def test_a_version_may_stand_where_the_action_does() -> None:
    assert asked("0042") == Params(database="moving", action="apply", version="0042")
    assert asked("rollback", "0042").action == "rollback"
    assert [migrate.reads(asked(word)) for word in ("plan", "status", "apply", "rollback")] == [
        True, True, False, False,
    ]  # fmt: skip


async def test_nobody_has_said_where_the_folder_is(moving: DirectJob) -> None:
    moving.database = replace(moving.database, migrations=MigrationSettings())
    with pytest.raises(JobError, match="where the migrations of moving are") as refusal:
        await planned(moving)
    assert "migrations: {folder: ...}" in refusal.value.next_step


async def test_the_plan_says_what_happens_to_the_tables_as_they_are(
    moving: DirectJob, write: Write
) -> None:
    write("0001", ADD, DROP)
    write("0002", INDEX, "DROP INDEX CONCURRENTLY public.tickets_cents",
          option=" transaction:false")  # fmt: skip
    plan = await planned(moving)
    assert plan.title == "Migrate moving: 0001 step, 0002 step"
    facts = dict(plan.facts)
    assert "ACCESS EXCLUSIVE: blocks reads and writes" in facts["Strongest lock"]
    assert "public.tickets" in facts["Tables"]
    assert "1,000 rows" in facts["Tables"]
    assert facts["Rollback planned"] == "ok: down migration"
    assert facts["Backup verified"].startswith("NO: ")
    assert f"{ADD};" in plan.statements
    assert plan.undo == "/db migrate moving rollback 0001"
    assert plan.attributes["direction"] == "up"
    assert plan.attributes["kind"] == "online"
    assert plan.attributes["checklist"] == "incomplete"
    assert plan.attributes["rehearsed"] == "no"
    assert plan.risk is Risk.RECOVERABLE
    json.dumps(plan.attributes)


async def test_only_up_to_a_version(moving: DirectJob, write: Write) -> None:
    write("0001", ADD, DROP)
    write("0002", INDEX, option=" transaction:false")
    assert (await planned(moving, "0001")).title == "Migrate moving: 0001 step"


async def test_applied_taken_back_and_applied_again_as_dbmate_would_say_it(
    moving: DirectJob, write: Write, dsn: str, store: Store
) -> None:
    moving.request_id = await a_request(store)
    write("0001", ADD, DROP)
    answer = await done(moving)
    assert answer.title == "1 migration applied on moving: 0001 step"
    assert await value(dsn, VERSIONS) == "0001"
    assert await value(dsn, COLUMNS) == "id,cents,note"
    undo = migrate.undo(asked(), answer.numbers)
    assert undo is not None
    assert undo.params == {"database": "moving", "action": "rollback", "version": "0001"}
    back = await done(moving, "rollback", "0001")
    assert back.title == "1 migration taken back on moving: 0001 step"
    assert await value(dsn, VERSIONS) is None
    assert await value(dsn, COLUMNS) == "id,cents"
    assert migrate.undo(asked("rollback"), back.numbers) is None
    moving.request_id = await a_request(store)
    await done(moving)
    assert await value(dsn, VERSIONS) == "0001"
    async with store.begin() as conn:
        rows = await newest_applied(conn, "moving")
    assert [row.rolled_back_at is None for row in rows] in ([True, False], [False, True])


async def test_what_has_no_down_file_is_taken_back_where_that_can_be_proven(
    moving: DirectJob, write: Write, dsn: str, store: Store
) -> None:
    moving.request_id = await a_request(store)
    write("0001", "CREATE TABLE public.notes (id int PRIMARY KEY, body text)")
    plan = await planned(moving)
    assert dict(plan.facts)["Rollback planned"].startswith("ok: worked out")
    await done(moving)
    await done(moving, "rollback")
    assert await value(dsn, "SELECT to_regclass('public.notes')") is None
    assert await value(dsn, VERSIONS) is None


async def test_what_has_no_way_back_says_so_and_weighs_more(
    moving: DirectJob, write: Write
) -> None:
    write("0001", "ALTER TABLE public.tickets ALTER COLUMN cents TYPE bigint")
    plan = await planned(moving)
    assert dict(plan.facts)["Rollback planned"].startswith("NO: ")
    assert plan.undo is None
    assert plan.attributes["way_back"] == "no"
    assert plan.attributes["needs_window"] == "no"  # a thousand rows are rewritten in no time
    assert any("has no way back" in warning for warning in plan.warnings)
    assert plan.risk is not Risk.RECOVERABLE


async def test_a_file_that_fails_changes_nothing_and_those_before_it_stand(
    moving: DirectJob, write: Write, dsn: str, store: Store
) -> None:
    moving.request_id = await a_request(store)
    write("0001", ADD, DROP)
    write("0002", "ALTER TABLE public.tickets ADD CONSTRAINT small CHECK (cents < 10)", "SELECT 1")
    with pytest.raises(JobError, match="0002 step") as failure:
        await done(moving)
    assert "0001 step stands" in failure.value.problem
    assert await value(dsn, VERSIONS) == "0001"


async def test_a_file_that_does_what_no_run_may_do_is_refused_with_its_line(
    moving: DirectJob, write: Write
) -> None:
    write("0001", "SET lock_timeout = 0;\nALTER TABLE public.tickets ADD COLUMN x int")
    with pytest.raises(JobError, match=r"0001_step\.sql, line 2"):
        await planned(moving)
    answer = await migrate.answer(moving, asked("plan"))
    assert any("error" in line for line in answer.lines)


async def test_a_changed_file_is_not_what_was_agreed_to(moving: DirectJob, write: Write) -> None:
    write("0001", ADD, DROP)
    plan = await planned(moving)
    assert await migrate.pins(moving, asked(), plan) == dict(plan.pins)
    write("0001", f"{ADD} DEFAULT 'x'", DROP)
    assert await migrate.pins(moving, asked(), plan) != dict(plan.pins)
    with pytest.raises(JobError, match="no longer what was agreed to"):
        await migrate.run(moving, asked(), plan)


async def test_status_lists_what_is_there_and_what_is_wrong(
    moving: DirectJob, write: Write, store: Store
) -> None:
    moving.request_id = await a_request(store)
    write("0001", ADD, DROP)
    await done(moving)
    write("0002", INDEX, option=" transaction:false")
    answer = await migrate.answer(moving, asked("status"))
    assert answer.title == "moving: 1 migration pending, stands at 0001 step"
    assert answer.table is not None
    assert [(row[0], row[2]) for row in answer.table.rows] == [
        ("0001", "applied"), ("0002", "pending"),
    ]  # fmt: skip
    assert answer.table.rows[0][4] == f"request {moving.request_id}"
    (button,) = answer.suggestions
    assert button.params == {"database": "moving", "action": "plan"}
    write("0000", "SELECT 1")
    wrong = await migrate.answer(moving, asked("status"))
    assert any("0000_step.sql" in line for line in wrong.lines)
    assert wrong.suggestions == ()
    with pytest.raises(JobError, match=r"0000_step\.sql"):
        await planned(moving)


async def test_plan_shows_statements_and_safer_ways(moving: DirectJob, write: Write) -> None:
    write("0001", "CREATE INDEX tickets_cents ON public.tickets (cents)")
    answer = await migrate.answer(moving, asked("plan"))
    assert answer.table is not None
    ((lock, blocks, kind, _, _, statement, _, file),) = answer.table.rows
    assert (file, kind, lock, blocks) == ("0001_step.sql:2", "blocking", "Share", "writes")
    assert statement.startswith("CREATE INDEX")
    assert any("CONCURRENTLY" in line for line in answer.statements)
    assert [each.operation for each in answer.suggestions] == ["rehearse", "migrate"]


async def test_elsewhere_counts_only_from_the_same_bytes(
    moving: DirectJob, write: Write, store: Store, shop: Server
) -> None:
    write("0001", ADD, DROP)
    await moving.reader.close()  # a template must have no other session
    await execute(shop.dsn(), "DROP DATABASE IF EXISTS moving_dev WITH (FORCE)")
    await execute(shop.dsn(), "CREATE DATABASE moving_dev TEMPLATE moving")
    dev = replace(
        moving.database, name="moving-dev", environment="development",
        dsn=SecretStr(shop.dsn("moving_dev")),
    )  # fmt: skip
    settings = replace(moving.database.migrations, before=("moving-dev",))
    moving.database = replace(moving.database, migrations=settings)
    moving.databases = {"moving": moving.database, "moving-dev": dev}
    said = dict((await planned(moving)).facts)["Tested in development"]
    assert said.startswith("NO: not, or not the same, in moving-dev: 0001")
    there = replace(
        moving, database=dev, request_id=await a_request(store),
        reader=type(moving.reader)(dev, statement_timeout=timedelta(seconds=5)),
    )  # fmt: skip
    await done(there)
    said = dict((await planned(moving)).facts)["Tested in development"]
    assert said == "ok: the same bytes in moving-dev"
    write("0001", f"{ADD} DEFAULT 'x'", DROP)
    assert dict((await planned(moving)).facts)["Tested in development"].startswith("NO: ")
    await there.reader.close()
    await execute(shop.dsn(), "DROP DATABASE moving_dev WITH (FORCE)")
    gone = dict((await planned(moving)).facts)["Tested in development"]
    assert "moving-dev cannot say" in gone


async def test_what_follows_is_watched_against_before(
    moving: DirectJob, write: Write, store: Store
) -> None:
    moving.request_id = await a_request(store)
    moving.database = replace(moving.database, monitoring=MonitoringSettings())
    write("0001", ADD, DROP)
    at = NOW - timedelta(minutes=5)
    async with store.begin() as conn:
        await conn.execute(
            nodes.insert().values(
                database="moving", node="moving", region="", collector="w", at=at, ok=True,
                seen_at=at, problem="", next_step="", numbers={}, detail={"role": "primary"},
            )
        )  # fmt: skip
        await conn.execute(
            samples.insert().values(
                database="moving", node="moving", at=at, numbers={"lock_waits": 2.0}
            )
        )
    answer = await done(moving)
    assert "compared with before for 15 min" in answer.lines[0]
    async with store.begin() as conn:
        (watch,) = await open_watches(conn)
    assert watch.before == {"lock_waits": 2.0}
    assert watch.until == NOW + timedelta(minutes=15)
    assert watch.undo["params"] == {
        "database": "moving", "action": "rollback", "version": "0001",
    }  # fmt: skip


async def test_what_a_file_drops_is_kept_aside_under_its_name_and_told(
    moving: DirectJob, write: Write, dsn: str, store: Store
) -> None:
    moving.request_id = await a_request(store)
    write("0001", "ALTER TABLE public.tickets DROP COLUMN cents")
    plan = await planned(moving)
    assert any("twokey_aside" in statement for statement in plan.statements)
    assert dict(plan.facts)["Rollback planned"].startswith("ok: kept aside")
    assert plan.risk is Risk.DISRUPTIVE
    assert plan.attributes["kind"] == "destructive"
    answer = await done(moving)
    assert "twokey_aside.tickets_cents_1" in answer.lines[1]
    assert await value(dsn, COLUMNS) == "id"
    assert await value(dsn, "SELECT sum(cents) FROM twokey_aside.tickets_cents_1") == 500_500
    async with store.begin() as conn:
        (row,) = await open_kept(conn, "moving")
    assert (row.original, row.rows) == ("public.tickets.cents", 1000)
    assert row.until == NOW + timedelta(days=7)
    with pytest.raises(JobError, match="no way back") as refusal:
        await planned(moving, "rollback")
    assert "/db aside" in refusal.value.next_step


async def test_what_is_not_to_be_kept_is_dropped(
    moving: DirectJob, write: Write, dsn: str, store: Store
) -> None:
    moving.request_id = await a_request(store)
    settings = replace(moving.database.migrations, keep_aside=timedelta(0))
    moving.database = replace(moving.database, migrations=settings)
    write("0001", "DROP TABLE public.tickets")
    plan = await planned(moving)
    assert "DROP TABLE public.tickets;" in plan.statements
    assert plan.risk is Risk.DESTRUCTIVE
    await done(moving)
    assert await value(dsn, "SELECT to_regnamespace('twokey_aside')") is None


async def test_a_life_after_a_crash_goes_on_with_the_form_that_was_stored(
    moving: DirectJob, write: Write, dsn: str, store: Store
) -> None:
    """The first life drops the table, and dies before it has entered what it kept."""
    moving.request_id = await a_request(store)
    write("0001", "DROP TABLE public.tickets")
    plan = await planned(moving)
    stored: dict[str, Any] = {}
    first = DyingJob(moving, stored)
    with pytest.raises(ZeroDivisionError):
        await migrate.run(first, asked(), plan)  # type: ignore[arg-type]
    assert await value(dsn, "SELECT to_regclass('public.tickets')") is None
    first.dies = False
    answer = await migrate.run(first, asked(), plan)  # type: ignore[arg-type]
    assert "twokey_aside.tickets_1" in answer.lines[1]
    async with store.begin() as conn:
        (row,) = await open_kept(conn, "moving")
        (applied,) = await newest_applied(conn, "moving")
    assert row.original == "public.tickets"
    assert applied.version == "0001"


async def test_the_source_of_truth_is_compared_before_and_after(
    moving: DirectJob, write: Write, store: Store, tmp_path: Path
) -> None:
    moving.request_id = await a_request(store)
    truth = tmp_path / "schema.sql"
    truth.write_text("CREATE TABLE tickets (id int PRIMARY KEY, cents int NOT NULL, note text);")
    source = SchemaSource(kind=SchemaKind.SQL, path=truth)
    monitoring = MonitoringSettings(is_on=False, schema=source)
    moving.database = replace(moving.database, monitoring=monitoring)
    write("0001", ADD, DROP)
    assert "/db schema moving" in dict((await planned(moving)).facts)["Source of truth"]
    answer = await done(moving)
    assert "Source of truth: 1 difference before, 0 after." in answer.lines
    write("0002", "ALTER TABLE public.tickets ADD COLUMN undeclared int", "SELECT 1")
    assert dict((await planned(moving)).facts)["Source of truth"] == "As declared"


async def test_alembics_revisions_are_rendered_applied_and_known_to_alembic_itself(
    moving: DirectJob, dsn: str, store: Store, tmp_path: Path
) -> None:
    moving.request_id = await a_request(store)
    root = alembic_project(tmp_path / "alembic")
    revision(root, "b2", "a1", 'op.execute("ALTER TABLE users ADD note text")',
             'op.execute("ALTER TABLE users DROP note")')  # fmt: skip
    settings = MigrationSettings(folder=root, keep_aside=timedelta(0))
    moving.database = replace(moving.database, migrations=settings)
    plan = await planned(moving)
    assert plan.title == "Migrate moving: a1 Step a1, b2 Step b2"
    assert any("CREATE TABLE users" in statement for statement in plan.statements)
    assert not any("alembic_version" in statement for statement in plan.statements)
    await done(moving)
    assert "b2 (head)" in await itself(root, dsn, "current")
    await done(moving, "rollback", "b2")
    assert "a1" in await itself(root, dsn, "current")
    await itself(root, dsn, "upgrade", "head")
    answer = await migrate.answer(moving, asked("status"))
    assert answer.title == "moving: 0 migrations pending, stands at b2 Step b2"


class DyingJob:
    """A job whose steps are remembered; its first life ends when the store is to hear of it."""

    def __init__(self, job: DirectJob, stored: dict[str, Any]) -> None:
        self.job, self.stored, self.dies = job, stored, True

    def __getattr__(self, name: str) -> Any:
        if name == "store" and self.dies and "0001:up before" in self.stored:
            raise ZeroDivisionError
        return getattr(self.job, name)

    async def step(self, name: str, body: Any, **more: Any) -> Any:
        if name not in self.stored:
            self.stored[name] = await self.job.step(name, body, **more)
        return self.stored[name]
