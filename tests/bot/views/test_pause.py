"""What the card of a run says that can wait, waits, or cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from approvals.words import State
from bot.views.card import Card
from bot.views.request import request_message, sentence
from tests.bot.views.cards import MONSTER, NOON, PENDING, action_ids, problems, texts, tokens

RUNNING = replace(PENDING, state=State.EXECUTING, is_pausable=True)
PAUSED = replace(RUNNING, paused_by="T0DEMO/U0ANA", paused_at=NOON)


@pytest.mark.parametrize(
    ("card", "buttons"),
    [
        (RUNNING, ["details", "cancel", "pause"]),
        (PAUSED, ["details", "cancel", "resume"]),
        (replace(RUNNING, is_pausable=False), ["details", "cancel"]),
        # A run that has ended does not wait any more, whatever its row still says.
        (replace(PAUSED, state=State.DONE, is_pausable=False), ["details"]),
    ],
)
def test_one_button_more_stands_where_a_run_can_wait(card: Card, buttons: list[str]) -> None:
    message = request_message(card, tokens=tokens)
    assert action_ids(message) == buttons
    assert problems(message) == []


def test_a_paused_card_says_who_since_when_and_what_it_means_for_others() -> None:
    message = request_message(PAUSED, tokens=tokens)
    shown = texts(message.blocks)
    assert "*Paused*\nBy <@U0ANA> since <!date^" in shown
    assert "Other changes of orders wait until it goes on or is stopped." in shown
    assert "its time limit stands still" in shown
    assert sentence(PAUSED).startswith("Request 12 by <@U0ANA>: Full backup of orders. Paused.")
    assert "Running" not in shown


def test_a_card_says_nothing_of_a_pause_once_its_run_has_ended() -> None:
    shown = texts(request_message(replace(PAUSED, state=State.FAILED), tokens=tokens).blocks)
    assert "Paused" not in shown


def test_a_name_that_is_no_account_cannot_act() -> None:
    card = replace(PAUSED, paused_by="<!channel>", database="<!here>", plan=MONSTER.plan)
    message = request_message(card, tokens=tokens)
    assert "<!channel>" not in message.text
    assert "<!here>" not in texts([b for b in message.blocks if b["type"] != "header"])
    assert problems(message) == []
