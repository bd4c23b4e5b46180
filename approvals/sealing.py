"""Secrets that we must be able to read again, encrypted before they are stored.

AES-256-GCM under a key that is derived from the vote key for one purpose alone, so that
what was sealed for one purpose opens for no other. The store's writers have no key.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from approvals.signing import VoteKeys, key_id
from approvals.words import ExplainedError

_VERSION: Final = "v1"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
SEALED_CHARS_MAX: Final = 100_000


class SealedError(ExplainedError):
    """A sealed text cannot be opened. What it says names neither the text nor a key."""


class SecretBox:
    """Seals with the current vote key, and opens what it or the key before it has sealed.

    `purpose` is part of the key: name what the secret is and whose, such as
    `totp/T0123/U0456`. A text moved to another person's row then does not open.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: VoteKeys) -> None:
        self._keys = keys

    def seal(self, text: SecretStr, *, purpose: str) -> str:
        """The text, encrypted; another one each time."""
        head = f"{_VERSION}.{key_id(self._keys.current)}"
        nonce = secrets.token_bytes(_NONCE_BYTES)
        plain = text.get_secret_value().encode()
        body = nonce + _cipher(self._keys.current, purpose).encrypt(nonce, plain, head.encode())
        return f"{head}.{_text(body)}"

    def open(self, text: str, *, purpose: str) -> SecretStr:
        """What was sealed for this purpose.

        Raises:
            SealedError: it was sealed with a key that we do not have (any more), for another
                purpose, or was changed since.
        """
        version, _, rest = text.partition(".")
        name, _, sealed = rest.partition(".")
        body = _bytes(sealed)
        if version != _VERSION or body is None or len(text) > SEALED_CHARS_MAX:
            raise _broken()
        for key in (self._keys.current, self._keys.previous):
            if key is not None and key_id(key) == name:
                head = f"{version}.{name}".encode()
                return _opened(_cipher(key, purpose), body, head)
        raise SealedError(
            "A stored secret was encrypted with a vote key that this process does not have.",
            next_step="Set TWOKEY_VOTE_KEY_PREVIOUS to the vote key before, or the secret anew.",
        )

    def knows(self, text: str) -> bool:
        """Whether it was sealed with a key that we have."""
        keys = [key for key in (self._keys.current, self._keys.previous) if key is not None]
        return any(text.startswith(f"{_VERSION}.{key_id(key)}.") for key in keys)

    def is_current(self, text: str) -> bool:
        """Whether it was sealed with the current key; if not, seal it anew at the next chance."""
        return text.startswith(f"{_VERSION}.{key_id(self._keys.current)}.")


def _cipher(key: bytes, purpose: str) -> AESGCM:
    info = f"twokey sealed {_VERSION}\n{purpose}".encode()
    return AESGCM(HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(key))


def _opened(cipher: AESGCM, body: bytes, head: bytes) -> SecretStr:
    try:
        plain = cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], head)
    except InvalidTag:
        raise _broken() from None
    return SecretStr(plain.decode())


def _broken() -> SealedError:
    return SealedError(
        "A stored secret cannot be opened: it was changed, or sealed for something else.",
        next_step="Set the secret anew, and ask who can write to the store.",
    )


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes | None:
    """The bytes, or None where the text is not the one spelling that we write."""
    try:
        raw = base64.b64decode(
            text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
        )
    except (ValueError, binascii.Error):
        return None
    is_ours = _text(raw) == text and len(raw) >= _NONCE_BYTES + _TAG_BYTES
    return raw if is_ours else None
