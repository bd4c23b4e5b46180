"""What somebody typed becomes checked parameters, or a sentence about what is wrong."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.words import BadInputError
from bot.command_text import Asked, parse, words
from tests.bot.world import OPERATIONS, PaintParams


def asked(text: str) -> Asked:
    name, *rest = words(text)
    return parse(name, rest, OPERATIONS)


@pytest.mark.parametrize(
    "text",
    [
        "paint orders blue 2",
        "paint database=orders colour=blue coats=2",
        "paint orders coats=2 blue",
        "paint orders --colour blue --coats=2",
        "paint orders --COATS 2 blue",
        'paint "orders" “blue” 2',
    ],
)
def test_parameters_come_by_order_or_by_name(text: str) -> None:
    assert asked(text).params == PaintParams(database="orders", colour="blue", coats=2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('paint orders reason="before the release"', "before the release"),
        ("paint orders --reason “it is time”", "it is time"),
        ("paint orders reason=it's", "it's"),
        ("paint orders reason=a&lt;b&amp;c", "a<b&c"),
        ("paint orders", ""),
    ],
)
def test_a_reason_is_always_understood(text: str, reason: str) -> None:
    found = asked(text)
    assert found.reason == reason
    assert found.database == "orders"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("paint", "needs database"),
        ("paint orders blue blue", "coats"),
        ("paint orders colour=blue colour=red", "twice"),
        ("paint orders red 2 3", "'3'"),
        ("paint orders colr=red", "did you mean colour"),
        ("paint orders zzz=red", "it has database"),
        ("paint orders --coats", "no value"),
        ("paint orders coats=0", "coats"),
    ],
)
def test_a_mistake_names_the_field_and_shows_an_example(text: str, says: str) -> None:
    with pytest.raises(BadInputError) as refusal:
        asked(text)
    assert says in refusal.value.problem
    assert "/db paint orders red" in refusal.value.next_step


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("paint orders\x00", "control characters"),
        ("x" * 5000, "5000 characters"),
        ('paint "orders', "not closed"),
    ],
)
def test_what_cannot_be_split_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        words(text)


@given(st.text(max_size=80))
def test_nothing_that_is_typed_breaks_it(text: str) -> None:
    with contextlib.suppress(BadInputError):
        parse("paint", words(text), OPERATIONS)
