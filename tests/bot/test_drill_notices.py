"""The drill of the quarter: announced once by any number of bots, asked for, never by accident."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from approvals.by_the_clock import CLOCK
from approvals.words import BadInputError
from bot.drill_notices import notice
from bot.scheduled_rules import agreement, is_by_accident, refuse_accident, rule_of
from commands import drill
from jobs.cluster_settings import DrillKind
from jobs.drill_notices import Ahead, announcements
from jobs.operation import Database
from jobs.registry import load_operations
from jobs.timetable import GRACE, timetable
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.approvals.support import policy_of
from tests.bot import clock_world as base
from tests.bot.clock_world import ClockWorld, clock_world
from tests.jobs.test_drill_notices import drilled
from tests.jobs.test_timetable import a_database

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
WEEK = 7 * DAY
HAND = (
    "{archive: {method: none}, daily: false, weekly: false, monthly: false, verify: false,"
    " prune: false}"
)
CLUSTER = """
    cluster:
      kind: pair
      nodes:
        - {name: east, dsn: 'postgresql://nobody@127.0.0.1:1/x'}
        - {name: west, dsn: 'postgresql://nobody@127.0.0.1:2/x'}
      drills: {kinds: [primary-crash, restore]}
"""
PEOPLE = {
    "name": "drills", "when": {"operation": "drill"}, "expires_after": "4d",
    "gates": [{"id": "dba", "groups": ["dba"], "approve": 2}, {"id": "own", "groups": ["owners"]}],
    "windows": ["Mon-Thu 08:00-15:00 UTC"],
}  # fmt: skip
WIDE = {"name": "the clock", "when": {"scheduled": "yes"}, "gates": []}
OPERATIONS = load_operations("commands")


@asynccontextmanager
async def drilling(
    slack: SlackStandIn, store: Store, home: Path, monkeypatch: pytest.MonkeyPatch,
    *, policy: str = "",
) -> AsyncIterator[ClockWorld]:  # fmt: skip
    """A bot whose only schedule is a drill's. `policy`: rules before those that ask people."""
    monkeypatch.setattr(base, "INVENTORY", base.INVENTORY + CLUSTER)
    monkeypatch.setattr(base, "GRANT", policy)
    async with clock_world(slack, store, home, backups=HAND, more=("drill",)) as world:
        yield world


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ClockWorld]:
    async with drilling(slack, store, tmp_path, monkeypatch) as made:
        yield made


async def told(world: ClockWorld) -> list[tuple[str, str]]:
    """When each announced drill is, and how long until then was said."""
    rows = await world.rows(
        "SELECT payload ->> 'at', payload ->> 'left' FROM outbox WHERE topic = 'drill' ORDER BY id"
    )
    return [(row[0], row[1]) for row in rows]


async def test_any_number_of_bots_announces_a_week_and_an_hour_ahead_once_each(
    world: ClockWorld,
) -> None:
    bots = [world.scheduler(by) for by in "abc"]
    for ahead in (WEEK, 5 * DAY, HOUR, MINUTE):
        world.clock.now = NEW_YEAR - ahead
        await asyncio.gather(*(bot.look() for bot in bots))
    assert await told(world) == [
        ("2027-01-01T00:00:00Z", "P7D"), ("2027-01-01T00:00:00Z", "PT1H"),
    ]  # fmt: skip
    assert await world.rows("SELECT 1 FROM requests") == []
    world.clock.now = NEW_YEAR
    await asyncio.gather(*(bot.look() for bot in bots))
    assert sum(await asyncio.gather(*(world.asker().look() for _ in range(3)))) == 1
    assert await world.rows(
        "SELECT operation, state, asked_by, door, params ->> 'kind' FROM requests"
    ) == [("drill", "pending", CLOCK.id, "clock", "primary-crash")]
    assert len(await told(world)) == 2


@pytest.mark.parametrize(
    ("back", "left"),
    [(2 * DAY, ["P2D"]), (61 * MINUTE, ["PT1H1M"]), (40 * MINUTE, ["PT40M"]), (-MINUTE, [])],
)
async def test_a_bot_that_was_down_announces_late_with_the_time_that_is_left(
    world: ClockWorld, back: timedelta, left: list[str]
) -> None:
    await world.fire_at(NEW_YEAR - back)
    assert [said for _, said in await told(world)] == left


async def test_the_channel_reads_it_and_the_request_waits_for_people(
    world: ClockWorld, slack: SlackStandIn
) -> None:
    await world.fire_at(NEW_YEAR - WEEK)
    stop = asyncio.Event()
    carrying = asyncio.create_task(world.twokey.outbox.run(stop))
    message = await slack.wait_for(
        lambda: next(
            (m for m in slack.messages("C0DBOPS") if "Drill of orders" in m["text"]), None
        ),
        seconds=30,
    )
    stop.set()
    await carrying
    assert message is not None
    said = str(message["blocks"])
    assert "Kill the server of the primary" in said
    assert "1 of dba (rule the rest)" in said


async def test_a_grant_that_was_not_made_for_drills_starts_none(
    slack: SlackStandIn, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = '\n  - name: the clock\n    when: {scheduled: "yes"}\n    gates: []\n'
    async with drilling(slack, store, tmp_path, monkeypatch, policy=wide) as world:
        await world.fire_at(NEW_YEAR)
        assert await world.asker().look() == 1
        assert await world.rows("SELECT 1 FROM requests") == []
        assert "nobody agreeing" in (await world.asks())["drill orders"]["problem"]
        world.clock.now = NEW_YEAR + GRACE["drill"] + HOUR
        await world.asker().look()
        assert (await world.asks())["drill orders"]["state"] == "failed"


def a_drill(**drills: object) -> tuple[Ahead, Database]:
    database = drilled()
    assert database.cluster is not None
    settings = replace(database.cluster.drills, **drills)  # type: ignore[arg-type]
    database = replace(database, cluster=replace(database.cluster, drills=settings))
    return announcements([database])[0], database


@pytest.mark.parametrize(
    ("rules", "accident"),
    [
        ([WIDE, PEOPLE], True),
        ([{"name": "all", "gates": []}], True),
        ([{**WIDE, "when": {"environment": "production"}}], True),
        ([{**WIDE, "when": {"operation": ["backup", "verify", "prune"]}}, PEOPLE], False),
        ([{**WIDE, "when": {"scheduled": "yes", "operation": ["backup", "drill"]}}], False),
        ([PEOPLE, WIDE], False),
        ([{**WIDE, "when": {"scheduled": "yes", "risk": "recoverable"}}, PEOPLE], False),
        ([{**WIDE, "when": {"scheduled": "yes", "kind": "primary-crash"}}, PEOPLE], True),
    ],
)
def test_only_a_rule_that_names_drills_may_let_one_begin_with_nobody_agreeing(
    rules: list[dict[str, object]],
    accident: bool,  # noqa: FBT001
) -> None:
    ahead, database = a_drill()
    rule = rule_of(ahead.timed, database, policy_of(rules=rules).values, OPERATIONS)
    assert is_by_accident(ahead.timed, rule) is accident
    said = notice(ahead, database, rule, at=NEW_YEAR, now=NEW_YEAR - WEEK)
    assert bool(said.problem) is accident
    if accident:
        with pytest.raises(BadInputError, match="nobody agreeing"):
            refuse_accident(ahead.timed, rule)
    else:
        refuse_accident(ahead.timed, rule)


def test_other_work_by_the_clock_is_granted_as_before() -> None:
    database = a_database()
    policy = policy_of(rules=[WIDE]).values
    for timed in timetable(database):
        refuse_accident(timed, rule_of(timed, database, policy, OPERATIONS))


def test_the_announcement_knows_who_agrees_when_it_may_begin_and_what_it_must_prove() -> None:
    ahead, database = a_drill(rto=timedelta(minutes=2), rpo=timedelta(0))
    rule = rule_of(ahead.timed, database, policy_of(rules=[PEOPLE]).values, OPERATIONS)
    said = notice(ahead, database, rule, at=NEW_YEAR, now=NEW_YEAR - 2 * HOUR)
    assert said.agree == "2 of dba and 1 of owners"
    assert (said.hours, said.waits) == ("Mon-Thu 08:00-15:00 UTC", 4 * DAY)
    assert (said.left, said.rto, said.rpo) == (2 * HOUR, 2 * MINUTE, timedelta(0))
    assert said.kind is DrillKind.PRIMARY_CRASH


def test_without_a_rule_it_says_that_it_will_be_refused() -> None:
    ahead, database = a_drill()
    said = notice(ahead, database, None, at=NEW_YEAR, now=NEW_YEAR)
    assert "No rule of the policy" in said.problem
    assert said.rto == timedelta(minutes=15)  # the tier's


def test_of_several_ways_to_agree_each_is_named() -> None:
    any_of = {**PEOPLE, "require": {"any": ["dba", "own"]}}
    [rule] = policy_of(rules=[any_of]).values.rules
    assert agreement(rule) == "2 of dba, or 1 of owners"


def test_what_the_schedule_asks_is_what_the_operation_takes() -> None:
    for kind in DrillKind:
        [timed] = timetable(drilled("orders", kind))
        params = drill.Params.model_validate(timed.params)
        assert (params.database, params.kind, params.back) == ("orders", kind, True)
