"""One drill at a time in the whole fleet, and a report that nobody writes anew."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.plans import canonical, sha256
from store.connect import Store, connect
from store.drills import (
    OpenDrill,
    begin_drill,
    canonical_report,
    drill_of,
    drills,
    end_drill,
    last_passed,
    newest_drills,
    note_phase,
    open_drill,
    report_sha256,
)
from tests.commands.archived import add_request

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
REPORT = {"end": "passed", "cost": {"lost": 0, "write_gap_seconds": 1.5}, "missed": []}
ADD_RUN = sa.text("""
    INSERT INTO runs (request_id, database, operation, state, epoch, worker, queued_at, progress,
                      outcome)
    VALUES (:request_id, 'shop', 'drill', :state, 1, '', now(), '{}', '{}')
""")


async def ask(store: Store, state: str = "running") -> int:
    """A request whose run is in this state; '' for one without a run."""
    number = await add_request(store)
    if state:
        async with store.begin() as conn:
            await conn.execute(ADD_RUN, {"request_id": number, "state": state})
    return number


async def begin(
    conn: AsyncConnection, number: int, *, database: str = "shop", kind: str = "switchover",
    at: datetime = NOW,
) -> OpenDrill | None:  # fmt: skip
    return await begin_drill(
        conn, request_id=number, run_key=f"run-{number}", database=database,
        environment="staging", kind=kind, at=at,
    )  # fmt: skip


async def had(
    store: Store, *, database: str = "shop", kind: str = "switchover", at: datetime = NOW,
    end: str = "passed",
) -> int:  # fmt: skip
    """A drill that began then, and ended an hour later."""
    number = await ask(store)
    async with store.begin() as conn:
        assert await begin(conn, number, database=database, kind=kind, at=at) is None
        await end_drill(conn, number, report=REPORT | {"end": end}, at=at + HOUR)
    return number


async def test_while_a_drill_is_open_no_other_begins_on_any_database(store: Store) -> None:
    first, second = await ask(store), await ask(store)
    async with store.begin() as conn:
        assert await begin(conn, first) is None
        await note_phase(conn, first, "injected")
        found = await begin(conn, second, database="orders")
        assert found == await open_drill(conn)
        assert await drill_of(conn, second) is None
    assert found == OpenDrill(
        request_id=first, database="shop", environment="staging", kind="switchover",
        started_at=NOW, phase="injected", run_state="running",
    )  # fmt: skip


async def test_a_run_that_is_resumed_keeps_its_drill_and_how_far_it_was(store: Store) -> None:
    mine = await ask(store, "queued")
    async with store.begin() as conn:
        await begin(conn, mine)
        await note_phase(conn, mine, "promoted")
        assert await begin(conn, mine, at=NOW + HOUR) is None
        found = await open_drill(conn)
    assert found is not None
    assert (found.started_at, found.phase) == (NOW, "promoted")


@pytest.mark.parametrize("state", ["done", "failed", "cancelled", "refused", ""])
async def test_a_drill_whose_run_is_over_is_ended_as_aborted(store: Store, state: str) -> None:
    left, mine = await ask(store, state), await ask(store)
    async with store.begin() as conn:
        await begin(conn, left)
        await note_phase(conn, left, "detected")
        assert await begin(conn, mine, at=NOW + HOUR) is None
        closed = await drill_of(conn, left)
    assert closed is not None
    assert (closed.end, closed.ended_at, closed.phase) == ("aborted", NOW + HOUR, "detected")
    assert (closed.report, closed.sha256, closed.is_intact) == (None, None, True)


@pytest.mark.parametrize("state", ["queued", "running", "needs_attention"])
async def test_a_drill_whose_run_may_go_on_or_waits_for_a_person_holds_the_fleet(
    store: Store, state: str
) -> None:
    held, mine = await ask(store, state), await ask(store)
    async with store.begin() as conn:
        await begin(conn, held)
        found = await begin(conn, mine)
    assert found is not None
    assert (found.request_id, found.run_state, found.is_alive) == (held, state, True)


async def test_of_many_who_begin_at_once_one_does(store: Store) -> None:
    numbers = [await ask(store) for _ in range(6)]

    async def try_it(number: int) -> OpenDrill | None:
        async with store.begin() as conn:
            return await begin(conn, number)

    found = await asyncio.gather(*(try_it(number) for number in numbers))
    winners = [
        number for number, other in zip(numbers, found, strict=True) if other is None
    ]  # fmt: skip
    assert len(winners) == 1
    assert {other.request_id for other in found if other} == set(winners)


async def test_the_database_itself_refuses_a_second_open_drill(store: Store) -> None:
    first, second = await ask(store), await ask(store)
    insert = sa.text("""
        INSERT INTO drills (request_id, run_key, database, environment, kind, started_at, phase)
        VALUES (:number, 'r', 'shop', 'staging', 'switchover', now(), 'announced')
    """)
    async with store.begin() as conn:
        await conn.execute(insert, {"number": first})
    with pytest.raises(DBAPIError, match="drills_one_open"):
        async with store.begin() as conn:
            await conn.execute(insert, {"number": second})


async def test_a_report_is_written_once(store: Store) -> None:
    number = await ask(store)
    async with store.begin() as conn:
        await begin(conn, number)
        said = await end_drill(conn, number, report=REPORT, at=NOW + HOUR)
        again = await end_drill(conn, number, report={"end": "failed"}, at=NOW + 2 * HOUR)
        await note_phase(conn, number, "announced late")
        found = await drill_of(conn, number)
    assert found is not None
    assert said == again == found.sha256 == sha256(canonical(REPORT))
    assert (found.report, found.ended_at, found.phase) == (REPORT, NOW + HOUR, "announced")
    assert found.is_intact


async def test_a_drill_that_ended_does_not_begin_anew(store: Store) -> None:
    number = await had(store)
    with pytest.raises(ValueError, match="does not begin anew"):
        async with store.begin() as conn:
            await begin(conn, number)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE drills SET report = '{}'",
        "UPDATE drills SET ended_at = NULL, report = NULL, sha256 = NULL",
        "DELETE FROM drills",
    ],
)
async def test_not_even_the_owner_rewrites_a_report_by_mistake(
    store: Store, statement: str
) -> None:
    await had(store)
    owner = connect(store.dsn, role="postgres")
    try:
        with pytest.raises(DBAPIError, match=r"stays as it was reported|insert-only"):
            async with owner.begin() as conn:
                await conn.execute(sa.text(statement))
    finally:
        await owner.close()


# 1e16 comes back as a whole number, -0.0 without its sign: the hash is of what comes back.
@pytest.mark.parametrize("number", [1e16, -0.0, 1e-7, 0.1 + 0.2, 12345678.9, 1e300])
async def test_a_reports_hash_holds_for_what_the_store_gives_back(
    store: Store, number: float
) -> None:
    mine = await ask(store)
    async with store.begin() as conn:
        await begin(conn, mine)
        await end_drill(conn, mine, report={"end": "failed", "n": number, "é": "ü"}, at=NOW)
    async with store.begin() as conn:
        found = await drill_of(conn, mine)
    assert found is not None
    assert found.is_intact
    text = canonical_report(found.report or {})
    assert report_sha256(json.loads(text)) == found.sha256


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), NOW])
async def test_what_json_cannot_hold_is_no_report(store: Store, bad: object) -> None:
    number = await ask(store)
    async with store.begin() as conn:
        await begin(conn, number)
        with pytest.raises((ValueError, TypeError)):
            await end_drill(conn, number, report={"end": "passed", "n": bad}, at=NOW)
        found = await open_drill(conn)
    assert found is not None


async def test_secrets_do_not_get_into_a_report(store: Store) -> None:
    number = await ask(store)
    async with store.begin() as conn:
        await begin(conn, number)
        text = "could not connect to postgresql://app:hunter2@db/orders"
        await end_drill(conn, number, report={"end": "failed", "missed": [text]}, at=NOW)
        found = await drill_of(conn, number)
    assert found is not None
    assert "hunter2" not in canonical_report(found.report or {})
    assert found.is_intact


async def test_drills_are_listed_newest_first_of_a_database_and_a_kind(store: Store) -> None:
    old = await had(store, at=NOW - 9 * HOUR)
    crash = await had(store, at=NOW - 5 * HOUR, kind="primary-crash")
    other = await had(store, at=NOW - 3 * HOUR, database="orders")
    new = await had(store, at=NOW)

    async def listed(database: str | None, **rest: Any) -> list[int]:
        async with store.begin() as conn:
            return [each.request_id for each in await drills(conn, database, **rest)]

    assert await listed(None, limit=10) == [new, other, crash, old]
    assert await listed("shop", limit=2) == [new, crash]
    assert await listed("shop", limit=9, kind="switchover") == [new, old]
    assert await listed("nowhere", limit=9) == []


async def test_only_drills_that_passed_count_for_the_next_quarter(store: Store) -> None:
    await had(store, at=NOW - 9 * HOUR)
    good = await had(store, at=NOW - 7 * HOUR, kind="host-loss")
    await had(store, at=NOW - 5 * HOUR, end="failed")
    await had(store, at=NOW - 3 * HOUR, end="aborted")
    await had(store, at=NOW - HOUR, database="orders", end="failed")
    left, last = await ask(store, "done"), await ask(store)
    async with store.begin() as conn:
        await begin(conn, left)
        await begin(conn, last)
        passed, newest = await last_passed(conn), await newest_drills(conn)
    assert passed == {
        ("shop", "switchover"): NOW - 8 * HOUR,
        ("shop", "host-loss"): NOW - 6 * HOUR,
    }
    assert {name: each.request_id for name, each in newest.items()} == {"shop": good}


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False)
)
_VALUES = _SCALARS | st.lists(_SCALARS, max_size=3)


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.text(max_size=5),
        _VALUES | st.dictionaries(st.text(max_size=5), _VALUES, max_size=3),
        max_size=3,
    )
)
def test_a_reports_text_is_the_canonical_one(report: dict[str, Any]) -> None:
    assert canonical_report(report) == canonical(report)
    assert report_sha256(report) == sha256(canonical(report))
