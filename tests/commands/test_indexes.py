"""What `/db indexes` answers: what is missing, what only costs, and the forms that change it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from commands import create_index, indexes
from commands.indexes import Params, answer
from jobs.health_settings import Node
from jobs.index_words import proposal_lines, unused_line
from jobs.operation import Answer, Suggestion
from jobs.reader import LiveReader
from postgres.health.advisor import Advice
from postgres.health.advisor_planner import AdviceLimits
from postgres.health.indexes import UNUSED_AFTER, Counted
from postgres.server import Server
from store.connect import Store
from tests.commands.conftest import NOW, DirectJob, JobMaker, connected
from tests.postgres.health.advised import connected as at_shop
from tests.postgres.health.advised import run_often, shop_of

SMALL = AdviceLimits(mean_ms_min=0, cost_min=200)
ASKED = Params(database="shop")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "ADVICE", SMALL)
    monkeypatch.setattr(indexes, "UNUSED_BYTES_MIN", 0)


@pytest.fixture(scope="module")
def fifteen() -> Iterator[Server]:
    """Debian's PostgreSQL 15 with hypopg; skipped by name where there is none."""
    with shop_of(15) as made:
        if "hypopg" not in made.binaries.extensions:
            pytest.skip("hypopg is not installed for PostgreSQL 15")
        yield made


@pytest.fixture
async def there(job: JobMaker, fifteen: Server) -> AsyncIterator[DirectJob]:
    """A job on that server."""
    made = job()
    made.database = replace(made.database, dsn=SecretStr(fifteen.dsn("shop")))
    made.reader = LiveReader(made.database, statement_timeout=timedelta(seconds=5))
    yield made
    await made.reader.close()


def called(answered: Answer) -> Mapping[str, Mapping[str, Any]]:
    """The suggestions' parameters, by operation and what they are about."""

    def key(each: Suggestion) -> str:
        about = each.params.get("columns") or each.params.get("index")
        return f"{each.operation} {about}"

    return {key(each): each.params for each in answered.suggestions}


async def test_what_is_missing_is_told_with_what_it_brings_and_a_form_that_can_be_planned(
    there: DirectJob, fifteen: Server
) -> None:
    async with at_shop(fifteen) as conn:
        await conn.execute("SELECT pg_stat_statements_reset()")
        await run_often(conn, "SELECT note FROM orders WHERE customer_id = $1", 7)
        await run_often(conn, "SELECT id, note FROM orders WHERE status = $1", "stuck")
    answered = await answer(there, ASKED)
    assert answered.title.startswith("Indexes of shop: 2 missing indexes")
    said = "\n".join(answered.lines)
    assert "CREATE INDEX CONCURRENTLY orders_customer_id_tk" in "\n".join(answered.statements)
    assert "Would have saved about" in said
    assert "writes in the last" in said
    assert "Likely: the planner takes it whatever the values are." in said
    assert "Likely for the rare values that are asked for: status = a value that" in said
    assert "SELECT note FROM orders WHERE customer_id = $1" in said
    assert "stuck" not in said
    assert "can be told" in said
    params = called(answered)["create-index customer_id"]
    plan = await create_index.plan(there, create_index.Params.model_validate(params))
    assert plan.statements[0].startswith("CREATE INDEX CONCURRENTLY orders_customer_id_tk")


async def test_what_only_costs_is_told_with_a_form(there: DirectJob, fifteen: Server) -> None:
    async with at_shop(fifteen) as conn:
        await conn.execute(
            "CREATE INDEX one ON orders (product_id); CREATE INDEX two ON orders (product_id)"
        )
        try:
            answered = await answer(there, ASKED)
        finally:
            await conn.execute("DROP INDEX one, two")
    assert answered.table is not None
    (row,) = answered.table.rows
    assert row[:2] == ("duplicate", "public.two")
    assert row[3] == "the same as one"
    assert called(answered)["drop-index public.two"]["index"] == "public.two"


@pytest.fixture
async def _idle(shop: Server) -> AsyncIterator[None]:
    """A table whose index nobody has used."""
    async with connected(shop) as conn:
        await conn.execute("CREATE TABLE idle (a int PRIMARY KEY, b int)")
        await conn.execute("CREATE INDEX idle_b ON idle (b)")
    yield
    async with connected(shop) as conn:
        await conn.execute("DROP TABLE idle")


def counting_since(monkeypatch: pytest.MonkeyPatch, *, days: int) -> None:
    """Have the statistics of all nodes begin so long ago."""
    since = f"clock_timestamp() - interval '{days} days' AS since"
    for name in ("COUNTED",):
        module = "postgres.health.indexes"
        found = indexes.read_indexes.__globals__[name]
        begun = found.replace("greatest(d.stats_reset, b.stats_reset) AS since", since)
        assert begun != found
        monkeypatch.setattr(f"{module}.{name}", begun)


@pytest.mark.usefixtures("_idle")
async def test_unused_ones_are_told_after_30_days_and_not_before(
    job: JobMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await answer(job(), ASKED)
    assert "unused" not in before.title
    assert any("needs 30 days of statistics" in line for line in before.lines)
    counting_since(monkeypatch, days=31)
    after = await answer(job(), ASKED)
    assert "unused" in after.title
    assert "drop-index public.idle_b" in called(after)
    assert not any("needs 30 days" in line for line in after.lines)


@pytest.mark.usefixtures("_idle")
async def test_a_replica_that_is_silent_keeps_an_unused_index(
    job: JobMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting_since(monkeypatch, days=31)
    running = job()
    gone = Node(name="shop-2", dsn=SecretStr("postgresql://nobody@127.0.0.1:1/shop"))
    running.database = replace(running.database, replicas=(gone,))
    answered = await answer(running, ASKED)
    assert answered.table is not None
    assert any("but shop-2 could not be asked" in row[3] for row in answered.table.rows)
    assert called(answered) == {}


@pytest.mark.usefixtures("_idle")
async def test_an_index_that_a_request_made_lately_is_not_called_unused(
    job: JobMaker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting_since(monkeypatch, days=31)
    async with store.begin() as conn:
        await conn.execute(MADE, {"index": "public.idle_b", "at": NOW - timedelta(days=29)})
    answered = await answer(job(), ASKED)
    assert "drop-index public.idle_b" not in called(answered)


async def test_without_statements_the_answer_says_what_to_do(job: JobMaker) -> None:
    answered = await answer(job(), ASKED)
    assert answered.title == "Indexes of shop: nothing to do"
    assert "pg_stat_statements is not there" in answered.lines[0]


def test_time_is_told_by_the_week_once_a_day_was_counted() -> None:
    from tests.postgres.health.test_advisor_candidates import proposal

    advice = Advice(
        proposals=(), looked_at=1, left_out=0, skipped={}, since=NOW - timedelta(days=14),
        writes_since=NOW - timedelta(days=10), at=NOW, missing=(),
    )  # fmt: skip
    asked = replace(proposal(["customer_id"], 7_200_000), hot_lost=12)
    said = " ".join(proposal_lines(1, asked, advice))
    assert "Saves about 1 h a week of 1 statement" in said
    assert "kept up by about 10 writes a day" in said
    assert "12 of the counted updates would no longer be cheap" in said
    young = replace(advice, since=NOW - timedelta(hours=2), writes_since=None)
    said = " ".join(proposal_lines(1, asked, young))
    assert "Would have saved about 2 h of 1 statement in the last 2 h" in said
    assert "100 writes so far" in said


def test_each_node_says_from_when_on_it_can_tell() -> None:
    short = Counted(node="shop", since=NOW - timedelta(days=3), now=NOW, scans={})
    assert "shop from 2026-12-19 on" in unused_line([short])
    assert "do not say since when" in unused_line([replace(short, since=None)])
    assert "not once on any node" in unused_line([replace(short, since=NOW - UNUSED_AFTER)])


MADE = sa.text("""
    WITH asked AS (
        INSERT INTO requests (state, version, operation, database, asked_by, asked_by_slack,
                              authors, door, reason, params, plan, plan_hash, policy_hash,
                              attributes, rule, step, asked_at, expires_at, detail, channel)
        VALUES ('done', 1, 'create-index', 'shop', 'ana@acme.example', 'T0DEMO/U0ANA',
                ARRAY['ana'], 'slack', '', '{}', '{}', 'h', 'p', '{}', 'r', 0, CAST(:at AS timestamptz),
                CAST(:at AS timestamptz), '{}', 'C0ORDERS')
        RETURNING id
    )
    INSERT INTO runs (request_id, database, operation, state, epoch, worker, queued_at, ended_at,
                      progress, outcome)
    SELECT id, 'shop', 'create-index', 'done', 1, 'w', CAST(:at AS timestamptz), CAST(:at AS timestamptz), '{}',
           jsonb_build_object('answer', jsonb_build_object('numbers',
               jsonb_build_object('index', CAST(:index AS text))))
      FROM asked
""")  # noqa: E501 - one thought, one line
