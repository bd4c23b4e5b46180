"""Buttons that open a form, filled in: nobody else makes them, and they fit into Slack."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from approvals.words import RefusedError
from bot.command_text import Asked
from bot.suggesting import BUTTONS_MAX, VALUE_CHARS_MAX, Call, Suggester
from jobs.operation import Answer, Kind, Operation, Risk, Suggestion
from sandbox.slack.blocks import check_blocks

CALL = Call(operation="create-index", params={"database": "orders", "on": ["a"]}, reason="slow")


class Params(BaseModel):
    database: str


ASKED = Asked(
    operation=Operation(
        name="indexes", summary="Advice", kind=Kind.QUERY, risk=Risk.NONE, params=Params,
        example="/db indexes orders",
    ),
    params=Params(database="orders"),
    database="orders",
    reason="",
)  # fmt: skip


def suggestion(text: str = "Create it", **params: str) -> Suggestion:
    return Suggestion(text=text, operation="create-index", params=params)


def test_what_is_sealed_comes_back_as_it_was() -> None:
    suggester = Suggester([b"k" * 32])
    assert suggester.open(suggester.close(CALL)) == CALL


def test_a_retired_key_still_opens_and_a_strange_one_does_not() -> None:
    value = Suggester([b"old" * 11]).close(CALL)
    assert Suggester([b"new" * 11, b"old" * 11]).open(value) == CALL
    with pytest.raises(RefusedError, match="was not made by Twokey"):
        Suggester([b"new" * 11]).open(value)


@pytest.mark.parametrize("value", ["", "x", "e30.e30", "a.b.c", "é.é", "." * 2100])
def test_what_we_did_not_seal_is_refused(value: str) -> None:
    with pytest.raises(RefusedError, match="was not made by Twokey"):
        Suggester([b"k" * 32]).open(value)


def test_a_changed_parameter_breaks_the_seal() -> None:
    suggester = Suggester([b"k" * 32])
    other = suggester.close(Call(operation="create-index", params={"database": "other"}))
    body, _, _ = other.partition(".")
    _, _, mac = suggester.close(CALL).partition(".")
    with pytest.raises(RefusedError):
        suggester.open(f"{body}.{mac}")


def test_slack_takes_the_buttons_and_no_more_than_a_row_are_drawn() -> None:
    answer = Answer(title="Advice", suggestions=tuple(suggestion(f"Create {n}") for n in range(9)))
    [row] = Suggester([b"k" * 32]).below(answer, ASKED)
    assert len(row["elements"]) == BUTTONS_MAX
    assert check_blocks([row], surface="message") == []


def test_what_does_not_fit_into_a_button_has_none_and_the_others_stay() -> None:
    long = suggestion("Long", where="x" * VALUE_CHARS_MAX)
    answer = Answer(title="Advice", suggestions=(long, suggestion("Short")))
    [row] = Suggester([b"k" * 32]).below(answer, ASKED)
    assert [element["text"]["text"] for element in row["elements"]] == ["Short"]


def test_an_answer_that_is_remembered_says_how_old_it_is_and_can_be_looked_at_anew() -> None:
    suggester = Suggester([b"k" * 32])
    at = datetime(2026, 11, 22, 12, tzinfo=UTC)
    row, aged = suggester.below(Answer(title="Advice", at=at), ASKED)
    assert "2026-11-22 12:00 UTC" in aged["elements"][0]["text"]
    [button] = row["elements"]
    assert suggester.open(button["value"]) == Call(
        operation="indexes", params={"database": "orders"}
    )


def test_a_plain_answer_has_nothing_below_it() -> None:
    assert Suggester([b"k" * 32]).below(Answer(title="Advice"), ASKED) == ()
