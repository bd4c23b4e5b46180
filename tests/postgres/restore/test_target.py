"""Recovery targets: what people may write, what is refused, and what PostgreSQL is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.errors import PostgresError
from postgres.restore.target import END, LATEST, RecoveryTarget, at_time, parse_target

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-20 14:30:00 UTC", "2026-11-20 14:30:00 UTC"),
        ("2026-11-20 14:30 utc", "2026-11-20 14:30:00 UTC"),
        ("2026-11-20T14:30:00Z", "2026-11-20 14:30:00 UTC"),
        ("2026-11-20 14:30:00.5+00", "2026-11-20 14:30:00.500000 UTC"),
        ("2026-11-20 14:30:00+02:00", "2026-11-20 12:30:00 UTC"),
        ("2026-11-20 14:30:00 -0530", "2026-11-20 20:00:00 UTC"),
        ("2026-11-20 14:30 Europe/Berlin", "2026-11-20 13:30:00 UTC"),
        ("2026-07-20 14:30 Europe/Berlin", "2026-07-20 12:30:00 UTC"),
        ("5 minutes ago", "2026-11-22 11:55:00 UTC"),
        ("an hour ago", "2026-11-22 11:00:00 UTC"),
        ("1 day 2h 30 min ago", "2026-11-21 09:30:00 UTC"),
        ("now", "latest"),
        (" Latest ", "latest"),
        ("end", "end"),
        ("1/6b000028", "lsn 1/6B000028"),
        ("lsn 01/0000A0", "lsn 1/A0"),
        ("before lsn 1/A0", "before lsn 1/A0"),
        ("xid 1234", "xid 1234"),
        ("transaction 01234", "xid 1234"),
        ("before xid 1234", "before xid 1234"),
        ("point before deploy", "point before deploy"),
        ("point 'before  deploy'", "point before  deploy"),
        ("point \"'quoted'\"", "point \"'quoted'\""),
    ],
)
def test_a_target_is_shown_so_that_it_can_be_read_back(text: str, shown: str) -> None:
    target = parse_target(text, now=NOW)
    assert str(target) == shown
    assert parse_target(shown, now=NOW) == target


@pytest.mark.parametrize(
    ("text", "because", "instead"),
    [
        ("2026-11-20 14:30:00", "names no time zone", "2026-11-20 14:30:00 UTC"),
        ("2026-11-20T14:30", "names no time zone", "Write the zone"),
        ("2026-02-30 14:30:00 UTC", "no time of the calendar", "2026-11-20"),
        ("2026-11-20 25:00:00 UTC", "no time of the calendar", "2026-11-20"),
        ("2026-11-22 12:00:01 UTC", "in the future", "latest"),
        ("2026-11-22 12:00:00-01", "in the future", "latest"),
        ("2026-11-20 14:30 CET", "no time zone that is the same", "Europe/Berlin"),
        ("2026-11-20 14:30 Europe/Atlantis", "no time zone", "+02:00"),
        ("2026-11-20 14:30 ../../etc/passwd", "no time zone", "+02:00"),
        ("2026-11-20 14:30+99", "no time zone", "+02:00"),
        ("2026-10-25 02:30 Europe/Berlin", "was twice", "00:30:00 UTC and 2026-10-25 01:30:00"),
        ("2026-03-29 02:30 Europe/Berlin", "was never", "UTC"),
        ("yesterday", "no moment that can be recovered", "5 minutes ago"),
        ("2026-11-20", "no moment that can be recovered", "2026-11-20 14:30:00 UTC"),
        ("5 parsecs ago", "no moment", "5 minutes ago"),
        ("999999999 weeks ago", "before all calendars", "5 minutes ago"),
        ("0001-01-01 00:00+15", "outside of the calendar", "UTC"),
        ("", "no moment", "latest"),
        ("lsn 0/0", "no place in any WAL", "1/6B000028"),
        ("1/123456789", "no moment", "lsn 1/6B000028"),
        ("xid 2", "no transaction", "begin at 3"),
        ("xid 18446744073709551616", "no transaction", "begin at 3"),
        ("point " + "x" * 64, "no restore point's name", "63 bytes"),
        ("point a\0b", "no restore point's name", "pg_create_restore_point"),
        ("before yesterday", "no moment", "5 minutes ago"),
    ],
)
def test_what_is_no_target_is_refused_with_a_way_out(text: str, because: str, instead: str) -> None:
    with pytest.raises(PostgresError, match=because) as refusal:
        parse_target(text, now=NOW)
    assert instead in refusal.value.next_step


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        (
            at_time(datetime(2026, 11, 20, 16, 30, tzinfo=timezone(timedelta(hours=2)))),
            {"recovery_target_time": "2026-11-20 14:30:00.000000+00"},
        ),
        (parse_target("1/A0", now=NOW), {"recovery_target_lsn": "1/A0"}),
        (
            parse_target("before xid 9", now=NOW),
            {"recovery_target_xid": "9", "recovery_target_inclusive": "off"},
        ),
        (parse_target("point p", now=NOW), {"recovery_target_name": "p"}),
        (END, {"recovery_target": "immediate"}),
        (LATEST, {}),
    ],
)
def test_postgresql_is_told_one_target(target: RecoveryTarget, settings: dict[str, str]) -> None:
    assert target.settings() == settings


def test_a_target_by_time_has_a_time_in_utc_and_no_other_has_one() -> None:
    with pytest.raises(ValueError, match="a target by time"):
        RecoveryTarget(kind="time")
    with pytest.raises(ValueError, match="a target by lsn"):
        RecoveryTarget(kind="lsn", value="1/0", at=NOW)
    with pytest.raises(ValueError, match="not in UTC"):
        RecoveryTarget(kind="time", at=NOW.replace(tzinfo=None))


zones = st.integers(-15 * 60 + 1, 15 * 60 - 1).map(lambda n: timezone(timedelta(minutes=n)))
times = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001  (the zone is drawn beside it)
    max_value=datetime(2026, 11, 20),  # noqa: DTZ001
    timezones=zones,
).map(at_time)
names = st.text(min_size=1, max_size=15).filter(str.isprintable)
targets = st.one_of(
    times,
    st.builds(
        lambda n, before: RecoveryTarget(
            kind="lsn", value=f"{n >> 32:X}/{n & 0xFFFFFFFF:X}", is_before=before
        ),
        st.integers(1, (1 << 64) - 1),
        st.booleans(),
    ),
    st.builds(
        lambda n, before: RecoveryTarget(kind="xid", value=str(n), is_before=before),
        st.integers(3, (1 << 64) - 1),
        st.booleans(),
    ),
    names.map(lambda name: RecoveryTarget(kind="point", value=name)),
    st.sampled_from([END, LATEST]),
)


@given(target=targets)
def test_any_target_is_read_back_as_itself(target: RecoveryTarget) -> None:
    assert parse_target(str(target), now=NOW) == target


WORDS = ("a", "an", "1", "99", "minute", "ago", "point", "xid", "lsn", "1/A", "before", "'", '"')


@given(
    text=st.one_of(
        st.text(max_size=40),
        st.lists(st.sampled_from(WORDS)).map(" ".join),
    )
)
def test_any_text_is_a_target_or_is_refused_in_words(text: str) -> None:
    try:
        target = parse_target(text, now=NOW)
    except PostgresError:
        return
    assert parse_target(str(target), now=NOW) == target


def test_a_long_text_is_refused_at_once() -> None:
    with pytest.raises(PostgresError, match="no moment"):
        parse_target("a" * 100_000 + " ago!", now=NOW)
