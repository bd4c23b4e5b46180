"""What gets past the gate, and what does not."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.edge import BODY_BYTES_MAX, Gate, Knock, Refusal, sign, status

SECRET = "a-signing-secret"
NOW = 1_800_000_000.0
FORM = "application/x-www-form-urlencoded"
SLASH = urlencode({"command": "/db", "text": "backup orders", "user_id": "U0ANA"}).encode()


def knock(
    body: bytes = SLASH,
    *,
    secret: str = SECRET,
    timestamp: str = "1800000000",
    kind: str = FORM,
    signature: str | None = None,
) -> Knock:
    """A signed request; signs whatever timestamp it is given, as far as that is a number."""
    if signature is None:
        number = int(timestamp) if timestamp.isascii() and timestamp.isdigit() else 0
        signature = sign(secret, timestamp=number, body=body)
    headers = {
        "content-type": kind,
        "x-slack-request-timestamp": timestamp,
        "x-slack-signature": signature,
    }
    return Knock(headers=headers, body=body)


def admitted(request: Knock, *, now: float = NOW) -> Refusal | None:
    return Gate([SECRET]).admit(request, now=now)


def test_what_slack_signed_just_now_passes() -> None:
    assert admitted(knock()) is None
    assert admitted(knock(b'{"type":"event_callback"}', kind="application/json")) is None
    payload = urlencode({"payload": json.dumps({"type": "block_actions"})}).encode()
    assert admitted(knock(payload, kind=f"{FORM}; charset=utf-8")) is None


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        (Knock(headers={}, body=b""), Refusal.NO_SIGNATURE),
        (Knock(headers={"content-type": FORM}, body=b"ssl_check=1"), Refusal.NO_SIGNATURE),
        (knock(timestamp=""), Refusal.NO_SIGNATURE),
        (knock(signature=""), Refusal.NO_SIGNATURE),
        (knock(timestamp="yesterday"), Refusal.BAD_TIMESTAMP),
        (knock(timestamp="1800000000.5"), Refusal.BAD_TIMESTAMP),
        (knock(timestamp="-1800000000"), Refusal.BAD_TIMESTAMP),
        (knock(timestamp="١٨٠٠٠٠٠٠٠٠"), Refusal.BAD_TIMESTAMP),
        (knock(timestamp="9" * 400), Refusal.BAD_TIMESTAMP),
        (knock(timestamp="1799999699"), Refusal.STALE),
        (knock(timestamp="1800000301"), Refusal.STALE),
        (knock(secret="another-secret"), Refusal.BAD_SIGNATURE),
        (knock(signature="v0=ünïcödé"), Refusal.BAD_SIGNATURE),
        (knock(signature="\udcff\udcfe"), Refusal.BAD_SIGNATURE),
        (knock(signature="v1=" + "0" * 64), Refusal.BAD_SIGNATURE),
        (knock(b"x" * (BODY_BYTES_MAX + 1)), Refusal.TOO_LARGE),
        (knock(kind="text/plain"), Refusal.BAD_TYPE),
        (knock(kind=""), Refusal.BAD_TYPE),
        (knock(kind="multipart/form-data; boundary=x"), Refusal.BAD_TYPE),
        (knock(b"command=\xff\xfe"), Refusal.BAD_ENCODING),
        (knock(b"command=%FF%FE"), Refusal.BAD_BODY),
        (knock(b""), Refusal.BAD_BODY),
        (knock(b"no pairs here"), Refusal.BAD_BODY),
        (knock(b"a=1"), Refusal.BAD_BODY),
        (knock(b"command=/db&command=/other"), Refusal.BAD_BODY),
        (knock(b"&".join(b"f%d=1" % n for n in range(500))), Refusal.BAD_BODY),
        (knock(b"payload=not-json"), Refusal.BAD_BODY),
        (knock(b"payload=[]"), Refusal.BAD_BODY),
        (knock(b"payload=" + b"[" * 100_000), Refusal.BAD_BODY),
        (knock(b"", kind="application/json"), Refusal.BAD_BODY),
        (knock(b"[1]", kind="application/json"), Refusal.BAD_BODY),
        (knock(b'{"a": NaN}', kind="application/json"), Refusal.BAD_BODY),
        (knock(b'{"a": ' + b"9" * 10_000 + b"}", kind="application/json"), Refusal.BAD_BODY),
        (knock(b'{"a": "\\ud800"}', kind="application/json"), Refusal.BAD_BODY),
        (knock(b'{"a": 1', kind="application/json"), Refusal.BAD_BODY),
    ],
)  # fmt: skip
def test_what_is_turned_away(request_: Knock, refusal: Refusal) -> None:
    assert admitted(request_) is refusal


def test_only_what_slack_signed_is_called_odd() -> None:
    assert {refusal for refusal in Refusal if status(refusal) == 400} == {
        Refusal.BAD_TYPE, Refusal.BAD_ENCODING, Refusal.BAD_BODY,
    }  # fmt: skip
    assert {status(refusal) for refusal in Refusal} == {400, 401}


def test_a_replay_is_turned_away() -> None:
    gate = Gate([SECRET])
    assert gate.admit(knock(), now=NOW) is None
    assert gate.admit(knock(), now=NOW + 1) is Refusal.REPLAYED


def test_what_was_not_processed_may_come_again() -> None:
    gate = Gate([SECRET])
    assert gate.admit(knock(), now=NOW) is None
    gate.forget(knock())
    assert gate.admit(knock(), now=NOW + 1) is None


def test_the_memory_of_replays_is_bounded_in_number_and_in_time() -> None:
    gate = Gate([SECRET], replays_kept=3)
    for number in range(10):
        assert gate.admit(knock(b"command=%d" % number), now=NOW) is None
    assert len(gate._seen) == 3
    late = "1800000700"
    assert gate.admit(knock(b"command=late", timestamp=late), now=float(late)) is None
    assert len(gate._seen) == 1


def test_both_secrets_fit_during_a_rotation() -> None:
    gate = Gate(["new-secret", SECRET])
    assert gate.admit(knock(), now=NOW) is None
    assert gate.admit(knock(secret="new-secret"), now=NOW) is None
    assert gate.admit(knock(secret="oldest"), now=NOW) is Refusal.BAD_SIGNATURE


@pytest.mark.parametrize("secrets", [[], [""], ["good", ""]])
def test_a_gate_without_a_secret_is_not_built(secrets: list[str]) -> None:
    with pytest.raises(ValueError, match="signing secret"):
        Gate(secrets)


@given(
    body=st.binary(max_size=200),
    kind=st.sampled_from([FORM, "application/json", "x"]),
    timestamp=st.text(max_size=15),
    signature=st.text(max_size=80),
)
def test_nothing_unsigned_passes_or_raises(
    body: bytes, kind: str, timestamp: str, signature: str
) -> None:
    refusal = admitted(knock(body, timestamp=timestamp, signature=signature, kind=kind))
    assert refusal is not None
    assert status(refusal) == 401


@given(body=st.binary(max_size=300), kind=st.sampled_from([FORM, "application/json", "x/y"]))
def test_nothing_signed_raises(body: bytes, kind: str) -> None:
    refusal = admitted(knock(body, kind=kind))
    assert refusal is None or status(refusal) == 400
