"""What went over the wire, for the page's log and for tests."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

ENTRIES_MAX: Final = 2000
BODY_CHARS_MAX: Final = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request or envelope and its answer. `retry` counts redeliveries from 0."""

    n: int
    at: float
    direction: str  # to_app | from_app
    transport: str  # http | socket
    kind: str  # the API method, or what was delivered
    status: int  # the HTTP status; 0 when there was no answer
    ms: float
    retry: int = 0
    summary: str = ""
    body: str = ""


class Wire:
    """The newest entries; older ones are forgotten."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=ENTRIES_MAX)
        self._n = 0

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    def record(self, *, body: object = "", ms: float, **fields: Any) -> Entry:
        """Append an entry; the body is kept as a preview."""
        self._n += 1
        entry = Entry(n=self._n, body=preview(body), ms=round(ms, 1), **fields)
        self._entries.append(entry)
        return entry

    def of(self, kind: str) -> list[Entry]:
        """All entries of a kind, such as `chat.postMessage` or `slash_commands`."""
        return [entry for entry in self._entries if entry.kind == kind]

    def after(self, n: int) -> list[dict[str, Any]]:
        """The entries that came after number `n`, as JSON."""
        return [asdict(entry) for entry in self._entries if entry.n > n]


def preview(body: object) -> str:
    """The beginning of a body, as text."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, default=str)
    return text if len(text) <= BODY_CHARS_MAX else text[:BODY_CHARS_MAX] + "…"
