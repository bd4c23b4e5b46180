"""A run that is asked to wait: when it can be, and that its next life knows it at once."""

from __future__ import annotations

from jobs import runs
from jobs.pausing import request_pause, request_resume
from jobs.pulse import Leash
from tests.jobs.support import Bench, Step, clock, working


async def test_a_begun_run_is_paused_once_and_goes_on_once(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one", seconds=20))
    async with bench.store.begin() as conn:
        assert not await request_pause(conn, run_id, "Ana", now=clock())
    async with working(bench.worker()):
        await bench.until_noted("one begin 0")
        async with bench.store.begin() as conn:
            assert not await request_resume(conn, run_id)
            assert await request_pause(conn, run_id, "Ana", now=clock())
            assert not await request_pause(conn, run_id, "Ben", now=clock())
        assert await bench.one("SELECT paused_by FROM runs") == "Ana"
        async with bench.store.begin() as conn:
            assert await request_resume(conn, run_id)
            assert not await request_resume(conn, run_id)
        assert await bench.fetch("SELECT paused_by, paused_at FROM runs") == [("", None)]
        async with bench.store.begin() as conn:
            assert await request_pause(conn, run_id, "Ana", now=clock())
            assert await runs.request_cancel(conn, run_id, "Ana")
            assert not await request_resume(conn, run_id)
        await bench.until(run_id, "cancelled")


async def test_the_next_life_of_a_paused_run_begins_paused(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"))
    async with bench.store.begin() as conn:
        first = await runs.claim(conn, run_id, worker="first", now=clock())
        assert first is not None
        assert Leash(first).paused_by == ""
        assert await request_pause(conn, run_id, "Ana", now=clock())
        assert await runs.put_back(conn, first)
    async with bench.store.begin() as conn:
        second = await runs.claim(conn, run_id, worker="second", now=clock())
    assert second is not None
    # Before any pulse has looked.
    assert Leash(second).paused_by == "Ana"
