"""What a button carries, sealed: anybody may read it, only we can have made it. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence


class Sealer:
    """Seals and opens texts for one use. The first key seals; every key opens."""

    def __init__(self, keys: Sequence[bytes], *, use: bytes, chars_max: int) -> None:
        """`use` is mixed into the keys, so that what is sealed for one is nothing for another."""
        if not keys:
            raise ValueError("a seal needs a key")
        self._keys = [hmac.new(key, use, hashlib.sha256).digest() for key in keys]
        self._chars_max = chars_max

    def close(self, body: bytes) -> str:
        """`body` with its seal.

        Raises:
            ValueError: it is longer than the place where it is to stand.
        """
        value = f"{_text(body)}.{_text(_mac(self._keys[0], body))}"
        if len(value) > self._chars_max:
            raise ValueError(f"{len(value)} characters where {self._chars_max} may stand")
        return value

    def open(self, value: str) -> bytes | None:
        """What was sealed; None for what we did not seal, or with a key that is retired."""
        if len(value) > self._chars_max or value.count(".") != 1:
            return None
        try:
            body, mac = (_bytes(part) for part in value.split("."))
        except (ValueError, binascii.Error):
            return None
        fits = [hmac.compare_digest(mac, _mac(key, body)) for key in self._keys]
        return body if any(fits) else None


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).digest()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    raw = base64.b64decode(
        text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
    )
    if _text(raw) != text:  # one value, one spelling
        raise ValueError(text)
    return raw
