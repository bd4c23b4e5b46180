"""An index that is to go: which ones stay, what is said, and how they come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from commands import create_index
from commands.drop_index import Params, pins, plan, run, undo
from jobs.health_settings import Node
from jobs.operation import JobError, Mode, Risk
from postgres.server import Server
from tests.commands.conftest import JobMaker, connected, facts

TABLES = """
    CREATE TABLE wares (id int PRIMARY KEY, customer int, email text NOT NULL, place int4range,
                        CONSTRAINT one_email UNIQUE (email),
                        CONSTRAINT one_place EXCLUDE USING gist (place WITH &&));
    CREATE INDEX wares_customer ON wares (customer);
    CREATE INDEX wares_customer_again ON wares (customer);
    CREATE INDEX wares_wide ON wares (email, customer);
    CREATE UNIQUE INDEX wares_only ON wares (customer, id);
    CREATE UNIQUE INDEX wares_id_again ON wares (id);
    CREATE UNIQUE INDEX wares_identity ON wares (id, email);
    CREATE INDEX wares_filled ON wares (id) WITH (fillfactor = 50);
    CREATE INDEX wares_odd ON wares (lower(email) text_pattern_ops DESC, customer NULLS FIRST)
     INCLUDE (id) WHERE customer > 5 AND email <> 'it''s';
    CREATE TABLE lots (ware int REFERENCES wares, note text);
    CREATE INDEX lots_ware ON lots (ware);
    CREATE INDEX lots_note ON lots (note);
    CREATE TABLE lone (a int);
    CREATE INDEX lone_a ON lone (a);
    CREATE TABLE split (k int) PARTITION BY RANGE (k);
    CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (10);
    CREATE INDEX split_k ON split (k);
    ALTER TABLE wares ALTER COLUMN id SET NOT NULL;
    ALTER TABLE wares REPLICA IDENTITY USING INDEX wares_identity;
"""
GONE = "DROP TABLE wares, lots, lone, split CASCADE"


@pytest.fixture
async def _wares(shop: Server) -> AsyncIterator[None]:
    async with connected(shop) as conn:
        await conn.execute(TABLES)
    yield
    async with connected(shop) as conn:
        await conn.execute(GONE)


pytestmark = pytest.mark.usefixtures("_wares")


def asked(name: str) -> Params:
    return Params(database="shop", index=f"public.{name}")


async def test_the_plan_shows_the_index_its_use_and_the_way_back(job: JobMaker) -> None:
    made = await plan(job(), asked("wares_wide"))
    assert made.statements == ("DROP INDEX CONCURRENTLY public.wares_wide;",)
    said = facts(made)
    assert said["Definition"].endswith("USING btree (email, customer)")
    assert said["Used"].startswith("shop: 0 times in")
    assert said["State"] == "valid"
    assert made.risk is Risk.DISRUPTIVE
    assert "same definition" in (made.undo or "")
    assert made.pins["definition"] == said["Definition"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("wares_pkey", "backs the constraint"),
        ("one_email", "backs the constraint one_email"),
        ("one_place", "backs the constraint one_place"),
        ("wares_only", "keeps values unique"),
        ("wares_identity", "identifies the table's rows"),
        ("lone_a", "is the only index"),
        ("split_k", "belongs to a partitioned index"),
        ("split_1_k_idx", "belongs to a partitioned index"),
        ("nowhere", "There is no index"),
        ("wares", "There is no index"),
    ],
)
async def test_what_must_stay_is_refused(job: JobMaker, name: str, problem: str) -> None:
    with pytest.raises(JobError, match=problem) as refused:
        await plan(job(), asked(name))
    assert refused.value.next_step


async def test_an_index_of_the_catalogue_is_refused(job: JobMaker) -> None:
    own = Params(database="shop", index="pg_catalog.pg_class_relname_nsp_index")
    with pytest.raises(JobError, match="PostgreSQL's own"):
        await plan(job(), own)


async def test_whoever_does_not_own_it_is_told_so(job: JobMaker) -> None:
    with pytest.raises(JobError, match="only its owner may"):
        await plan(job(user="looker"), asked("wares_wide"))


async def test_one_of_two_that_are_the_same_may_go_also_a_unique_one(job: JobMaker) -> None:
    twin = await plan(job(), asked("wares_customer"))
    assert facts(twin)["Same as"] == "public.wares_customer_again"
    unique = await plan(job(), asked("wares_id_again"))
    assert facts(unique)["Same as"] == "public.wares_pkey"
    assert not twin.warnings
    assert not unique.warnings


async def test_the_last_one_of_a_foreign_key_is_warned_of(job: JobMaker) -> None:
    made = await plan(job(), asked("lots_ware"))
    assert any("foreign key lots_ware_fkey" in warning for warning in made.warnings)


@pytest.mark.parametrize("name", ["wares_odd", "wares_customer", "wares_id_again"])
async def test_what_was_dropped_is_made_again_as_it_was(
    job: JobMaker, shop: Server, name: str
) -> None:
    running, params = job(), asked(name)
    made = await plan(running, params)
    answer = await run(running, params, made)
    assert running.steps == [("drop", Mode.RETRYABLE)]
    async with connected(shop) as conn:
        assert await conn.fetchval("SELECT to_regclass($1)", name) is None
        await conn.execute("DROP INDEX IF EXISTS wares_customer_again")
        await conn.execute("ALTER TABLE wares DROP CONSTRAINT wares_pkey CASCADE")
        call = undo(params, answer.numbers)
        assert call is not None
        assert call.operation == "create-index"
        again = create_index.Params.model_validate(call.params)
        await create_index.run(running, again, await create_index.plan(running, again))
        definition = await conn.fetchval("SELECT pg_get_indexdef($1::text::regclass)", name)
    assert definition == made.pins["definition"]


async def test_one_that_cannot_be_asked_for_again_says_so(job: JobMaker) -> None:
    running, params = job(), asked("wares_filled")
    made = await plan(running, params)
    assert (made.undo or "").startswith("None:")
    answer = await run(running, params, made)
    assert undo(params, answer.numbers) is None
    assert "by hand" in answer.lines[0]
    assert "fillfactor" in facts(answer)["Definition"]


async def test_an_invalid_one_is_no_risk_and_needs_no_warning(job: JobMaker, shop: Server) -> None:
    async with connected(shop) as conn:
        await conn.execute("INSERT INTO lots VALUES (NULL, 'x'), (NULL, 'x')")
        with pytest.raises(Exception, match="could not create unique"):
            await conn.execute("CREATE UNIQUE INDEX CONCURRENTLY half ON lots (note)")
    running, params = job(), asked("half")
    made = await plan(running, params)
    assert made.risk is Risk.RECOVERABLE
    assert "invalid" in facts(made)["State"]
    assert not made.warnings
    await run(running, params, made)
    with pytest.raises(JobError, match="There is no index"):
        await plan(running, params)


async def test_a_second_life_of_the_run_finds_it_gone(job: JobMaker, shop: Server) -> None:
    running, params = job(), asked("wares_wide")
    made = await plan(running, params)
    async with connected(shop) as conn:
        await conn.execute("DROP INDEX wares_wide")
    assert (await run(running, params, made)).title == "public.wares_wide is dropped"


async def test_another_index_of_that_name_is_not_dropped(job: JobMaker, shop: Server) -> None:
    running, params = job(), asked("wares_wide")
    made = await plan(running, params)
    async with connected(shop) as conn:
        await conn.execute("DROP INDEX wares_wide; CREATE INDEX wares_wide ON wares (email)")
        assert await pins(running, params, made) != made.pins
        with pytest.raises(JobError, match="another index"):
            await run(running, params, made)
        assert await conn.fetchval("SELECT to_regclass('wares_wide')") is not None


async def test_replicas_are_asked_and_silent_ones_are_named(job: JobMaker, shop: Server) -> None:
    running = job()
    reached: dict[str, Any] = {"dsn": running.database.dsn}
    gone = SecretStr("postgresql://nobody@127.0.0.1:1/shop")
    running.database = replace(
        running.database,
        replicas=(Node(name="shop-2", **reached), Node(name="shop-3", dsn=gone)),
    )
    made = await plan(running, asked("wares_wide"))
    used = facts(made)["Used"]
    assert "shop-2: 0 times" in used
    assert "shop-3: could not be asked" in used
    assert any("whether shop-3 uses it" in warning for warning in made.warnings)
