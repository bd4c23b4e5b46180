"""A granted request becomes a run, once, and says how it ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
import sqlalchemy as sa

from approvals.words import RequestId, Why
from jobs import runs
from jobs.locks import TargetLock
from jobs.operation import Mode
from jobs.recover import Finding, resolve
from tests.jobs.support import (
    ANA,
    BEN,
    HASTY,
    QUICK,
    Bench,
    Decision,
    Step,
    clock,
    eventually,
    working,
)


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


async def test_the_folder_of_a_run_is_gone_after_it_however_it_ended(bench: Bench) -> None:
    good = await bench.grant(Step(name="one"))
    bad = await bench.grant(Step(name="one", failures=1), database="users")
    async with working(bench.worker()):
        assert await bench.until(good, "done", "failed") == "done"
        assert await bench.until(bad, "done", "failed") == "failed"
    assert list((bench.home / "runs").iterdir()) == []


async def test_a_failed_step_fails_run_and_request_with_its_own_words(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one", failures=1))
    async with working(bench.worker()):
        assert await bench.until(run_id, "done", "failed") == "failed"
    assert await bench.request_state(run_id) == "failed"
    assert await bench.one("SELECT outcome->>'problem' FROM runs") == "attempt 1 failed"


async def test_a_bug_in_an_operation_fails_the_run_with_an_id_and_no_traceback(
    bench: Bench,
) -> None:
    run_id = await bench.grant(Step(name="twice"), Step(name="twice"))
    async with working(bench.worker()):
        assert await bench.until(run_id, "done", "failed") == "failed"
    problem = await bench.one("SELECT outcome->>'problem' FROM runs")
    assert problem.startswith("Something broke in the operation itself (id ")


async def test_the_worker_begins_with_people_as_the_directory_knows_them_now(bench: Bench) -> None:
    bench.people.gone = {BEN}
    run_id = await bench.grant(Step(name="one"))
    async with working(bench.worker()):
        await bench.until(run_id, "done")
    assert [set(people) for people in bench.approvals.begun_with] == [{ANA}]


async def test_a_refusal_that_votes_can_mend_sends_the_request_back(bench: Bench) -> None:
    bench.approvals.refusals = [Decision(ok=False, why=Why.IDENTITY, problem="Ana has left.")]
    run_id = await bench.grant(Step(name="one"))
    async with working(bench.worker()):
        await bench.until(run_id, "refused")
    assert await bench.request_state(run_id) == "pending"
    assert await bench.noted() == []
    assert await bench.one("SELECT started_at FROM runs") is None


async def test_a_request_that_is_granted_anew_after_a_refusal_runs(bench: Bench) -> None:
    bench.approvals.refusals = [Decision(ok=False, why=Why.IDENTITY, problem="Ana has left.")]
    run_id = await bench.grant(Step(name="one"))
    async with working(bench.worker()):
        await bench.until(run_id, "refused")
        async with bench.store.begin() as conn:
            await conn.execute(sa.text("UPDATE requests SET state = 'approved'"))
            again = await bench.queue.enqueue(
                conn,
                request_id=RequestId(1),
                database="orders",
                operation="work",
                now=clock(),
            )
        assert again == run_id
        await bench.until(run_id, "done")
    assert await bench.noted() == ["one begin 0", "one end"]


async def test_a_grant_that_was_used_cannot_be_queued_again(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"))
    async with working(bench.worker()):
        await bench.until(run_id, "done")
    with pytest.raises(RuntimeError, match="has been used"):
        async with bench.store.begin() as conn:
            await bench.queue.enqueue(
                conn,
                request_id=RequestId(1),
                database="orders",
                operation="work",
                now=clock(),
            )


@pytest.mark.parametrize("why", [Why.EXPIRED, Why.CLOSED, Why.NOT_APPROVED])
async def test_a_refusal_that_is_final_leaves_the_request_to_its_own_end(
    bench: Bench, why: Why
) -> None:
    bench.approvals.refusals = [Decision(ok=False, why=why, problem="It is over.")]
    run_id = await bench.grant(Step(name="one"))
    async with working(bench.worker()):
        await bench.until(run_id, "refused")
    assert await bench.request_state(run_id) == "approved"


async def test_a_run_outside_its_window_stays_queued_and_people_are_told(bench: Bench) -> None:
    bench.approvals.refusals = [
        Decision(ok=False, why=Why.FROZEN, problem="Not before 22:00."),
    ]
    run_id = await bench.grant(Step(name="one"))
    async with working(bench.worker()):

        async def told() -> bool:
            texts = await bench.fetch("SELECT payload->>'text' FROM outbox WHERE topic='progress'")
            return ("Not before 22:00.",) in [tuple(row) for row in texts]

        assert await eventually(told)
        assert await bench.state(run_id) == "queued"
        assert await bench.request_state(run_id) == "approved"


async def test_while_the_directory_is_down_nothing_starts(bench: Bench) -> None:
    bench.people.down = 1_000_000
    run_id = await bench.grant(Step(name="one"))
    async with working(bench.worker()):

        async def waits() -> bool:
            return bool(await bench.one("SELECT progress ->> 'waiting' FROM runs"))

        await eventually(waits)
    assert await bench.state(run_id) == "queued"
    assert bench.approvals.begun_with == []


async def test_pins_that_still_hold_let_the_run_begin(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"), pins={"pin": "blue"})
    async with working(bench.worker()):
        assert await bench.until(run_id, "done", "refused") == "done"


async def test_a_pin_that_moved_sends_the_request_back_and_says_which(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"), pins={"pin": "green"})
    async with working(bench.worker()):
        assert await bench.until(run_id, "done", "refused") == "refused"
    assert await bench.request_state(run_id) == "pending"
    problem = await bench.one("SELECT outcome->>'problem' FROM runs")
    assert "pin was green and is blue" in problem
    assert bench.approvals.begun_with == []


async def test_a_run_whose_plan_names_another_database_is_refused(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"))
    async with bench.store.begin() as conn:
        await conn.execute(sa.text("UPDATE runs SET database = 'users'"))
    async with working(bench.worker()):
        await bench.until(run_id, "refused")
    assert await bench.noted() == []


async def test_a_run_waits_for_the_change_before_it_and_says_so(bench: Bench) -> None:
    first = await bench.grant(Step(name="slow", gate="go"))
    async with working(bench.worker()):
        await bench.until_noted("slow begin 0")
        second = await bench.grant(Step(name="next"))

        async def told() -> bool:
            waiting = await bench.fetch(
                "SELECT progress ->> 'waiting' AS text FROM runs WHERE id = $1", second
            )
            return waiting[0]["text"] == "Waiting: request 1 (work) is at work on orders."

        await eventually(told)
        await bench.open("go")
        assert await bench.until(second, "done") == "done"
    assert await bench.state(first) == "done"
    assert await bench.noted() == [
        "slow begin 0",
        "slow end",
        "next begin 0",
        "next end",
    ]


async def test_a_run_beside_others_neither_waits_nor_makes_them_wait(bench: Bench) -> None:
    first = await bench.grant(Step(name="slow", gate="go"))
    async with working(bench.worker()):
        await bench.until_noted("slow begin 0")
        beside = await bench.grant(Step(name="beside", gate="go"), beside=True)
        await bench.until_noted("beside begin 0")
        assert await bench.state(first) == "running"
        again = await bench.grant(Step(name="again"), beside=True)
        assert await bench.until(again, "done") == "done"
        assert await bench.state(first) == await bench.state(beside) == "running"
        await bench.open("go")
        assert await bench.until(first, "done") == "done"
        assert await bench.until(beside, "done") == "done"


async def test_a_run_is_not_held_up_by_one_beside_it(bench: Bench) -> None:
    await bench.grant(Step(name="beside", gate="never"), beside=True)
    async with working(bench.worker(replace(QUICK, lock_ping=timedelta(milliseconds=10)))):
        await bench.until_noted("beside begin 0")
        second = await bench.grant(Step(name="second"))
        assert await bench.until(second, "done") == "done"


async def test_a_run_beside_others_is_not_stopped_for_a_lock_that_it_never_had(
    bench: Bench,
) -> None:
    run_id = await bench.grant(Step(name="beside", seconds=1), beside=True)
    change = TargetLock(bench.store, "orders", name="another worker")
    assert await change.acquire()
    async with working(bench.worker(replace(QUICK, lock_grace=timedelta(milliseconds=100)))):
        await bench.until(run_id, "done")
    await change.release()
    assert await bench.noted() == ["beside begin 0", "beside end"]


async def test_a_waiting_run_takes_no_place_from_other_databases(bench: Bench) -> None:
    await bench.grant(Step(name="slow", gate="never"))
    await bench.grant(Step(name="waits"))
    other = await bench.grant(Step(name="other"), database="users")
    async with working(bench.worker(replace(QUICK, concurrency=2))):
        await bench.until(other, "done")


async def test_a_run_that_waited_too_long_goes_back_for_new_votes(bench: Bench) -> None:
    await bench.grant(Step(name="slow", gate="never"))
    limits = replace(QUICK, lock_wait=timedelta(seconds=0.1))
    async with working(bench.worker(limits)):
        await bench.until_noted("slow begin 0")
        second = await bench.grant(Step(name="next"))
        await bench.until(second, "refused")
    assert await bench.request_state(second) == "pending"


async def test_a_cancelled_run_stops_long_before_its_end_and_cleans_up(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="slow", gate="never", cleanup=0.1))
    async with working(bench.worker()):
        await bench.until_noted("slow begin 0")
        async with bench.store.begin() as conn:
            assert await runs.request_cancel(conn, run_id, "Ana")
        await bench.until(run_id, "cancelled")
    assert await bench.noted() == ["slow begin 0", "slow cleaned up"]
    assert await bench.request_state(run_id) == "failed"
    assert await bench.one("SELECT outcome->>'problem' FROM runs") == "Cancelled by Ana."


async def test_a_run_is_cancelled_once_and_only_while_it_runs(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one", gate="never"))
    async with bench.store.begin() as conn:
        assert not await runs.request_cancel(conn, run_id, "Ana")
    async with working(bench.worker()):
        await bench.until_noted("one begin 0")
        async with bench.store.begin() as conn:
            assert await runs.request_cancel(conn, run_id, "Ana")
            assert not await runs.request_cancel(conn, run_id, "Ben")
        await bench.until(run_id, "cancelled")


async def test_cancelling_amid_a_once_step_asks_a_person_and_keeps_the_database(
    bench: Bench,
) -> None:
    run_id = await bench.grant(Step(name="promote", mode=Mode.ONCE, gate="never"))
    async with working(bench.worker()):
        await bench.until_noted("promote begin 0")
        async with bench.store.begin() as conn:
            await runs.request_cancel(conn, run_id, "Ana")
        await bench.until(run_id, "needs_attention")
        waiting = await bench.grant(Step(name="next"))

        async def told() -> bool:
            text = await bench.one("SELECT progress ->> 'waiting' FROM runs WHERE id = $1", waiting)
            return "needs a person" in (text or "")

        await eventually(told)
    assert await bench.request_state(run_id) == "executing"
    next_step = await bench.one("SELECT outcome->>'next_step' FROM runs WHERE id = $1", run_id)
    assert "did-not-happen" in next_step


@pytest.mark.parametrize(
    ("finding", "state", "noted"),
    [
        (Finding.HAPPENED, "done", ["promote begin 0", "promote cleaned up"]),
        (
            Finding.DID_NOT_HAPPEN,
            "done",
            ["promote begin 0", "promote cleaned up", "promote begin 0", "promote end"],
        ),
        (Finding.ABORT, "failed", ["promote begin 0", "promote cleaned up"]),
    ],
)
async def test_a_person_says_what_became_of_a_step(
    bench: Bench, finding: Finding, state: str, noted: list[str]
) -> None:
    run_id = await bench.grant(Step(name="promote", mode=Mode.ONCE, gate="go"))
    worker = bench.worker()
    async with working(worker):
        await bench.until_noted("promote begin 0")
        async with bench.store.begin() as conn:
            await runs.request_cancel(conn, run_id, "Ana")
        await bench.until(run_id, "needs_attention")
        await bench.open("go")
        assert await resolve(worker.given, run_id, finding, by="Ola")
        assert await bench.until(run_id, "done", "failed") == state
    assert await bench.noted() == noted
    assert await bench.request_state(run_id) == state
    assert not await resolve(worker.given, run_id, finding, by="Ola")
    audited = await bench.fetch(
        "SELECT actor, action, detail->>'finding' FROM audit_log ORDER BY seq"
    )
    assert [tuple(row) for row in audited] == [
        ("twokey", "needs_attention", None),
        ("Ola", "resolve_run", str(finding)),
    ]


async def test_a_run_beyond_its_operations_limit_is_stopped_and_fails(bench: Bench) -> None:
    bench.operations["work"] = replace(bench.operations["work"], time_limit=timedelta(seconds=0.3))
    run_id = await bench.grant(Step(name="slow", seconds=20))
    async with working(bench.worker()):
        await bench.until(run_id, "failed")
    assert "longer than its limit" in await bench.one("SELECT outcome->>'problem' FROM runs")


async def test_a_body_that_will_not_stop_asks_for_a_person(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="deaf", seconds=5, deaf=True, limit=0.2))
    async with working(bench.worker(HASTY)):
        await bench.until(run_id, "needs_attention")
    assert "may still be at work" in await bench.one("SELECT outcome->>'problem' FROM runs")


async def test_a_stopped_worker_takes_nothing_new_and_lets_steps_end(bench: Bench) -> None:
    first = await bench.grant(Step(name="short", seconds=0.3))
    async with working(bench.worker(replace(QUICK, stop_grace=timedelta(seconds=30)))):
        await bench.until_noted("short begin 0")
    second = await bench.grant(Step(name="late"))
    assert await bench.state(first) == "done"
    assert await bench.state(second) == "queued"


async def test_a_stopped_worker_gives_back_what_does_not_end_in_time(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"), Step(name="slow", gate="go"))
    async with working(bench.worker(replace(QUICK, stop_grace=timedelta(seconds=0.1)))):
        await bench.until_noted("slow begin 0")
    assert await bench.state(run_id) == "queued"
    await bench.open("go")
    async with working(bench.worker()):
        await bench.until(run_id, "done")
    assert await bench.noted() == [
        "one begin 0",
        "one end",
        "slow begin 0",
        "slow cleaned up",
        "slow begin 0",
        "slow end",
    ]


async def test_progress_that_nobody_has_delivered_yet_is_replaced(bench: Bench) -> None:
    run_id = await bench.grant(*[Step(name=f"step {n}", seconds=0.15) for n in range(4)])
    async with working(bench.worker()):
        await bench.until(run_id, "done")
    waiting = await bench.fetch("SELECT payload->>'text' FROM outbox WHERE topic='progress'")
    assert [tuple(row) for row in waiting] == [("step 3 is done",)]
    lines = [row["line"] for row in await bench.fetch("SELECT line FROM run_log ORDER BY id")]
    assert "step 0 is done" in lines
    assert lines[-1] == "done: Did 4 steps"


async def test_a_body_whose_run_was_given_to_another_worker_is_stopped(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="slow", gate="never"))
    async with working(bench.worker()):
        await bench.until_noted("slow begin 0")
        await bench.fetch(
            "UPDATE runs SET epoch = epoch + 1, worker = 'other',"
            " heartbeat_at = now() + interval '1 h'"
        )
        await bench.until_noted("slow cleaned up")
    assert await bench.state(run_id) == "running"
    assert await bench.one("SELECT count(*) FROM outbox WHERE topic = 'result'") == 0


async def test_a_lost_target_lock_stops_the_step_and_another_life_resumes_it(
    bench: Bench,
) -> None:
    run_id = await bench.grant(Step(name="slow", gate="go"))
    async with working(bench.worker(HASTY)):
        await bench.until_noted("slow begin 0")
        admin = await asyncpg.connect(bench.store.dsn.get_secret_value())
        thief = await bench.store.direct()
        try:
            # Somebody else gets the lock the moment its session is gone, and keeps it.
            waiting = asyncio.create_task(
                thief.execute(
                    "SELECT pg_advisory_lock(hashtext('twokey target'), hashtext($1))", "orders"
                )
            )
            ended = await admin.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'lock:orders:%' AND datname = current_database()"
            )
            assert len(ended) == 1
            await waiting
            await bench.until_noted("slow cleaned up")
            assert await bench.until(run_id, "queued")
            await bench.open("go")
        finally:
            await thief.close()
            await admin.close()
        await bench.until(run_id, "done")
    assert await bench.noted() == ["slow begin 0", "slow cleaned up", "slow begin 0", "slow end"]


async def test_a_lock_that_can_be_taken_back_in_time_disturbs_nothing(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="slow", gate="go"))
    async with working(bench.worker()):
        await bench.until_noted("slow begin 0")
        admin = await asyncpg.connect(bench.store.dsn.get_secret_value())
        holder = (
            "FROM pg_stat_activity"
            " WHERE application_name LIKE 'lock:orders:%' AND datname = current_database()"
        )
        first = await admin.fetchval(f"SELECT pid {holder}")
        await admin.execute("SELECT pg_terminate_backend($1)", first)
        await eventually(lambda: admin.fetchval(f"SELECT pid {holder} AND pid <> $1", first))
        await admin.close()
        await bench.open("go")
        await bench.until(run_id, "done")
    assert await bench.noted() == ["slow begin 0", "slow end"]


async def test_counts_say_what_there_is_to_do(bench: Bench) -> None:
    await bench.grant(Step(name="one"))
    await bench.grant(Step(name="two"))
    async with bench.store.begin() as conn:
        (count,) = await runs.counts(conn, now=clock() + timedelta(minutes=1))
    assert (count.state, count.runs) == ("queued", 2)
    assert count.oldest > timedelta(seconds=59)
