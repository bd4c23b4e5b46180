"""How long a restore will take, by how long the last ones took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import sqlalchemy as sa

from store.connect import Store
from store.quick import Statement

SAMPLES_MAX: Final = 20

# Verifications of before sizes were stored restored the whole backup, and no more.
SAMPLES: Final = Statement(
    sa.text("""
        SELECT v.restore_seconds                             AS seconds,
               coalesce(nullif(v.data_bytes, 0), b.data_bytes) AS data_bytes,
               v.wal_bytes                                   AS wal_bytes
          FROM verifications v
          JOIN backups b ON b.id = v.backup_id
         WHERE b.database = :database
           AND v.restore_seconds > 0
           AND v.ok
         ORDER BY v.at DESC
         LIMIT :samples
    """)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A restore that was made: how long it took until it took connections, and of how much."""

    seconds: float
    data_bytes: int
    wal_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How long a restore should take, by so many that were made."""

    seconds: float
    samples: int


async def samples_of(store: Store, database: str) -> Sequence[Sample]:
    """The newest restores of a database that were found good, newest first."""
    rows = await store.rows(SAMPLES, {"database": database, "samples": SAMPLES_MAX})
    return [Sample(**row) for row in rows]


def estimate(samples: Sequence[Sample], *, data_bytes: int, wal_bytes: int = 0) -> Estimate | None:
    """As fast as the middle one of the samples, for so many bytes. Pure. None: nothing to go by.

    A byte of WAL counts as one of data: what replays faster or slower than that is in the
    samples too, once restores to a moment are among them.
    """
    paces = [
        sample.seconds / size
        for sample in samples
        if (size := sample.data_bytes + sample.wal_bytes) > 0
    ]
    if not paces:
        return None
    return Estimate(seconds=median(paces) * (data_bytes + wal_bytes), samples=len(paces))
