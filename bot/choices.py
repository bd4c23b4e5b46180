"""What an entry of a card's menu carries: what to do with which request, and what was shown.

A button's value may have 2,000 characters, an entry of a menu 150: so the hashes that the
card showed are here as one digest. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from approvals.records import RequestRecord
from approvals.words import RefusedError, RequestId, Why
from bot.sealing import Sealer

CHARS_MAX: Final = 150  # Slack's limit for an option's value
_SEEN_CHARS: Final = 16


class Todo(StrEnum):
    """What can be done with a request besides deciding about it."""

    WITHDRAW = "withdraw"
    AGAIN = "ask_again"
    RETRY = "retry"
    PLAN_AGAIN = "plan_again"
    UNDO = "undo"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An entry of a menu, or a button, as it was drawn."""

    todo: Todo
    request_id: RequestId
    seen: str
    expires_at: datetime


def seen_of(record: RequestRecord) -> str:
    """A digest of where a request stands: its plan, its state, and what it was turned back for."""
    ending = record.detail.ending
    shown = [record.id, record.plan_hash, str(record.state), ending.text if ending else ""]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:_SEEN_CHARS]


class Choices:
    """Seals and opens choices. The first key seals; every key opens."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        # Of its own, so that a menu's entry is never taken for a button that decides.
        self._sealer = Sealer(keys, use=b"twokey choice v1", chars_max=CHARS_MAX)

    def close(self, choice: Choice) -> str:
        """The value of an entry."""
        fields = [
            str(choice.todo), choice.request_id, choice.seen, int(choice.expires_at.timestamp()),
        ]  # fmt: skip
        body = json.dumps(fields, separators=(",", ":")).encode()
        return self._sealer.close(body)

    def open(self, value: str, *, now: datetime) -> Choice:
        """What an entry was drawn for.

        Raises:
            RefusedError: we did not make it, or its time has run out.
        """
        body = self._sealer.open(value)
        if body is None:
            raise RefusedError(
                "This button was not made by Twokey, or its key has been retired.",
                next_step="Use the buttons of the request's own card; /db requests finds it.",
                why=Why.SIGNATURE,
            )
        todo, number, seen, expires = json.loads(body)
        choice = Choice(
            todo=Todo(todo),
            request_id=RequestId(number),
            seen=seen,
            expires_at=datetime.fromtimestamp(expires, UTC),
        )
        if now >= choice.expires_at:
            raise RefusedError(
                f"The time for this has run out at request {number}.",
                next_step=f"/db show {number} says what can still be done.",
                why=Why.EXPIRED,
            )
        return choice
