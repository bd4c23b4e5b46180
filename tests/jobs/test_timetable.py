"""What each database's schedules are, and when, in its own zone through changes of clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue, SecretStr

from jobs.backup_settings import PRUNE_CRON, TIERS, VERIFY_CRON, BackupSettings, BackupTier
from jobs.operation import Database, Tier
from jobs.schedules import due
from jobs.timetable import Timed, timetable, timetables, upcoming

GUIDE = BackupSettings(tiers=TIERS, verify_cron=VERIFY_CRON, prune_cron=PRUNE_CRON)
DAY = timedelta(days=1)


def a_database(name: str = "orders", settings: BackupSettings = GUIDE) -> Database:
    return Database(
        name=name,
        dsn=SecretStr("postgresql://x"),
        environment="production",
        tier=Tier.CRITICAL,
        channel="C0DBOPS",
        backup_folder=Path("/backups"),
        backups=settings,
    )


def in_zone(zone: str) -> Database:
    return a_database(
        settings=BackupSettings(
            zone=zone, tiers=TIERS, verify_cron=VERIFY_CRON, prune_cron=PRUNE_CRON
        )
    )


def one(database: Database, what: str) -> Timed:
    return timetables([database])[f"{what} {database.name}"]


def moments(timed: Timed, after: str, count: int) -> list[str]:
    at: datetime | None = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = []
    for _ in range(count):
        assert at is not None
        at = timed.next_at(at)
        found.append(f"{at:%m-%d %H:%M}")
    return found


def test_the_guides_schedules_come_at_the_guides_times() -> None:
    now = datetime(2026, 11, 22, 1, tzinfo=UTC)  # a Sunday
    assert [(name, f"{at:%m-%d %H:%M}") for name, at in upcoming(timetable(a_database()), now)] == [
        ("backup-daily orders", "11-22 02:00"),
        ("backup-weekly orders", "11-22 03:00"),
        ("prune orders", "11-22 05:00"),
        ("verify orders", "11-29 00:00"),
        ("backup-monthly orders", "12-01 04:00"),
    ]


def test_a_database_that_is_backed_up_by_hand_has_no_schedule() -> None:
    assert timetable(a_database(settings=BackupSettings())) == ()


def test_a_schedule_asks_for_what_one_would_type() -> None:
    weekly = one(a_database(), "backup-weekly")
    assert weekly.params == {"database": "orders", "kind": "full", "tier": "weekly"}
    assert (weekly.operation, weekly.tier) == ("backup", BackupTier.WEEKLY)
    assert one(a_database(), "verify").params == {"database": "orders", "at": "random"}
    assert one(a_database(), "prune").params == {"database": "orders"}


@pytest.mark.parametrize(
    ("zone", "what", "after", "expected"),
    [
        # Clocks go forward: 02:00 is no time that night, so it comes as much later.
        ("Europe/Berlin", "backup-daily", "2026-03-28 12:00", ["03-29 01:00", "03-30 00:00"]),
        # Clocks go back: 02:00 comes twice, and one backup is taken, the first time.
        ("Europe/Berlin", "backup-daily", "2026-10-24 12:00", ["10-25 00:00", "10-26 01:00"]),
        ("Europe/Berlin", "backup-weekly", "2026-03-24 12:00", ["03-29 01:00", "04-05 01:00"]),
        ("Europe/Berlin", "backup-weekly", "2026-10-20 12:00", ["10-25 02:00", "11-01 02:00"]),
        ("America/New_York", "backup-daily", "2026-03-07 12:00", ["03-08 07:00", "03-09 06:00"]),
        ("America/New_York", "backup-daily", "2026-10-31 12:00", ["11-01 07:00", "11-02 07:00"]),
        ("Australia/Sydney", "backup-monthly", "2026-03-30 12:00", ["03-31 17:00", "04-30 18:00"]),
    ],
)
def test_tiers_follow_the_databases_own_clock(
    zone: str, what: str, after: str, expected: list[str]
) -> None:
    assert moments(one(in_zone(zone), what), after, len(expected)) == expected


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe"])
def test_there_is_one_daily_backup_for_each_day_of_a_year(zone: str) -> None:
    daily = one(in_zone(zone), "backup-daily")
    at, days = datetime(2026, 1, 1, tzinfo=UTC), set()
    for _ in range(366):
        following = daily.next_at(at)
        assert following is not None
        at = following
        days.add(at.astimezone(daily.schedule(_never).trigger.timezone).date())
    assert len(days) == 366


@pytest.mark.parametrize(
    ("what", "late", "fires"),
    [
        ("backup-daily", timedelta(hours=6), True),
        ("backup-daily", timedelta(hours=6, minutes=1), False),
        ("backup-weekly", timedelta(hours=12), True),
        ("backup-monthly", timedelta(hours=24), True),
        ("backup-monthly", timedelta(hours=25), False),
    ],
)
def test_a_tier_may_be_late_by_its_grace(what: str, late: timedelta, fires: bool) -> None:  # noqa: FBT001
    timed = one(a_database(), what)
    begun = datetime(2026, 11, 1, 12, tzinfo=UTC)
    first = timed.next_at(begun)
    assert first is not None
    found = due(timed.schedule(_never), last=begun, now=first + late)
    assert (found.firing is not None) is fires
    assert (found.missed is not None) is not fires


def test_the_interval_of_a_tier_is_the_longest_that_comes() -> None:
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    tiers = {each.what: each.interval(now) for each in timetable(a_database())}
    assert tiers["backup-daily"] == DAY
    assert tiers["backup-weekly"] == 7 * DAY
    assert tiers["backup-monthly"] == 31 * DAY
    assert one(in_zone("Europe/Berlin"), "backup-daily").interval(
        datetime(2026, 10, 20, tzinfo=UTC)
    ) == timedelta(hours=25)


def test_a_hundred_databases_are_looked_at_in_a_moment() -> None:
    databases = [a_database(f"db{number}") for number in range(100)]
    timed = timetables(databases).values()
    assert len(timed) == 500
    found = upcoming(timed, datetime(2026, 11, 22, tzinfo=UTC))
    assert [name for name, _ in found[:2]] == ["backup-daily db0", "backup-daily db1"]


async def _never(*_: object) -> dict[str, JsonValue]:
    raise AssertionError("a pure test fires nothing")
