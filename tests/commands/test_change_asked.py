"""A declared change, asked for: what is refused before anybody agrees, and what only reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from commands import change
from commands.change import OPERATION, Params
from jobs.migration_settings import MigrationSettings
from jobs.operation import JobError
from jobs.pinned import what_moved
from postgres.server import Server
from store.connect import Store
from store.tables import nodes, samples
from store.watches import open_watches
from tests.commands.changes import EMAIL, NAMES, World, make_world
from tests.commands.conftest import JobMaker, connected, facts

POINTED_AT = """
    ALTER TABLE {0}."User" ADD UNIQUE (email);
    CREATE TABLE {0}.m (m varchar REFERENCES {0}."User" (email));
"""


@pytest.fixture
async def world(job: JobMaker, shop: Server, store: Store, tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(job, shop, store, tmp_path)
    yield made
    await made.remove()


async def test_what_moved_between_plan_and_run_is_seen(world: World) -> None:
    world.declare(world.names, NAMES)
    job = await world.another_run()
    params = Params(database="shop", change=world.names, phase="expand")
    made = await change.plan(job, params)
    pinned = replace(OPERATION, pinned=frozenset())
    assert await what_moved(pinned, job, params, made) is None
    await world.sql(f"ALTER TABLE {world.table} ADD COLUMN later int")
    assert "columns was" in (await what_moved(pinned, job, params, made) or "")
    # The trigger would look at every update now: not what was agreed to.
    await world.sql(f"""
        CREATE FUNCTION {world.schema}.same() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN RETURN NEW; END'
    """)
    await world.sql(f"""
        CREATE TRIGGER a_same BEFORE UPDATE ON {world.table} FOR EACH ROW
            EXECUTE FUNCTION {world.schema}.same()
    """)
    with pytest.raises(JobError, match="not as it was when this was agreed to"):
        await change.run(job, params, made)
    assert await world.columns() == ["email", "id", "later", "name"]


@pytest.mark.parametrize(
    ("sql", "which", "says"),
    [
        ('CREATE VIEW {0}.mails AS SELECT email FROM {0}."User"', "email", "view .*mails"),
        ('CREATE PUBLICATION {0}_all FOR TABLE {0}."User"', "email", "published"),
        ('CREATE PUBLICATION {0}_all FOR TABLE {0}."User"', "names", "subscribers without"),
        ('ALTER TABLE {0}."User" ADD loud text GENERATED ALWAYS AS (upper(email)) STORED', "email",
         "column loud"),
        (POINTED_AT, "email", "m_m_fkey"),
        ('CREATE POLICY mine ON {0}."User" USING (email = current_user)', "email", "policy mine"),
        ('GRANT SELECT (email) ON {0}."User" TO looker', "email", "privileges on the column"),
        ('CREATE STATISTICS {0}.s ON name, email FROM {0}."User"', "email", "statistics object"),
        ('CREATE TABLE {0}.child () INHERITS ({0}."User")', "names", "child"),
        ('ALTER TABLE {0}."User" ADD "lastName" int', "names", "has a column lastName already"),
        ('ALTER TABLE {0}."User" RENAME name TO named', "names", "has no column name"),
    ],
)  # fmt: skip
async def test_what_a_change_cannot_take_along_is_named_before_anybody_agrees(
    world: World, sql: str, which: str, says: str
) -> None:
    async with connected(world.server) as conn:
        await conn.execute(sql.format(world.schema))
    world.declare("x", {"names": NAMES, "email": EMAIL}[which])
    with pytest.raises(JobError, match=says) as refused:
        await change.plan(world.job, Params(database="shop", change="x", phase="expand"))
    assert refused.value.next_step


async def test_an_expression_that_the_server_does_not_take_is_refused(world: World) -> None:
    for text, says in (
        (NAMES.replace("SPLIT_PART(name, ' ', 1)", "split_part(id, ' ', 1)"), "value of firstName"),
        (NAMES.replace("SPLIT_PART(name, ' ', 1)", "no_such(name)"), "value of firstName"),
        (NAMES.replace("SPLIT_PART(name, ' ', 1)", "public.no_such(name)"), "does not exist"),
        (EMAIL.replace("type: text", "type: no_such"), "no_such"),
    ):
        world.declare("y", text)
        with pytest.raises(JobError, match=says):
            await change.plan(world.job, Params(database="shop", change="y", phase="expand"))


async def test_a_run_that_is_to_wait_begins_no_further_step(world: World) -> None:
    world.declare(world.names, NAMES)
    job = await world.another_run()
    params = Params(database="shop", change=world.names, phase="expand")
    made = await change.plan(job, params)
    job.is_paused = True
    running = asyncio.create_task(change.run(job, params, made))
    while "prepare" not in job.done:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    assert list(job.done) == ["look", "prepare"]
    job.is_paused = False
    await running
    assert "firstName" in await world.columns()


async def test_reading_needs_no_request(world: World) -> None:
    world.declare(world.names, NAMES)
    world.declare("broken", "kind: [")
    asked = [
        Params(database="shop"),
        Params(database="shop", change=world.names),
        Params(database="shop", change=world.names, phase="plan"),
    ]
    assert all(OPERATION.is_query(params) for params in asked)
    assert not OPERATION.is_query(Params(database="shop", change="x", phase="expand"))
    listed, status, whole = [await change.answer(world.job, each) for each in asked]
    assert listed.lines == ("/db change shop broken", f"/db change shop {world.names}")
    assert status.title.startswith(f"{world.names} is not begun: {world.schema}.User: name becomes")
    assert facts(status)["May follow"] == "expand"
    assert [each.params["phase"] for each in status.suggestions] == ["expand"]
    assert [text.split("\n")[0] for text in whole.statements] == [
        "-- expand", "-- backfill", "-- validate", "-- switch", "-- contract"
    ]  # fmt: skip
    with pytest.raises(JobError, match="There is no declared change nope") as missing:
        await change.answer(world.job, Params(database="shop", change="nope"))
    assert missing.value.next_step == f"There are: broken, {world.names}."
    with pytest.raises(JobError, match=r"broken\.yml is no YAML"):
        await change.answer(world.job, Params(database="shop", change="broken"))
    nowhere = replace(
        world.job, database=replace(world.job.database, migrations=MigrationSettings())
    )
    with pytest.raises(JobError, match="Nobody has said where"):
        await change.answer(nowhere, Params(database="shop"))


async def test_a_phase_is_watched_against_before_with_its_way_back(
    world: World, store: Store
) -> None:
    world.declare(world.names, NAMES)
    at = world.job.now - timedelta(minutes=5)
    name = world.job.database.name
    async with store.begin() as conn:
        await conn.execute(
            nodes.insert().values(
                database=name, node=name, region="", collector="w", at=at, ok=True, seen_at=at,
                problem="", next_step="", numbers={}, detail={"role": "primary"},
            )
        )  # fmt: skip
        await conn.execute(
            samples.insert().values(database=name, node=name, at=at, numbers={"lock_waits": 2.0})
        )
    await world.phase(world.names, "expand")
    async with store.begin() as conn:
        (watch,) = await open_watches(conn)
    assert (watch.subject, watch.before) == (f"{world.names} expand", {"lock_waits": 2.0})
    assert watch.undo["params"] == {"database": name, "change": world.names, "phase": "back"}
