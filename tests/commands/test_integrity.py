"""Integrity: real damage is found and named, what cannot be checked is said, a crash goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import JsonValue, SecretStr

from commands import integrity
from commands.integrity import Params
from jobs.operation import Database, JobError, Tier
from jobs.reader import Readers
from store.connect import Store
from tests.commands.conftest import DirectJob
from tests.conftest import Target

SCHEMA = """
    CREATE TABLE parents (id int PRIMARY KEY, name text);
    CREATE TABLE children (id int PRIMARY KEY, parent_id int REFERENCES parents);
    INSERT INTO parents SELECT n, 'x' || n FROM generate_series(1, 500) n;
    INSERT INTO children SELECT n, n FROM generate_series(1, 500) n;
    CREATE INDEX names ON parents (name);
"""
# The pages say that row 7 is called x7; the index does not know it under that name.
MISLEAD = """
    CREATE FUNCTION shifting(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
    CREATE INDEX shifted ON parents (shifting(name));
    CREATE OR REPLACE FUNCTION shifting(text) RETURNS text IMMUTABLE LANGUAGE sql
        AS $$SELECT 'other' || $1$$;
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
    )  # fmt: skip
    yield DirectJob(
        database=database, store=store, reader=readers.of(database), folder=tmp_path, request_id=1
    )
    await readers.close()


def wanted(**changes: Any) -> Params:
    return Params.model_validate({"database": "orders", **changes})


async def carried_out(job: DirectJob, params: Params) -> Any:
    return await integrity.run(job, params, await integrity.plan(job, params))


async def test_what_is_sound_is_counted(job: DirectJob, conn: Any) -> None:
    await conn.execute("CREATE EXTENSION amcheck")
    found = await carried_out(job, wanted(depth="deep", table="public.children"))
    assert found.title == "Integrity of public.children: sound"
    assert found.lines[0].startswith("Sound: 1 B-tree, 1 table, 1 reference. Checksums: ")
    assert found.numbers == {"checks": 3, "problems": 0, "skipped": 0}


async def test_a_quick_check_looks_at_every_b_tree_of_the_database(
    job: DirectJob, conn: Any
) -> None:
    await conn.execute("CREATE EXTENSION amcheck")
    found = await carried_out(job, wanted())
    assert found.title == "Integrity of orders: sound"
    assert int(found.numbers["checks"]) > 100  # the catalogue's own are among them


async def test_an_index_that_misses_rows_is_found_by_a_deep_check_alone(
    job: DirectJob, conn: Any
) -> None:
    await conn.execute("CREATE EXTENSION amcheck")
    await conn.execute(MISLEAD)
    assert (await carried_out(job, wanted(table="public.parents"))).numbers["problems"] == 0
    found = await carried_out(job, wanted(table="public.parents", depth="deep"))
    assert found.title == "Integrity of public.parents: 1 problem"
    assert found.table is not None
    [(what, name, outcome, says)] = found.table.rows
    assert (what, name, outcome) == ("index", "public.shifted", "broken")
    assert "lacks matching index tuple" in says
    assert any("REINDEX INDEX CONCURRENTLY" in line for line in found.lines)


async def test_rows_that_refer_to_nothing_are_counted(job: DirectJob, conn: Any) -> None:
    await conn.execute("""
        ALTER TABLE children DISABLE TRIGGER ALL; ALTER TABLE parents DISABLE TRIGGER ALL;
        DELETE FROM parents WHERE id <= 3;
        INSERT INTO children VALUES (900, NULL);
    """)
    found = await carried_out(job, wanted(depth="deep"))
    assert found.table is not None
    assert ("reference", "public.children children_parent_id_fkey", "broken",
            "3 rows refer to nothing") in found.table.rows  # fmt: skip


async def test_without_amcheck_it_says_how_to_get_it_and_checks_the_rest(
    job: DirectJob, conn: Any
) -> None:
    with pytest.raises(JobError, match="The extension amcheck is not there") as refused:
        await integrity.plan(job, wanted())
    assert "CREATE EXTENSION amcheck" in refused.value.next_step
    plan = await integrity.plan(job, wanted(depth="deep"))
    assert plan.steps == ("1 reference: no row refers to one that is not there",)
    assert "CREATE EXTENSION amcheck" in plan.warnings[0]


async def test_a_login_that_may_not_check_is_told_what_to_grant(
    job: DirectJob, conn: Any, target: Target
) -> None:
    login = f"integrity_{target.name}"
    await conn.execute(f"CREATE EXTENSION amcheck; CREATE ROLE {login} LOGIN")
    readers = Readers()
    other = Database(
        name="orders", dsn=SecretStr(target.dsn.replace("postgres@", f"{login}@")),
        environment="production", tier=Tier.CRITICAL, channel="C", backup_folder=job.folder,
    )  # fmt: skip
    theirs = DirectJob(
        database=other, store=job.store, reader=readers.of(other), folder=job.folder, request_id=2
    )
    try:
        with pytest.raises(JobError, match="may not run amcheck") as refused:
            await integrity.plan(theirs, wanted())
        assert "GRANT EXECUTE" in refused.value.next_step
    finally:
        await readers.close()
        await conn.execute(f"DROP OWNED BY {login}; DROP ROLE {login}")


async def test_what_somebody_holds_is_skipped_and_said(
    job: DirectJob, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "LOCK_MS", "50")
    await conn.execute("CREATE EXTENSION amcheck")
    params = wanted(table="public.parents")
    plan = await integrity.plan(job, params)
    async with conn.transaction():
        await conn.execute("LOCK TABLE parents IN ACCESS EXCLUSIVE MODE")
        found = await integrity.run(job, params, plan)
    assert found.numbers == {"checks": 2, "problems": 0, "skipped": 2}
    assert found.table is not None
    assert {row[2:] for row in found.table.rows} == {("skipped", "somebody holds a lock on it")}


async def test_an_unknown_table_is_refused(job: DirectJob) -> None:
    with pytest.raises(JobError, match=r"no table public\.nothing"):
        await integrity.plan(job, wanted(table="public.nothing"))


@dataclass
class Resumed:
    """A second attempt, behind what the first one saved."""

    checkpoint: JsonValue
    number: int = 2

    async def save(self, checkpoint: JsonValue) -> None:
        self.checkpoint = checkpoint


async def test_after_a_crash_it_goes_on_behind_what_was_saved(
    job: DirectJob, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await conn.execute("CREATE EXTENSION amcheck")
    params = wanted(depth="deep", table="public.parents")
    resumed = Resumed(checkpoint={"done": 2, "sound": {"index": 2}})

    async def step(name: str, body: Any, **_: Any) -> JsonValue:
        result: JsonValue = await body(resumed)
        return result

    monkeypatch.setattr(job, "step", step)
    found = await carried_out(job, params)
    assert found.numbers["checks"] == 4  # two trees, the table and its TOAST table
    assert found.lines[0].startswith("Sound: 2 B-trees, 2 tables.")
    assert [text for text in job.said if text.startswith("3 of 4")]
