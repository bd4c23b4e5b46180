"""`/db hold` and `/db release`: a backup stays while somebody says so, and the record says who."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from commands import hold, prune, release
from jobs.operation import JobError, Risk
from jobs.pinned import what_moved
from store.backups import find_backup
from store.connect import Store
from store.tables import requests
from tests.commands.conftest import NOW, DirectJob, JobMaker, facts
from tests.commands.shelf import BY_HAND, DAY, enter, shelved
from tests.store.test_store import REQUEST

HOLD = hold.Params(database="shop", backup="old", reason="the auditors look at it")
RELEASE = release.Params(database="shop", backup="old")


@pytest.fixture
async def made(job: JobMaker, store: Store) -> DirectJob:
    """A run of a request by Ana, where a backup is due to go."""
    run = job()
    run.database = replace(run.database, backups=BY_HAND)
    records = [shelved(run.database, "old", 60 * DAY), shelved(run.database, "new", DAY)]
    await enter(store, *records, proven=["new"])
    async with store.begin() as conn:
        asked = await conn.execute(
            requests.insert().values(**{**REQUEST, "detail": {}}).returning(requests.c.id)
        )
        run.request_id = int(asked.scalar_one())
    return run


async def test_a_hold_says_who_set_it_when_and_why(made: DirectJob, store: Store) -> None:
    assert hold.OPERATION.risk is Risk.NONE
    plan = await hold.plan(made, HOLD)
    assert facts(plan)["Why"] == "the auditors look at it"
    answer = await hold.run(made, HOLD, plan)
    assert "/db release shop old" in answer.lines[0]
    async with store.begin() as conn:
        found = await find_backup(conn, "shop", "old")
    assert found is not None
    assert found.hold == {
        "by": "ana@acme.example", "at": NOW.isoformat(), "reason": "the auditors look at it",
        "request": made.request_id,
    }  # fmt: skip


async def test_a_second_hold_is_refused_and_names_the_first(made: DirectJob) -> None:
    await hold.run(made, HOLD, await hold.plan(made, HOLD))
    with pytest.raises(JobError, match=r"on hold already, by ana@acme\.example: the auditors"):
        await hold.plan(made, HOLD)


async def test_what_is_not_there_cannot_be_held(made: DirectJob, store: Store) -> None:
    with pytest.raises(JobError, match="nosuch of shop is not there"):
        await hold.plan(made, HOLD.model_copy(update={"backup": "nosuch"}))
    plan = await hold.plan(made, HOLD)
    async with store.begin() as conn:
        await conn.execute(sa.text("UPDATE backups SET state = 'removing' WHERE id = 'old'"))
    with pytest.raises(JobError, match="is being removed"):
        await hold.plan(made, HOLD)
    with pytest.raises(JobError, match="could not be put on hold"):
        await hold.run(made, HOLD, plan)


def test_a_hold_needs_a_reason() -> None:
    with pytest.raises(ValidationError):
        hold.Params(database="shop", backup="old", reason="")


async def test_a_release_says_what_becomes_of_the_backup_and_then_it_may_go(
    made: DirectJob,
) -> None:
    await hold.run(made, HOLD, await hold.plan(made, HOLD))
    with pytest.raises(JobError, match="Nothing of shop"):
        await prune.plan(made, prune.Params(database="shop"))
    plan = await release.plan(made, RELEASE)
    assert facts(plan)["Held by"] == "ana@acme.example: the auditors look at it"
    assert facts(plan)["Then"].startswith("Was kept 30 d as daily")
    assert plan.warnings == ("The next prune removes it.",)
    answer = await release.run(made, RELEASE, plan)
    assert answer.title == "old is released"
    assert (await release.run(made, RELEASE, plan)).title == "old was released already"
    assert "1 backup" in (await prune.plan(made, prune.Params(database="shop"))).title


async def test_a_release_of_one_hold_ends_no_other(made: DirectJob, store: Store) -> None:
    await hold.run(made, HOLD, await hold.plan(made, HOLD))
    plan = await release.plan(made, RELEASE)
    await release.run(made, RELEASE, plan)
    made.now = NOW + DAY
    await hold.run(made, HOLD, await hold.plan(made, HOLD))
    moved = await what_moved(release.OPERATION, made, RELEASE, plan)
    assert moved is not None
    assert "held since was" in moved
    assert (await release.run(made, RELEASE, plan)).title == "old was released already"
    async with store.begin() as conn:
        found = await find_backup(conn, "shop", "old")
    assert found is not None
    assert found.hold is not None


async def test_what_nobody_holds_cannot_be_released(made: DirectJob) -> None:
    with pytest.raises(JobError, match="old is not on hold"):
        await release.plan(made, RELEASE)
    with pytest.raises(JobError, match="There is no backup nosuch"):
        await release.plan(made, RELEASE.model_copy(update={"backup": "nosuch"}))


def test_a_hold_is_undone_by_its_release() -> None:
    assert hold.OPERATION.undo is not None
    undo = hold.OPERATION.undo(HOLD, {"backup": "old"})
    assert undo is not None
    assert (undo.operation, undo.params) == ("release", {"database": "shop", "backup": "old"})
