"""An index that is asked for: what is refused, what is said, and what is there afterwards."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from commands import create_index
from commands.create_index import OPERATION, Params, pins, plan, run, undo
from jobs import index_run
from jobs.operation import JobError, Mode, Risk
from postgres.server import Server
from store.samples import NodeRow, record
from tests.commands.conftest import NOW, JobMaker, connected, facts

_numbers = itertools.count(1)
TABLE = """
    CREATE TABLE {0} (id int PRIMARY KEY, customer int NOT NULL, email varchar(80) NOT NULL,
                      status text NOT NULL, data jsonb);
    INSERT INTO {0} SELECT n, n % 50, 'E' || n, 'open', '{{}}' FROM generate_series(1, 2000) n;
    ANALYZE {0};
"""


@pytest.fixture
async def table(shop: Server) -> AsyncIterator[str]:
    """A table of the test's own in the shop."""
    name = f"goods_{next(_numbers)}"
    async with connected(shop) as conn:
        await conn.execute(TABLE.format(name))
    yield f"public.{name}"
    async with connected(shop) as conn:
        await conn.execute(f"DROP TABLE {name} CASCADE")


def asked(table: str, columns: str = "customer", **more: Any) -> Params:
    return Params(database="shop", table=table, columns=columns, **more)


async def test_the_plan_says_what_it_takes(job: JobMaker, table: str) -> None:
    made = await plan(job(), asked(table, "customer, email DESC"))
    (statement,) = made.statements
    assert statement.startswith("CREATE INDEX CONCURRENTLY goods_")
    assert statement.endswith(f"ON {table} USING btree (customer, email DESC);")
    said = facts(made)
    assert "about 2,000 rows" in said["Table"]
    assert "about" in said["Index"]
    assert said["Free disk"] == "not known here"
    assert "no reads and no writes" in said["Holds up"]
    assert made.undo is not None
    assert made.undo.startswith("/db drop-index shop public.goods_")
    assert made.pins["columns"] == "customer integer, email character varying(80)"
    assert OPERATION.risk is Risk.RECOVERABLE


async def test_it_is_built_and_can_be_undone(job: JobMaker, table: str, shop: Server) -> None:
    running, params = job(), asked(table, "lower(email)", where="status = 'open'")
    made = await plan(running, params)
    answer = await run(running, params, made)
    assert running.steps == [("look", Mode.RETRYABLE), ("build", Mode.RETRYABLE)]
    name = answer.numbers["index"]
    async with connected(shop) as conn:
        definition = await conn.fetchval("SELECT pg_get_indexdef($1::text::regclass)", name)
    assert "USING btree (lower((email)::text)) WHERE (status = 'open'::text)" in definition
    call = undo(params, answer.numbers)
    assert call is not None
    assert (call.operation, call.params) == ("drop-index", {"database": "shop", "index": name})


@pytest.mark.parametrize(
    ("columns", "more", "problem"),
    [
        ("nothing", {}, "has no column nothing"),
        ("customer); DROP TABLE orders; --", {}, "does not read"),
        ("((SELECT 1))", {}, "SubLink"),
        ("random()", {}, "random is no immutable function"),
        ("customer", {"where": "now() > '2020-01-01'"}, "now is no immutable function"),
        ("lower(customer)", {}, "function pg_catalog.lower(integer) does not exist|lower"),
        ("customer no_such_ops", {}, "no operator class no_such_ops"),
        ("id", {}, "_pkey is the same index already"),
        ("customer", {"name": "x" * 63 + "ä"}, "63"),
        ("customer", {"method": "hash", "include": "id"}, "includes no further columns"),
        ("customer", {"method": "hash", "unique": True}, "keeps nothing unique"),
    ],
)
async def test_what_makes_no_index_is_refused_before_anybody_agrees(
    job: JobMaker, table: str, columns: str, more: dict[str, Any], problem: str
) -> None:
    with pytest.raises((JobError, ValueError), match=problem):
        await plan(job(), asked(table, columns, **more))


async def test_what_is_no_table_of_ours_is_refused(job: JobMaker, table: str, shop: Server) -> None:
    async with connected(shop) as conn:
        await conn.execute(
            "CREATE VIEW seen AS SELECT 1 AS a; CREATE TABLE parts (a int) PARTITION BY LIST (a)"
        )
    try:
        for name, problem in (
            ("public.seen", "is a view"),
            ("public.parts", "is partitioned"),
            ("public.nowhere", "There is no table"),
            ("pg_catalog.pg_class", "PostgreSQL's own"),
        ):
            with pytest.raises(JobError, match=problem) as refused:
                await plan(job(), asked(name, "a"))
            assert refused.value.next_step
    finally:
        async with connected(shop) as conn:
            await conn.execute("DROP VIEW seen; DROP TABLE parts")


async def test_whoever_does_not_own_the_table_is_told_so(job: JobMaker, table: str) -> None:
    with pytest.raises(JobError, match="only its owner may"):
        await plan(job(user="looker"), asked(table))


async def test_one_that_is_there_as_an_expression_is_known_again(
    job: JobMaker, table: str, shop: Server
) -> None:
    async with connected(shop) as conn:
        await conn.execute(f"CREATE INDEX ON {table} (lower(email)) WHERE status IN ('a', 'b')")
        await conn.execute(f"CREATE INDEX {table[7:]}_wide ON {table} (customer, email)")
    with pytest.raises(JobError, match="the same index already"):
        await plan(job(), asked(table, "lower(email)", where="status IN ('a','b')"))
    assert await plan(job(), asked(table, "lower(email)"))
    made = await plan(job(), asked(table, "customer"))
    assert any("begins with the same columns" in warning for warning in made.warnings)


async def test_an_index_for_which_there_is_no_room_is_refused(job: JobMaker, table: str) -> None:
    running = job()

    async def free(count: int, seconds: int) -> None:
        detail = {"role": "primary", "volume": {"free": count}}
        row = NodeRow(
            database="shop", node="shop", at=NOW + timedelta(seconds=seconds), ok=True,
            detail=detail,
        )  # fmt: skip
        async with running.store.begin() as conn:
            await record(conn, [row])

    await free(20_000, 0)
    with pytest.raises(JobError, match=r"19\.5 kB are free"):
        await plan(running, asked(table))
    await free(90_000, 1)
    assert any("half of the disk" in each for each in (await plan(running, asked(table))).warnings)
    await free(9_000_000_000, 2)
    roomy = await plan(running, asked(table))
    assert facts(roomy)["Free disk"] == "8.38 GB"
    assert not any("half of the disk" in each for each in roomy.warnings)


async def test_old_transactions_are_named_beforehand(
    job: JobMaker, table: str, shop: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_run, "OLD_SECONDS", 0.0)
    async with connected(shop) as conn:
        await conn.execute("SET application_name = 'reporting'; BEGIN; SELECT 1")
        made = await plan(job(), asked(table))
        pid = conn.get_server_pid()
    assert any(f"process {pid} (reporting, postgres" in each for each in made.warnings)


async def test_a_name_that_was_taken_meanwhile_is_not_touched(
    job: JobMaker, table: str, shop: Server
) -> None:
    running, params = job(), asked(table, name="mine")
    made = await plan(running, params)
    async with connected(shop) as conn:
        await conn.execute(f"CREATE INDEX mine ON {table} (customer)")
    with pytest.raises(JobError, match=r"public\.mine already"):
        await run(running, params, made)
    with pytest.raises(JobError, match="already"):
        await plan(running, asked(table, "email", name="mine"))


async def test_a_run_that_died_goes_on_with_what_it_had_built(
    job: JobMaker, table: str, shop: Server
) -> None:
    running, params = job(), asked(table)
    made = await plan(running, params)
    async with connected(shop) as conn:  # what the worker that died has left
        await conn.execute(made.statements[0])
    running.step = _remembering(running.step, "look")  # type: ignore[method-assign]
    answer = await run(running, params, made)
    assert answer.title.endswith("is built and valid")


async def test_duplicates_stop_a_unique_one_and_leave_nothing(
    job: JobMaker, table: str, shop: Server
) -> None:
    running, params = job(), asked(table, unique=True, name="unique_one")
    made = await plan(running, params)
    assert made.statements[0].startswith("CREATE UNIQUE INDEX CONCURRENTLY unique_one")
    with pytest.raises(JobError, match="some rows have the same values") as failed:
        await run(running, params, made)
    assert "=(" not in str(failed.value)
    async with connected(shop) as conn:
        assert await conn.fetchval("SELECT to_regclass('unique_one')") is None


async def test_a_blocked_build_gives_up_and_says_who_to_look_for(
    job: JobMaker, table: str, shop: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(
        index_run.LIMITS, lock=timedelta(seconds=0.2), again=1, cleanup=timedelta(seconds=0.4)
    )
    monkeypatch.setattr(create_index, "LIMITS", quick)
    running, params = job(), asked(table, name="blocked")
    made = await plan(running, params)
    async with connected(shop) as conn:
        await conn.execute(f"BEGIN; UPDATE {table} SET customer = 0 WHERE id = 1")
        with pytest.raises(JobError, match="older transactions held it up") as failed:
            await run(running, params, made)
    assert "/db" in failed.value.next_step


async def test_the_pins_follow_the_table_and_its_types(
    job: JobMaker, table: str, shop: Server
) -> None:
    running, params = job(), asked(table, "email")
    made = await plan(running, params)
    assert await pins(running, params, made) == made.pins
    async with connected(shop) as conn:
        await conn.execute(f"ALTER TABLE {table} ALTER COLUMN email TYPE text")
    assert await pins(running, params, made) != made.pins


def _remembering(step: Callable[..., Awaitable[Any]], done: str) -> Callable[..., Awaitable[Any]]:
    """Steps of a run of which one has its outcome already."""

    async def remembered(name: str, body: Any, **more: Any) -> Any:
        return True if name == done else await step(name, body, **more)

    return remembered
