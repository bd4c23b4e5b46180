"""The ways out of a process that are watched for secrets: logs, tracebacks, Slack.

`store.redact` knows what a secret looks like; here is what this process was given, and where
the watching is put.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

from bot.blocks import Message
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from store.redact import MARK, holds_secret, redact, redact_json, redact_shown, remember

__all__ = [
    "MARK", "RedactingFormatter", "holds_secret", "redact", "redact_json",
    "redact_shown", "remember_secrets", "shown", "told_traceback", "watch_logs",
]  # fmt: skip

_DSN: Final = ("postgresql://", "postgres://")
_PASSWORDS: Final = ("password", "sslpassword")


def remember_secrets(secrets: Iterable[SecretStr | None]) -> None:
    """Take these out of every text from now on; of a DSN its passwords."""
    for secret in secrets:
        if secret is not None:
            remember(_parts(secret.get_secret_value()))


def _parts(text: str) -> set[str]:
    """What is secret of a text: of a DSN the passwords, as written and as meant."""
    if not text.startswith(_DSN):
        return {text}
    found: set[str] = set()
    try:
        parts = urlsplit(text)
        written = parts.netloc.rpartition("@")[0].partition(":")[2]
        found = {written, *(value for name, value in parse_qsl(parts.query) if name in _PASSWORDS)}
        found.add(parse_dsn(text).words.get("password", ""))
    except (ValueError, PostgresError):
        return found
    return found


class RedactingFormatter(logging.Formatter):
    """What another formatter says, its exceptions included, without secrets."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The line or lines of a record."""
        return redact(self._inner.format(record))


def watch_logs() -> None:
    """Take secrets out of everything that is logged from now on, also where nothing is set up."""
    last_resort = [logging.lastResort] if logging.lastResort else []
    for handler in (*logging.getLogger().handlers, *last_resort):
        if not isinstance(handler.formatter, RedactingFormatter):
            handler.setFormatter(RedactingFormatter(handler.formatter or logging.Formatter()))


def told_traceback(error: BaseException) -> str:
    """A traceback for the operator: without local variables, and without secrets."""
    return redact("".join(traceback.format_exception(error)))


def shown(message: Message) -> Message:
    """A message without secrets; what we issue to its reader stays."""
    text = redact_shown(message.text)
    blocks = redact_json(message.blocks, by=redact_shown)
    if text == message.text and blocks is message.blocks:
        return message
    return replace(message, text=text, blocks=blocks)
