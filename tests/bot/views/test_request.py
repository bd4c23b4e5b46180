"""The card of a request in every state."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from approvals.words import State, Verdict
from bot.views.card import VoteLine
from bot.views.request import request_message
from tests.bot.views.cards import (
    MONSTER,
    NOON,
    PENDING,
    action_ids,
    problems,
    texts,
    tokens,
)

DENIED = replace(
    PENDING,
    state=State.DENIED,
    votes=(VoteLine(who="T0DEMO/U0CLEO", verdict=Verdict.DENY, reason="too late", at=NOON),),
)


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_a_valid_message(state: State) -> None:
    assert problems(request_message(replace(PENDING, state=state), tokens=tokens)) == []


@pytest.mark.parametrize("state", list(State))
def test_every_state_fits_whatever_the_plan_holds(state: State) -> None:
    assert problems(request_message(replace(MONSTER, state=state), tokens=tokens)) == []


@pytest.mark.parametrize(
    ("state", "buttons"),
    [
        (State.PENDING, ["approve", "deny", "details", "cancel"]),
        (State.APPROVED, ["details", "cancel"]),
        (State.EXECUTING, ["details", "cancel"]),
        (State.DONE, ["details"]),
        (State.FAILED, ["details"]),
        (State.DENIED, ["details"]),
        (State.CANCELLED, ["details"]),
        (State.EXPIRED, ["details"]),
        (State.REFUSED, ["details"]),
        (State.NEEDS_REVIEW, ["details"]),
        (State.CLOSED, ["details"]),
    ],
)
def test_buttons_stand_only_where_they_do_something(state: State, buttons: list[str]) -> None:
    assert action_ids(request_message(replace(PENDING, state=state), tokens=tokens)) == buttons


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (PENDING, "Needs 1 approval of dba and 1 approval of security."),
        (replace(PENDING, state=State.APPROVED), "starts as soon as a worker is free"),
        (
            replace(PENDING, state=State.APPROVED, not_before=NOON + timedelta(hours=1)),
            "It starts <!date^",
        ),
        (replace(PENDING, state=State.EXECUTING), "this message's thread"),
        (replace(PENDING, state=State.DONE, note="1.2 GB in 3 min"), "1.2 GB in 3 min"),
        (replace(PENDING, state=State.FAILED, note="The disk is full."), "The disk is full."),
        (DENIED, "By <@U0CLEO>"),
        (DENIED, "> too late"),
        (replace(PENDING, state=State.CANCELLED, note="By Ana."), "By Ana."),
        (replace(PENDING, state=State.EXPIRED), "Ask again"),
        (replace(PENDING, state=State.REFUSED, note="No rule."), "No rule."),
        (replace(PENDING, state=State.NEEDS_REVIEW), "/db review 12"),
        (replace(PENDING, state=State.CLOSED, note="Looked fine."), "Looked fine."),
    ],
)
def test_the_status_says_what_stands_and_what_comes(card: object, says: str) -> None:
    message = request_message(card, tokens=tokens)  # type: ignore[arg-type]
    assert says in texts(message.blocks)


def test_what_an_approver_must_know_is_on_the_card() -> None:
    shown = texts(request_message(PENDING, tokens=tokens).blocks)
    for part in (
        "Full backup of orders", "before the release", "1.2 GB", "Take a base backup",
        "CHECKPOINT;", "9 days old", "about 3 min", "/db prune orders", "<@U0ANA>",
        "dba: 1 of 2 · <@U0BEN>", "security: 0 of 1 (after the gates above)",
    ):  # fmt: skip
        assert part in shown


def test_what_does_not_fit_is_announced() -> None:
    shown = texts(request_message(MONSTER, tokens=tokens).blocks)
    assert "This is not all of it" in shown
    assert "195 more steps" in shown
    assert "52 more warnings" in shown
    assert "70 more facts" in shown


def test_nobodys_text_acts_in_slack() -> None:
    message = request_message(MONSTER, tokens=tokens)
    # A header is plain text, which Slack does not interpret.
    interpreted = [block for block in message.blocks if block["type"] != "header"]
    assert "<!channel>" not in texts(interpreted)
    assert "<!channel>" not in message.text
    assert "\u202e" not in texts(message.blocks)


def test_the_text_is_a_sentence_of_its_own() -> None:
    message = request_message(PENDING, tokens=tokens)
    assert message.text.startswith("Request 12 by <@U0ANA>: Full backup of orders. Waiting")


def test_an_open_door_is_called_one() -> None:
    shown = texts(request_message(replace(PENDING, gates=()), tokens=tokens).blocks)
    assert "Nobody: the rule changes says so." in shown
