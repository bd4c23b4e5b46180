"""What is stored so that we can read it again, and nobody else."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from approvals.sealing import SealedError, SecretBox
from approvals.signing import VoteKeys, key_id

OLD, NEW, OTHER = b"old" * 11, b"new" * 11, b"other" * 7
SECRET = SecretStr("JBSWY3DPEHPK3PXP")

texts = st.text(max_size=200).filter(lambda text: text.encode("utf-8", "ignore").decode() == text)
purposes = st.text(st.characters(codec="utf-8"), max_size=40)


def box(current: bytes = NEW, previous: bytes | None = None) -> SecretBox:
    return SecretBox(VoteKeys(current=current, previous=previous))


@given(text=texts, purpose=purposes)
def test_what_was_sealed_opens_for_its_purpose(text: str, purpose: str) -> None:
    sealed = box().seal(SecretStr(text), purpose=purpose)
    assert box().open(sealed, purpose=purpose).get_secret_value() == text


@given(text=texts, one=purposes, other=purposes)
def test_nothing_opens_for_another_purpose(text: str, one: str, other: str) -> None:
    if one == other:
        return
    sealed = box().seal(SecretStr(text), purpose=one)
    with pytest.raises(SealedError, match="sealed for something else"):
        box().open(sealed, purpose=other)


@given(data=st.data())
def test_no_change_of_one_character_goes_unseen(data: st.DataObject) -> None:
    sealed = box().seal(SECRET, purpose="totp")
    at = data.draw(st.integers(0, len(sealed) - 1))
    put = data.draw(st.characters(codec="utf-8").filter(lambda found: found != sealed[at]))
    with pytest.raises(SealedError):
        box().open(sealed[:at] + put + sealed[at + 1 :], purpose="totp")


@given(text=st.text(max_size=300))
def test_any_text_that_is_not_ours_is_a_clear_error(text: str) -> None:
    with pytest.raises(SealedError) as refusal:
        box().open(text, purpose="totp")
    assert refusal.value.next_step


def test_a_head_that_names_another_key_of_ours_does_not_open() -> None:
    sealed = box(OLD).seal(SECRET, purpose="totp")
    moved = sealed.replace(key_id(OLD), key_id(NEW))
    with pytest.raises(SealedError, match="was changed"):
        box(NEW, OLD).open(moved, purpose="totp")


def test_after_a_rotation_the_key_before_still_opens() -> None:
    sealed = box(OLD).seal(SECRET, purpose="totp")
    rotated = box(NEW, OLD)
    assert rotated.open(sealed, purpose="totp") == SECRET
    assert not rotated.is_current(sealed)
    assert rotated.is_current(rotated.seal(SECRET, purpose="totp"))


def test_a_retired_key_opens_nothing_and_the_error_says_what_to_do() -> None:
    sealed = box(OLD).seal(SECRET, purpose="totp")
    with pytest.raises(SealedError, match="does not have") as refusal:
        box(NEW, OTHER).open(sealed, purpose="totp")
    assert "TWOKEY_VOTE_KEY_PREVIOUS" in refusal.value.next_step


def test_the_same_secret_is_sealed_into_another_text_each_time() -> None:
    assert box().seal(SECRET, purpose="totp") != box().seal(SECRET, purpose="totp")


def test_neither_box_nor_error_shows_a_key_or_the_secret() -> None:
    sealed = box().seal(SECRET, purpose="totp")
    try:
        box().open(sealed, purpose="other")
    except SealedError as error:
        shown = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=False).format()
        )
    shown += repr(box()) + repr(SecretBox(VoteKeys(current=NEW, previous=OLD)).__class__)
    assert SECRET.get_secret_value() not in sealed + shown
    assert NEW.decode() not in sealed + shown
