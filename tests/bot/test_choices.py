"""What a menu's entries carry: nobody else can make one, and none outlives its time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.words import PlanHash, PolicyHash, RefusedError, RequestId, Why
from bot.buttons import Seal, Shown
from bot.choices import CHARS_MAX, Choice, Choices, Todo

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEY = b"k" * 32


def choice(todo: Todo = Todo.RETRY, number: int = 7) -> Choice:
    return Choice(
        todo=todo, request_id=RequestId(number), seen="0" * 16, expires_at=NOW + timedelta(hours=1)
    )


@given(todo=st.sampled_from(Todo), number=st.integers(1, 10**12))
def test_every_choice_fits_into_an_entry_and_comes_back(todo: Todo, number: int) -> None:
    choices = Choices([KEY])
    value = choices.close(choice(todo, number))
    assert len(value) <= CHARS_MAX
    assert choices.open(value, now=NOW) == choice(todo, number)


@given(place=st.integers(0, 200), char=st.sampled_from("aZ0_-.="))
def test_no_letter_of_it_can_be_changed(place: int, char: str) -> None:
    choices = Choices([KEY])
    value = choices.close(choice())
    place %= len(value)
    changed = value[:place] + char + value[place + 1 :]
    if changed != value:
        with pytest.raises(RefusedError) as caught:
            choices.open(changed, now=NOW)
        assert caught.value.why is Why.SIGNATURE


def test_its_time_runs_out() -> None:
    value = Choices([KEY]).close(choice())
    with pytest.raises(RefusedError, match="run out"):
        Choices([KEY]).open(value, now=NOW + timedelta(hours=1))


def test_the_previous_key_opens_and_another_one_does_not() -> None:
    value = Choices([KEY]).close(choice())
    assert Choices([b"n" * 32, KEY]).open(value, now=NOW) == choice()
    with pytest.raises(RefusedError):
        Choices([b"n" * 32]).open(value, now=NOW)
    with pytest.raises(ValueError, match="key"):
        Choices([])


def test_a_button_that_decides_is_no_choice_and_the_other_way_round() -> None:
    seal, choices = Seal([KEY]), Choices([KEY])
    shown = Shown(
        request_id=RequestId(7), plan_hash=PlanHash("p"), policy_hash=PolicyHash("q"),
        card_hash="c", step=0, expires_at=NOW + timedelta(hours=1),
    )  # fmt: skip
    with pytest.raises(RefusedError):
        choices.open(seal.close(shown), now=NOW)
    with pytest.raises(RefusedError):
        seal.open(choices.close(choice()), now=NOW)


def test_a_choice_has_one_spelling() -> None:
    """The last letter of 32 bytes has two bits that say nothing; they are nothing."""
    value = Choices([KEY]).close(choice())
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    place = letters.index(value[-1])
    assert place % 4 == 0
    for other in letters[place + 1 : place + 4]:
        with pytest.raises(RefusedError) as caught:
            Choices([KEY]).open(value[:-1] + other, now=NOW)
        assert caught.value.why is Why.SIGNATURE


def test_a_seal_of_the_same_key_for_something_else_makes_no_choice() -> None:
    """The key is derived for this alone, whatever else is ever sealed with the one it is of."""
    body = base64.urlsafe_b64decode(Choices([KEY]).close(choice()).partition(".")[0] + "==")
    mac = hmac.new(KEY, body, hashlib.sha256).digest()
    parts = (base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (body, mac))
    with pytest.raises(RefusedError) as caught:
        Choices([KEY]).open(".".join(parts), now=NOW)
    assert caught.value.why is Why.SIGNATURE


@given(text=st.text(max_size=200))
def test_no_text_makes_it_stumble(text: str) -> None:
    with pytest.raises(RefusedError):
        Choices([KEY]).open(text, now=NOW)
