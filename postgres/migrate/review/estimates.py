"""How long a statement should take, from the sizes of its tables. Pure.

The paces are those of research/migrations.md, section 4 (5 million rows, 1.29 GB and 0.5 GB of
indexes, PostgreSQL 15 on 4 cores, warm): a rehearsal on a copy knows better. There, the same
statement under load took 0.8 to 2 times what it took on a copy, a foreign key twice that, for
it fights with those who write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from postgres.migrate.review.effects import Touch
from postgres.migrate.words import Work

LOW_FACTOR: Final = 0.8
HIGH_FACTOR: Final = 2.0
FOREIGN_KEY_FACTOR: Final = 2.0
# A change of the catalog alone: 0.00 to 0.01 s each.
CATALOG_SECONDS: Final = 0.1
# Bytes of the table a second.
PACES: Final[Mapping[str, float]] = MappingProxyType(
    {
        "scan": 1.5e9,  # CHECK 0.51 to 0.81 s, SET NOT NULL 0.81 to 1.06 s
        "index": 0.5e9,  # 1.92 to 3.74 s
        "foreign key": 1.3e9,  # 0.51 to 1.67 s
        "rewrite": 45e6,  # 23.3 to 37.7 s
        "truncate": float("inf"),  # new empty files
        "analyze": float("inf"),  # a sample of 30,000 rows
    }
)
UPDATE_ROWS: Final = 55_000  # rows a second: 45,233 to 66,839 in one UPDATE, three indexes
ANALYZE_SECONDS: Final = 2.0


def seconds_of(touches: Iterable[Touch]) -> tuple[float, float] | None:
    """At least and at most, without waiting for locks; None where only a rehearsal tells."""
    low, high = 0.0, CATALOG_SECONDS
    for touch in touches:
        if touch.is_new or touch.work is Work.CATALOG:
            continue
        if touch.work is Work.UNKNOWN or touch.facts is None:
            return None
        if touch.changes_rows:
            if touch.facts.rows is None:
                return None
            high += HIGH_FACTOR * touch.facts.rows / UPDATE_ROWS
            continue
        pace = touch.pace or touch.work.value
        took = touch.facts.size_bytes / PACES[pace]
        extra = FOREIGN_KEY_FACTOR if pace == "foreign key" else 1.0
        low += LOW_FACTOR * took
        high += HIGH_FACTOR * extra * took + (ANALYZE_SECONDS if pace == "analyze" else 0.0)
    return round(low, 2), round(high, 2)
