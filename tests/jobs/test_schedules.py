"""Schedules: each firing once, by any number of processes, through outages and clock changes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs import schedules
from jobs.schedules import KEPT, Due, Firing, Missed, Schedule, Scheduler, due, fire_once, next_due
from store.connect import Store

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass
class Clock:
    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Meter:
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def fired(self, schedule: str, result: str) -> None:
        self.counts[schedule, result] += 1


async def nothing(conn: AsyncConnection, firing: Firing) -> dict[str, JsonValue]:
    return {}


def a_schedule(
    cron: str = "0 * * * *", *, zone: str = "UTC", misfire: timedelta = HOUR, name: str = "hourly"
) -> Schedule:
    return Schedule.of(name, cron, zone=zone, misfire=misfire, action=nothing)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def moments(schedule: Schedule, after: datetime, count: int) -> list[str]:
    found: list[str] = []
    for _ in range(count):
        following = next_due(schedule, after)
        assert following is not None
        after = following
        found.append(f"{after:%m-%d %H:%M}")
    return found


def test_a_fixed_hour_comes_once_when_clocks_go_back() -> None:
    nightly = a_schedule("30 2 * * *", zone="Europe/Berlin")
    assert moments(nightly, at("2026-10-24 12:00"), 3) == [
        "10-25 00:30",
        "10-26 01:30",
        "10-27 01:30",
    ]


def test_a_fixed_hour_that_does_not_exist_comes_later_that_day() -> None:
    nightly = a_schedule("30 2 * * *", zone="Europe/Berlin")
    assert moments(nightly, at("2026-03-28 12:00"), 3) == [
        "03-29 01:30",
        "03-30 00:30",
        "03-31 00:30",
    ]


def test_every_half_hour_goes_on_through_both_changes() -> None:
    often = a_schedule("*/30 * * * *", zone="Europe/Berlin")
    for start in ("2026-03-29 00:00", "2026-10-25 00:00"):
        expected = [f"{at(start) + timedelta(minutes=30 * n):%m-%d %H:%M}" for n in range(1, 7)]
        assert moments(often, at(start), 6) == expected


def test_half_hour_zones_and_southern_changes_hold_too() -> None:
    lord_howe = a_schedule("45 1 * * *", zone="Australia/Lord_Howe")  # back by 30 minutes
    assert len(set(moments(lord_howe, at("2026-04-03 00:00"), 4))) == 4
    assert moments(lord_howe, at("2026-04-03 20:00"), 2) == ["04-04 14:45", "04-05 15:15"]


def test_nothing_is_due_before_its_time_nor_twice() -> None:
    hourly = a_schedule()
    assert due(hourly, last=NOON, now=NOON + timedelta(minutes=59)) == Due()
    assert due(hourly, last=NOON, now=NOON - HOUR) == Due()  # the clock was set back
    assert due(hourly, last=NOON, now=NOON + HOUR).firing == Firing(
        schedule="hourly", due_at=NOON + HOUR
    )


def test_of_what_was_missed_within_grace_only_the_newest_fires() -> None:
    found = due(a_schedule(misfire=3 * HOUR), last=NOON, now=NOON + timedelta(hours=3, minutes=30))
    assert found == Due(firing=Firing(schedule="hourly", due_at=NOON + 3 * HOUR, coalesced=2))


def test_what_is_late_beyond_its_grace_is_missed_and_does_not_run() -> None:
    hourly = a_schedule(misfire=timedelta(minutes=10))
    found = due(hourly, last=NOON, now=NOON + timedelta(hours=3, minutes=11))
    assert found == Due(
        missed=Missed(schedule="hourly", first_at=NOON + HOUR, last_at=NOON + 3 * HOUR, count=3)
    )
    edge = due(hourly, last=NOON, now=NOON + timedelta(hours=1, minutes=10))
    assert edge.firing is not None


def test_a_very_long_absence_is_counted_in_parts() -> None:
    often = a_schedule("* * * * *", misfire=timedelta(minutes=5))
    found = due(often, last=NOON, now=NOON + timedelta(days=30))
    assert found.missed is not None
    assert (found.missed.count, found.firing) == (1000, None)


@given(
    st.integers(0, 60 * 24 * 400),
    st.lists(st.integers(1, 600), min_size=1, max_size=30),
    st.sampled_from(["0 * * * *", "30 2 * * *", "*/20 * * * *", "0 3 * * 0"]),
    st.integers(0, 300),
)
def test_whatever_the_looks_each_moment_is_settled_once_and_in_order(
    start: int, steps: list[int], cron: str, grace: int
) -> None:
    schedule = a_schedule(cron, zone="Europe/Berlin", misfire=timedelta(minutes=grace))
    begin = at("2026-01-01 00:00") + timedelta(minutes=start)
    last = now = begin
    settled = 0
    for step in steps:
        now += timedelta(minutes=step)
        found = due(schedule, last=last, now=now)
        if found.missed:
            assert last < found.missed.first_at <= found.missed.last_at < now - schedule.misfire
            settled, last = settled + found.missed.count, found.missed.last_at
        if found.firing:
            assert last < found.firing.due_at <= now <= found.firing.due_at + schedule.misfire
            settled, last = settled + 1 + found.firing.coalesced, found.firing.due_at
    expected, moment = 0, next_due(schedule, begin)
    while moment is not None and moment <= now:
        expected, moment = expected + 1, next_due(schedule, moment)
    assert settled == expected


@dataclass
class Bench:
    """Schedulers on one store, with a clock and a count of what was done."""

    store: Store
    clock: Clock = field(default_factory=Clock)
    meter: Meter = field(default_factory=Meter)
    fails: int = 0
    writes: bool = True

    async def act(self, conn: AsyncConnection, firing: Firing) -> dict[str, JsonValue]:
        if not self.writes:
            return {}
        await conn.execute(
            sa.text("INSERT INTO policies VALUES (:id, '', :at)"),
            {"id": f"{firing.schedule} {firing.due_at:%d %H:%M}", "at": self.clock()},
        )
        if self.fails:
            self.fails -= 1
            raise KeyError("a bug")
        return {"said": "done"}

    def scheduler(
        self, *schedules: Schedule, by: str = "a", store: Store | None = None
    ) -> Scheduler:
        made = schedules or (a_schedule(),)
        return Scheduler(
            store=store or self.store,
            schedules=[replace(schedule, action=self.act) for schedule in made],
            clock=self.clock,
            by=by,
            meter=self.meter,
            poll=timedelta(milliseconds=20),
        )

    async def done(self) -> list[str]:
        async with self.store.begin() as conn:
            return list(
                (await conn.execute(sa.text("SELECT hash FROM policies ORDER BY 1"))).scalars()
            )

    async def rows(self) -> list[tuple[str, str]]:
        async with self.store.begin() as conn:
            found = await conn.execute(
                sa.text("SELECT to_char(due_at AT TIME ZONE 'UTC', 'DD HH24:MI'), detail->>'state'"
                        " FROM firings ORDER BY schedule, due_at")
            )  # fmt: skip
            return [(row[0], row[1]) for row in found]

    async def count(self, schedule: str) -> int:
        async with self.store.begin() as conn:
            query = sa.text("SELECT count(*) FROM firings WHERE schedule = :schedule")
            return int(await conn.scalar(query, {"schedule": schedule}) or 0)


@pytest.fixture
def bench(store: Store) -> Bench:
    return Bench(store)


async def test_a_new_schedule_begins_now_and_fires_from_then_on(bench: Bench) -> None:
    scheduler = bench.scheduler()
    assert await scheduler.look() == []
    bench.clock.now += HOUR
    assert [firing.due_at for firing in await scheduler.look()] == [NOON + HOUR]
    assert await scheduler.look() == []
    assert await bench.done() == ["hourly 22 13:00"]
    assert await bench.rows() == [("22 12:00", "begun"), ("22 13:00", "fired")]


async def test_of_many_replicas_at_one_moment_exactly_one_fires(bench: Bench) -> None:
    await bench.scheduler().look()
    for _ in range(20):
        bench.clock.now += HOUR
        replicas = [bench.scheduler(by=name) for name in "abcd"]
        fired = await asyncio.gather(*(replica.look() for replica in replicas))
        assert sum(len(each) for each in fired) == 1
    assert len(await bench.done()) == 20
    assert bench.meter.counts == {("hourly", "fired"): 20}


async def test_whoever_waits_for_a_replica_that_dies_fires_in_its_place(bench: Bench) -> None:
    firing = Firing(schedule="hourly", due_at=NOON)
    began, release = asyncio.Event(), asyncio.Event()

    async def dying(conn: AsyncConnection, firing: Firing) -> dict[str, JsonValue]:
        began.set()
        await release.wait()
        raise ConnectionResetError

    first = asyncio.create_task(
        fire_once(bench.store, replace(a_schedule(), action=dying), firing, by="a", now=NOON)
    )
    await began.wait()
    mine = replace(a_schedule(), action=bench.act)
    second = asyncio.create_task(fire_once(bench.store, mine, firing, by="b", now=NOON))
    done, _ = await asyncio.wait({second}, timeout=0.2)
    assert not done  # it waits for the first one's end
    release.set()
    with pytest.raises(ConnectionResetError):
        await first
    assert await second
    assert await bench.done() == ["hourly 22 12:00"]


async def test_what_was_missed_is_recorded_once_and_not_run(bench: Bench) -> None:
    schedule = a_schedule(misfire=timedelta(minutes=10))
    await bench.scheduler(schedule).look()
    bench.clock.now += timedelta(hours=5, minutes=30)
    replicas = [bench.scheduler(schedule, by=name) for name in "ab"]
    await asyncio.gather(*(replica.look() for replica in replicas))
    await replicas[0].look()
    assert await bench.done() == []
    assert await bench.rows() == [("22 12:00", "begun"), ("22 17:00", "missed")]
    assert bench.meter.counts == {("hourly", "missed"): 1}


async def test_old_firings_are_removed_some_with_each_new_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "FORGOTTEN_MAX", 2)
    daily = bench.scheduler(a_schedule("0 12 * * *", name="daily"))
    seldom = bench.scheduler(a_schedule("0 12 22 11 *", name="seldom"))
    await seldom.look()
    for _ in range(6):
        await daily.look()
        bench.clock.now += timedelta(days=1)
    assert await bench.count("daily") == 6
    bench.clock.now = NOON + KEPT + timedelta(days=9)
    counts = []
    for _ in range(4):
        await daily.look()  # a moment that was missed is stored too
        counts.append(await bench.count("daily"))
        bench.clock.now += timedelta(days=1)
    # What is too old goes, two at a time, until only what is young is left.
    assert counts == [6, 5, 4, 5]
    assert await bench.count("seldom") == 1


async def test_the_newest_stays_so_that_what_fires_seldom_is_not_taken_for_new(
    bench: Bench,
) -> None:
    seldom = bench.scheduler(a_schedule("0 12 29 2 *"))
    await seldom.look()
    bench.clock.now = at("2028-02-29 12:30")
    bench.fails = 1
    assert await seldom.look() == []
    assert [firing.due_at for firing in await seldom.look()] == [at("2028-02-29 12:00")]


async def test_the_newest_that_fired_stays_however_long_moments_were_missed(bench: Bench) -> None:
    daily = a_schedule("0 12 * * *", name="daily")
    await bench.scheduler(daily).look()
    bench.clock.now += timedelta(days=1)
    await bench.scheduler(daily).look()
    bench.clock.now += 2 * KEPT + timedelta(hours=6)
    for _ in range(3):
        await bench.scheduler(daily).look()
        bench.clock.now += timedelta(days=1, hours=6)
    states = [state for _, state in await bench.rows()]
    assert "begun" not in states
    assert states.count("fired") == 1


async def test_a_failed_action_leaves_nothing_and_is_tried_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    other = a_schedule(name="other")
    scheduler = bench.scheduler(a_schedule(), other)
    await scheduler.look()
    bench.clock.now += HOUR
    bench.fails = 1
    assert [firing.schedule for firing in await scheduler.look()] == ["other"]
    assert await bench.done() == ["other 22 13:00"]
    assert "hourly" in caplog.text
    assert [firing.schedule for firing in await scheduler.look()] == ["hourly"]
    assert bench.meter.counts["hourly", "failed"] == 1


async def test_the_loop_waits_for_a_store_that_is_away(bench: Bench) -> None:
    await bench.scheduler().look()
    bench.clock.now += HOUR
    stop = asyncio.Event()
    away = AwayStore(bench.store, failures=3)
    task = asyncio.create_task(bench.scheduler(store=away).run(stop))  # type: ignore[arg-type]
    await until(lambda: bench.meter.counts["hourly", "fired"] == 1)
    assert away.failures == 0
    stop.set()
    async with asyncio.timeout(30):
        await task


async def test_an_action_that_cannot_reach_something_does_not_stop_the_others(
    bench: Bench,
) -> None:
    async def unreachable(conn: AsyncConnection, firing: Firing) -> dict[str, JsonValue]:
        raise OSError("no route")

    scheduler = bench.scheduler(a_schedule(), a_schedule(name="other"))
    scheduler._schedules["hourly"] = replace(a_schedule(), action=unreachable)
    await scheduler.look()
    bench.clock.now += HOUR
    with pytest.raises(OSError, match="no route"):
        await scheduler.look()
    assert await bench.done() == ["other 22 13:00"]


async def test_it_can_be_asked_what_comes_next(bench: Bench) -> None:
    scheduler = bench.scheduler(a_schedule(), a_schedule("30 12 * * *", name="daily"))
    assert scheduler.upcoming() == [
        ("daily", NOON + timedelta(minutes=30)),
        ("hourly", NOON + HOUR),
    ]
    with pytest.raises(ValueError, match="name of its own"):
        bench.scheduler(a_schedule(), a_schedule())


async def test_a_clock_that_was_ahead_silences_nothing_when_it_is_set_right(bench: Bench) -> None:
    daily = a_schedule("0 2 * * *", name="daily", misfire=timedelta(hours=6))
    await bench.scheduler(daily).look()
    right = bench.clock.now
    bench.clock.now = right + timedelta(days=300, hours=17)  # 05:00, most of a year on
    assert len(await bench.scheduler(daily).look()) == 1
    bench.clock.now = right + timedelta(hours=15)
    assert [each.due_at for each in await bench.scheduler(daily).look()] == [at("2026-11-23 02:00")]
    bench.clock.now = right + timedelta(days=3650, hours=17)  # so far that all else is forgotten
    while not await bench.scheduler(daily).look():
        pass
    bench.clock.now = right + timedelta(days=1)
    assert await bench.scheduler(daily).look() == []
    bench.clock.now = right + timedelta(days=1, hours=15)
    assert [each.due_at for each in await bench.scheduler(daily).look()] == [at("2026-11-24 02:00")]


@pytest.mark.parametrize(("hours", "first"), [(17, 1), (24, 0)])
async def test_a_moment_of_a_clock_that_was_ahead_comes_again_in_its_own_time(
    bench: Bench, hours: int, first: int
) -> None:
    daily = a_schedule("0 2 * * *", name="daily", misfire=timedelta(hours=6))
    await bench.scheduler(daily).look()
    bench.clock.now = NOON + timedelta(hours=hours)  # fired too soon, or taken for missed
    assert len(await bench.scheduler(daily).look()) == first
    bench.writes = False  # a row of the same name stands there already
    bench.clock.now = NOON + timedelta(hours=14, minutes=1)
    replicas = [bench.scheduler(daily, by=name) for name in "ab"]
    fired = await asyncio.gather(*(replica.look() for replica in replicas))
    assert [each.due_at for some in fired for each in some] == [at("2026-11-23 02:00")]
    assert await bench.scheduler(daily).look() == []


async def test_a_clock_that_is_set_back_a_little_fires_nothing_twice(bench: Bench) -> None:
    scheduler = bench.scheduler()
    await scheduler.look()
    bench.clock.now = NOON + HOUR + timedelta(minutes=10)
    assert len(await scheduler.look()) == 1
    bench.clock.now = NOON + timedelta(minutes=40)
    assert await scheduler.look() == []
    bench.clock.now = NOON + HOUR
    assert await scheduler.look() == []
    bench.clock.now = NOON + 2 * HOUR
    assert len(await scheduler.look()) == 1
    assert await bench.done() == ["hourly 22 13:00", "hourly 22 14:00"]


@dataclass
class AwayStore:
    """A store that cannot be reached for a while."""

    inner: Store
    failures: int

    def begin(self) -> object:
        if self.failures:
            self.failures -= 1
            raise ConnectionRefusedError
        return self.inner.begin()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)
