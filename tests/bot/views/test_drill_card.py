"""A drill's card, as Slack gets it: whole, within Slack's limits, whatever a report says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bot.blocks import Message
from bot.views.answer import answer_message
from bot.views.chart import CHART_BLOCK, chart_text
from jobs.drill_report import answer_of, finished, last_words
from jobs.drill_words import Difference, DrillReport, Moment, Phase
from tests.bot.views.cards import HUGE, problems, texts
from tests.jobs.drill_samples import COST, FULL, TIMES, moments
from tests.jobs.test_drill_compare import past

EARLIER = [past(number, rto=8, slow=5) for number in range(1, 6)]
UNKNOWN = finished(
    replace(
        FULL, cost=None, cost_back=None, is_connected=False, connectivity="", is_redundant=False,
        is_switched_back=None, lag_bytes=None, primary_after="", settings={}, facts=(),
        moments=moments({each: TIMES[each] for each in [*TIMES][:5]}),
    )
)  # fmt: skip
STOPPED = finished(
    replace(UNKNOWN, moments=UNKNOWN.moments[:2], primary_after="east"), stopped="Ana stopped it."
)
MONSTER = finished(
    replace(
        FULL,
        database="d" * 63, victim=HUGE, primary_before=HUGE, primary_after=HUGE,
        connectivity=HUGE,
        moments=tuple(
            Moment(phase=phase, at=FULL.started_at + timedelta(seconds=number), text=HUGE)
            for number in range(60)
            for phase in (Phase.DETECTED, Phase.PROMOTED)
        ),
        differences=tuple(
            Difference(name=HUGE, before=HUGE, after=HUGE) for _ in range(200)
        ),
        settings={f"{HUGE}{number}": HUGE for number in range(90)},
        facts=tuple((HUGE, HUGE) for _ in range(200)),
        is_connected=False,
    )
)  # fmt: skip


def card(report: DrillReport, earlier: list[DrillReport] | None = None) -> Message:
    return answer_message(answer_of(report, earlier or []))


def fact(report: DrillReport, name: str) -> str:
    return dict(answer_of(report, EARLIER).facts)[name]


def charts(message: Message) -> list[Any]:
    return [block for block in message.blocks if block["type"] == CHART_BLOCK]


@pytest.mark.parametrize("report", [FULL, UNKNOWN, STOPPED, MONSTER])
@pytest.mark.parametrize("earlier", [[], EARLIER])
def test_slack_takes_every_card(report: DrillReport, earlier: list[DrillReport]) -> None:
    message = card(report, earlier)
    assert problems(message) == []
    words = [block for block in message.blocks if block["type"] != CHART_BLOCK]
    spoken = [*words, *(chart_block(each) for each in message.charts)]
    assert problems(replace(message, blocks=tuple(spoken), charts=())) == []


def test_a_report_that_grows_without_end_stays_a_card() -> None:
    answer = answer_of(MONSTER)
    assert answer.table is not None
    assert len(answer.table.rows) == 40
    assert len(answer.facts) < 40
    assert dict(answer.facts)["Settings"].endswith(", and 78 more")
    many = replace(MONSTER, missed=tuple(f"No {number}." for number in range(30)))
    assert answer_of(many).lines[-1] == "And 18 more."


def chart_block(chart: Any) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": chart_text(chart)}}


def test_the_verdict_comes_first_and_the_figures_stand_beside_their_limits() -> None:
    answer = answer_of(FULL, EARLIER)
    assert answer.title == "Drill passed: primary-crash of orders"
    assert answer.lines[0] == (
        "Writes were possible again after 12.2 s, none were for 11.5 s, nothing lost."
    )
    facts = dict(answer.facts)
    assert facts["RTO"] == "12.2 s, allowed 15 min"
    assert facts["RPO"] == "0 s (by the heartbeat 0.4 s), allowed less than 1 min"
    assert facts["Rows of the ledger"] == (
        "1,200 acknowledged, 0 lost, 1 there that nobody acknowledged"
    )
    assert facts["Switch back"] == "done: no writes for 0.8 s, 0 rows lost"
    assert facts["Redundancy"] == "back after 45 s"
    assert facts["Configuration"] == "as before"
    assert facts["Behind, before"] == "16 kB"
    assert facts["Killed"] == "process 123 and 8 others"
    assert facts["Compared with 2026-08-23 (request 16)"].startswith("RTO 12.2 s, was 8 s (median")
    assert "Slower than last time: until promoted it took 9 s, and 4 s then." in answer.lines
    assert answer.numbers == {
        "end": "passed", "lost": 0, "rpo_seconds": 0.0, "write_gap_seconds": 11.5,
        "rto_seconds": 12.25,
    }  # fmt: skip


def test_the_timeline_counts_from_the_fault_as_bars_and_in_words() -> None:
    [chart] = answer_of(FULL).charts
    assert chart.title == "Seconds after the fault"
    assert dict(zip(chart.labels, chart.series[0].values, strict=True)) == {
        "detected": 2, "promoted": 11, "connected": 12.5, "measured": 14, "redundant": 45,
        "switched back": 50, "compared": 52,
    }  # fmt: skip
    assert chart.alt.startswith("After the fault: detected 2 s, promoted 11 s, connected 12.5 s")
    [block] = charts(card(FULL))
    assert block["chart"]["type"] == "bar"
    assert len(block["chart"]["series"][0]["data"]) == 7


def test_the_table_has_each_phase_with_its_time_and_how_long_it_took() -> None:
    table = answer_of(FULL).table
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == [str(phase) for phase in TIMES]
    assert rows["announced"] == ("12:00:00.0", "-30 s", "0 s", "announced it was")
    assert rows["injected"] == ("12:00:30.0", "+0 s", "10 s", "injected it was")
    assert rows["connected"] == ("12:00:42.5", "+12.5 s", "1.5 s", "connected it was")


def test_what_nobody_knows_is_said_so_and_never_zero() -> None:
    assert fact(UNKNOWN, "RTO") == "not known, allowed 15 min"
    assert fact(UNKNOWN, "RPO") == "not known, allowed less than 1 min"
    assert fact(UNKNOWN, "Applications") == "NOT CONNECTED: not proven"
    assert fact(UNKNOWN, "Redundancy") == "NOT BACK"
    assert fact(UNKNOWN, "Configuration") == "not compared"
    assert fact(UNKNOWN, "Primary") == "east, then nobody"
    assert "Rows of the ledger" not in dict(answer_of(UNKNOWN).facts)
    assert answer_of(UNKNOWN).numbers == {"end": "failed"}


def test_a_drill_that_failed_says_all_that_it_missed() -> None:
    answer = answer_of(UNKNOWN)
    assert answer.title == "Drill FAILED: primary-crash of orders"
    assert answer.lines == UNKNOWN.missed
    assert len(answer.lines) == 5


def test_a_drill_that_was_aborted_says_how_far_it_came_and_who_takes_writes() -> None:
    answer = answer_of(STOPPED)
    assert answer.title == "Drill aborted: primary-crash of orders"
    assert answer.lines == (
        "Ana stopped it.",
        "It came as far as: checked (checked it was).",
        "Nothing was broken.",
        "east takes writes.",
    )
    assert answer.charts[0].title == "Seconds after the beginning"
    late = finished(replace(STOPPED, moments=FULL.moments[:4]), stopped="Ana stopped it.")
    assert "Nothing was broken." not in answer_of(late).lines
    early = finished(replace(STOPPED, moments=()), stopped="Ana stopped it.")
    assert answer_of(early).lines[-1] == "It was stopped before anything was done."
    assert (answer_of(early).charts, answer_of(early).table) == ((), None)


def test_a_measure_with_a_gap_in_it_is_an_upper_bound() -> None:
    report = replace(FULL, cost=replace(COST, is_exact=False), rpo_limit_seconds=0)
    assert fact(report, "RTO") == "at most 12.2 s, allowed 15 min"
    assert fact(report, "No writes for") == "at most 11.5 s: the worker that measured was replaced"
    assert fact(report, "RPO").endswith(", no row may be lost")


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (FULL, ("The drill primary-crash of orders passed: writes were possible again after 12.2 s,"
         " none were for 11.5 s, nothing lost.")),
        (replace(FULL, cost=replace(COST, lost=7, rpo_seconds=0.1)), ("The drill primary-crash of"
         " orders passed: writes were possible again after 12.2 s, none were for 11.5 s, 7 rows"
         " lost.")),
        (UNKNOWN, ("The drill primary-crash of orders FAILED: Applications do not connect. And 4"
         " more findings.")),
        (STOPPED, "The drill primary-crash of orders was aborted: Ana stopped it."),
    ],
)  # fmt: skip
def test_the_last_words_say_how_it_ended(report: DrillReport, words: str) -> None:
    assert last_words(report) == words


def test_texts_of_others_are_shown_as_they_are_and_never_as_markup() -> None:
    evil = replace(FULL, connectivity="<!channel> *all fine*", victim="`east` <@U1>")
    said = texts(list(card(evil).blocks))
    assert "<!channel>" not in said
    assert "<@U1>" not in said
