"""Details, answers, lists, help, errors and the home tab."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from approvals.words import State
from bot.views.answer import answer_message, note_message, progress_message
from bot.views.deny import deny_modal
from bot.views.details import details_modal
from bot.views.errors import broken_message, problem_message
from bot.views.help import Usage, help_message
from bot.views.request import request_message
from bot.views.requests import requests_message
from jobs.operation import Answer, Table
from sandbox.slack.blocks import check_view, too_large
from tests.bot.views.cards import HUGE, MONSTER, PENDING, TOKEN, problems, texts


def flaws(view: Any, kind: str = "modal") -> list[str]:
    """What Slack would say against a view."""
    return check_view(dict(view), kind=kind) + (["too large"] if too_large(dict(view)) else [])


def test_the_details_hold_the_whole_plan() -> None:
    view = details_modal(PENDING, token=TOKEN)
    assert flaws(view) == []
    shown = texts(view["blocks"])
    for part in ("CHECKPOINT;", "system_identifier", "7312", "<@U0BEN>", "before the release"):
        assert part in shown


def test_statements_are_shown_as_they_are_given_on_the_card_and_in_the_details() -> None:
    given = ("rule backups: changed\n- approve: 1\n+ approve: 2", "DROP TABLE x;")
    card = replace(PENDING, plan=replace(PENDING.plan, statements=given))
    for blocks in (
        request_message(card, tokens=lambda _: TOKEN).blocks,
        details_modal(card, token=TOKEN)["blocks"],
    ):
        shown = texts(blocks)
        assert "+ approve: 2\nDROP TABLE x;" in shown
        assert shown.count(";") == "".join(given).count(";")


def test_a_long_plan_is_turned_page_by_page_and_nothing_is_left_out() -> None:
    shown = ""
    page, more = 0, True
    while more:
        view = details_modal(MONSTER, token=TOKEN, page=page)
        assert flaws(view) == []
        shown += texts(view["blocks"])
        more = '"page_next"' in str(view).replace("'", '"')
        page += 1
    assert page > 3
    assert "x = 399;" in shown
    assert f"200. {HUGE[:10].replace('<', '&lt;').replace('>', '&gt;')}" in shown
    last = details_modal(MONSTER, token=TOKEN, page=10_000)
    assert last == details_modal(MONSTER, token=TOKEN, page=page - 1)


@pytest.mark.parametrize("card", [PENDING, MONSTER])
def test_a_deny_asks_for_its_reason(card: Any) -> None:
    view = deny_modal(card, token=TOKEN)
    assert flaws(view) == []
    assert view["callback_id"] == "deny_reason"
    assert view["private_metadata"] == TOKEN


@pytest.mark.parametrize(
    "answer",
    [
        Answer(title="Backups of orders"),
        Answer(
            title="Backups of orders",
            lines=("One is missing.",),
            facts=(("Tier", "critical"),),
            table=Table(columns=("Backup", "Age"), rows=(("orders-1", "2 h"),)),
        ),
        Answer(
            title=HUGE,
            lines=(HUGE,) * 100,
            facts=((HUGE, HUGE),) * 100,
            table=Table(columns=("a", "b"), rows=((HUGE, HUGE),) * 200),
        ),
    ],
)
def test_an_answer_fits(answer: Answer) -> None:
    assert problems(answer_message(answer)) == []


def test_a_long_table_says_what_is_left_out() -> None:
    rows = tuple((str(number),) for number in range(150))
    shown = texts(answer_message(Answer(title="t", table=Table(columns=("n",), rows=rows))).blocks)
    assert "…and 50 more rows." in shown


def test_progress_has_a_bar_and_words_for_those_who_do_not_see_it() -> None:
    message = progress_message("Copying", 0.5)
    assert problems(message) == []
    assert message.text == "Copying (50%)"
    assert "██████████░░░░░░░░░░" in texts(message.blocks)
    assert problems(progress_message("Waiting for the lock", None)) == []


@pytest.mark.parametrize("kind", ["", "warning", "alarm", "done", "unheard of"])
def test_a_note_is_shown_whatever_its_kind(kind: str) -> None:
    assert problems(note_message(HUGE, kind)) == []


def test_an_error_has_two_sentences() -> None:
    message = problem_message("orders is <locked>.", "Wait.")
    assert problems(message) == []
    assert message.text == "orders is &lt;locked&gt;. Wait."


def test_a_bug_shows_its_id_and_does_not_claim_to_know() -> None:
    assert "7f3a" in broken_message("7f3a", stored=False).text
    assert "Nothing was changed" in broken_message("7f3a", stored=False).text
    assert "not certain" in broken_message("7f3a", stored=True).text


def test_help_lists_what_can_be_typed() -> None:
    usages = [
        Usage(example="/db backup orders", summary="A backup", needs_approval=True),
        Usage(example="/db requests", summary="What is open", needs_approval=False),
    ]
    message = help_message(usages, ["orders"])
    assert problems(message) == []
    assert "/db backup orders" in texts(message.blocks)


def test_lists_fit() -> None:
    cards = [replace(MONSTER, state=state) for state in State] * 5
    assert problems(requests_message(cards, about="Open requests")) == []
    assert problems(requests_message([], about="Open requests")) == []
