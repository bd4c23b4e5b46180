"""Continuity of WAL: pure decisions about names."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.backup.engine import Archive, Segment
from postgres.backup.wal import (
    Gap,
    Switch,
    ancestors,
    contiguous_end,
    covered,
    gaps,
    missing,
    names_between,
    newest_timeline,
    parse_history,
    segment_at,
)
from postgres.backup.wal_names import lsn_number, lsn_text, number_of, segment_name, timeline_of
from postgres.errors import PostgresError

SIZE = 16 * 1024 * 1024
AT = datetime(2026, 11, 22, tzinfo=UTC)
# Timeline 2 left timeline 1 in its segment 5, timeline 3 left 2 in segment 8.
SECOND = "1\t0/5000148\tno recovery target specified\n"
THIRD = SECOND + "2\t0/8000000\tbefore 2026-11-22 10:00:00+00\n"


def archive(*names: str, partial: str = "", **histories: str) -> Archive:
    segments = [Segment(name=name, size_bytes=1, at=AT) for name in names]
    if partial:
        segments.append(Segment(name=partial, size_bytes=1, at=AT, is_partial=True))
    return Archive(
        segments=tuple(segments),
        histories={int(name[1:]): text for name, text in histories.items()},
    )


def name(timeline: int, number: int) -> str:
    return segment_name(timeline, number, SIZE)


def names(timeline: int, *numbers: int) -> list[str]:
    return [name(timeline, number) for number in numbers]


@pytest.mark.parametrize(
    ("segment", "timeline", "number"),
    [
        ("000000010000000000000001", 1, 1),
        ("0000000100000000000000FF", 1, 255),
        ("000000010000000100000000", 1, 256),
        ("0000000A0000001200000034", 10, 0x12 * 256 + 0x34),
    ],
)
def test_a_name_says_timeline_and_number(segment: str, timeline: int, number: int) -> None:
    assert timeline_of(segment) == timeline
    assert number_of(segment, SIZE) == number
    assert segment_name(timeline, number, SIZE) == segment


@given(st.integers(0, 2**64 - 1), st.sampled_from([2**20, SIZE, 2**30]))
def test_the_segment_of_an_lsn_begins_at_or_before_it(position: int, size: int) -> None:
    assert lsn_number(lsn_text(position)) == position
    number = number_of(segment_at(3, lsn_text(position), size), size)
    assert number * size <= position < (number + 1) * size


@pytest.mark.parametrize("text", ["", "0", "0/", "0/G", "123456789/0", "0/0 "])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(PostgresError, match="no position"):
        lsn_number(text)


def test_a_history_names_the_ancestors_and_where_they_were_left() -> None:
    assert parse_history("# made by hand\n\n" + THIRD) == (
        Switch(timeline=1, lsn="0/5000148"),
        Switch(timeline=2, lsn="0/8000000"),
    )
    assert ancestors({3: THIRD}, 3)[-1].timeline == 2
    assert ancestors({3: THIRD}, 1) == ()


@pytest.mark.parametrize("text", ["what\n", "1 nowhere x\n", "2\t0/5\tx\n1\t0/6\tx\n"])
def test_a_damaged_history_is_refused(text: str) -> None:
    with pytest.raises(PostgresError, match="damaged"):
        parse_history(text)


def test_a_hole_is_named_by_its_first_and_last_segment() -> None:
    kept = archive(*names(1, 1, 2, 5, 6, 8))
    assert gaps(kept, SIZE) == (
        Gap(timeline=1, first=name(1, 3), last=name(1, 4), count=2),
        Gap(timeline=1, first=name(1, 7), last=name(1, 7), count=1),
    )


def test_a_partial_segment_at_the_end_is_no_hole() -> None:
    assert gaps(archive(*names(1, 1, 2), partial=name(1, 3)), SIZE) == ()


def test_a_switch_of_timelines_is_no_hole() -> None:
    kept = archive(*names(1, 3, 4), *names(2, 5, 6), partial=name(1, 5), _2=SECOND)
    assert gaps(kept, SIZE) == ()


def test_a_hole_before_and_after_a_switch_is_found() -> None:
    kept = archive(*names(1, 2), *names(2, 7), _2=SECOND)
    assert gaps(kept, SIZE) == (
        Gap(timeline=1, first=name(1, 3), last=name(1, 4), count=2),
        Gap(timeline=2, first=name(2, 5), last=name(2, 6), count=2),
    )


def test_an_archive_that_begins_after_a_switch_has_no_hole_before_it() -> None:
    assert gaps(archive(*names(2, 7, 8), _2=SECOND), SIZE) == ()


def test_the_end_is_the_last_segment_before_the_first_hole() -> None:
    kept = archive(*names(1, 1, 2, 3, 5))
    assert contiguous_end(kept, timeline=1, start_wal=name(1, 1), segment_bytes=SIZE) == name(1, 3)
    assert contiguous_end(kept, timeline=1, start_wal=name(1, 5), segment_bytes=SIZE) == name(1, 5)
    assert contiguous_end(kept, timeline=1, start_wal=name(1, 4), segment_bytes=SIZE) is None


def test_the_end_on_a_newer_timeline_is_reached_through_the_switch() -> None:
    kept = archive(
        *names(1, 3, 4), *names(2, 5, 6, 7), *names(3, 8), partial=name(3, 9), _2=SECOND, _3=THIRD
    )
    start = name(1, 3)
    assert contiguous_end(kept, timeline=3, start_wal=start, segment_bytes=SIZE) == name(3, 9)
    assert contiguous_end(kept, timeline=2, start_wal=start, segment_bytes=SIZE) == name(2, 7)
    assert contiguous_end(kept, timeline=1, start_wal=start, segment_bytes=SIZE) == name(1, 4)


def test_a_segment_beyond_the_switch_leads_to_no_newer_timeline() -> None:
    kept = archive(*names(1, 5, 6, 7), *names(2, 5, 6, 7), _2=SECOND)
    assert contiguous_end(kept, timeline=2, start_wal=name(1, 6), segment_bytes=SIZE) is None
    # The segment of the switch has the old timeline's bytes under the new one's name.
    assert contiguous_end(kept, timeline=2, start_wal=name(1, 5), segment_bytes=SIZE) == name(2, 7)


def test_a_timeline_that_came_out_of_another_one_is_not_reached() -> None:
    kept = archive(*names(1, 3), *names(4, 5))
    assert contiguous_end(kept, timeline=4, start_wal=name(1, 3), segment_bytes=SIZE) is None


def test_nothing_follows_a_partial_segment() -> None:
    kept = archive(*names(1, 1, 3), partial=name(1, 2))
    assert contiguous_end(kept, timeline=1, start_wal=name(1, 1), segment_bytes=SIZE) == name(1, 2)


def test_a_range_across_a_switch_is_covered_by_segments_of_both() -> None:
    kept = archive(*names(1, 3, 4), *names(2, 5, 6), _2=SECOND)
    asked = {"start_wal": name(1, 3), "end_wal": name(2, 6), "segment_bytes": SIZE}
    assert covered(kept, **asked)
    assert names_between(kept.histories, name(1, 3), name(2, 6), SIZE) == (
        *names(1, 3, 4),
        *names(2, 5, 6),
    )
    for lost in kept.segments:
        left = Archive(
            segments=tuple(s for s in kept.segments if s != lost), histories=kept.histories
        )
        assert missing(left, **asked) == (lost.name,)


def test_a_partial_segment_covers_only_the_end_of_a_range() -> None:
    kept = archive(*names(1, 1, 3), partial=name(1, 2))
    first = {"start_wal": name(1, 1), "segment_bytes": SIZE}
    assert covered(kept, end_wal=name(1, 2), **first)
    assert missing(kept, end_wal=name(1, 3), **first) == (name(1, 2),)


def test_the_newest_timeline_may_have_no_segment_yet() -> None:
    assert newest_timeline(archive(name(1, 1), _2=SECOND)) == 2
    assert newest_timeline(Archive()) is None


@given(st.sets(st.integers(0, 40), min_size=1))
def test_what_is_kept_and_what_is_missing_are_the_whole_range(numbers: set[int]) -> None:
    kept = archive(*names(1, *numbers))
    lacking = {
        number
        for gap in gaps(kept, SIZE)
        for number in range(number_of(gap.first, SIZE), number_of(gap.last, SIZE) + 1)
    }
    assert lacking | numbers == set(range(min(numbers), max(numbers) + 1))
    assert not lacking & numbers
    assert sum(gap.count for gap in gaps(kept, SIZE)) == len(lacking)


@given(st.sets(st.integers(0, 20)), st.integers(0, 20), st.integers(5, 12))
def test_all_up_to_the_end_is_there_and_the_next_is_not(
    numbers: set[int], start: int, switch: int
) -> None:
    """On a way with one switch, whatever is kept of the two timelines."""
    kept = archive(
        *names(1, *(n for n in numbers if n < switch)),
        *names(2, *(n for n in numbers if n >= switch)),
        _2=f"1\t{lsn_text(switch * SIZE + 40)}\tx\n",
    )
    first = name(1, start)
    end = contiguous_end(kept, timeline=2, start_wal=first, segment_bytes=SIZE)
    if start > switch or start not in numbers:
        assert end is None
        return
    assert end is not None
    assert covered(kept, start_wal=first, end_wal=end, segment_bytes=SIZE)
    assert number_of(end, SIZE) + 1 not in numbers
