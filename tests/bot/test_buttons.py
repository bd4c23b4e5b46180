"""What a button carries."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.words import PlanHash, PolicyHash, RefusedError, RequestId, Why
from bot.buttons import Seal, Shown

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SHOWN = Shown(
    request_id=RequestId(12),
    plan_hash=PlanHash("a" * 64),
    policy_hash=PolicyHash("b" * 64),
    card_hash="c" * 16,
    step=1,
    expires_at=NOON + timedelta(hours=1),
)
SEAL = Seal([b"k" * 32])


def test_it_opens_to_what_was_shown() -> None:
    assert SEAL.open(SEAL.close(SHOWN), now=NOON) == SHOWN


def test_it_fits_into_a_button() -> None:
    assert len(SEAL.close(SHOWN)) < 2000


def test_a_button_expires() -> None:
    with pytest.raises(RefusedError, match="expired") as refusal:
        SEAL.open(SEAL.close(SHOWN), now=SHOWN.expires_at)
    assert refusal.value.why is Why.EXPIRED


def test_the_previous_key_still_opens_and_the_new_one_seals() -> None:
    rotated = Seal([b"n" * 32, b"k" * 32])
    assert rotated.open(SEAL.close(SHOWN), now=NOON) == SHOWN
    with pytest.raises(RefusedError):
        SEAL.open(rotated.close(SHOWN), now=NOON)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "a.b",
        "r12",
        "ü.ü",
        "a" * 3000,
        "a.b.c",
        SEAL.close(SHOWN) + "=",
        SEAL.close(SHOWN)[:-1],
    ],
)
def test_what_we_did_not_make_is_refused(value: str) -> None:
    with pytest.raises(RefusedError, match="not made by Twokey") as refusal:
        SEAL.open(value, now=NOON)
    assert refusal.value.why is Why.SIGNATURE


def test_another_requests_body_under_this_seal_is_refused() -> None:
    body = SEAL.close(replace(SHOWN, request_id=RequestId(13))).split(".")[0]
    mac = SEAL.close(SHOWN).split(".")[1]
    with pytest.raises(RefusedError):
        SEAL.open(f"{body}.{mac}", now=NOON)


@given(at=st.integers(0, 200), bit=st.integers(0, 7))
def test_no_changed_bit_passes(at: int, bit: int) -> None:
    value = SEAL.close(SHOWN)
    body, mac = value.split(".")
    raw = bytearray(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    raw[at % len(raw)] ^= 1 << bit
    forged = base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")
    with pytest.raises(RefusedError):
        SEAL.open(f"{forged}.{mac}", now=NOON)
