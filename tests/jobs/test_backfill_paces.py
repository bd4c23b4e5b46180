"""Which trial a plan goes by, how it is kept, and how a copy is made like production. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.backfill_paces import CATALOG, Expected, Tried, row_of, subject_of, usable
from jobs.backfill_trials import settings_like
from jobs.backfill_words import outcome_of
from jobs.operation import Plan
from postgres.migrate.backfill.trial import Trial

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
TRIAL = Trial(
    rows=100, ranges=2, passed=100, updated=90, batches=3, seconds=2.0, start_seconds=1.0,
    late_per_second=50.0, is_whole=True,
)  # fmt: skip
TRIED = Tried(trial=TRIAL, backup_id="b-1", reached_at=NOW - timedelta(days=1), data_bytes=7)
ROW = row_of(TRIED, database="shop", subject="s", at=NOW, request_id=4)
MB = 2**20


def test_a_trial_is_kept_as_it_was_and_says_its_source() -> None:
    assert usable(ROW, now=NOW, age=WEEK) == (TRIED, "")
    assert (ROW.ok, ROW.seconds, ROW.request_id) == (True, 2.0, 4)
    assert TRIED.source == "measured on a restored copy of 2026-11-19"


@pytest.mark.parametrize(
    ("row", "later", "why"),
    [
        (None, timedelta(0), ""),
        (ROW, WEEK, None),
        (ROW, WEEK + timedelta(seconds=1), "the trial of 2026-11-20 is too old"),
        (replace(ROW, detail={"copy": 1}), WEEK, "the trial of 2026-11-20 says nothing"),
        (
            row_of(
                replace(TRIED, trial=Trial(rows=0, ranges=2)), database="shop", subject="s",
                at=NOW, request_id=None,
            ),
            WEEK, "the trial of 2026-11-20 says nothing",
        ),
    ],
)  # fmt: skip
def test_one_that_is_too_old_or_says_nothing_is_not_gone_by(
    row: Any, later: timedelta, why: str | None
) -> None:
    tried, note = usable(row, now=NOW + later, age=WEEK)
    assert (tried is None, note) == (why is not None, why or "")


def test_another_statement_or_other_ranges_are_another_backfill() -> None:
    asked = [("a", 1, False), ("a", 2, False), ("b", 1, False), ("a", 1, True)]
    assert len({subject_of(text, ranges, keeps=keeps) for text, ranges, keeps in asked}) == 4


def test_a_part_of_the_rows_takes_a_part_of_the_time() -> None:
    whole = Expected(low_seconds=8, likely_seconds=10, high_seconds=12, source=CATALOG, note="n")
    assert whole.of(0.5) == replace(whole, low_seconds=4, likely_seconds=5, high_seconds=6)
    assert not whole.is_measured


@pytest.mark.parametrize(
    ("buffers", "memory", "made"),
    [(512, 4096, "512MB"), (8192, 4096, "1024MB"), (16, 4096, "128MB"), (512, 100, "128MB")],
)
def test_a_copy_is_as_durable_as_production_and_has_as_much_memory_as_there_is(
    buffers: int, memory: int, made: str
) -> None:
    like: dict[str, str | int] = {
        "buffers": buffers * MB, "fsync": "on", "pages": "off", "commits": "on",
    }  # fmt: skip
    assert settings_like(like, memory * MB) == {
        "shared_buffers": made, "fsync": "on", "full_page_writes": "off",
        "synchronous_commit": "on", "twokey.disposable": "on",
    }  # fmt: skip


def planned(**attributes: str | int) -> Plan:
    return Plan(title="t", steps=(), estimate_seconds=12, attributes=attributes)


def test_what_it_took_is_held_against_what_was_likely_without_pauses_and_waits() -> None:
    done = {
        "seconds": 20.0, "paused_seconds": 4.0, "throttled_seconds": 5.0, "spared_seconds": 1.0,
        "passed": 9, "passed_here": 9,
    }  # fmt: skip
    assert outcome_of(planned(seconds=8, rehearsed="yes"), done) == {
        "estimate_seconds": 12, "likely_seconds": 8, "rehearsed": "yes", "worked_seconds": 10.0,
        "actual_of_likely": 1.25,
    }  # fmt: skip
    # An earlier life did a part of it, or the plan is of a time before there was such a number.
    assert "actual_of_likely" not in outcome_of(planned(seconds=8), {**done, "passed_here": 5})
    assert "actual_of_likely" not in outcome_of(planned(), done)
