"""Incidents and silences as they are stored: one open per key, each silence with its end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.alerts import fire_alert, firing_alerts, our_firing_alerts, resolve_alert, see_alert
from store.connect import Store
from store.incidents import (
    ALERTS_MAX,
    Acked,
    Source,
    ack_incident,
    change_incident,
    close_incident,
    load_incident,
    lock_open_incident,
    open_incident,
    open_incidents,
)
from store.silences import (
    RunAtWork,
    active_silences,
    add_silence,
    end_silence,
    keep_silence_of_run,
    runs_at_work,
)
from tests.store.test_replaced import ADD_REQUEST

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
ANA, BEN = "ana@acme.example", "ben@acme.example"


async def an_incident(
    conn: AsyncConnection, key: str = "orders", *, source: Source = "twokey"
) -> int:
    return await open_incident(
        conn, source=source, key=key, database="orders", channel="C0", severity="warning", at=NOON,
        detail={},
    )  # fmt: skip


async def an_alert(conn: AsyncConnection, incident: int | None, name: str = "A") -> int:
    found = await fire_alert(
        conn, database="orders", name=name, severity="warning", problem="p", next_step="n",
        at=NOON, detail={}, incident_id=incident,
    )  # fmt: skip
    assert found is not None
    return found


async def test_one_incident_of_a_key_is_open_and_a_closed_one_is_followed_by_another(
    store: Store,
) -> None:
    async with store.begin() as conn:
        first = await an_incident(conn)
        assert await an_incident(conn) == first
        assert await an_incident(conn, source="alertmanager") != first
        assert await close_incident(conn, first, at=NOON)
        assert not await close_incident(conn, first, at=NOON)
        assert await change_incident(conn, first, at=NOON) is None
        second = await an_incident(conn)
        assert second != first
        found = await lock_open_incident(conn, "twokey", "orders")
    assert found is not None
    assert (found.id, found.is_open) == (second, True)


async def test_an_incident_has_its_alerts_firing_and_over(store: Store) -> None:
    async with store.begin() as conn:
        number = await an_incident(conn)
        over, firing = await an_alert(conn, number), await an_alert(conn, number, "B")
        await an_alert(conn, None, "Untold")
        await resolve_alert(conn, over, at=NOON)
        found = await load_incident(conn, number)
        assert await load_incident(conn, 99) is None
        (same,) = await open_incidents(conn, "orders")
        assert await open_incidents(conn, "users") == []
    assert found is not None
    assert found == same
    assert [alert.id for alert in found.alerts] == [over, firing]
    assert [alert.id for alert in found.firing] == [firing]


async def test_of_many_alerts_those_that_fire_are_loaded(store: Store) -> None:
    async with store.begin() as conn:
        number = await an_incident(conn)
        firing = await an_alert(conn, number)
        await conn.execute(
            sa.text(
                "INSERT INTO alerts (database, name, severity, state, problem, next_step, fired_at,"
                " seen_at, incident_id, detail) SELECT 'orders', n::text, 'warning', 'resolved',"
                " '', '', now() + interval '1 year', now(), :id, '{}' FROM generate_series(1, 200)"
                " AS n"
            ),
            {"id": number},
        )
        found = await load_incident(conn, number)
    assert found is not None
    assert len(found.alerts) == ALERTS_MAX
    assert [alert.id for alert in found.firing] == [firing]


async def acked(store: Store, number: int, by: str = ANA) -> Acked:
    async with store.begin() as conn:
        return await ack_incident(conn, number, by, NOON)


async def test_an_acknowledgement_is_of_what_fires_now(store: Store) -> None:
    async with store.begin() as conn:
        number = await an_incident(conn)
        await an_alert(conn, number)
    assert await acked(store, number) == Acked(alerts=1)
    async with store.begin() as conn:
        later = await an_alert(conn, number, "B")
        found = await load_incident(conn, number)
    assert found is not None
    assert [(alert.id == later, alert.acked_by) for alert in found.alerts] == [
        (False, ANA), (True, ""),
    ]  # fmt: skip
    assert found.version == 2
    assert await acked(store, number, BEN) == Acked(alerts=1)


async def test_an_acknowledgement_of_nothing_is_refused_politely(store: Store) -> None:
    async with store.begin() as conn:
        number = await an_incident(conn)
        alert = await an_alert(conn, number)
    nobody = await acked(store, 99)
    assert (nobody.is_done, nobody.problem) == (False, "There is no incident 99.")
    await acked(store, number)
    again = await acked(store, number, BEN)
    assert again.problem == f"Incident {number} is acknowledged already, by {ANA}."
    async with store.begin() as conn:
        await resolve_alert(conn, alert, at=NOON)
        await close_incident(conn, number, at=NOON)
    over = await acked(store, number, BEN)
    assert over.problem == f"Incident {number} on orders is over already."
    assert over.next_step
    async with store.begin() as conn:
        assert (await load_incident(conn, number)).alerts[0].acked_by == ANA  # type: ignore[union-attr]


async def test_who_acknowledges_while_it_ends_comes_too_late_and_opens_nothing(
    store: Store,
) -> None:
    async with store.begin() as conn:
        number = await an_incident(conn)
        alert = await an_alert(conn, number)
    async with store.begin() as conn:
        await lock_open_incident(conn, "twokey", "orders")
        pressed = asyncio.create_task(acked(store, number))
        await _until_somebody_waits(store)
        await resolve_alert(conn, alert, at=NOON)
        await close_incident(conn, number, at=NOON)
    assert (await pressed).problem.endswith("is over already.")
    async with store.begin() as conn:
        assert await open_incidents(conn, None) == []


async def _until_somebody_waits(store: Store) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with asyncio.timeout(30):
        while True:
            async with store.begin() as conn:
                if (await conn.execute(sa.text(waiting))).scalar_one():
                    return
            await asyncio.sleep(0.01)


async def test_what_is_seen_again_keeps_its_incident_and_loses_its_acknowledgement_when_worse(
    store: Store,
) -> None:
    async with store.begin() as conn:
        number = await an_incident(conn)
        alert = await an_alert(conn, None)
        for incident, is_worse in ((number, False), (None, False), (None, True)):
            await see_alert(
                conn, alert, severity="critical", problem="q", next_step="m", at=NOON, value=7.0,
                detail={"muted": ""}, incident_id=incident, forget_ack=is_worse,
            )  # fmt: skip
            if incident:
                await ack_incident(conn, number, ANA, NOON)
            (row,) = await firing_alerts(conn, "orders")
            assert (row.acked_by, row.incident_id) == ("" if is_worse else ANA, number)
    assert (row.severity, row.problem, row.value) == ("critical", "q", 7.0)


async def test_what_other_systems_told_is_not_ours_to_settle(store: Store) -> None:
    async with store.begin() as conn:
        await an_alert(conn, await an_incident(conn, "k", source="alertmanager"), "Theirs")
        await an_alert(conn, await an_incident(conn), "Ours")
        await an_alert(conn, None, "Untold")
        assert [row.name for row in await our_firing_alerts(conn)] == ["Ours", "Untold"]
        assert len(await firing_alerts(conn)) == 3


async def a_silence(conn: AsyncConnection, **more: Any) -> int:
    values: dict[str, Any] = {
        "database": "orders", "name": "", "source": "person", "reason": "the move", "by": ANA,
        "by_slack": "T0/U0", "request_id": None, "starts_at": NOON, "ends_at": NOON + HOUR,
    }  # fmt: skip
    return await add_silence(conn, **{**values, **more})


async def test_a_silence_lasts_from_its_beginning_to_its_end(store: Store) -> None:
    async with store.begin() as conn:
        number = await a_silence(conn)
        await a_silence(conn, database="users")
        for at, count in ((NOON - MINUTE, 0), (NOON, 1), (NOON + HOUR, 0)):
            assert len(await active_silences(conn, at, "orders")) == count
        assert len(await active_silences(conn, NOON)) == 2
        assert not await end_silence(conn, number, by=BEN, at=NOON + HOUR)
        assert await end_silence(conn, number, by=BEN, at=NOON + MINUTE)
        assert not await end_silence(conn, number, by=BEN, at=NOON + MINUTE)
        assert await active_silences(conn, NOON + MINUTE, "orders") == []
    with pytest.raises(ValueError, match="after it begins"):
        async with store.begin() as conn:
            await a_silence(conn, ends_at=NOON)


ADD_RUN = sa.text("""
    INSERT INTO runs (request_id, database, operation, state, epoch, worker, queued_at,
                      heartbeat_at, progress, outcome, beside)
    VALUES (:request, 'orders', :operation, :state, 1, 'w', :at, :at, '{}', '{}', :beside)
""").bindparams(sa.bindparam("at", type_=sa.TIMESTAMP(timezone=True)))


async def a_run(
    conn: AsyncConnection, *, risk: str = "disruptive", operation: str = "failover",
    state: str = "running", at: datetime = NOON, beside: bool = False,
) -> int:  # fmt: skip
    """A run of a request, whose worker was heard of then."""
    request = int((await conn.execute(ADD_REQUEST)).scalar_one())
    risky = "UPDATE requests SET attributes = jsonb_build_object('risk', CAST(:risk AS text))"
    await conn.execute(sa.text(f"{risky} WHERE id = :id"), {"risk": risk, "id": request})
    await conn.execute(
        ADD_RUN,
        {"request": request, "operation": operation, "state": state, "at": at, "beside": beside},
    )
    return request


@pytest.mark.parametrize(
    ("run", "counts"),
    [
        ({}, True),
        ({"risk": "destructive"}, True),
        ({"risk": "recoverable"}, False),
        ({"risk": "none"}, False),
        ({"state": "queued"}, False),
        ({"state": "needs_attention"}, False),  # a person is asked to look
        ({"at": NOON - 6 * MINUTE}, False),  # its worker has died
        ({"operation": "prune"}, False),
        ({"beside": True}, False),  # it ends a session: what follows must be heard
    ],
)
async def test_runs_that_people_notice_are_known(
    store: Store, run: dict[str, Any], *, counts: bool
) -> None:
    async with store.begin() as conn:
        request = await a_run(conn, **run)
        found = await runs_at_work(conn, heard_since=NOON - 5 * MINUTE, besides={"prune"}, rows=9)
    assert [each.request_id for each in found] == ([request] if counts else [])


async def test_a_run_has_one_silence_that_moves_with_it_and_never_beyond_its_bound(
    store: Store,
) -> None:
    async with store.begin() as conn:
        request = await a_run(conn)
        run = RunAtWork(
            run_id=1, request_id=request, database="orders", operation="failover", asked_by=ANA,
            asked_by_slack="T0/U0",
        )  # fmt: skip

        async def keep(now: datetime) -> datetime:
            await keep_silence_of_run(
                conn, run, reason="r", now=now, ends_at=now + 5 * MINUTE, span_max=HOUR
            )
            (row,) = (await conn.execute(sa.text("SELECT ends_at FROM silences"))).all()
            found: datetime = row.ends_at
            return found

        assert await keep(NOON) == NOON + 5 * MINUTE
        assert await keep(NOON + MINUTE) == NOON + 6 * MINUTE
        assert await keep(NOON) == NOON + 6 * MINUTE  # by a clock that is behind
        assert await keep(NOON + 10 * HOUR) == NOON + HOUR
        (row,) = await active_silences(conn, NOON)
        assert (row.source, row.request_id, row.by) == ("run", request, ANA)
        assert await end_silence(conn, row.id, by=BEN, at=NOON)
        await keep(NOON + MINUTE)
        assert await active_silences(conn, NOON + MINUTE) == []
