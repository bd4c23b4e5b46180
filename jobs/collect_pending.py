"""What a collector has and the store has not yet: looks, and what statements took. Pure values.

Bounded: while the store is away, looks wait for `store.samples.LATE_MAX` and no longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from postgres.health.statement_deltas import StatementDelta
from store.samples import LATE_MAX, NodeRow
from store.sizes import Size
from store.statements import StatementSum, StatementText

LOOKS_MAX: Final = 64
# Of one node within an hour; beyond it the lightest go.
STATEMENTS_MAX: Final = 2_000
STATEMENTS_LEFT: Final = 1_000
TEXTS_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class HourSums:
    """What statements of a node took in an hour, as far as it is not stored yet."""

    node: str
    hour: datetime
    sums: tuple[StatementSum, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at all nodes of a database.

    What goes with it is stored with the row of its node, or never: that is how nothing is added
    twice. `sizes` are the node's `sizes_of`.
    """

    at: datetime
    rows: tuple[NodeRow, ...]
    sizes_of: str = ""
    sizes: Mapping[str, Size] = field(default_factory=dict)
    hours: tuple[HourSums, ...] = ()
    texts: tuple[StatementText, ...] = ()


class Waiting:
    """Looks that are not stored yet, oldest first."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque(maxlen=LOOKS_MAX)

    @property
    def looks(self) -> Sequence[Look]:
        """All of them."""
        return tuple(self._looks)

    def add(self, look: Look) -> None:
        """Keep another; what is too old to be stored goes, and so does detail that was replaced."""
        answered = {row.node for row in look.rows if row.ok}
        for at, older in enumerate(self._looks):
            rows = tuple(
                replace(row, detail={}) if row.node in answered else row for row in older.rows
            )
            self._looks[at] = replace(older, rows=rows)
        self._looks.append(look)
        while look.at - self._looks[0].at > LATE_MAX:
            self._looks.popleft()

    def clear(self) -> None:
        """They are stored."""
        self._looks.clear()


class Tally:
    """Adds up what statements took, by node and hour, until it is taken to the store."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, datetime], dict[int, StatementSum]] = {}
        self._texts: dict[int, StatementText] = {}

    def add(self, node: str, at: datetime, deltas: Iterable[StatementDelta]) -> None:
        """Count what happened until `at`."""
        hour = at.replace(minute=0, second=0, microsecond=0)
        sums = self._sums.setdefault((node, hour), {})
        for delta in deltas:
            sums[delta.queryid] = _added(sums.get(delta.queryid), delta)
            if delta.text is not None and len(self._texts) < TEXTS_MAX:
                self._texts[delta.queryid] = StatementText(
                    queryid=delta.queryid, text=delta.text, is_utility=bool(delta.is_utility)
                )
        if len(sums) > STATEMENTS_MAX:
            heaviest = sorted(sums.values(), key=lambda each: each.total_ms, reverse=True)
            self._sums[node, hour] = {each.queryid: each for each in heaviest[:STATEMENTS_LEFT]}

    def take(self) -> tuple[tuple[HourSums, ...], tuple[StatementText, ...]]:
        """All of it; counting begins anew."""
        hours = tuple(
            HourSums(node=node, hour=hour, sums=tuple(sums.values()))
            for (node, hour), sums in self._sums.items()
            if sums
        )
        texts = tuple(self._texts.values())
        self.clear()
        return hours, texts

    def clear(self) -> None:
        """Forget it: somebody else has counted the same."""
        self._sums.clear()
        self._texts.clear()


def _added(known: StatementSum | None, delta: StatementDelta) -> StatementSum:
    if known is None:
        known = StatementSum(
            queryid=delta.queryid, calls=0, total_ms=0.0, square_ms=0.0, max_ms=0.0, rows=0,
            blocks_hit=0, blocks_read=0, temp_blocks=0, wal_bytes=0,
        )  # fmt: skip
    return StatementSum(
        queryid=known.queryid,
        calls=known.calls + delta.calls,
        total_ms=known.total_ms + delta.total_ms,
        square_ms=known.square_ms + delta.square_ms,
        max_ms=max(known.max_ms, delta.max_ms),
        rows=known.rows + delta.rows,
        blocks_hit=known.blocks_hit + delta.blocks_hit,
        blocks_read=known.blocks_read + delta.blocks_read,
        temp_blocks=known.temp_blocks + delta.temp_blocks,
        wal_bytes=known.wal_bytes + delta.wal_bytes,
    )
