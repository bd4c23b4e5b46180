"""Which backup and which WAL a recovery takes, and how it is refused: on values alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.backup.engine import Archive, Segment
from postgres.backup.facts import BackupFacts
from postgres.errors import PostgresError
from postgres.restore.target import parse_target
from postgres.restore.window import Choice, Mark, choose, live_timeline, spans, windows

SIZE = 16 * 1024 * 1024
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NOW = NOON + timedelta(days=1)


def minute(number: float) -> datetime:
    return NOON + timedelta(minutes=number)


def backup(name: str, number: int, **more: object) -> BackupFacts:
    """A backup within WAL segment `number` that ended `number` minutes after noon."""
    timeline = int(str(more.get("timeline", 1)))
    wal = f"{timeline:08X}00000000{number:08X}"
    values = {
        "id": name,
        "began_at": minute(number - 0.5),
        "ended_at": minute(number),
        "seconds": 30,
        "compression": "none",
        "size_bytes": 1,
        "data_bytes": 1,
        "major": 15,
        "server_version": "15.1",
        "system_identifier": "7",
        "timeline": timeline,
        "start_lsn": f"0/{number:X}000028",
        "end_lsn": f"0/{number:X}000100",
        "start_wal": wal,
        "end_wal": wal,
        "wal_segment_bytes": SIZE,
        "page_checksums": True,
        "database": "shop",
        "superuser": "postgres",
        "settings": {},
        "files": (),
        "tables": (),
        **more,
    }
    return BackupFacts.model_validate(values)


def segment(timeline: int, number: int, *, partial: bool = False) -> Segment:
    """A segment that was completed a minute after its number."""
    return Segment(
        name=f"{timeline:08X}00000000{number:08X}",
        size_bytes=SIZE,
        at=minute(number + 1),
        is_partial=partial,
    )


def archive(*segments: Segment, histories: dict[int, str] | None = None) -> Archive:
    return Archive(segments=segments, histories=histories or {})


def mark(number: float, lsn: str, timeline: int = 1, xid: int | None = None) -> Mark:
    return Mark(at=minute(number), timeline=timeline, lsn=lsn, next_xid=xid)


def chosen(
    text: str,
    backups: Sequence[BackupFacts],
    kept: Archive,
    marks: Sequence[Mark] = (),
    backup_id: str | None = None,
) -> Choice:
    target = parse_target(text, now=NOW)
    return choose(backups, kept, target, marks=marks, backup_id=backup_id)


def numbers(choice: Choice) -> list[tuple[int, int]]:
    """Timeline and number of each segment."""
    return [(int(name[:8], 16), int(name[16:], 16)) for name in choice.wal]


STEADY = archive(*(segment(1, number) for number in range(1, 10)))
TWO = (backup("old", 2), backup("new", 5))


@pytest.mark.parametrize(
    ("text", "wanted", "wal"),
    [
        ("2026-11-20 12:03:00 UTC", "old", range(2, 10)),
        ("2026-11-20 12:05:00 UTC", "new", range(5, 10)),
        ("2026-11-20 14:07:30 +02:00", "new", range(5, 10)),
        ("2026-11-20 12:10:00 UTC", "new", range(5, 10)),
        ("latest", "new", range(5, 10)),
        ("lsn 0/4000000", "old", range(2, 6)),
        ("lsn 0/5000100", "new", range(5, 7)),
        ("lsn 0/9FFFFFF", "new", range(5, 10)),
        ("lsn 0/A000028", "new", range(5, 10)),
        ("xid 900", "old", range(2, 10)),
        ("point before the deploy", "old", range(2, 10)),
        ("end", "new", range(0)),
    ],
)
def test_the_newest_backup_that_leads_there_is_chosen(text: str, wanted: str, wal: range) -> None:
    choice = chosen(text, TWO, STEADY)
    assert choice.backup.id == wanted
    assert numbers(choice) == [(1, number) for number in wal]
    assert choice.timeline == 1


def test_a_mark_says_how_much_wal_a_time_needs_and_what_proves_it() -> None:
    marks = [mark(6, "0/6000500"), mark(7, "0/7000500"), mark(8, "0/8000500")]
    choice = chosen("2026-11-20 12:06:30 UTC", TWO, STEADY, marks)
    assert numbers(choice) == [(1, 5), (1, 6), (1, 7), (1, 8)]
    assert choice.proof_lsn == "0/7000500"


def test_a_transaction_is_looked_for_from_the_newest_backup_before_it() -> None:
    marks = [mark(4, "0/4000500", xid=800), mark(6, "0/6000500", xid=900)]
    assert chosen("xid 899", TWO, STEADY, marks).backup.id == "old"
    assert chosen("xid 900", TWO, STEADY, marks).backup.id == "new"
    assert chosen("xid 799", TWO, STEADY, marks).backup.id == "old"


def test_a_quiet_database_is_covered_by_marks_that_say_the_same() -> None:
    kept = archive(segment(1, 5), segment(1, 6, partial=True))
    quiet = [mark(n, "0/6000500") for n in (6.5, 7.5, 60)]
    choice = chosen("2026-11-20 12:59:00 UTC", TWO, kept, quiet)
    assert choice.proof_lsn == "0/6000500"
    # One whose marks went on without it has a receiver that died.
    busy = [mark(6.5, "0/6000500"), mark(7.5, "0/6000700"), mark(60, "0/6000900")]
    with pytest.raises(PostgresError, match="up to 2026-11-20 12:07:30 UTC"):
        chosen("2026-11-20 12:59:00 UTC", TWO, kept, busy)


def test_a_quiet_database_that_began_a_new_segment_is_covered_by_the_old_one() -> None:
    kept = archive(segment(1, 5), segment(1, 6))
    choice = chosen("2026-11-20 12:59:00 UTC", TWO, kept, [mark(60, "0/7000028")])
    assert (choice.proof_lsn, numbers(choice)) == ("0/7000000", [(1, 5), (1, 6)])
    with pytest.raises(PostgresError, match="up to 2026-11-20 12:07:00 UTC"):
        chosen("2026-11-20 12:59:00 UTC", TWO, kept, [mark(60, "0/7000050")])


@pytest.mark.parametrize(
    ("text", "because", "instead"),
    [
        ("2026-11-20 12:01:59 UTC", "before .* oldest .*old ended at 2026-11-20 12:02", "12:10:00"),
        ("2026-11-20 12:10:01 UTC", "later than what is kept.* 12:10:00", "12:02:00 UTC to"),
        ("2026-11-20 13:10:01+01", "later than what is kept", "latest"),
        ("lsn 0/2000000", "outside of the WAL", "0/2000100 to 0/A000000"),
        ("lsn 0/A000100", "outside of the WAL", "0/2000100 to 0/A000000"),
    ],
)
def test_a_target_outside_is_refused_with_what_can_be_recovered(
    text: str, because: str, instead: str
) -> None:
    with pytest.raises(PostgresError, match=because) as refusal:
        chosen(text, TWO, STEADY)
    assert instead in refusal.value.next_step


def test_a_hole_in_the_wal_is_named_with_what_lies_on_both_sides() -> None:
    kept = archive(*(segment(1, number) for number in (2, 3, 5, 6, 7)))
    with pytest.raises(PostgresError, match="000000010000000000000004 is missing") as refusal:
        chosen("2026-11-20 12:04:30 UTC", TWO, kept)
    assert "12:02:00 UTC to 2026-11-20 12:04:00 UTC, and 2026-11-20 12:05" in (
        refusal.value.next_step
    )
    assert chosen("2026-11-20 12:03:30 UTC", TWO, kept).backup.id == "old"
    assert chosen("2026-11-20 12:07:00 UTC", TWO, kept).backup.id == "new"
    with pytest.raises(PostgresError, match="4 is missing"):
        chosen("lsn 0/4000100", TWO, kept)
    with pytest.raises(PostgresError, match="4 is missing"):
        chosen("2026-11-20 12:06:30 UTC", TWO, kept, backup_id="old")


def test_everything_that_is_kept_ends_at_a_hole_and_says_so() -> None:
    kept = archive(*(segment(1, number) for number in (5, 6, 8)))
    choice = chosen("latest", TWO, kept)
    assert numbers(choice) == [(1, 5), (1, 6)]
    assert "000000010000000000000007 is missing" in choice.note


def test_a_partial_segment_is_believed_only_as_the_last_one() -> None:
    kept = archive(segment(1, 5), segment(1, 6, partial=True), segment(1, 7))
    choice = chosen("latest", TWO, kept)
    assert numbers(choice) == [(1, 5), (1, 6)]
    assert "000000010000000000000006 is missing" in choice.note


def test_archiving_that_began_right_after_a_backup_leads_on_from_it() -> None:
    kept = archive(segment(1, 6), segment(1, 7))
    assert numbers(chosen("latest", TWO, kept)) == [(1, 6), (1, 7)]
    # Another engine keeps the backup's own WAL in the archive too: without it there is nothing.
    other = (backup("new", 5, engine="pgbackrest"),)
    with pytest.raises(PostgresError, match="no backup from which"):
        chosen("latest", other, kept)


def test_without_an_archive_each_backup_has_its_own_end_alone() -> None:
    with pytest.raises(PostgresError, match="no WAL is kept after the backup new") as refusal:
        chosen("2026-11-20 12:06:00 UTC", TWO, archive())
    assert "12:02:00 UTC, and 2026-11-20 12:05:00 UTC" in refusal.value.next_step
    assert chosen("end", TWO, archive()).backup.id == "new"
    assert chosen("latest", TWO, archive()).backup.id == "new"


def test_logical_backups_lead_nowhere_but_to_themselves() -> None:
    dump = backup("dump", 8, kind="logical")
    assert chosen("latest", (*TWO, dump), STEADY).backup.id == "new"
    assert chosen("end", (*TWO, dump), STEADY).backup.id == "new"
    assert chosen("end", (*TWO, dump), STEADY, backup_id="dump").backup.id == "dump"
    with pytest.raises(PostgresError, match="one moment"):
        chosen("latest", (*TWO, dump), STEADY, backup_id="dump")
    with pytest.raises(PostgresError, match="no backup from which"):
        chosen("latest", (dump,), STEADY)


def test_a_backup_of_another_cluster_is_not_chosen() -> None:
    other = backup("other", 2, system_identifier="8")
    with pytest.raises(PostgresError, match="before the end of the oldest"):
        chosen("2026-11-20 12:03:00 UTC", (other, TWO[1]), STEADY)
    with pytest.raises(PostgresError, match="no backup from which"):
        chosen("2026-11-20 12:03:00 UTC", (other, TWO[1]), STEADY, backup_id="other")


def test_a_backup_that_is_asked_for_is_taken_or_refused() -> None:
    assert chosen("2026-11-20 12:07:00 UTC", TWO, STEADY, backup_id="old").backup.id == "old"
    with pytest.raises(PostgresError, match="before the end"):
        chosen("2026-11-20 12:03:00 UTC", TWO, STEADY, backup_id="new")
    with pytest.raises(PostgresError, match="no backup lost"):
        chosen("latest", TWO, STEADY, backup_id="lost")


# A standby was promoted within segment 6; the old primary had come as far as the switch.
FAILOVER = archive(
    *(segment(1, number) for number in range(2, 6)),
    segment(1, 6, partial=True),
    *(segment(2, number) for number in range(6, 10)),
    histories={2: "1\t0/6000800\tno recovery target specified\n"},
)
MARKS = (
    mark(4, "0/4000500"),
    mark(5, "0/5000500"),
    mark(6.2, "0/6000700"),
    mark(7, "0/6000900", timeline=2),
    mark(8, "0/8000500", timeline=2),
)


@pytest.mark.parametrize("marks", [(), MARKS])
@pytest.mark.parametrize("text", ["2026-11-20 12:07:30 UTC", "latest", "lsn 0/7000000"])
def test_after_a_switch_the_newest_timeline_is_followed(text: str, marks: Sequence[Mark]) -> None:
    choice = chosen(text, TWO, FAILOVER, marks)
    assert (choice.backup.id, choice.timeline) == ("new", 2)
    assert numbers(choice)[:3] == [(1, 5), (2, 6), (2, 7)]


def test_what_both_timelines_share_needs_no_file_of_the_dead_one() -> None:
    choice = chosen("2026-11-20 12:05:30 UTC", TWO, FAILOVER, MARKS)
    assert numbers(choice) == [(1, 5), (2, 6), (2, 7)]
    assert choice.timeline == 2


# The server was put back, at minute 9, to where it was in segment 6; timeline 1 had reached 8.
PUT_BACK = archive(
    *(segment(1, number) for number in range(2, 9)),
    *(segment(2, number) for number in range(6, 10)),
    histories={2: "1\t0/6000800\tbefore 2026-11-20 12:06:30+00\n"},
)
LEFT = (
    mark(6, "0/6000500"),
    mark(7, "0/7000500"),
    mark(8, "0/8000500"),
    mark(9.5, "0/7000100", timeline=2),
)


@pytest.mark.parametrize(
    ("text", "timeline"),
    [
        ("2026-11-20 12:06:00 UTC", 1),
        ("2026-11-20 12:07:30 UTC", 1),
        ("2026-11-20 12:08:30 UTC", 1),
        ("2026-11-20 12:09:30 UTC", 2),
        ("latest", 2),
        ("lsn 0/7000500", 2),
    ],
)
def test_a_timeline_that_was_left_keeps_what_was_written_on_it(text: str, timeline: int) -> None:
    assert chosen(text, TWO, PUT_BACK, LEFT).timeline == timeline


def test_a_backup_of_the_dead_end_of_a_timeline_does_not_lead_to_the_new_one() -> None:
    dead = backup("dead", 7)
    choice = chosen("latest", (*TWO, dead), PUT_BACK, LEFT)
    assert (choice.backup.id, choice.timeline) == ("new", 2)
    assert chosen("2026-11-20 12:07:30 UTC", (*TWO, dead), PUT_BACK, LEFT).backup.id == "dead"


def test_a_hole_at_the_switch_is_named() -> None:
    kept = archive(
        *(s for s in FAILOVER.segments if s.name != "000000020000000000000006"),
        histories=dict(FAILOVER.histories),
    )
    with pytest.raises(PostgresError, match="000000020000000000000006 is missing"):
        chosen("2026-11-20 12:07:30 UTC", TWO, kept, MARKS)
    # What the old timeline still had after its last whole segment is not given up for it.
    choice = chosen("latest", TWO, kept, MARKS)
    assert (choice.timeline, numbers(choice)) == (1, [(1, 5), (1, 6)])
    assert "000000020000000000000006 is missing" in choice.note


def test_without_marks_the_newest_timeline_is_the_live_one() -> None:
    assert live_timeline(minute(6), PUT_BACK, ()) == 2
    assert live_timeline(minute(6), archive(), LEFT) is None


@given(
    there=st.sets(st.integers(1, 14), min_size=5),
    taken=st.lists(st.integers(1, 12), unique=True, min_size=1, max_size=4),
    halves=st.integers(0, 32),
)
def test_no_recovery_is_ever_planned_over_a_hole(
    there: set[int], taken: list[int], halves: int
) -> None:
    """Segment n was completed at minute n + 1, and backup n ended at minute n."""
    kept = archive(*(segment(1, number) for number in sorted(there)))
    backups = [backup(f"b{number}", number) for number in taken]
    at, last = minute(halves / 2), (halves + 1) // 2 - 1
    fitting = [
        number
        for number in taken
        if halves == 2 * number
        or (
            halves > 2 * number
            and there & {number, number + 1}
            and set(range(number + 1, last + 1)) <= there
        )
    ]
    try:
        choice = choose(backups, kept, parse_target(f"{at:%F %T} UTC", now=NOW))
    except PostgresError:
        assert not fitting
        return
    held = [number for _, number in numbers(choice)]
    assert choice.backup.id == f"b{max(fitting)}"
    assert not held or held == list(range(held[0], held[-1] + 1))
    assert set(held) <= there
    assert any(begin <= at <= end for begin, end in spans(windows(backups, kept)))
