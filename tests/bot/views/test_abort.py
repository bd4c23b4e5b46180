"""What the card of a run says that ends in order when it is stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from approvals.words import State
from bot.blocks import Message
from bot.views.card import Card
from bot.views.request import request_message, sentence
from tests.bot.views.cards import MONSTER, NOON, PENDING, action_ids, problems, texts, tokens

WORDS = "After a promotion: it goes forward to a safe end, without switching back."
RUNNING = replace(PENDING, state=State.EXECUTING, ends_in_order=True, abort_words=WORDS)
ENDING = replace(RUNNING, stopped_by="T0DEMO/U0ANA")
CUT_SHORT = replace(ENDING, ends_in_order=False)


@pytest.mark.parametrize(
    ("card", "buttons"),
    [
        (RUNNING, ["details", "cancel"]),
        (replace(RUNNING, is_pausable=True), ["details", "cancel", "pause"]),
        (ENDING, ["details"]),
        (replace(ENDING, is_pausable=True, paused_by="U0BEN", paused_at=NOON), ["details"]),
        (replace(ENDING, state=State.FAILED), ["details"]),
        (CUT_SHORT, ["details", "cancel"]),
        (replace(PENDING, ends_in_order=True), ["approve", "deny", "details", "cancel"]),
        (replace(PENDING, state=State.APPROVED, ends_in_order=True), ["details", "cancel"]),
    ],
)
def test_a_run_is_aborted_once(card: Card, buttons: list[str]) -> None:
    message = request_message(card, tokens=tokens)
    assert action_ids(message) == buttons
    assert problems(message) == []


def cancel_of(message: Message) -> dict[str, Any]:
    elements = [e for b in message.blocks if b["type"] == "actions" for e in b["elements"]]
    return next(e for e in elements if e["action_id"] == "cancel")


@pytest.mark.parametrize(
    ("card", "button", "asks"),
    [
        (RUNNING, "Abort", WORDS),
        (replace(RUNNING, abort_words=""), "Abort", "to a safe end by itself"),
        (replace(RUNNING, ends_in_order=False), "Stop", "stopped at its next safe point"),
        (replace(RUNNING, state=State.APPROVED), "Cancel", "Asking again starts from"),
    ],
)
def test_the_button_says_what_a_click_would_mean(card: Card, button: str, asks: str) -> None:
    drawn = cancel_of(request_message(card, tokens=tokens))
    assert drawn["text"]["text"] == button
    assert asks in drawn["confirm"]["text"]["text"]


def test_the_longest_words_fit_into_the_dialog() -> None:
    message = request_message(replace(RUNNING, abort_words="word " * 200), tokens=tokens)
    assert problems(message) == []


def test_a_card_of_an_aborted_run_says_who_and_what_happens_now() -> None:
    shown = texts(request_message(ENDING, tokens=tokens).blocks)
    assert "*Being brought to a safe end*\nAborted by <@U0ANA>." in shown
    assert "Running" not in shown
    assert "Being brought to a safe end. Aborted by <@U0ANA>" in sentence(ENDING)


def test_to_be_aborted_counts_for_more_than_to_be_paused() -> None:
    paused = replace(ENDING, is_pausable=True, paused_by="T0DEMO/U0BEN", paused_at=NOON)
    shown = texts(request_message(paused, tokens=tokens).blocks)
    assert "Paused" not in shown
    assert "Aborted by" in shown


@pytest.mark.parametrize("card", [CUT_SHORT, replace(ENDING, state=State.DONE)])
def test_nothing_is_said_of_it_for_other_runs_and_later(card: Card) -> None:
    assert "safe end" not in texts(request_message(card, tokens=tokens).blocks)


def test_a_name_that_is_no_account_cannot_act() -> None:
    card = replace(ENDING, stopped_by="<!channel>", plan=MONSTER.plan)
    message = request_message(card, tokens=tokens)
    assert "<!channel>" not in message.text
    assert "<!channel>" not in texts([b for b in message.blocks if b["type"] != "header"])
    assert problems(message) == []
