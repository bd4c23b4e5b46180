"""How a WAL archive stands: pure decisions."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.archive_health import (
    START_GRACE,
    ArchiveStanding,
    Health,
    Held,
    LastBackup,
    Receiving,
    SlotState,
    Stand,
    Trouble,
    Wishes,
    behind,
    endangered,
    endangers,
    held,
    judge,
    still_ahead,
)
from jobs.backup_settings import ArchiveMethod
from postgres.backup.engine import Archive, Segment
from postgres.backup.wal_names import lsn_text, segment_name

SIZE = 16 * 1024 * 1024
GIB = 1024**3
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
WISHES = Wishes(
    database="orders",
    method=ArchiveMethod.RECEIVE,
    slot="twokey_orders",
    slot_bytes_max=10 * GIB,
    lag_max=timedelta(minutes=5),
)
COMMAND = replace(WISHES, method=ArchiveMethod.COMMAND, slot="")
STAND = Stand(
    at=NOW,
    system_identifier="7",
    timeline=1,
    lsn="0/5000100",
    next_xid=800,
    segment_bytes=SIZE,
    major=17,
    slot=SlotState.ACTIVE,
    slot_bytes=256,
    received_lsn="0/5000100",
    archive_mode="on",
    archived_at=NOW,
)
STREAMS = Receiving(streaming=True, since=NOW - timedelta(hours=1))
FAILS = Receiving(streaming=False, since=NOW - timedelta(hours=1), problem="P.", next_step="N.")
GOOD = Held(timeline=1, last_segment="x", last_whole=segment_name(1, 4, SIZE), joined=True)
AWAY = Trouble(problem="It is away.", next_step="See.")
# Where the server stood at these moments.
HISTORY = [(NOW - timedelta(minutes=9), "0/4000000"), (NOW - timedelta(minutes=6), "0/5000000")]


def archive(*numbers: int, timeline: int = 1, partial: int | None = None) -> Archive:
    segments = [
        Segment(name=segment_name(timeline, number, SIZE), size_bytes=1, at=NOW)
        for number in numbers
    ]
    if partial is not None:
        name = segment_name(timeline, partial, SIZE)
        segments.append(Segment(name=name, size_bytes=1, at=NOW, is_partial=True))
    return Archive(segments=tuple(segments))


def backup(number: int) -> LastBackup:
    return LastBackup(id="orders-1", timeline=1, end_lsn=lsn_text(number * SIZE + 400))


def stands(**given: object) -> Health:
    seen = {"now": NOW, "stand": STAND, "receiving": STREAMS, "kept": GOOD, "history": ()}
    return judge(WISHES, **{**seen, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "standing", "says"),
    [
        ({}, ArchiveStanding.STREAMING, ""),
        ({"stand": AWAY}, ArchiveStanding.BROKEN, "It is away"),
        ({"kept": AWAY}, ArchiveStanding.BROKEN, "It is away"),
        ({"receiving": AWAY}, ArchiveStanding.BROKEN, "It is away"),
        ({"receiving": None}, ArchiveStanding.STARTING, ""),
        ({"receiving": FAILS}, ArchiveStanding.BROKEN, "P."),
        ({"receiving": replace(FAILS, since=NOW)}, ArchiveStanding.STARTING, "P."),
        ({"receiving": replace(STREAMS, problem="P.")}, ArchiveStanding.BROKEN, "P."),
        ({"receiving": replace(FAILS, problem="")}, ArchiveStanding.BROKEN, "does not come"),
        ({"dropped": AWAY}, ArchiveStanding.BROKEN, "It is away"),
        ({"kept": replace(GOOD, joined=None)}, ArchiveStanding.STREAMING, "There is no backup"),
        ({"kept": replace(GOOD, joined=False)}, ArchiveStanding.STREAMING, "ended before the WAL"),
        (
            {"stand": replace(STAND, received_lsn="0/4800000"), "history": HISTORY},
            ArchiveStanding.BEHIND,
            "behind the server for 6 min",
        ),
        (
            {"stand": replace(STAND, received_lsn="0/5000000"), "history": HISTORY},
            ArchiveStanding.STREAMING,
            "",
        ),
    ],
)
def test_how_a_received_archive_stands(
    given: dict[str, object], standing: ArchiveStanding, says: str
) -> None:
    health = stands(**given)
    assert health.standing is standing
    assert says in health.problem
    assert bool(health.next_step) == bool(health.problem) or health.next_step == ""


@pytest.mark.parametrize(
    ("stand", "kept", "standing", "says"),
    [
        (STAND, GOOD, ArchiveStanding.STREAMING, ""),
        (replace(STAND, archive_mode="off"), GOOD, ArchiveStanding.BROKEN, "archive_mode is off"),
        (
            replace(STAND, failed_at=NOW, failed_wal="0000000100000000000000AA", archived_at=None),
            GOOD,
            ArchiveStanding.BROKEN,
            "failed for 0000000100000000000000AA",
        ),
        (
            replace(STAND, failed_at=NOW - timedelta(hours=1)),
            GOOD,
            ArchiveStanding.STREAMING,
            "",
        ),
        (
            STAND,
            replace(GOOD, last_whole=segment_name(1, 2, SIZE)),
            ArchiveStanding.BEHIND,
            "behind the server",
        ),
    ],
)
def test_how_an_archive_stands_that_the_server_fills(
    stand: Stand, kept: Held, standing: ArchiveStanding, says: str
) -> None:
    health = judge(COMMAND, now=NOW, stand=stand, receiving=None, kept=kept, history=HISTORY)
    assert health.standing is standing
    assert says in health.problem


def test_lag_is_what_the_server_has_written_and_the_archive_has_not() -> None:
    assert stands(stand=replace(STAND, received_lsn="0/4FFFF00")).lag_bytes == 0x200
    assert stands(stand=replace(STAND, received_lsn="0/6000000")).lag_bytes == 0
    assert stands(stand=replace(STAND, received_lsn=None)).lag_bytes is None
    filled = judge(COMMAND, now=NOW, stand=STAND, receiving=None, kept=GOOD)
    assert (filled.received_lsn, filled.lag_bytes) == ("0/5000000", 0x100)


def test_a_hole_after_the_last_backup_breaks_the_archive_and_one_before_it_does_not() -> None:
    kept = archive(1, 2, 5, 6, partial=7)
    cut = held(kept, SIZE, backup(2))
    assert cut.cut is not None
    assert (cut.cut.first, cut.cut.count) == (segment_name(1, 3, SIZE), 2)
    health = stands(kept=cut)
    assert health.standing is ArchiveStanding.BROKEN
    assert f"lacks {segment_name(1, 3, SIZE)} to {segment_name(1, 4, SIZE)}" in health.problem
    assert "/db backup orders" in health.next_step
    after = held(kept, SIZE, backup(5))
    assert (after.cut, after.joined, len(after.gaps)) == (None, True, 1)
    assert stands(kept=after).standing is ArchiveStanding.STREAMING


def test_wal_that_begins_after_the_last_backup_is_of_no_use_yet() -> None:
    assert held(archive(5, 6), SIZE, backup(2)).joined is False
    assert held(Archive(), SIZE, backup(2)).joined is False
    assert held(archive(5, 6), SIZE, None).joined is None


def test_the_newest_segment_is_of_the_newest_timeline() -> None:
    both = archive(3, 4, 5, 6).segments + archive(4, timeline=2, partial=5).segments
    kept = held(
        Archive(segments=both, histories={2: f"1\t{lsn_text(4 * SIZE + 8)}\tx\n"}), SIZE, backup(3)
    )
    assert kept.timeline == 2
    assert kept.last_segment == segment_name(2, 5, SIZE)
    assert kept.last_whole == segment_name(2, 4, SIZE)
    assert (kept.cut, kept.joined) == (None, True)


@pytest.mark.parametrize(
    ("stand", "danger"),
    [
        (replace(STAND, slot_bytes=11 * GIB), True),
        (replace(STAND, slot_bytes=11 * GIB, slot=SlotState.INACTIVE), True),
        (replace(STAND, slot_bytes=10 * GIB), False),
        (replace(STAND, slot_bytes=11 * GIB, keep_size_mb=20_000), False),
        (replace(STAND, slot_bytes=11 * GIB, slot=SlotState.MISSING), False),
        (replace(STAND, slot_bytes=None), False),
    ],
)
def test_a_slot_goes_when_it_endangers_a_server_without_a_limit(
    stand: Stand, *, danger: bool
) -> None:
    assert endangers(WISHES, stand) is danger
    assert not endangers(COMMAND, stand)


def test_a_dropped_slot_is_told_with_sizes_and_a_way_out() -> None:
    told = endangered(WISHES, replace(STAND, slot_bytes=11 * GIB))
    assert "11 GB of WAL, more than the 10 GB" in told.problem
    assert "/db backup orders" in told.next_step


moments = st.integers(0, 3600).map(lambda seconds: NOW - timedelta(seconds=seconds))
positions = st.integers(0, 100).map(lambda n: n * SIZE)


@given(
    st.lists(st.tuples(moments, positions), max_size=8), st.one_of(st.none(), positions), positions
)
def test_an_archive_is_late_only_while_the_server_is_ahead(
    seen: list[tuple[datetime, int]], received: int | None, lsn: int
) -> None:
    # A server only goes forward.
    points = list(
        zip(sorted(at for at, _ in seen), sorted(place for _, place in seen), strict=True)
    )
    history = deque((at, lsn_text(place)) for at, place in points)
    late = behind(tuple(history), received, now=NOW)
    ahead = [at for at, place in points if received is None or place > received]
    assert (late > timedelta(0)) <= bool(ahead)
    assert all(late >= NOW - at for at in ahead)
    # What has come need not be remembered to say so.
    confirmed = None if received is None else lsn_text(received)
    stand = replace(STAND, lsn=lsn_text(lsn), received_lsn=confirmed)
    still_ahead(history, WISHES, stand, GOOD)
    assert behind(tuple(history), received, now=NOW) == late


troubles = st.one_of(st.none(), st.just(AWAY))
receivers = st.one_of(
    troubles,
    st.builds(
        Receiving,
        streaming=st.booleans(),
        since=moments,
        problem=st.sampled_from(["", "P."]),
        next_step=st.just("N."),
    ),
)


@given(
    stand=st.one_of(
        st.just(AWAY),
        st.builds(
            lambda received, slot: replace(STAND, received_lsn=received, slot=slot),
            st.sampled_from([None, "0/1000000", "0/5000100"]),
            st.sampled_from(list(SlotState)),
        ),
    ),
    receiving=receivers,
    kept=st.sampled_from([GOOD, AWAY, held(archive(1, 4), SIZE, backup(1))]),
    dropped=troubles,
    method=st.sampled_from([ArchiveMethod.RECEIVE, ArchiveMethod.COMMAND, ArchiveMethod.ENGINE]),
)
def test_nothing_that_is_wrong_is_called_well(
    stand: Stand | Trouble,
    receiving: Receiving | Trouble | None,
    kept: Held | Trouble,
    dropped: Trouble | None,
    method: ArchiveMethod,
) -> None:
    wishes = replace(WISHES, method=method)
    health = judge(
        wishes, now=NOW, stand=stand, receiving=receiving, kept=kept, history=HISTORY,
        dropped=dropped,
    )  # fmt: skip
    if health.standing is ArchiveStanding.STREAMING:
        assert isinstance(stand, Stand)
        assert kept == GOOD
        assert dropped is None
        if method is ArchiveMethod.RECEIVE:
            assert isinstance(receiving, Receiving)
            assert receiving.streaming
            assert not receiving.problem
            assert stand.received_lsn == "0/5000100"
    if health.standing in {ArchiveStanding.BROKEN, ArchiveStanding.BEHIND}:
        assert health.problem
        assert health.next_step
    if health.standing is ArchiveStanding.STARTING:
        assert receiving is None or NOW - receiving.since < START_GRACE  # type: ignore[union-attr]
