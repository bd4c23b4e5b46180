"""The gate in front of Bolt: nothing unsigned, stale, replayed or odd gets behind it.

It looks at raw bytes. Bolt itself parses a body before it checks the signature, raises on
a timestamp that is no number, and logs what it refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl

BODY_BYTES_MAX: Final = 1_000_000
CLOCK_SKEW_SECONDS: Final = 300
REPLAYS_KEPT: Final = 20_000
_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"
_FIELDS_MAX: Final = 100
_DIGITS_MAX: Final = 12


class Refusal(StrEnum):
    """Why a request was turned away. Only this word is logged, never what was sent."""

    TOO_LARGE = "too_large"
    NO_SIGNATURE = "no_signature"
    BAD_TIMESTAMP = "bad_timestamp"
    STALE = "stale"
    BAD_SIGNATURE = "bad_signature"
    REPLAYED = "replayed"
    BAD_TYPE = "bad_type"
    BAD_ENCODING = "bad_encoding"
    BAD_BODY = "bad_body"


# Signed by Slack, yet nothing that we can read: the sender is known, the request is odd.
_SIGNED_BUT_ODD: Final = frozenset({Refusal.BAD_TYPE, Refusal.BAD_ENCODING, Refusal.BAD_BODY})


def status(refusal: Refusal) -> int:
    """The HTTP status of a refusal: 400 for what was signed, 401 for everything else."""
    return 400 if refusal in _SIGNED_BUT_ODD else 401


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """A request as it came in: headers with lower-case names, and the raw body."""

    headers: Mapping[str, str]
    body: bytes


class Gate:
    """Decides which requests come from Slack, now, and for the first time.

    Not safe for several threads; one event loop owns it. With several replicas each has a
    gate of its own: what slips through a second one meets the store's delivery ids.
    """

    def __init__(self, secrets: Sequence[str], *, replays_kept: int = REPLAYS_KEPT) -> None:
        """`secrets`: the signing secret, and during a rotation the one before."""
        self._secrets = [secret.encode() for secret in secrets]
        if not self._secrets or not all(self._secrets):
            raise ValueError("a gate needs a signing secret")
        self._replays_kept = replays_kept
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def admit(self, knock: Knock, *, now: float) -> Refusal | None:
        """None when the request may pass; it then counts as seen. `now` in epoch seconds."""
        if refusal := self._unsigned(knock, now=now) or _odd(knock):
            return refusal
        return self._replayed(_header(knock, "x-slack-signature"), now=now)

    def forget(self, knock: Knock) -> None:
        """Let the same request in again: it was not processed, and Slack will retry."""
        self._seen.pop(_header(knock, "x-slack-signature"), None)

    def _unsigned(self, knock: Knock, *, now: float) -> Refusal | None:
        if len(knock.body) > BODY_BYTES_MAX:
            return Refusal.TOO_LARGE
        timestamp = _header(knock, "x-slack-request-timestamp")
        signature = _header(knock, "x-slack-signature")
        if not timestamp or not signature:
            return Refusal.NO_SIGNATURE
        if not timestamp.isdigit() or len(timestamp) > _DIGITS_MAX:
            return Refusal.BAD_TIMESTAMP
        if abs(now - int(timestamp)) > CLOCK_SKEW_SECONDS:
            return Refusal.STALE
        signed = b"v0:" + timestamp + b":" + knock.body
        # Every secret is tried, so that the time taken does not say which one fits.
        fits = [hmac.compare_digest(signature, _mac(secret, signed)) for secret in self._secrets]
        return None if any(fits) else Refusal.BAD_SIGNATURE

    def _replayed(self, signature: bytes, *, now: float) -> Refusal | None:
        while self._seen:
            oldest, at = next(iter(self._seen.items()))
            if len(self._seen) < self._replays_kept and now - at <= 2 * CLOCK_SKEW_SECONDS:
                break
            del self._seen[oldest]
        if signature in self._seen:
            return Refusal.REPLAYED
        self._seen[signature] = now
        return None


def sign(secret: str, *, timestamp: int, body: bytes) -> str:
    """The signature header's value that Slack would send."""
    return _mac(secret.encode(), f"v0:{timestamp}:".encode() + body).decode()


def _mac(secret: bytes, signed: bytes) -> bytes:
    return b"v0=" + hmac.new(secret, signed, hashlib.sha256).hexdigest().encode()


def _header(knock: Knock, name: str) -> bytes:
    # Bytes: comparing text that is not ASCII raises.
    return knock.headers.get(name, "").encode("utf-8", "surrogateescape")


def _odd(knock: Knock) -> Refusal | None:
    """What keeps a signed body from being read, or None."""
    kind = knock.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in {_FORM, _JSON}:
        return Refusal.BAD_TYPE
    try:
        text = knock.body.decode("utf-8")
    except UnicodeDecodeError:
        return Refusal.BAD_ENCODING
    readable = _is_object(text) if kind == _JSON else _is_form(text)
    return None if readable else Refusal.BAD_BODY


def _is_form(text: str) -> bool:
    try:
        fields = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_FIELDS_MAX,
        )
    except ValueError:  # UnicodeDecodeError is one: %FF in a field
        return False
    names = [name for name, _ in fields]
    if len(names) != len(set(names)):
        return False
    content = dict(fields)
    if "payload" in content:
        return _is_object(content["payload"])
    return "command" in content or content.get("ssl_check") == "1"


def _is_object(text: str) -> bool:
    try:
        # NaN is no JSON, and a number of a million digits is no number.
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:
            # Half a surrogate pair is JSON, but no text that anybody can store or send.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _no_constant(name: str) -> object:
    raise ValueError(name)
