"""Signatures of votes and requests, with a key that the store's writers do not have.

Whoever can write to the tables, but not sign, can stop requests and cannot grant one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from approvals.plans import canonical

KEY_BYTES_MIN: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """HMAC-SHA256 in lower-case hexadecimal, and which key made it."""

    key_id: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteKeys:
    """The key that signs, and the one before it, which is still believed after a rotation."""

    current: bytes = field(repr=False)
    previous: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for key in (self.current, self.previous):
            if key is not None and len(key) < KEY_BYTES_MIN:
                raise ValueError(f"a vote key has {KEY_BYTES_MIN} bytes at least")

    def sign(self, fields: Mapping[str, Any]) -> Signature:
        """Sign the canonical form of `fields` with the current key."""
        return Signature(key_id=key_id(self.current), value=_mac(self.current, fields))

    @property
    def current_id(self) -> str:
        """The name of the key that signs."""
        return key_id(self.current)

    def knows(self, name: str) -> bool:
        """Whether a key of this name is one of ours."""
        return any(key is not None and key_id(key) == name for key in (self.current, self.previous))

    def holds(self, fields: Mapping[str, Any], signature: Signature) -> bool:
        """Whether one of our keys signed exactly these fields."""
        for key in (self.current, self.previous):
            if key is not None and key_id(key) == signature.key_id:
                return hmac.compare_digest(_mac(key, fields), signature.value)
        return False


def key_id(key: bytes) -> str:
    """A name for a key that does not tell it."""
    return hashlib.sha256(b"twokey vote key id\n" + key).hexdigest()[:12]


def _mac(key: bytes, fields: Mapping[str, Any]) -> str:
    return hmac.new(key, canonical(fields).encode(), hashlib.sha256).hexdigest()
