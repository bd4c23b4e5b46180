"""A granted request becomes a run, once, and says how it ended."""

from __future__ import annotations

from tests.jobs.support import Bench, Step, working


async def test_a_grant_runs_its_steps_in_order_and_ends_done(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"), Step(name="two"))
    async with working(bench.worker()):
        assert await bench.until(run_id, "done", "failed") == "done"
    assert await bench.noted() == ["one begin 0", "one end", "two begin 0", "two end"]
    assert await bench.request_state(run_id) == "done"


async def test_the_result_is_posted_and_kept(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"))
    async with working(bench.worker()):
        await bench.until(run_id, "done")
    posted = await bench.one("SELECT payload->'answer'->>'title' FROM outbox WHERE topic='result'")
    assert posted == "Did 1 steps"
    assert await bench.one("SELECT outcome->'answer'->'numbers'->>'steps' FROM runs") == "1"


async def test_the_folder_is_there_for_the_run_and_gone_after_it(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"))
    async with working(bench.worker()):
        await bench.until(run_id, "done")
    assert list((bench.home / "runs").iterdir()) == []


async def test_a_failed_step_fails_run_and_request_with_its_own_words(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one", failures=1))
    async with working(bench.worker()):
        assert await bench.until(run_id, "done", "failed") == "failed"
    assert await bench.request_state(run_id) == "failed"
    assert await bench.one("SELECT outcome->>'problem' FROM runs") == "attempt 1 failed"
    assert list((bench.home / "runs").iterdir()) == []
