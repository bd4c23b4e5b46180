"""`/db slow`: from stored hours, or from the server itself; plans that were never executed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from commands import slow
from jobs.operation import JobError
from postgres.server import Server
from store.connect import Store
from store.statements import StatementSum, StatementText, add_statements, add_texts
from tests.commands.conftest import NOW
from tests.commands.sessions import job_on
from tests.postgres.health.explaining import connected, shop_of

HOUR = timedelta(hours=1)
PARAMS = slow.Params(database="shop")
SCAN = "select * from orders where customer = $1"
LOOKUP = "select * from customers where id = $1"


@pytest.fixture(scope="module")
def busy() -> Iterator[Server]:
    with shop_of(17) as made:
        yield made


@pytest.fixture(scope="module")
def old() -> Iterator[Server]:
    with shop_of(15) as made:
        yield made


@pytest.fixture(params=["busy", "old"])
def place(request: pytest.FixtureRequest) -> Server:
    made: Server = request.getfixturevalue(request.param)
    return made


class Elsewhere:
    """Where one address leads, whichever is asked for."""

    def __init__(self, address: str) -> None:
        self.address = address

    def dsn(self, database: str, user: str) -> str:
        return self.address


def taken(queryid: int, *, calls: int = 10, mean_ms: float = 10, rows: int = 10) -> StatementSum:
    return StatementSum(
        queryid=queryid, calls=calls, total_ms=calls * mean_ms, square_ms=calls * mean_ms**2,
        max_ms=mean_ms, rows=rows, blocks_hit=75, blocks_read=25, temp_blocks=0, wal_bytes=0,
    )  # fmt: skip


async def stored(
    store: Store, hours_ago: float, sums: Sequence[StatementSum], **texts: str
) -> None:
    hour = (NOW - hours_ago * HOUR).replace(minute=0)
    known = [
        StatementText(queryid=int(name.removeprefix("q")), text=text, is_utility="…" in text)
        for name, text in texts.items()
    ]
    async with store.begin() as conn:
        await add_statements(conn, "shop", "shop", hour, sums)
        await add_texts(conn, "shop", known, at=NOW)


async def test_stored_hours_with_the_same_hours_last_week(
    busy: Server, store: Store, tmp_path: Path
) -> None:
    await stored(store, 7 * 24 + 1, [taken(1, mean_ms=100)], q1=SCAN)
    await stored(
        store, 1, [taken(1, mean_ms=1500), taken(2), taken(3)],
        q2="ALTER ROLE …", q3="select 'geheim', * from gone where id = $1",
    )  # fmt: skip
    async with job_on(busy, tmp_path, store=store, user="reader") as job:
        answer = await slow.answer(job, PARAMS)
    assert answer.table is not None
    first, *rest = answer.table.rows
    assert first[:4] == ("1", "99%", "15 s", "10")
    assert first[4] == "1.5 s !"
    assert first[-1] == "time 15x, mean 15x"
    assert {row[-1] for row in rest} == {"new"}
    assert answer.statements == (
        f"#1  {SCAN}", "#2  ALTER ROLE", "#3  select ?, * from gone where id = $1",
    )  # fmt: skip
    said = "\n".join(answer.lines)
    assert "against the same hours last week" in said
    assert "#1 takes more than a second on average" in said
    assert "reads all 20,000 rows of public.orders" in said
    assert "geheim" not in str(answer)
    [(name, plan)] = answer.facts
    assert name == "Plan of #1 (generic, estimated, not executed)"
    assert plan.startswith("Seq Scan on orders")
    assert [each.operation for each in answer.suggestions] == ["indexes"]


async def test_without_last_week_the_longest_time_before_is_compared_and_said(
    busy: Server, store: Store, tmp_path: Path
) -> None:
    for hours_ago in (30, 31, 32, 33):
        await stored(store, hours_ago, [taken(1)], q1=SCAN)
    await stored(store, 2, [taken(1)])
    await stored(store, 1, [taken(1)])
    async with job_on(busy, tmp_path, store=store, user="reader") as job:
        answer = await slow.answer(job, PARAMS)
        alone = await slow.answer(job, slow.Params(database="shop", since="30d"))
    assert "against all that there is before" in answer.lines[1]
    assert answer.table is not None
    assert answer.table.rows[0][-1] == "as before"
    assert "no earlier hours" in alone.lines[1]
    assert alone.table is not None
    assert alone.table.rows[0][-1] == "-"


async def test_what_has_no_plan_is_said_and_the_next_one_tried(
    busy: Server, store: Store, tmp_path: Path
) -> None:
    texts = {"q1": "select * from gone where id = $1", "q2": LOOKUP}
    await stored(store, 1, [taken(1, mean_ms=50), taken(2)], **texts)
    async with job_on(busy, tmp_path, store=store, user="reader") as job:
        answer = await slow.answer(job, PARAMS)
    said = "\n".join(answer.lines)
    assert "No plan of #1: This statement names something that is gone" in said
    assert "Plan of #2: Nothing stands out" in said
    assert answer.suggestions == ()


async def test_a_pair_that_looks_like_n_plus_one_is_told(
    busy: Server, store: Store, tmp_path: Path
) -> None:
    for hour, load in enumerate((10, 40, 25, 70, 5, 55, 33, 90, 62, 18), start=1):
        sums = [taken(1, calls=load, rows=20 * load), taken(2, calls=20 * load, rows=20 * load)]
        await stored(store, hour, sums, q1=SCAN, q2=LOOKUP)
    async with job_on(busy, tmp_path, store=store, user="reader") as job:
        answer = await slow.answer(job, PARAMS)
    [pair] = [line for line in answer.lines if "N+1" in line]
    assert "“select * from customers where id = $1” ran 8,160 times" in pair
    assert "about 7,752 calls fewer, by a JOIN, your ORM's include, or customers.id = ANY" in pair


async def test_with_nothing_stored_the_server_itself_is_asked(
    place: Server, store: Store, tmp_path: Path
) -> None:
    async with connected(place) as conn:
        await conn.execute("SELECT pg_stat_statements_reset()")
        await conn.execute("SELECT count(*) FROM orders WHERE note = 'geheim'")
        await conn.execute("ALTER ROLE app PASSWORD 'hunter2'")
    async with job_on(place, tmp_path, store=store, user="reader") as job:
        answer = await slow.answer(job, PARAMS)
    assert "all since the server's statistics were reset (" in answer.lines[0]
    assert answer.table is not None
    texts = [text[4:] for text in answer.statements]
    assert "SELECT count(*) FROM orders WHERE note = $1" in texts
    assert "ALTER ROLE" in texts
    assert "hunter2" not in str(answer)
    assert "geheim" not in str(answer)
    assert {row[-1] for row in answer.table.rows} == {"-"}
    assert not any("quote_ident" in text for text in texts)  # what we ask ourselves


async def test_a_user_who_sees_only_itself_is_told_of_the_grant(
    busy: Server, store: Store, tmp_path: Path
) -> None:
    async with job_on(busy, tmp_path, store=store, user="app") as job:
        with pytest.raises(JobError, match="may not see the statements of others") as refusal:
            await slow.answer(job, PARAMS)
    assert "pg_monitor" in refusal.value.next_step


async def test_without_the_extension_it_says_what_to_do(
    server: Server, store: Store, tmp_path: Path
) -> None:
    without = Elsewhere(server.dsn("postgres"))
    async with job_on(without, tmp_path, store=store) as job:
        with pytest.raises(JobError, match="shared_preload_libraries"):
            await slow.answer(job, PARAMS)


async def test_stored_hours_are_told_while_the_server_is_down(store: Store, tmp_path: Path) -> None:
    await stored(store, 1, [taken(1)], q1=SCAN)
    down = Elsewhere("postgresql://x@127.0.0.1:1/shop")
    async with job_on(down, tmp_path, store=store) as job:
        answer = await slow.answer(job, PARAMS)
    assert answer.table is not None
    assert any(line.startswith("No plan: shop cannot be reached") for line in answer.lines)


def test_how_far_back_is_one_of_few() -> None:
    with pytest.raises(ValidationError):
        slow.Params(database="shop", since="5 minutes")  # type: ignore[arg-type]
    assert slow.OPERATION.is_cached
