"""Restores into place on real servers: what is said, what is kept, and the ways back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from commands import restore_confirm, restore_undo
from jobs.operation import CriticalQuery, JobError
from jobs.place_run import alone_at
from jobs.placing import PlaceOrder, place_pins, plan_place, run_place, undo_of_place
from jobs.steps import AttentionError
from postgres.restore.target import END
from postgres.server import find_binaries
from store.connect import Store
from store.replaced import find_replaced
from tests.conftest import folder_of_its_own
from tests.jobs.place_world import StepJob, World, eventually, opened, writing


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    async with opened(find_binaries(os.environ), folder_of_its_own(), store) as made:
        yield made


async def test_no_commit_is_lost_that_the_answer_does_not_count_and_an_undo_brings_all_back(
    world: World,
) -> None:
    await world.backup()
    await world.sql("INSERT INTO orders SELECT generate_series(501, 600)")
    target = await world.mark()
    job = await world.job()
    async with writing(world) as writer:
        await eventually(lambda: len(writer.committed) > 20)
        order = PlaceOrder(choice=await world.choice(target))
        answer = await run_place(job, order)
        await eventually(lambda: len(writer.committed) > writer.cut_off[0] + 5)
    (cut,) = writer.cut_off
    before, since = set(writer.committed[:cut]), set(writer.committed[cut:])
    restored = await world.rows()
    assert set(range(1, 601)) <= restored
    assert not before & restored
    assert len(before) <= int(answer.numbers["lost_transactions"]) <= len(before) + 5
    assert since <= restored
    assert world.beside() == {"1.json", "old-1"}

    undo = undo_of_place("orders", answer.numbers)
    assert undo is not None
    params = restore_undo.Params.model_validate(undo.params)
    second = await world.job()
    plan = await restore_undo.plan(second, params)
    said = await restore_undo.run(second, params, plan)
    after = await world.rows()
    assert before <= after
    assert not since & after
    assert len(since) <= _at_most(plan) <= len(since) + 5
    # Whoever recovers "the latest" follows the old server, which is the newer one now.
    assert int(said.numbers["timeline"]) > int(answer.numbers["timeline"])
    assert await world.sql("SELECT pg_is_in_recovery()") is False
    with pytest.raises(JobError, match="was put back"):
        await restore_undo.plan(second, params)
    with pytest.raises(JobError, match="was put back"):
        await restore_confirm.plan(second, restore_confirm.Params(**params.model_dump()))


async def test_the_replaced_server_is_removed_when_somebody_confirms_and_not_before(
    world: World,
) -> None:
    await world.backup()
    job = await world.job()
    order = PlaceOrder(choice=await world.choice(END))
    plan = await plan_place(job, order)
    assert plan.pins == await place_pins(job)
    assert plan.attributes == {"into": "place"}
    await run_place(job, order)
    assert plan.pins != await place_pins(job)

    with pytest.raises(JobError, match="Restore #1 still keeps"):
        await plan_place(await world.job(), order)

    aside = world.server.data.with_name("orders.twokey-old-1")
    params = restore_confirm.Params(database="orders", request=1)
    second = await world.job()
    shown = await restore_confirm.plan(second, params)
    assert dict(shown.facts)["Removes"] == str(aside)
    assert any("No backup was taken" in text for text in shown.warnings)
    answer = await restore_confirm.run(second, params, shown)
    assert int(answer.numbers["freed_bytes"]) > 1_000_000
    assert world.beside() == set()
    assert await world.rows() == set(range(1, 501))
    with pytest.raises(JobError, match="was removed"):
        await restore_confirm.plan(second, params)
    with pytest.raises(JobError, match="was removed"):
        await restore_undo.plan(second, restore_undo.Params(**params.model_dump()))


async def test_whatever_fails_before_the_exchange_leaves_the_server_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    began = await world.sql("SELECT pg_postmaster_start_time()")
    order = PlaceOrder(choice=await world.choice(END))

    world.queries = (CriticalQuery(name="all", sql="SELECT count(*) FROM orders", expect="7"),)
    with pytest.raises(JobError, match="all says '500' instead of '7'"):
        await run_place(await world.job(), order)
    assert world.beside() == set()
    world.queries = ()

    job = await world.job()
    job.before = lambda name: _fill(monkeypatch, name)
    with pytest.raises(JobError, match="No space left on device"):
        await run_place(job, order)
    assert world.beside() == set()
    monkeypatch.undo()

    monkeypatch.setattr("postgres.restore.quiet.ARCHIVE_SECONDS_MAX", 0.5)
    await world.sql("ALTER SYSTEM SET archive_command = 'false'")
    await world.server.reload()
    await world.sql("DELETE FROM orders WHERE id = 500")
    with pytest.raises(JobError, match=r"did not reach the archive.*runs on as it was"):
        await run_place(await world.job(), order)
    assert world.beside() == set()

    assert await world.sql("SELECT pg_postmaster_start_time()") == began
    assert await world.rows() == set(range(1, 500))


async def test_a_copy_that_does_not_start_gives_the_place_back(world: World) -> None:
    await world.backup()
    job = await world.job()
    coming = world.server.data.with_name("orders.twokey-new-1")

    async def spoil(step: str) -> None:
        if step == "replace the server":
            (coming / "PG_VERSION").write_text("99\n")

    job.before = spoil
    with pytest.raises(JobError, match=r"incompatible.*was put back and runs as before"):
        await run_place(job, PlaceOrder(choice=await world.choice(END)))
    assert world.beside() == set()
    assert await world.rows() == set(range(1, 501))
    async with world.store.begin() as conn:
        assert await find_replaced(conn, "orders", 1) is None


async def test_who_stops_it_before_the_exchange_gets_the_old_server_and_after_it_the_new_one(
    world: World,
) -> None:
    await world.backup()
    order = PlaceOrder(choice=await world.choice(END))
    await world.sql("INSERT INTO orders VALUES (501)")

    with pytest.raises(asyncio.CancelledError):
        await _cancelled_at("Closing the server", await world.job(), order)
    assert world.beside() == set()
    assert await world.rows() == set(range(1, 502))

    job = await world.job()
    await _cancelled_at("Starting the new server", job, order)
    assert await world.rows() == set(range(1, 501))
    async with world.store.begin() as conn:
        kept = await find_replaced(conn, "orders", job.request_id)
    assert kept is not None
    assert kept.state == "kept"


async def test_where_another_process_is_at_work_a_person_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.place_run.ALONE_SECONDS_MAX", 0.1)
    async with alone_at(tmp_path / "orders"):
        with pytest.raises(AttentionError, match="Another process of Twokey"):
            async with alone_at(tmp_path / "orders"):
                pytest.fail("two at once")


async def _cancelled_at(point: str, job: StepJob, order: PlaceOrder) -> None:
    """A run that is told to stop when it says this."""
    work = asyncio.ensure_future(run_place(job, order))
    say = job.report

    async def report(text: str, *, fraction: float | None = None) -> None:
        await say(text, fraction=fraction)
        if text.startswith(point):
            work.cancel()

    job.report = report  # type: ignore[method-assign]
    await work


def _at_most(plan: Any) -> int:
    text = dict(plan.facts)["Lost by it"]
    return int(text.split()[2].replace(",", ""))


async def _fill(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A full disk, once the copy is made."""
    if name.startswith("recover"):

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("postgres.restore.unpack._write_file", full)
