"""Whatever makes a run wait for a person stands in the audit when it happens."""

from __future__ import annotations

from jobs import claims, runs
from tests.jobs.support import QUICK, Bench, Step, working

BEGUN = "UPDATE runs SET started_at = now(), epoch = $1 WHERE id = $2"
PUT_IN = "UPDATE requests SET state = 'executing' WHERE id = (SELECT request_id FROM runs)"


async def entries(bench: Bench) -> list[tuple[str, ...]]:
    rows = await bench.fetch(
        "SELECT chain, actor, action, detail->>'run_id', detail->>'problem' FROM audit_log"
    )
    return [tuple(row) for row in rows]


async def test_a_run_that_ends_its_workers_each_time(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"))
    await bench.fetch(PUT_IN)
    await bench.fetch(BEGUN, 2 * QUICK.claims_max, run_id)
    async with working(bench.worker()):
        await bench.until(run_id, "needs_attention")
    [(chain, actor, action, run, problem)] = await entries(bench)
    assert (actor, action, run) == ("twokey", "needs_attention", str(run_id))
    assert chain == await bench.one("SELECT database FROM runs")
    assert "without an end" in problem


async def test_a_begun_run_that_waited_too_long(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"))
    await bench.fetch(PUT_IN)
    await bench.fetch(BEGUN, 1, run_id)
    given = bench.worker().given
    async with bench.store.begin() as conn:
        run = await runs.load(conn, run_id)
    assert run is not None
    grant = await bench.approvals.load(run.request_id)
    assert grant is not None
    await claims.give_up(given, run, grant, "It waited too long.")
    await claims.give_up(given, run, grant, "It waited too long.")
    assert [entry[2:] for entry in await entries(bench)] == [
        ("needs_attention", str(run_id), "It waited too long.")
    ]
