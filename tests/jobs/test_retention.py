"""What of the backups is kept and what may go, as a table and as properties of any history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from jobs.backup_settings import (
    TIERS,
    ArchiveMethod,
    ArchiveSettings,
    BackupSettings,
    BackupTier,
    TierSchedule,
)
from jobs.retention import Judgement, Line, judge, serves
from postgres.backup.wal_names import lsn_text
from store.backups import BackupRecord, ListedBackup, Verification

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
WAL_PER_HOUR = 1 << 28
BY_HAND = BackupSettings()
CONTINUOUS = BackupSettings(archive=ArchiveSettings(method=ArchiveMethod.RECEIVE), tiers=TIERS)


def taken(
    name: str,
    age: timedelta,
    *,
    tiers: Sequence[str] = (),
    kind: str = "full",
    base: str | None = None,
    state: str = "complete",
    proven: bool | None = None,
    hold: Mapping[str, JsonValue] | None = None,
    timeline: int = 1,
    system: str = "1",
    took: timedelta = timedelta(minutes=10),
) -> ListedBackup:
    at = NOW - age
    hours = int((at - (NOW - 1000 * DAY)) / HOUR)
    backup = BackupRecord(
        id=name, database="shop", kind=kind, engine="native", state=state, folder="/backups",
        started_at=at, ended_at=at + took, seconds=600, size_bytes=1024, data_bytes=4096,
        start_lsn=lsn_text(hours * WAL_PER_HOUR), end_lsn=lsn_text(hours * WAL_PER_HOUR + 1),
        timeline=timeline, system_identifier=system, major=17, manifest_sha256="x",
        row_counts={}, request_id=None, tiers=tiers, base=base, hold=hold,
    )  # fmt: skip
    proof = None if proven is None else Verification(
        backup_id=name, at=at + HOUR, ok=proven, restore_seconds=5, total_seconds=9, checks=[],
        request_id=None,
    )  # fmt: skip
    return ListedBackup(backup=backup, verified=proof)


def why(judgement: Judgement, name: str) -> str:
    [found] = [each for each in judgement.judged if each.backup.id == name]
    return f"{'kept' if found.kept else 'goes'}: {found.why}"


def going(judgement: Judgement) -> list[str]:
    return [each.backup.id for each in judgement.doomed]


@pytest.mark.parametrize(
    ("tiers", "days", "stays"),
    [
        ((), 29, True), ((), 31, False),
        (("daily",), 29, True), (("daily",), 31, False),
        (("weekly",), 89, True), (("weekly",), 91, False),
        (("monthly",), 364, True), (("monthly",), 366, False),
        (("daily", "monthly"), 366, False), (("daily", "monthly"), 364, True),
        (("weekly", "daily"), 89, True), (("continuous",), 8, False),
    ],
)  # fmt: skip
def test_a_backup_is_kept_for_its_longest_tier(
    tiers: tuple[str, ...], days: int, *, stays: bool
) -> None:
    old = taken("old", days * DAY, tiers=tiers)
    found = judge([old, taken("new", DAY, proven=True)], BY_HAND, NOW)
    assert ("old" not in going(found)) is stays


def test_how_long_a_tier_lasts_is_the_inventorys() -> None:
    short = {BackupTier.DAILY: TierSchedule(cron="0 2 * * *", keep=2 * DAY)}
    policy = replace(BY_HAND, tiers=MappingProxyType(short))
    backups = [taken("old", 3 * DAY, tiers=["daily"]), taken("new", DAY, proven=True)]
    assert going(judge(backups, policy, NOW)) == ["old"]
    assert "Was kept 2 d as daily, until 2026-11-21 12:00 UTC" in why(
        judge(backups, policy, NOW), "old"
    )


@pytest.mark.parametrize(
    ("backups", "says"),
    [
        ([taken("old", 400 * DAY)], "kept: The newest complete backup."),
        (
            [taken("old", 400 * DAY, proven=True), taken("new", DAY)],
            "kept: The last backup that a restore has proven.",
        ),
        (
            [taken("old", 400 * DAY, proven=True), taken("new", DAY, kind="logical", proven=True)],
            "kept: The newest complete full backup.",
        ),
        (
            [
                taken("old", 400 * DAY, proven=True),
                taken("new", DAY),
                taken("dump", DAY, kind="logical", proven=True),
            ],
            "kept: The last full backup that a restore has proven.",
        ),
        (
            [
                taken("old", 400 * DAY, hold={"by": "ana", "reason": "the audit"}),
                taken("new", DAY, proven=True),
            ],
            "kept: On hold by ana: the audit",
        ),
        (
            [
                taken("old", 400 * DAY),
                taken("mid", 40 * DAY, kind="incremental", base="old"),
                taken("end", 20 * DAY, kind="incremental", base="mid"),
                taken("new", DAY, proven=True),
            ],
            "kept: mid builds on it.",
        ),
        (
            [taken("old", 400 * DAY, state="damaged"), taken("new", DAY)],
            "kept: Damaged, and no newer backup is proven yet.",
        ),
        (
            [taken("old", 400 * DAY, state="damaged"), taken("new", DAY, proven=True)],
            "goes: Was kept 30 d as daily",
        ),
        (
            [taken("old", 20 * DAY, state="damaged"), taken("new", DAY, proven=True)],
            "kept: Kept 30 d as daily.",
        ),
        (
            [taken("old", 400 * DAY, state="lost"), taken("new", DAY)],
            "kept: Not found where it should be, and no newer",
        ),
        (
            [taken("old", DAY, state="removing"), taken("new", HOUR, proven=True)],
            "goes: Its removal was begun",
        ),
        (
            [taken("old", 400 * DAY, tiers=["yearly"]), taken("new", DAY, proven=True)],
            "kept: Kept for yearly, which says nothing here.",
        ),
        (
            [taken("old", 400 * DAY, state="damaged", proven=False)],
            "kept: Damaged, and no newer backup is proven yet.",
        ),
    ],
)
def test_every_backup_says_why(backups: list[ListedBackup], says: str) -> None:
    assert why(judge(backups, BY_HAND, NOW), "old").startswith(says)


def test_a_backup_that_was_found_damaged_is_no_proven_one() -> None:
    backups = [
        taken("old", 400 * DAY, proven=True),
        taken("bad", 40 * DAY, state="damaged", proven=False),
        taken("new", DAY),
    ]
    assert going(judge(backups, BY_HAND, NOW)) == []


def test_the_newest_full_backup_before_the_window_and_all_after_it_stay() -> None:
    backups = [
        taken("older", 60 * DAY), taken("opens", 50 * DAY), taken("within", 6 * DAY),
        taken("new", DAY, proven=True),
    ]  # fmt: skip
    found = judge(backups, CONTINUOUS, NOW)
    assert going(found) == ["older"]
    assert why(found, "opens") == "kept: The last 7 d are recovered from it and WAL."
    [opens] = [each for each in found.kept if each.backup.id == "opens"]
    assert opens.until == backups[2].backup.ended_at + 7 * DAY
    assert found.trim is not None
    assert found.trim.backup_id == "opens"


def test_without_archiving_there_is_no_window() -> None:
    backups = [taken("older", 60 * DAY), taken("opens", 50 * DAY), taken("new", DAY, proven=True)]
    found = judge(backups, BY_HAND, NOW)
    assert going(found) == ["older", "opens"]
    assert (found.trim, found.untrimmed) == (None, "No WAL is archived.")


def test_what_builds_on_another_one_goes_first() -> None:
    backups = [
        taken("a", 60 * DAY), taken("c", 58 * DAY, kind="incremental", base="b"),
        taken("b", 59 * DAY, kind="incremental", base="a"), taken("new", DAY, proven=True),
    ]  # fmt: skip
    assert going(judge(backups, BY_HAND, NOW)) == ["c", "b", "a"]


def test_a_catalogue_that_goes_in_circles_is_judged_all_the_same() -> None:
    backups = [
        taken("a", 60 * DAY, base="b", kind="incremental"),
        taken("b", 59 * DAY, base="a", kind="incremental"),
        taken("new", DAY, proven=True),
    ]
    assert sorted(going(judge(backups, BY_HAND, NOW))) == ["a", "b"]


def test_after_a_failover_nothing_goes_until_the_new_timeline_has_a_window_of_its_own() -> None:
    # A restore in place may have branched off before the newest backup of the old timeline.
    old = [taken("a", 60 * DAY), taken("b", 50 * DAY), taken("c", 9 * DAY)]
    new = taken("d", 6 * DAY, timeline=2, proven=True)
    found = judge([*old, new], CONTINUOUS, NOW)
    assert going(found) == []
    assert found.trim is not None
    assert found.trim.backup_id == "a"
    later = judge([*old, new], CONTINUOUS, NOW + 2 * DAY)
    assert going(later) == ["a", "b"]
    assert later.trim is not None
    assert later.trim.backup_id == "d"


def test_a_failover_that_no_backup_has_seen_is_known_by_its_mark() -> None:
    old = [taken("a", 60 * DAY), taken("b", 50 * DAY), taken("c", 9 * DAY, proven=True)]
    here = Line(at=NOW - 8 * DAY, system_identifier="1", timeline=1)
    assert going(judge(old, CONTINUOUS, NOW, line=here)) == ["a", "b"]
    found = judge(old, CONTINUOUS, NOW, line=replace(here, timeline=2))
    assert going(found) == []
    assert "no full backup of the cluster as it is today" in found.untrimmed


def test_wal_stays_while_two_clusters_are_in_the_window() -> None:
    # The new cluster counts from the beginning again: by its name its WAL is the older one.
    backups = [taken("a", 9 * DAY), taken("b", 2 * DAY, system="2", proven=True)]
    assert "Backups of two clusters" in judge(backups, CONTINUOUS, NOW).untrimmed
    assert judge(backups, CONTINUOUS, NOW + 6 * DAY).trim is not None


def test_a_zone_changes_nothing() -> None:
    backups = [taken(f"b{n}", n * 12 * HOUR) for n in range(1, 200)]
    there = NOW.astimezone(ZoneInfo("America/St_Johns"))
    assert going(judge(backups, CONTINUOUS, there)) == going(judge(backups, CONTINUOUS, NOW))


@pytest.mark.parametrize(
    ("backups", "chosen"),
    [
        ([taken("a", HOUR)], "a"),
        ([taken("a", 2 * HOUR), taken("b", HOUR)], "b"),
        ([taken("a", 4 * HOUR)], None),
        ([taken("a", HOUR, state="damaged")], None),
        ([taken("a", HOUR, kind="logical"), taken("b", HOUR, kind="incremental")], None),
        ([taken("a", -HOUR)], None),
    ],
)
def test_a_full_backup_of_three_hours_serves_another_tier(
    backups: list[ListedBackup], chosen: str | None
) -> None:
    assert serves(backups, BackupTier.WEEKLY, CONTINUOUS, NOW) == chosen


def test_a_tier_that_is_due_every_hour_is_not_served_by_its_last_backup() -> None:
    hourly = {BackupTier.DAILY: TierSchedule(cron="0 * * * *", keep=DAY)}
    policy = replace(CONTINUOUS, tiers=MappingProxyType(hourly))
    assert serves([taken("a", HOUR)], BackupTier.DAILY, policy, NOW) is None
    assert serves([taken("a", HOUR / 3)], BackupTier.DAILY, policy, NOW) == "a"


def test_a_tier_of_another_kind_takes_its_own() -> None:
    dumps = {BackupTier.WEEKLY: TierSchedule(cron="0 3 * * 0", keep=DAY, kind="logical")}
    policy = replace(CONTINUOUS, tiers=MappingProxyType(dumps))
    assert serves([taken("a", HOUR)], BackupTier.WEEKLY, policy, NOW) is None


# A history: hour by hour, things happen to backups and to the WAL between them.


@dataclass
class World:
    """What is on disk, kept simply: `wal` are the hours whose WAL is there."""

    backups: dict[str, ListedBackup] = field(default_factory=dict)
    wal: set[int] = field(default_factory=set)
    hour: int = 0
    seen: int = 0  # until which hour WAL was written

    @property
    def now(self) -> datetime:
        return NOW + self.hour * HOUR

    def take(self, kind: str, tier: str) -> None:
        base = None
        if kind == "incremental":
            fit = [
                b for b in self.backups.values()
                if b.backup.kind != "logical" and b.backup.state == "complete"
            ]  # fmt: skip
            if not fit:
                return
            base = fit[-1].backup.id
        name = f"b{self.hour}"
        self.backups[name] = taken(
            name, NOW - self.now, kind=kind, tiers=[tier], base=base, took=timedelta(0)
        )

    def change(self, number: int, **changes: object) -> None:
        if self.backups:
            names = list(self.backups)
            name = names[-1 - number % min(len(names), 12)]
            old = self.backups[name]
            proof = changes.pop("proven", None)
            backup = replace(old.backup, **changes)  # type: ignore[arg-type]
            if proof is not None:
                fresh = taken(name, NOW - self.now, proven=bool(proof))
                old = replace(old, verified=fresh.verified)
                backup = replace(backup, state="complete" if proof else "damaged")
            self.backups[name] = replace(old, backup=backup)

    def pass_hours(self, hours: int, *, archived: bool = True) -> None:
        if archived:
            self.wal |= set(range(self.hour, self.hour + hours))
        self.hour += hours

    def recoverable(self, policy: BackupSettings) -> set[int]:
        """The hours of the window that some backup and unbroken WAL lead to."""
        opens = self.hour - policy.archive.keep // HOUR
        found: set[int] = set()
        for each in self.backups.values():
            if each.backup.kind == "logical" or not self.sound(each.backup):
                continue
            at = int((each.backup.started_at - NOW) / HOUR)
            found.add(at)
            while at in self.wal:
                at += 1
                found.add(at)
        return {hour for hour in found if opens <= hour <= self.hour}

    def sound(self, backup: BackupRecord | None) -> bool:
        """Whether it and all that it builds on are there and good."""
        while backup is not None and backup.state == "complete":
            if backup.base is None:
                return True
            base = self.backups.get(backup.base)
            backup = base.backup if base else None
        return False

    def prune(self, policy: BackupSettings) -> Judgement:
        found = judge(self.backups.values(), policy, self.now)
        for each in found.doomed:
            assert not any(b.backup.base == each.backup.id for b in self.backups.values())
            del self.backups[each.backup.id]
        if found.trim is not None:
            high, low = (int(part, 16) for part in found.trim.lsn.split("/"))
            first = ((high << 32) + low) // WAL_PER_HOUR - 1000 * 24
            self.wal = {hour for hour in self.wal if hour >= first}
        return found


TINY = BackupSettings(
    archive=ArchiveSettings(method=ArchiveMethod.RECEIVE, keep=3 * DAY),
    tiers=MappingProxyType(
        {
            BackupTier.DAILY: TierSchedule(cron="0 2 * * *", keep=2 * DAY),
            BackupTier.WEEKLY: TierSchedule(cron="0 3 * * 0", keep=6 * DAY),
            BackupTier.MONTHLY: TierSchedule(cron="0 4 1 * *", keep=12 * DAY),
        }
    ),
)
kinds = st.sampled_from(["full", "full", "incremental", "incremental", "logical"])
takes = st.tuples(st.just("take"), kinds, st.sampled_from(["daily", "daily", "weekly", "monthly"]))
steps = st.one_of(
    takes, takes,
    st.tuples(st.just("pass"), st.integers(4, 60), st.just(value=True)),
    st.tuples(st.just("pass"), st.integers(4, 60), st.just(value=True)),
    st.tuples(st.just("pass"), st.integers(1, 8), st.just(value=False)),
    st.tuples(st.just("proof"), st.integers(0, 11), st.sampled_from([True, True, False])),
    st.tuples(st.just("hold"), st.integers(0, 11), st.booleans()),
    st.tuples(st.just("prune"), st.just(0), st.just(value=True)),
)  # fmt: skip


def play(world: World, step: tuple[str, object, object]) -> None:
    match step:
        case ("take", kind, tier):
            world.take(str(kind), str(tier))
            world.pass_hours(1)
        case ("pass", int(hours), archived):
            world.pass_hours(hours, archived=bool(archived))
        case ("proof", int(number), ok):
            world.change(number, proven=ok)
        case ("hold", int(number), held):
            world.change(number, hold={"by": "ana", "reason": "r"} if held else None)
        case _:
            raise AssertionError(step)


FORTNIGHT = [
    step
    for n in range(24)
    for step in (
        ("take", "full" if n % 4 == 0 else "incremental", "daily"), ("pass", 11, True),
        ("proof", 0, True), ("prune", 0, True),
    )
]  # fmt: skip


# Many begin with ordinary days: histories that are drawn evenly seldom have anything to remove.
histories = st.builds(
    lambda days, then: FORTNIGHT[: 8 * days] + then,
    st.integers(0, 12),
    st.lists(steps, min_size=5, max_size=40),
)


@settings(max_examples=150, deadline=None)
@given(history=histories)
@example(history=FORTNIGHT)
def test_no_history_loses_a_moment_of_the_window_or_the_last_proof(
    history: list[tuple[str, object, object]],
) -> None:
    world, removed = World(), 0
    for step in [*history, ("pass", 90, True), ("prune", 0, True)]:
        if step[0] != "prune":
            play(world, step)
            continue
        before, had = world.recoverable(TINY), dict(world.backups)
        found = world.prune(TINY)
        removed += len(found.doomed)
        assert world.recoverable(TINY) == before
        assert not world.prune(TINY).doomed
        gone = [had[name].backup for name in had.keys() - world.backups.keys()]
        assert all(backup.hold is None for backup in gone)
        assert bool(had) == bool(world.backups)
        for chosen in (_newest(had.values()), _newest(_proven(had.values()))):
            assert chosen is None or chosen in world.backups
        for each in world.backups.values():
            if had[each.backup.id].backup.base in had:
                assert each.backup.base in world.backups
    event(f"removed {min(removed, 5)}")


@settings(max_examples=100, deadline=None)
@given(history=histories, hours=st.lists(st.integers(1, 100), min_size=1, max_size=6))
@example(history=FORTNIGHT, hours=[12] * 6)
def test_what_may_go_may_go_at_every_later_time(
    history: list[tuple[str, object, object]], hours: list[int]
) -> None:
    world = World()
    for step in history:
        if step[0] != "prune":
            play(world, step)
    doomed: set[str] = set()
    for passed in hours:
        now = set(going(judge(world.backups.values(), TINY, world.now)))
        assert doomed <= now
        doomed = now
        world.pass_hours(passed)
    event(f"doomed {min(len(doomed), 5)}")


def _newest(backups: object) -> str | None:
    complete = [b.backup for b in backups if b.backup.state == "complete"]  # type: ignore[attr-defined]
    return max(complete, key=lambda b: b.started_at).id if complete else None


def _proven(backups: object) -> list[ListedBackup]:
    return [b for b in backups if b.verified is not None and b.verified.ok]  # type: ignore[attr-defined]
