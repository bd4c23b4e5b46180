"""How large the next batch is, and how fast it goes. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from postgres.migrate.backfill.spec import BackfillLimits

# One slow batch, by a checkpoint or a neighbour, must not undo what twenty have taught.
_SHRINK_MAX: Final = 0.5
_GROWTH_MAX: Final = 1.5
_GROWTH_DAMPING: Final = 0.5
_MEMORY_SECONDS: Final = 10.0


def next_rows(rows: int, seconds: float, limits: BackfillLimits) -> int:
    """How many rows the next batch has, after one of `rows` that took `seconds`.

    In proportion to how far it was from `limits.batch`, half-way upwards, at most half or one
    and a quarter times as many, and never outside `rows_min` and `rows_max`.
    """
    factor = limits.batch.total_seconds() / max(seconds, 1e-6)
    if factor > 1:
        factor = 1 + (min(factor, _GROWTH_MAX) - 1) * _GROWTH_DAMPING
    return _clamped(math.floor(rows * max(factor, _SHRINK_MAX)), limits)


def fewer_rows(rows: int, limits: BackfillLimits) -> int:
    """How many after one that could not be done: half."""
    return _clamped(rows // 2, limits)


def first_rows(limits: BackfillLimits, known: int | None) -> int:
    """How many the first batch has; `known`: what an earlier life had found to be right."""
    return _clamped(known or limits.rows, limits)


def retry_seconds(attempt: int, worker: int) -> float:
    """How long to wait before the `attempt`-th new try; workers come back one after another."""
    return float(min(10.0, 0.2 * 2**attempt) * (1 + 0.25 * (worker % 4)))


def _clamped(rows: int, limits: BackfillLimits) -> int:
    return max(limits.rows_min, min(limits.rows_max, rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Rows a second, as an average that forgets within some ten seconds."""

    rows: int = 0
    at: float = 0.0
    seconds: float = 0.0
    per_second: float | None = None

    def look(self, rows: int, at: float) -> Speed:
        """With another look: `rows` in all by the time `at` (s), which stands still in a pause."""
        seconds = at - self.at
        if seconds <= 0:
            return self
        now = max(rows - self.rows, 0) / seconds
        known = self.seconds + seconds
        # Until there is enough to forget, all looks count alike.
        share = max(1 - math.exp(-seconds / _MEMORY_SECONDS), seconds / known)
        before = self.per_second or 0.0
        return replace(
            self, rows=rows, at=at, seconds=known, per_second=before + share * (now - before)
        )

    def seconds_left(self, rows: int) -> float | None:
        """How long `rows` more take; None where nobody can tell yet."""
        return rows / self.per_second if self.per_second else None
