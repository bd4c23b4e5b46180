"""`/db silence`, `/db unsilence`, `/db alerts`: what is known says nothing for a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from bot.command_text import parse
from commands import alerts, silence, unsilence
from jobs.operation import Answer, JobError, Risk
from jobs.pinned import what_moved
from store.alerts import fire_alert, resolve_alert
from store.connect import Store
from store.incidents import ack_incident, open_incident, open_incidents
from store.silences import active_silences, add_silence
from store.tables import requests
from tests.commands.conftest import NOW, DirectJob, JobMaker, facts
from tests.store.test_store import REQUEST

HOUR = timedelta(hours=1)
LAG = silence.Params(
    database="shop", alert="replicationlag", until="4h", reason="the standby is being rebuilt"
)
ALL = LAG.model_copy(update={"alert": ""})
BACK = unsilence.Params(database="shop")
OPERATIONS = {"silence": silence.OPERATION}


@pytest.fixture
async def made(job: JobMaker, store: Store) -> DirectJob:
    """A run of a request by Ana; two alerts fire on shop, in an incident."""
    run = job()
    async with store.begin() as conn:
        asked = await conn.execute(
            requests.insert().values(**{**REQUEST, "detail": {}}).returning(requests.c.id)
        )
        run.request_id = int(asked.scalar_one())
    await fire(store, "PoolUsage", severity="warning", at=NOW - 2 * HOUR)
    await fire(store, "ReplicationLag", label="replica1")
    return run


async def fire(store: Store, name: str, **given: Any) -> int:
    told = {"database": "shop", "severity": "critical", "at": NOW - HOUR, "label": "", **given}
    async with store.begin() as conn:
        incident = await open_incident(
            conn, source="twokey", key=told["database"], database=told["database"],
            channel="C0ORDERS", severity="critical", at=told["at"], detail={},
        )  # fmt: skip
        found = await fire_alert(
            conn, database=told["database"], name=name, label=told["label"],
            severity=told["severity"], problem=f"{name} is bad.", next_step="Look.",
            at=told["at"], detail={"metric": "pool_usage_pct"}, value=87.5, incident_id=incident,
        )  # fmt: skip
    assert found is not None
    return found


async def told(store: Store) -> Sequence[tuple[str, str]]:
    async with store.begin() as conn:
        rows = await conn.execute(
            sa.text(
                "SELECT payload ->> 'kind', coalesce(payload ->> 'text', '') FROM outbox"
                " WHERE topic = 'incident' ORDER BY id"
            )
        )
        return [tuple(row) for row in rows]


async def silenced(made: DirectJob, params: silence.Params = LAG) -> Answer:
    return await silence.run(made, params, await silence.plan(made, params))


async def test_a_silence_says_whose_it_is_until_when_and_why(made: DirectJob, store: Store) -> None:
    assert silence.OPERATION.risk is Risk.NONE
    plan = await silence.plan(made, LAG)
    assert plan.title == "Silence ReplicationLag on shop until 2026-11-22 16:00 UTC"
    assert facts(plan)["Firing now"] == "1 alert: ReplicationLag"
    assert facts(plan)["Why"] == LAG.reason
    answer = await silence.run(made, LAG, plan)
    assert "/db unsilence shop ReplicationLag" in answer.lines[0]
    async with store.begin() as conn:
        [found] = await active_silences(conn, NOW)
    assert (found.name, found.by, found.reason) == (
        "ReplicationLag",
        "ana@acme.example",
        LAG.reason,
    )
    assert (found.starts_at, found.ends_at) == (NOW, NOW + 4 * HOUR)
    assert found.request_id == made.request_id
    [card, (_, note)] = await told(store)
    assert card == ("card", "")
    assert "silenced until 2026-11-22 16:00 UTC by ana@acme.example: the standby" in note


async def test_a_silence_that_is_begun_once_more_after_a_crash_is_the_same(
    made: DirectJob, store: Store
) -> None:
    plan = await silence.plan(made, LAG)
    first = await silence.run(made, LAG, plan)
    again = await silence.run(made, LAG, plan)
    assert first.numbers == again.numbers
    assert len(await told(store)) == 2


async def test_a_silence_whose_time_is_over_before_it_begins_is_none(
    made: DirectJob, store: Store
) -> None:
    plan = await silence.plan(made, LAG)
    made.now = NOW + 4 * HOUR
    with pytest.raises(JobError, match="that is over"):
        await silence.run(made, LAG, plan)
    async with store.begin() as conn:
        assert await active_silences(conn, NOW) == []


async def test_what_is_silent_already_is_not_silenced_again(made: DirectJob) -> None:
    await silenced(made, ALL)
    with pytest.raises(JobError, match=r"Everything on shop is silent until .* by ana@") as refused:
        await silence.plan(made, LAG)
    assert "/db unsilence shop" in refused.value.next_step
    longer = await silence.plan(made, LAG.model_copy(update={"until": "5h"}))
    assert "Silence ReplicationLag" in longer.title


async def test_all_of_a_database_is_silenced_with_a_warning(made: DirectJob) -> None:
    plan = await silence.plan(made, ALL.model_copy(update={"until": "2d"}))
    assert facts(plan)["Firing now"] == "2 alerts: PoolUsage, ReplicationLag"
    assert len(plan.warnings) == 2
    assert await what_moved(silence.OPERATION, made, ALL, plan) is None


async def test_an_alert_that_nobody_knows_is_not_silenced(made: DirectJob) -> None:
    with pytest.raises(JobError, match="No alert called 'Replication'") as refused:
        await silence.plan(made, LAG.model_copy(update={"alert": "Replication"}))
    assert refused.value.next_step == "Did you mean ReplicationLag?"


@pytest.mark.parametrize(
    ("words", "alert", "until"),
    [
        (["shop", "ReplicationLag", "4h", "it is being rebuilt"], "ReplicationLag", "4h"),
        (["shop", "4h", "it is being rebuilt"], "", "4h"),
        (["shop", "until Friday", "it is being rebuilt"], "", "until Friday"),
        (["shop", "until=18:00", "reason=it is being rebuilt"], "", "18:00"),
    ],
)
def test_the_alert_may_be_left_out(words: list[str], alert: str, until: str) -> None:
    params = parse("silence", words, OPERATIONS).params
    assert isinstance(params, silence.Params)
    assert (params.alert, params.until, params.reason) == (alert, until, "it is being rebuilt")


def test_a_reason_of_some_length_is_demanded() -> None:
    for reason in ("", "noise"):
        with pytest.raises(ValidationError):
            silence.Params(database="shop", until="4h", reason=reason)


async def test_an_end_names_whose_silences_end_and_has_the_messages_drawn_anew(
    made: DirectJob, store: Store
) -> None:
    await silenced(made)
    plan = await unsilence.plan(made, BACK)
    assert (
        "until 2026-11-22 16:00 UTC, ana@acme.example: the standby" in facts(plan)["ReplicationLag"]
    )
    await unsilence.run(made, BACK, plan)
    async with store.begin() as conn:
        assert await active_silences(conn, NOW) == []
        row = (await conn.execute(sa.text("SELECT ended_by, ended_at FROM silences"))).one()
    assert tuple(row) == ("ana@acme.example", NOW)
    assert (await told(store))[-1] == (
        "note", "ReplicationLag is heard again: ana@acme.example ended the silence.",
    )  # fmt: skip
    await unsilence.run(made, BACK, plan)  # once more after a crash
    assert len(await told(store)) == 4


async def test_a_silence_that_came_since_the_plan_is_not_ended_with_the_others(
    made: DirectJob, store: Store
) -> None:
    await silenced(made)
    plan = await unsilence.plan(made, BACK)
    async with store.begin() as conn:
        await add_silence(
            conn, database="shop", name="PoolUsage", source="person", reason="by Ben",
            by="ben", by_slack="", request_id=None, starts_at=NOW, ends_at=NOW + HOUR,
        )  # fmt: skip
    assert "silences was 1 and is 1,2" in str(
        await what_moved(unsilence.OPERATION, made, BACK, plan)
    )


async def test_where_nothing_is_silent_there_is_nothing_to_end(made: DirectJob) -> None:
    with pytest.raises(JobError, match="Nothing is silent on shop"):
        await unsilence.plan(made, BACK)
    await silenced(made, ALL)
    with pytest.raises(JobError, match="only together with everything else") as refused:
        await unsilence.plan(made, BACK.model_copy(update={"alert": "PoolUsage"}))
    assert refused.value.next_step == "End that: /db unsilence shop"


async def test_alerts_are_listed_by_database_the_worst_first(made: DirectJob, store: Store) -> None:
    await fire(store, "DiskUsage", database="alpha", severity="warning")
    await silenced(made)
    async with store.begin() as conn:
        [other] = await open_incidents(conn, "alpha")
        await ack_incident(conn, other.id, "ben@acme.example", NOW)
    answer = await alerts.answer(made, alerts.Params())
    assert answer.title == "3 alerts fire on 2 databases, 1 critical"
    assert answer.table is not None
    rows = [(row[0], row[1], row[3], row[6]) for row in answer.table.rows]
    assert rows == [
        ("shop", "ReplicationLag (replica1)", "silenced", "-"),
        ("shop", "PoolUsage", "firing", "-"),
        ("alpha", "DiskUsage", "acknowledged", "ben@acme.example"),
    ]  # fmt: skip
    assert answer.table.rows[1][4:6] == ("87.5 %", "2 h")
    said = "\n".join(answer.lines)
    assert "shop, PoolUsage: PoolUsage is bad. Next: Look." in said
    assert "Silent on shop until 2026-11-22 16:00 UTC: ReplicationLag, by ana@acme.example" in said


async def test_what_was_over_within_a_day_is_listed_after_what_fires(
    made: DirectJob, store: Store
) -> None:
    for name, ago in (("Recent", HOUR / 2), ("Old", 25 * HOUR)):
        number = await fire(store, name, at=NOW - ago - HOUR)
        async with store.begin() as conn:
            await resolve_alert(conn, number, at=NOW - ago)
    answer = await alerts.answer(made, alerts.Params(database="shop"))
    assert answer.table is not None
    assert [row[1] for row in answer.table.rows] == [
        "ReplicationLag (replica1)", "PoolUsage", "Recent",
    ]  # fmt: skip
    assert answer.table.rows[2][3:6] == ("over", "87.5 %", "30 min ago, for 1 h")


async def test_what_another_alert_says_is_listed_as_not_told_and_asks_for_nothing(
    made: DirectJob, store: Store
) -> None:
    async with store.begin() as conn:
        await conn.execute(
            sa.text(
                "UPDATE alerts SET detail = '{\"muted\": \"ServerDown fires\"}' WHERE label <> ''"
            )
        )
    answer = await alerts.answer(made, alerts.Params(database="shop"))
    assert answer.table is not None
    assert [row[3] for row in answer.table.rows] == ["not told", "firing"]
    assert "ReplicationLag" not in "\n".join(answer.lines)


async def test_where_nothing_fires_it_says_so(made: DirectJob) -> None:
    answer = await alerts.answer(made, alerts.Params(database="elsewhere"))
    assert answer.title == "No alert fires on elsewhere"
    assert answer.table is None
    assert answer.lines == ("Nothing has fired within 1 d.",)
