"""Numbers for managers, from what is stored."""

from __future__ import annotations

from datetime import timedelta
from time import perf_counter

import pytest
import sqlalchemy as sa

from approvals.readings import Readings
from approvals.service import Approvals
from approvals.statistics import Statistics, numbers, spreads
from approvals.words import Door, Person, PersonId, Verdict
from bot.report import as_answer, as_json, lines, spoken, statistics_of
from store.connect import Store
from tests.approvals.support import (
    ANA,
    BEN,
    CLEO,
    NOON,
    Clock,
    a_ballot,
    an_ask,
    approvals_on,
    policy_of,
)

OLE = Person(id=PersonId("ole@acme.example"), name="Ole", groups=frozenset({"oncall"}))


async def stored(store: Store, approvals: Approvals, clock: Clock) -> Statistics:
    return await statistics_of(store, approvals, at=clock(), period="30d", database=None)


def by(found: Statistics, kind: str) -> dict[str, tuple[int, float]]:
    return {each.name: (each.count, each.median) for each in found.lead if each.by == kind}


async def test_lead_times_are_from_asking_to_the_decision(store: Store) -> None:
    clock = Clock()
    approvals = approvals_on(store, policy_of(1), clock=clock)
    for minutes, operation in ((10, "backup"), (20, "backup"), (60, "restore")):
        asked = await approvals.ask(an_ask(operation=operation))
        clock.forward(minutes=minutes)
        assert (await approvals.vote(a_ballot(asked, BEN))).ok
    denied = await approvals.ask(an_ask(operation="prune"))
    clock.forward(minutes=5)
    await approvals.vote(a_ballot(denied, CLEO, Verdict.DENY))
    found = await stored(store, approvals, clock)
    assert by(found, "operation") == {"backup": (2, 900), "restore": (1, 3600), "prune": (1, 300)}
    assert by(found, "") == {"": (4, 900)}
    assert by(found, "group") == {"dba": (4, 900)}
    assert (found.asked, found.denied, found.lapsed) == (4, 1, 0)


async def test_each_ordered_step_has_its_own_time(store: Store) -> None:
    clock = Clock()
    gates = [{"id": "first", "groups": ["dba"]}, {"id": "second", "groups": ["dba"]}]
    policy = policy_of(1, gates=gates, ordered=True)
    approvals = approvals_on(store, policy, clock=clock)
    asked = await approvals.ask(an_ask())
    clock.forward(minutes=10)
    asked = await approvals.vote(a_ballot(asked, BEN))
    clock.forward(minutes=30)
    await approvals.vote(a_ballot(asked, CLEO))
    found = await stored(store, approvals, clock)
    steps = {name.rpartition(", ")[2]: value for name, value in by(found, "step").items()}
    assert steps == {"step 1": (1, 600), "step 2": (1, 1800)}


async def test_lapses_and_reapprovals_are_counted(store: Store) -> None:
    clock = Clock()
    approvals = approvals_on(store, policy_of(1, expires_after="1h"), clock=clock)
    changed = await approvals.ask(an_ask())
    assert changed.request
    await approvals.vote(a_ballot(changed, BEN))
    await approvals.change_plan(changed.request.id, by=CLEO, plan={"title": "Other"}, delivery="")
    await approvals.ask(an_ask())
    clock.forward(hours=2)
    await approvals.sweep()
    found = await stored(store, approvals, clock)
    assert (found.lapsed, found.reapprovals) == (2, 1)


async def test_broken_glass_and_what_it_owes(store: Store) -> None:
    clock = Clock()
    policy = policy_of(
        1, break_glass={"groups": ["oncall"], "reviewers": ["dba"], "review_within": "1h"}
    )
    approvals = approvals_on(store, policy, clock=clock)
    asked = await approvals.ask(an_ask())
    assert asked.request
    await approvals.break_glass(
        asked.request.id, by=OLE, reason="down", door=Door.SLACK, delivery=""
    )
    found = await stored(store, approvals, clock)
    assert (found.broken, found.debt, found.overdue) == (1, 1, 0)
    async with store.begin() as conn:
        await approvals.begin(conn, asked.request.id, people={})
    async with store.begin() as conn:
        await approvals.finish(conn, asked.request.id, ok=True, summary="", numbers={})
    clock.forward(hours=2)
    found = await stored(store, approvals, clock)
    assert (found.broken, found.debt, found.overdue) == (1, 1, 1)
    assert found.lead == ()


async def test_a_vote_seconds_after_opening_is_a_rubber_stamp(store: Store) -> None:
    clock = Clock()
    approvals = approvals_on(store, policy_of(1), clock=clock)
    readings = Readings(store=store)
    for seconds in (2, 100, None):
        asked = await approvals.ask(an_ask())
        assert asked.request
        record = asked.request
        if seconds is not None:
            await readings.opened(record.id, record.plan_hash, BEN.id, page=0, pages=1, at=clock())
            clock.forward(seconds=seconds)
        await approvals.vote(a_ballot(asked, BEN))
    found = await stored(store, approvals, clock)
    assert (found.votes, found.opened, found.stamps, found.reading_median) == (3, 2, 1, 51)


async def test_what_waits_is_told_by_group_and_never_by_person(store: Store) -> None:
    clock = Clock()
    gates = [{"id": "a", "groups": ["dba"]}, {"id": "b", "groups": ["security"]}]
    approvals = approvals_on(store, policy_of(1, gates=gates), clock=clock)
    asked = await approvals.ask(an_ask())
    clock.forward(hours=1)
    await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    found = await stored(store, approvals, clock)
    waits = [(each.group, each.count, each.longest) for each in found.waiting]
    assert waits == [("security", 2, 3600), ("dba", 1, 0)]
    told = f"{as_answer(found)} {as_json(found)} {lines(found)}"
    for person in (ANA, BEN, CLEO):
        assert person.id not in told
        assert person.slack_user not in told


async def test_another_database_and_an_older_time_are_left_out(store: Store) -> None:
    clock = Clock()
    approvals = approvals_on(store, policy_of(1), clock=clock)
    await approvals.ask(an_ask())
    clock.forward(days=2)
    await approvals.ask(an_ask(database="billing"))
    of_orders = await statistics_of(store, approvals, at=clock(), period="30d", database="orders")
    lately = await statistics_of(store, approvals, at=clock(), period="1d", database=None)
    assert (of_orders.asked, lately.asked) == (1, 1)


def test_steps_are_told_only_where_there_are_several() -> None:
    rows = [
        {"by": "step", "name": "one, step 1", "count": 1, "median": 1, "p90": 1},
        {"by": "step", "name": "two, step 1", "count": 1, "median": 1, "p90": 1},
        {"by": "step", "name": "two, step 2", "count": 1, "median": 1, "p90": 1},
    ]
    assert [each.name for each in spreads(rows)] == ["two, step 1", "two, step 2"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (600, "10 min"), (5400, "1.5 h"), (2e5, "2.3 days")],
)
def test_lengths_are_spoken(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


FILL = """
    WITH one AS (SELECT * FROM requests WHERE id = 1),
         made AS (
            INSERT INTO requests (state, version, operation, database, asked_by, asked_by_slack,
                   authors, door, reason, params, plan, plan_hash, policy_hash, attributes, rule,
                   step, asked_at, expires_at, approved_at, detail, channel, told_version)
            SELECT 'done', 1, operation, database, asked_by, asked_by_slack, authors, door, reason,
                   params, '{}', plan_hash, policy_hash, '{}', rule || n % 7, step,
                   asked_at + n * interval '20 seconds', expires_at,
                   asked_at + n * interval '20 seconds' + n % 999 * interval '1 second',
                   '{}', channel, 1
              FROM one, generate_series(1, 20000) AS n
         RETURNING id, plan_hash, policy_hash, asked_at
         ), gated AS (
            INSERT INTO gates SELECT id, 0, 'dba', 1, 1 FROM made
         ), read AS (
            INSERT INTO readings SELECT id, plan_hash, 'ben@acme.example', 0, 1, asked_at FROM made
         )
    INSERT INTO votes (request_id, plan_hash, policy_hash, step, person, slack, groups, verdict,
                       reason, door, at, key_id, signature)
    SELECT id, plan_hash, policy_hash, 0, 'ben@acme.example', '', '{dba,@x,=y}', 'approve', '',
           'slack', asked_at + interval '7 seconds', 'k', repeat('0', 64)
      FROM made
"""


async def test_twenty_thousand_requests_are_counted_at_once(store: Store) -> None:
    clock = Clock()
    approvals = approvals_on(store, policy_of(1), clock=clock)
    await approvals.ask(an_ask())
    async with store.begin() as conn:
        await conn.execute(sa.text(FILL))
    async with store.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as conn:
        await conn.execute(sa.text("ANALYZE requests, votes, readings, gates"))
    began = perf_counter()
    found = await numbers(
        store, since=NOON, at=NOON + timedelta(days=30), database=None, pending=(), delegations=0
    )
    seconds = perf_counter() - began
    assert (found.asked, found.votes, found.opened) == (20_001, 20_000, 20_000)
    assert found.reading_median == 7
    # The limit only shows a plan gone wrong: a nested loop would take minutes.
    assert seconds < 30
