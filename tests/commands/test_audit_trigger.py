"""The row audit: installed, in force for everybody, looked after, and removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from commands import audit_trigger, audit_triggers
from commands.audit_trigger import Params
from jobs.health_settings import MonitoringSettings
from jobs.operation import Database, JobError, Tier
from jobs.reader import Readers
from store.connect import Store
from tests.commands.conftest import DirectJob
from tests.conftest import Target

SCHEMA = """
    CREATE TABLE users (id int PRIMARY KEY, name text, secret text);
    INSERT INTO users VALUES (1, 'Ana', 'x');
"""


HOLLOW = """
    CREATE OR REPLACE FUNCTION twokey_audit.record_row_change() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NULL; END'
"""


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    made = await asyncpg.connect(target.dsn)
    await made.execute(SCHEMA)
    yield made
    await made.close()


@pytest.fixture
async def job(conn: Any, target: Target, store: Store, tmp_path: Path) -> AsyncIterator[DirectJob]:
    readers = Readers()
    database = Database(
        name="orders", dsn=SecretStr(target.dsn), environment="production", tier=Tier.CRITICAL,
        channel="C0ORDERS", backup_folder=tmp_path,
        monitoring=MonitoringSettings(sensitive_tables=("public.users", "public.gone")),
    )  # fmt: skip
    yield DirectJob(
        database=database, store=store, reader=readers.of(database), folder=tmp_path, request_id=1
    )
    await readers.close()


def wanted(**changes: Any) -> Params:
    return Params.model_validate({"database": "orders", "table": "public.users", **changes})


async def carry_out(job: DirectJob, params: Params) -> Any:
    plan = await audit_trigger.plan(job, params)
    return await audit_trigger.run(job, params, plan)


async def recorded(conn: Any) -> list[tuple[Any, ...]]:
    rows = await conn.fetch("""
        SELECT table_name, operation, old_data::text, new_data::text
          FROM twokey_audit.row_changes ORDER BY id
    """)
    return [tuple(row) for row in rows]


async def state(job: DirectJob) -> str:
    [row] = [row for row in (await shown(job)).table.rows if row[0] == "public.users"]
    return str(row[1])


async def shown(job: DirectJob) -> Any:
    return await audit_triggers.answer(job, audit_triggers.Params(database="orders"))


async def test_every_change_of_a_row_is_written_down_without_the_columns_left_out(
    job: DirectJob, conn: Any
) -> None:
    await carry_out(job, wanted(without=["secret"]))
    await conn.execute("INSERT INTO users VALUES (2, 'Ben', 'y')")
    await conn.execute("UPDATE users SET name = 'Bea' WHERE id = 2")
    await conn.execute("DELETE FROM users WHERE id = 2")
    await conn.execute("TRUNCATE users")
    assert await recorded(conn) == [
        ("users", "INSERT", None, '{"id": 2, "name": "Ben"}'),
        ("users", "UPDATE", '{"id": 2, "name": "Ben"}', '{"id": 2, "name": "Bea"}'),
        ("users", "DELETE", '{"id": 2, "name": "Bea"}', None),
        ("users", "TRUNCATE", None, None),
    ]
    assert await state(job) == "in force"


async def test_who_may_write_to_the_table_is_recorded_and_needs_no_right_on_the_record(
    job: DirectJob, conn: Any
) -> None:
    await carry_out(job, wanted())
    await conn.execute("""
        DROP ROLE IF EXISTS audited_writer;
        CREATE ROLE audited_writer;
        GRANT INSERT ON users TO audited_writer;
        SET ROLE audited_writer;
        INSERT INTO users VALUES (3, 'Cy', 'z');
    """)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await conn.execute("SELECT * FROM twokey_audit.row_changes")
    await conn.execute("RESET ROLE")
    row = await conn.fetchrow("SELECT changed_by, acting_as FROM twokey_audit.row_changes")
    assert (row["changed_by"], row["acting_as"]) == ("postgres", "audited_writer")
    await conn.execute("DROP OWNED BY audited_writer; DROP ROLE audited_writer")


async def test_no_session_setting_switches_it_off(job: DirectJob, conn: Any) -> None:
    await carry_out(job, wanted())
    await conn.execute("SET session_replication_role = replica")
    await conn.execute("INSERT INTO users VALUES (4, 'Di', '')")
    assert len(await recorded(conn)) == 1


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE twokey_audit.row_changes SET changed_by = 'nobody'",
        "DELETE FROM twokey_audit.row_changes",
        "TRUNCATE twokey_audit.row_changes",
    ],
)
async def test_the_record_is_not_changed(job: DirectJob, conn: Any, change: str) -> None:
    await carry_out(job, wanted())
    await conn.execute("INSERT INTO users VALUES (5, 'Ed', '')")
    with pytest.raises(asyncpg.RaiseError, match="is a record"):
        await conn.execute(change)


async def test_what_is_old_is_forgotten_on_purpose(job: DirectJob, conn: Any) -> None:
    await carry_out(job, wanted())
    await conn.execute("INSERT INTO users VALUES (5, 'Ed', '')")
    assert await conn.fetchval("SELECT twokey_audit.forget(now() - interval '1 day')") == 0
    assert await conn.fetchval("SELECT twokey_audit.forget('infinity')") == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("ALTER TABLE users DISABLE TRIGGER twokey_row_audit", "DISABLED"),
        ("ALTER TABLE users ENABLE TRIGGER twokey_row_audit", "DISABLED"),
        ("DROP TRIGGER twokey_truncate_audit ON users", "DISABLED"),
        (HOLLOW, "ALTERED"),
        ("DROP SCHEMA twokey_audit CASCADE", "MISSING"),
    ],
)
async def test_what_somebody_did_to_it_shows_and_can_be_mended(
    job: DirectJob, conn: Any, change: str, says: str
) -> None:
    await carry_out(job, wanted(without=["secret"]))
    await conn.execute(change)
    assert await state(job) == says
    [suggestion, *_] = (await shown(job)).suggestions[-1:]
    await carry_out(job, wanted(without=["secret"]))
    assert await state(job) == "in force"
    assert suggestion.operation == "audit-trigger"


async def test_a_guard_that_is_gone_is_said(job: DirectJob, conn: Any) -> None:
    await carry_out(job, wanted())
    await conn.execute("DROP TRIGGER keep_record ON twokey_audit.row_changes")
    assert "ITS GUARD IS GONE" in (await shown(job)).lines[0]


async def test_removing_it_keeps_what_was_written_down(job: DirectJob, conn: Any) -> None:
    await carry_out(job, wanted())
    await conn.execute("INSERT INTO users VALUES (6, 'Fay', '')")
    await carry_out(job, wanted(action="remove"))
    await conn.execute("INSERT INTO users VALUES (7, 'Gus', '')")
    assert len(await recorded(conn)) == 1
    assert await state(job) == "MISSING"


async def test_partitions_are_audited_by_their_parent(job: DirectJob, conn: Any) -> None:
    await conn.execute("""
        CREATE TABLE visits (id int, at date) PARTITION BY RANGE (at);
        CREATE TABLE visits_26 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    """)
    with pytest.raises(JobError, match="is a partition"):
        await audit_trigger.plan(job, wanted(table="public.visits_26"))
    await carry_out(job, wanted(table="public.visits"))
    await conn.execute("SET session_replication_role = replica")
    await conn.execute("INSERT INTO visits VALUES (1, '2026-05-05')")
    assert [row[:2] for row in await recorded(conn)] == [("visits_26", "INSERT")]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"table": "public.nothing"}, "There is no table public.nothing"),
        ({"without": ["nope"]}, "has no column nope"),
        ({"action": "remove"}, "There is no row audit on public.users"),
    ],
)
async def test_what_makes_no_sense_is_refused_when_it_is_planned(
    job: DirectJob, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(JobError, match=says):
        await audit_trigger.plan(job, wanted(**given))


async def test_it_is_not_installed_twice_but_with_other_columns(job: DirectJob) -> None:
    await carry_out(job, wanted())
    with pytest.raises(JobError, match="in force already"):
        await audit_trigger.plan(job, wanted())
    assert (await audit_trigger.plan(job, wanted(without=["secret"]))).pins["row audit"] == (
        "in force"
    )


async def test_a_table_that_is_held_is_not_waited_for(
    job: DirectJob, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_trigger, "LOCK_MS", 50)
    plan = await audit_trigger.plan(job, wanted())
    async with conn.transaction():
        await conn.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")
        with pytest.raises(JobError, match="Somebody holds a lock"):
            await audit_trigger.run(job, wanted(), plan)
    assert await state(job) == "MISSING"


async def test_a_table_of_somebody_else_is_not_touched(
    job: DirectJob, conn: Any, target: Target
) -> None:
    login = f"row_audit_{target.name}"
    await conn.execute(f"CREATE ROLE {login} LOGIN; GRANT pg_read_all_data TO {login}")
    readers = Readers()
    other = Database(
        name="orders", dsn=SecretStr(target.dsn.replace("postgres@", f"{login}@")),
        environment="production", tier=Tier.CRITICAL, channel="C", backup_folder=job.folder,
    )  # fmt: skip
    theirs = DirectJob(
        database=other, store=job.store, reader=readers.of(other), folder=job.folder, request_id=2
    )
    try:
        with pytest.raises(JobError, match="belongs to postgres"):
            await audit_trigger.plan(theirs, wanted())
    finally:
        await readers.close()
        await conn.execute(f"DROP OWNED BY {login}; DROP ROLE {login}")


async def test_a_schema_that_somebody_else_prepared_is_not_used(
    job: DirectJob, conn: Any, target: Target
) -> None:
    login = f"row_audit_{target.name}_2"
    await conn.execute(f"CREATE ROLE {login}; CREATE SCHEMA twokey_audit AUTHORIZATION {login}")
    try:
        with pytest.raises(JobError, match=f"{login} owns part of it"):
            await audit_trigger.plan(job, wanted())
    finally:
        await conn.execute(f"DROP OWNED BY {login}; DROP ROLE {login}")
