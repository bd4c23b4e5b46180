"""`/db drills`: what was rehearsed, how it went, and each report again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from bot.views.answer import answer_message
from commands import drills
from commands.drills import JSON_CHARS_MAX, Params
from jobs.cluster_settings import DrillKind
from jobs.drill_report import finished
from jobs.drill_stored import earlier_reports, report_of
from jobs.drill_words import DrillReport, report_json
from jobs.operation import Answer, JobError
from store.connect import Store, connect
from store.drills import StoredDrill, begin_drill, drill_of, end_drill, note_phase
from tests.bot.views.cards import problems
from tests.commands.archived import add_request
from tests.commands.conftest import NOW, DirectJob
from tests.jobs.drill_samples import COST, FULL
from tests.jobs.test_drill_compare import past
from tests.jobs.test_timetable import a_database

DAMAGE = "UPDATE drills SET report = jsonb_set(report, '{cost,lost}', '0')"


@pytest.fixture
def job(store: Store, tmp_path: Path) -> DirectJob:
    """One that looks at the store alone."""
    unused: Any = None
    names = ("orders", "billing")
    return DirectJob(
        database=replace(a_database(), name="orders"), store=store, reader=unused, folder=tmp_path,
        request_id=1, databases={name: replace(a_database(), name=name) for name in names},
    )  # fmt: skip


async def had(store: Store, report: DrillReport, **changes: Any) -> int:
    """Enter a drill as its flow does; its request's number."""
    number = await add_request(store)
    mine = finished(replace(report, request_id=number, **changes))
    async with store.begin() as conn:
        await begin_drill(
            conn, request_id=number, run_key=f"run-{number}", database=mine.database,
            environment=mine.environment, kind=mine.kind, at=mine.started_at,
        )  # fmt: skip
        await end_drill(conn, number, report=report_json(mine), at=mine.ended_at)
    return number


async def begun(store: Store) -> int:
    number = await add_request(store)
    async with store.begin() as conn:
        await begin_drill(
            conn, request_id=number, run_key="run-9", database="orders",
            environment="staging", kind="host-loss", at=NOW - timedelta(minutes=3),
        )  # fmt: skip
        await note_phase(conn, number, "promoted")
    return number


async def stored(store: Store, number: int) -> StoredDrill:
    async with store.begin() as conn:
        found = await drill_of(conn, number)
    assert found is not None
    return found


def rows(answer: Answer) -> list[tuple[str, ...]]:
    assert answer.table is not None
    return list(answer.table.rows)


async def test_the_newest_drills_stand_with_what_decides(job: DirectJob, store: Store) -> None:
    older = await had(store, past(2, rto=9, gap=8))
    lost = replace(COST, lost=7, rpo_seconds=0.25)
    newer = await had(store, past(1), cost=lost)
    failed = await had(store, FULL, database="billing", cost=None)
    of_one = await drills.answer(job, Params(database="orders"))
    assert of_one.title == "Drills of orders: 2 of 2 passed"
    assert rows(of_one) == [
        (str(newer), "2026-08-23", "primary-crash", "passed", "12.2 s", "0.25 s", "7", "11.5 s"),
        (str(older), "2026-05-24", "primary-crash", "passed", "9 s", "0 s", "0", "8 s"),
    ]  # fmt: skip
    assert of_one.lines == (f"One in full: /db drills report={newer}",)
    of_all = await drills.answer(job, Params())
    assert of_all.title == "Drills of all databases: 2 of 3 passed"
    assert rows(of_all)[0] == (
        "billing", str(failed), "2026-11-22", "primary-crash", "FAILED", "-", "-", "-", "-",
    )  # fmt: skip
    assert of_all.charts == ()
    assert problems(answer_message(of_one)) == []


async def test_two_of_a_kind_make_a_trend(job: DirectJob, store: Store) -> None:
    await had(store, past(3, rto=9))
    alone = await drills.answer(job, Params(database="orders"))
    assert alone.charts == ()
    await had(store, past(2, rto=10))
    await had(store, past(1, kind=DrillKind.SWITCHOVER))
    answer = await drills.answer(job, Params(database="orders"))
    [chart] = answer.charts
    assert chart.title == "primary-crash drills of orders"
    assert [each.values for each in chart.series] == [(9, 10), (11.5, 11.5)]
    assert problems(answer_message(answer)) == []


async def test_no_drill_at_all_says_how_to_begin(job: DirectJob) -> None:
    answer = await drills.answer(job, Params(database="orders"))
    assert (answer.title, answer.table) == ("Drills of orders: none", None)
    assert "`cluster.drills.kinds`" in answer.lines[0]


async def test_a_drill_that_runs_says_how_far_it_is(job: DirectJob, store: Store) -> None:
    number = await begun(store)
    answer = await drills.answer(job, Params(database="orders"))
    assert answer.lines[0] == (
        f"Running for 3 min: host-loss of orders, as far as: promoted (request {number})."
    )
    assert rows(answer)[0][3] == "running"
    one = await drills.answer(job, Params(database="orders", report=number))
    assert one.title == "Drill running: host-loss of orders"
    assert ("Came as far as", "promoted") in one.facts
    assert one.statements == ()


async def test_a_drill_that_ended_without_a_report_says_so(job: DirectJob, store: Store) -> None:
    number = await begun(store)
    await had(store, FULL, started_at=NOW)
    answer = await drills.answer(job, Params(report=number))
    assert answer.title == "Drill aborted: host-loss of orders"
    assert answer.lines == (
        "Its run had ended without a report, so the next drill closed it.",
        "Nobody has measured anything. See: /db replication orders",
    )
    listed = await drills.answer(job, Params(database="orders"))
    assert [row[3] for row in rows(listed)] == ["passed", "aborted"]


async def test_a_report_is_shown_again_with_its_comparison(job: DirectJob, store: Store) -> None:
    earlier = await had(store, past(1, rto=9))
    number = await had(store, FULL)
    answer = await drills.answer(job, Params(database="orders", report=number))
    assert answer.title == "Drill passed: primary-crash of orders"
    assert any(name.endswith(f"(request {earlier})") for name, _ in answer.facts)
    found = await stored(store, number)
    assert answer.statements == ()  # a card first, not a page of JSON
    assert (
        f"{found.sha256}\nAs a file: twokey drills export {number}" in dict(answer.facts).values()
    )
    assert problems(answer_message(answer)) == []


async def test_data_that_does_not_fit_is_for_the_export(job: DirectJob, store: Store) -> None:
    number = await begun(store)
    async with store.begin() as conn:
        told = {"end": "passed", "version": 2, "text": "x" * JSON_CHARS_MAX}
        await end_drill(conn, number, report=told, at=NOW)
    answer = await drills.answer(job, Params(report=number))
    assert answer.statements == ()
    assert "SHA-256" in dict(answer.facts)
    assert problems(answer_message(answer)) == []


@pytest.mark.parametrize("database", ["billing", ""])
async def test_the_report_of_another_database_is_not_shown(
    job: DirectJob, store: Store, database: str
) -> None:
    number = await had(store, FULL, database="orders" if database else "gone")
    job.database = replace(job.database, name=database)
    with pytest.raises(JobError, match=f"Request {number} is no drill of"):
        await drills.answer(job, Params(database=database, report=number))
    with pytest.raises(JobError, match="is no drill of"):
        await drills.answer(job, Params(database=database, report=number + 1))


async def test_a_report_that_somebody_changed_is_told_loudly(job: DirectJob, store: Store) -> None:
    number = await had(store, FULL, cost=replace(COST, lost=900, rpo_seconds=99.0))
    owner = connect(store.dsn, role="postgres")
    try:
        async with owner.begin() as conn:
            await conn.execute(sa.text("ALTER TABLE drills DISABLE TRIGGER drills_final"))
            await conn.execute(sa.text(DAMAGE))
    finally:
        await owner.close()
    listed = await drills.answer(job, Params(database="orders"))
    assert rows(listed)[0][3] == "CHANGED"
    one = await drills.answer(job, Params(report=number))
    for said in (listed.lines[0], one.lines[0]):
        assert said.startswith(f"The report of request {number} is NOT the one whose hash")


async def test_what_is_stored_is_the_same_report_again(store: Store) -> None:
    number = await had(store, FULL)
    mine = replace(FULL, request_id=number)
    assert report_of(await stored(store, number)) == mine
    async with store.begin() as conn:
        assert await earlier_reports(conn, "orders", FULL.kind) == [mine]
        assert await earlier_reports(conn, "orders", "switchover") == []


@pytest.mark.parametrize("report", [{"version": 2}, {"version": 1, "kind": "flood"}, {}])
async def test_a_report_of_another_version_is_not_guessed_at(
    job: DirectJob, store: Store, report: dict[str, Any]
) -> None:
    number = await begun(store)
    async with store.begin() as conn:
        await end_drill(conn, number, report={"end": "passed", **report}, at=NOW)
    assert report_of(await stored(store, number)) is None
    answer = await drills.answer(job, Params(report=number))
    assert answer.title == "Drill passed: host-loss of orders"
    assert "another version" in answer.lines[0]
    assert json.loads(answer.statements[0])["end"] == "passed"
    listed = await drills.answer(job, Params(database="orders"))
    assert rows(listed)[0][3:] == ("passed", "-", "-", "-", "-")


@pytest.mark.parametrize("number", [0, -1])
def test_the_number_of_a_request_is_one(number: int) -> None:
    with pytest.raises(ValidationError):
        Params(report=number)
