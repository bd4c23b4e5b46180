"""An old primary wakes up after another was promoted: it is told, and what it alone has counted."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.cluster_look import ClusterWatch, cluster_row
from postgres.cluster.ledger import Ledger, remove
from postgres.cluster.ledger_file import read
from postgres.cluster.look import look_at
from postgres.cluster.verify import DRILL_SCHEMA
from sandbox.ha import PairSandbox
from tests.jobs.alert_world import Town, a_node, orders
from tests.jobs.cluster_pictures import clustered

LIMIT = timedelta(seconds=30)
ROWS = 40
THERE = f"SELECT coalesce(array_agg(seq), ARRAY[]::bigint[]) FROM {DRILL_SCHEMA}.ledger"


def clock() -> datetime:
    return datetime.now(UTC)


async def rows_of(pair: PairSandbox, name: str) -> list[int]:
    """The rows of the ledger that a server has."""
    found = await pair.query(name, THERE, database=pair.database)
    assert isinstance(found, list)
    return found


@pytest.mark.chaos
@pytest.mark.timeout(120)
async def test_two_that_take_writes_are_told_and_the_rows_of_the_old_one_are_counted(
    pair: PairSandbox, tmp_path: Path
) -> None:
    old = await pair.primary()
    (new,) = pair.others(old)
    target = pair.spec(new).target
    async with Ledger(None, pair.specs, "drill-thaw", tmp_path, clock=clock) as ledger:
        assert await ledger.until(lambda now: now.server == old, limit=LIMIT)
        sender = await pair.query(old, "SELECT pid FROM pg_stat_replication")
        os.kill(int(str(sender)), signal.SIGSTOP)  # the other gets nothing from now on
        held = ledger.standing.acknowledged
        assert await ledger.until(lambda now: now.acknowledged >= held + ROWS, limit=LIMIT)
        injected = clock()
        pair.freeze(old)
        assert await pair.query(new, "SELECT pg_promote(true, 60)")
        assert await ledger.until(lambda now: now.server == new, limit=LIMIT)
        found = await ledger.measure(target, injected_at=injected)
        pair.thaw(old)
        nodes = await ClusterWatch(pair.specs, clock=clock, look=look_at).look()
    assert found.lost >= ROWS - 2
    assert sorted(each.name for each in nodes if each.is_writable) == sorted(pair.names)
    town = Town(database=clustered(orders(), *pair.names))
    row = replace(cluster_row(town.database, nodes, at=town.now, worker="w"), seen_at=town.now)
    town.looks(a_node(town.now, ok=True), row)
    [said] = town.notes
    assert said.startswith("critical: TwoWritableNodes. orders: pg1 and pg2 both take writes: ")
    # The old one still has what was lost, and nobody else does.
    acked = {seq for span in read(tmp_path).spans for seq, _ in span.rows()}
    on_old, on_new = [set(await rows_of(pair, name)) for name in (old, new)]
    assert len(acked - on_new) == found.lost
    assert acked - on_new <= on_old
    await remove(target, "drill-thaw")
