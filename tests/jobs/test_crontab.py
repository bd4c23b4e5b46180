"""Cron text means what it means to cron."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from approvals.words import BadInputError
from jobs.crontab import cron_trigger

SUNDAY = datetime(2026, 11, 22, tzinfo=UTC)


def firings(text: str, count: int = 3, zone: str = "UTC") -> list[str]:
    trigger, found, at = cron_trigger(text, zone), [], SUNDAY
    for _ in range(count):
        at = trigger.get_next_fire_time(None, at)
        found.append(f"{at:%a %m-%d %H:%M}")
        at += timedelta(seconds=1)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 2 * * *", ["Sun 11-22 02:00", "Mon 11-23 02:00", "Tue 11-24 02:00"]),
        ("0 3 * * 0", ["Sun 11-22 03:00", "Sun 11-29 03:00", "Sun 12-06 03:00"]),
        ("0 3 * * 7", ["Sun 11-22 03:00", "Sun 11-29 03:00", "Sun 12-06 03:00"]),
        ("0 3 * * SUN", ["Sun 11-22 03:00", "Sun 11-29 03:00", "Sun 12-06 03:00"]),
        ("0 3 * * 1-5", ["Mon 11-23 03:00", "Tue 11-24 03:00", "Wed 11-25 03:00"]),
        ("0 3 * * fri-sun", ["Sun 11-22 03:00", "Fri 11-27 03:00", "Sat 11-28 03:00"]),
        ("0 3 * * */2", ["Sun 11-22 03:00", "Tue 11-24 03:00", "Thu 11-26 03:00"]),
        ("0 4 1 * *", ["Tue 12-01 04:00", "Fri 01-01 04:00", "Mon 02-01 04:00"]),
        ("0 0 1 */3 *", ["Fri 01-01 00:00", "Thu 04-01 00:00", "Thu 07-01 00:00"]),
        ("*/20 * * * *", ["Sun 11-22 00:00", "Sun 11-22 00:20", "Sun 11-22 00:40"]),
        ("0 0 29 feb *", ["Tue 02-29 00:00"]),
    ],
)
def test_it_fires_when_cron_would(text: str, expected: list[str]) -> None:
    assert firings(text, len(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "* * * *", "* * * * * *", "60 * * * *", "0 24 * * *", "0 0 31 2 *", "0 0 1 * 1"),
        *("0 0 * * 8", "0 0 * * fun", "0 0 * * 5-1", "0 0 last * *", "0 0 1st * *", "x 0 * * *"),
        *(
            "0 0 * 13 *",
            "0 0 * foo *",
            "5/10 * * * *",
            "*/0 * * * *",
            "0 0 * * 1/2",
            "1,,2 * * * *",
        ),
    ],
)
def test_what_is_no_cron_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInputError) as refused:
        cron_trigger(text, "UTC")
    assert "30 2 * * *" in refused.value.next_step


@pytest.mark.parametrize("zone", ["", "Europe/Berlon", "../etc/passwd", "/etc/localtime"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(BadInputError, match="no time zone"):
        cron_trigger("0 2 * * *", zone)
