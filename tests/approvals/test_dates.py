"""Days as people write them, in their own zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from approvals.dates import EXAMPLES, SPAN_MAX, in_words, span
from approvals.times import Span
from approvals.words import BadInputError

ZURICH, TOKYO = ZoneInfo("Europe/Zurich"), ZoneInfo("Asia/Tokyo")
# A Wednesday, 15:30 in Zurich.
NOW = datetime(2026, 11, 25, 14, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("until Friday", None, "2026-11-28T00:00+01:00"),
        ("until fri", None, "2026-11-28T00:00+01:00"),
        ("until wednesday", None, "2026-11-26T00:00+01:00"),
        ("until today", None, "2026-11-26T00:00+01:00"),
        ("until tomorrow", None, "2026-11-27T00:00+01:00"),
        ("until tomorrow 14:00", None, "2026-11-26T14:00+01:00"),
        ("until tomorrow 24:00", None, "2026-11-27T00:00+01:00"),
        ("until 2026-12-05", None, "2026-12-06T00:00+01:00"),
        ("from Monday until 2026-12-05", "2026-11-30T00:00+01:00", "2026-12-06T00:00+01:00"),
        ("from Monday until Friday", "2026-11-30T00:00+01:00", "2026-12-05T00:00+01:00"),
        ("from monday 09:00 until mon 17:00", "2026-11-30T09:00+01:00", "2026-11-30T17:00+01:00"),
        ("from tomorrow for 3 days", "2026-11-26T00:00+01:00", "2026-11-29T00:00+01:00"),
        ("from today until Friday", None, "2026-11-28T00:00+01:00"),
        ("for 3 days", None, "2026-11-28T15:30+01:00"),
        ("for 1 day", None, "2026-11-26T15:30+01:00"),
        ("for 2 weeks", None, "2026-12-09T15:30+01:00"),
        ("for 90 minutes", None, None),
        ("for 36h", None, "2026-11-27T03:30+01:00"),
    ],
)
def test_what_is_understood(text: str, start: str | None, end: str | None) -> None:
    if end is None:
        with pytest.raises(BadInputError):
            span(text.split(), now=NOW, zone=ZURICH)
        return
    found = span(text.split(), now=NOW, zone=ZURICH)
    assert found.start == (datetime.fromisoformat(start) if start else NOW)
    assert found.end == datetime.fromisoformat(end)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "until when"),
        ("until", "until when"),
        ("from Monday", "until when"),
        ("from", "A day is missing"),
        ("until someday", "'someday' is no day"),
        ("until 2026-13-01", "no day"),
        ("until 05.12.2026", "no day"),
        ("until 2026-11-24", "end before it starts"),
        ("from 2026-11-24 until Friday", "is over"),
        ("from Friday until 2026-11-26", "end before it starts"),
        ("until Friday please", "'please' is not understood"),
        ("until Friday 25:00", "'25:00' is not understood"),
        ("until Friday 24:30", "no time of day"),
        ("for 91 days", "91 days; 90 are allowed"),
        ("until 2027-12-01", "are allowed"),
        ("from 2028-01-01 until 2028-01-02", "more than a year"),
        ("for ever", "no length"),
        ("for 99999999 days", "no length"),
        ("for 0 days", "end before it starts"),
    ],
)
def test_what_is_not_gets_a_sentence_and_an_example(text: str, says: str) -> None:
    with pytest.raises(BadInputError, match=says) as refusal:
        span(text.split(), now=NOW, zone=ZURICH)
    assert refusal.value.next_step


def test_the_same_words_mean_another_moment_elsewhere() -> None:
    found = span(["until", "Friday"], now=NOW, zone=TOKYO)
    assert found.end == datetime(2026, 11, 27, 15, 0, tzinfo=UTC)


def test_a_day_is_a_day_of_the_wall_clock_when_the_clocks_change() -> None:
    before = datetime(2026, 10, 24, 10, 0, tzinfo=UTC)  # noon in Zurich, a day before the change
    found = span(["for", "1", "day"], now=before, zone=ZURICH)
    assert found.end - found.start == timedelta(hours=25)


def test_it_is_echoed_with_its_zone_and_midnight_as_the_end_of_a_day() -> None:
    found = span(["from", "Monday", "until", "Friday"], now=NOW, zone=ZURICH)
    assert in_words(found, ZURICH) == (
        "Mon 30 Nov 2026 00:00 to Fri 4 Dec 2026 24:00 (Europe/Zurich)"
    )
    assert in_words(found, TOKYO) == "Mon 30 Nov 2026 08:00 to Sat 5 Dec 2026 08:00 (Asia/Tokyo)"


def test_every_example_that_we_show_works() -> None:
    for text in EXAMPLES.split(", "):
        assert span(text.split(), now=NOW, zone=ZURICH).end > NOW


_WORDS = (
    *("from", "until", "for", "today", "tomorrow", "Friday", "mon", "3", "90", "days", "week"),
    *("2026-12-05", "2027-01-01", "9999-12-31", "14:00", "24:00", "-1", "", "٣", "2026-02-30"),
)


@example(words=["until", "9999-12-31"], zone="Asia/Tokyo")
@example(words=["from", "9999-12-31", "until", "9999-12-31"], zone="Asia/Tokyo")
@given(
    words=st.lists(st.sampled_from(_WORDS) | st.text(max_size=8), max_size=7),
    zone=st.sampled_from(["Europe/Zurich", "Asia/Tokyo", "America/New_York", "Pacific/Apia"]),
)
def test_whatever_is_typed_is_a_bounded_span_ahead_or_a_sentence(
    words: list[str], zone: str
) -> None:
    try:
        found = span(words, now=NOW, zone=ZoneInfo(zone))
    except BadInputError:
        return
    assert isinstance(found, Span)
    assert NOW <= found.start < found.end
    assert found.end - found.start <= SPAN_MAX
