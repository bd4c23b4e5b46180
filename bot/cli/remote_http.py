"""One call of Twokey's HTTP API from a terminal: no redirects, no retries but safe ones."""

from __future__ import annotations

import http.client
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from pydantic import SecretStr

from approvals.words import BadInputError

SECONDS_MAX: Final = 15.0
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
_TRIES: Final = 3
_TOKEN_BYTES_MAX: Final = 4096
_OPEN_TO_OTHERS: Final = 0o077
_GET_ONE: Final = "Make one with /db token in Slack; set TWOKEY_TOKEN or use --token-file."


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the API answered."""

    status: int
    body: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether it was done, or done before."""
        return self.status < 400  # noqa: PLR2004 - where HTTP's refusals begin

    @property
    def is_refusal(self) -> bool:
        """Whether the rules said no, rather than that the call was wrong or not heard."""
        return not self.ok and ("ok" in self.body or self.status in (403, 409))


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A Twokey somewhere, and who we are to it."""

    url: str
    token: SecretStr

    def get(self, path: str, **query: str) -> Said:
        """Look at something.

        Raises:
            BadInputError: it cannot be reached, or does not answer like Twokey.
        """
        asked = urlencode({name: value for name, value in query.items() if value})
        return self._call("GET", f"{path}?{asked}" if asked else path, None, "")

    def post(self, path: str, body: Mapping[str, Any], *, key: str) -> Said:
        """Do something once: it is sent again when it is not certain that it was heard.

        Raises:
            BadInputError: as `get`.
        """
        return self._call("POST", path, body, key)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None, key: str) -> Said:
        headers = {
            "Authorization": f"Bearer {self.token.get_secret_value()}",
            "Accept": "application/json",
            "Twokey-Door": "cli",
        }
        if body is not None:
            headers |= {"Content-Type": "application/json", "Idempotency-Key": key}
        raw = None if body is None else json.dumps(body).encode()
        problem = ""
        for _ in range(_TRIES):
            try:
                return self._once(method, path, raw, headers)
            except (OSError, http.client.HTTPException) as error:
                # The same key makes the second try the same call.
                problem = str(error) or type(error).__name__
        raise BadInputError(
            f"{self.url} cannot be reached: {problem}.",
            next_step="Check TWOKEY_URL, and that Twokey runs; twokey requests says what stands.",
        )

    def _once(self, method: str, path: str, raw: bytes | None, headers: Mapping[str, str]) -> Said:
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        conn = kind(parts.hostname or "", parts.port, timeout=SECONDS_MAX)
        try:
            conn.request(method, f"{parts.path.rstrip('/')}{path}", body=raw, headers=dict(headers))
            answer = conn.getresponse()
            text = answer.read(ANSWER_BYTES_MAX + 1)
            return Said(status=answer.status, body=self._body(answer.status, text))
        finally:
            conn.close()

    def _body(self, status: int, text: bytes) -> Mapping[str, Any]:
        try:
            body = json.loads(text) if len(text) <= ANSWER_BYTES_MAX else None
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise BadInputError(
                f"{self.url} does not answer like Twokey (status {status}).",
                next_step="Check TWOKEY_URL: it is Twokey's own address, without a path.",
            )
        return body


def is_overheard(url: str) -> bool:
    """Whether a token would travel to another machine in the clear."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return False
    try:
        return not ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return True


def token_of(setting: SecretStr | None, file: Path | None) -> SecretStr:
    """The token of whoever types.

    Raises:
        BadInputError: there is none, or its file is open to others.
    """
    if file is None:
        if setting is None:
            raise BadInputError("There is no token that says who you are.", next_step=_GET_ONE)
        return _plain(setting.get_secret_value())
    try:
        mode = file.stat().st_mode
        with file.open("rb") as opened:
            raw = opened.read(_TOKEN_BYTES_MAX)
    except OSError as error:
        raise BadInputError(
            f"{file} cannot be read: {error.strerror}.", next_step=_GET_ONE
        ) from None
    if mode & _OPEN_TO_OTHERS:
        raise BadInputError(
            f"{file} can be read by others, and whoever has a token acts as you.",
            next_step=f"chmod 600 {file}, then make a new token: /db token in Slack.",
        )
    return _plain(raw.decode("utf-8", "replace"))


def _plain(text: str) -> SecretStr:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise BadInputError("What is set as the token is none.", next_step=_GET_ONE)
    return SecretStr(token)
