"""A ledger through real failovers of a pair: killed, frozen and thawed, behind a pooler."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from postgres.cluster.ledger import Ledger, heartbeat_ages, remove
from postgres.cluster.ledger_file import read
from postgres.cluster.verify import DRILL_SCHEMA
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.ports import LOOPBACK
from sandbox.ha import PairSandbox, Pgbouncer

LIMIT: Final = timedelta(seconds=30)


def clock() -> datetime:
    return datetime.now(UTC)


def rows(number: int) -> Any:
    return lambda standing: standing.acknowledged >= number


@pytest.mark.timeout(120)
async def test_what_a_killed_primary_had_not_sent_is_lost_and_is_measured(
    pair: PairSandbox, tmp_path: Path
) -> None:
    old = await pair.primary()
    (new,) = pair.others(old)
    async with Ledger(None, pair.specs, "drill-1", tmp_path, clock=clock) as ledger:
        assert await ledger.until(lambda now: now.server == old, limit=LIMIT)
        ages: Any = {}
        async with asyncio.timeout(30):
            while not ages.get(new):
                ages = await heartbeat_ages(pair.specs, "drill-1", clock=clock)
        sender = await pair.query(old, "SELECT pid FROM pg_stat_replication")
        os.kill(int(str(sender)), signal.SIGSTOP)
        held = ledger.standing.acknowledged
        assert await ledger.until(rows(held + 40), limit=LIMIT)
        injected = clock()
        pair.kill_server(old)
        assert await pair.query(new, "SELECT pg_promote(true, 60)")
        assert await ledger.until(lambda now: now.server == new, limit=LIMIT)
        found = await ledger.measure(pair.spec(new).target, injected_at=injected)
    assert 38 <= found.lost < found.acknowledged
    assert found.rpo_seconds >= 0.3
    assert found.heartbeat_seconds is not None
    assert abs(found.heartbeat_seconds - found.rpo_seconds) < 5
    assert found.server == new
    assert 0 < (found.rto_seconds or 0) <= found.write_gap_seconds + 1
    target = pair.spec(new).target
    acked = {seq for span in read(tmp_path).spans for seq, _ in span.rows()}
    async with connection(target) as conn:
        query = f"SELECT array_agg(seq) FROM {DRILL_SCHEMA}.ledger"
        there = set(await conn.fetchval(query))
    assert found.lost == len(acked - there)
    await remove(target, "drill-1")


@pytest.mark.timeout(120)
async def test_a_primary_that_was_left_behind_gets_no_row_when_it_comes_back(
    pair: PairSandbox, tmp_path: Path
) -> None:
    old = await pair.primary()
    (new,) = pair.others(old)
    target = pair.spec(new).target
    async with Ledger(None, pair.specs, "drill-2", tmp_path, clock=clock) as ledger:
        assert await ledger.until(lambda now: now.server == old, limit=LIMIT)
        injected = clock()
        pair.freeze(old)
        assert await pair.query(new, "SELECT pg_promote(true, 60)")
        assert await ledger.until(lambda now: now.server == new, limit=LIMIT)
        pair.thaw(old)
        before = ledger.standing
        async with connection(target) as conn:
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'twokey-ledger'"
            )
        # Both take writes now, and it has to look anew.
        assert await ledger.until(
            lambda now: (
                now.searches > before.searches and now.acknowledged >= before.acknowledged + 20
            ),
            limit=LIMIT,
        )
        found = await ledger.measure(target, injected_at=injected)
    assert ledger.standing.server == new
    assert found.server == new
    kept = read(tmp_path)
    last_of_old = max(span.last for span in kept.spans if kept.names[span.server] == old)
    first_of_new = min(span.first for span in kept.spans if kept.names[span.server] == new)
    assert last_of_old < first_of_new
    await remove(target, "drill-2")


@pytest.mark.needs("pgbouncer")
@pytest.mark.timeout(120)
async def test_through_a_pooler_each_row_is_the_server_s_that_took_it(
    pair: PairSandbox, pgbouncer: Pgbouncer, tmp_path: Path
) -> None:
    old = await pair.primary()
    (new,) = pair.others(old)
    login = f"{pair.app_user}:{pair.app_password}"
    endpoint = parse_dsn(f"postgresql://{login}@{LOOPBACK}:{pgbouncer.port}/{pair.database}")
    target = pair.spec(new).target
    async with Ledger(endpoint, pair.specs, "drill-3", tmp_path, clock=clock) as ledger:
        assert await ledger.until(lambda now: now.server == old, limit=LIMIT)
        injected = clock()
        pair.kill_server(old)
        assert await pair.query(new, "SELECT pg_promote(true, 60)")
        pgbouncer.point_to(pair.port(new))
        pgbouncer.reload()
        assert await ledger.until(lambda now: now.server == new, limit=LIMIT)
        found = await ledger.measure(target, injected_at=injected)
    kept = read(tmp_path)
    mine = {span.first for span in kept.spans if kept.names[span.server] == new}
    async with connection(target) as conn:
        query = f"SELECT seq FROM {DRILL_SCHEMA}.ledger WHERE at > $1"
        there = {row["seq"] for row in await conn.fetch(query, found.first_ack_at)}
    assert there - {kept.last} <= mine
    assert found.server == new
    await remove(target, "drill-3")
