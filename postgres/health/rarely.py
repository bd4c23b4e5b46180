"""What is collected rarely, and shown with each look until it is old."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from postgres.health.tables import (
    Catalog,
    TableSize,
    database_sizes,
    largest_tables,
    read_catalog,
    wal_bytes,
)
from postgres.health.tiers import CATALOG_EVERY, SIZES_EVERY, Kept

# Where measuring takes long (a file for each table), it is done less often.
_SLOW_SECONDS: Final = 0.25
_SLOW_TIMES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large something is; `what`: database, wal, volume, volume_total, `table <name>`."""

    what: str
    bytes: int
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of one look. `is_whole`: no database is missing from the sum."""

    tables: Sequence[TableSize]
    databases: Sequence[tuple[str, int]]
    wal: int | None
    note: str
    is_whole: bool

    @property
    def total(self) -> int | None:
        """All databases together, or None when one is missing: a gap would look like a purge."""
        return sum(size for _, size in self.databases) if self.is_whole else None

    def sizes(self) -> tuple[Size, ...]:
        """For the store's history."""
        found = [
            Size(what=f"table {table.name}", bytes=table.bytes, rows=table.rows)
            for table in self.tables
        ]
        if self.total is not None:
            found.insert(0, Size(what="database", bytes=self.total))
        if self.wal is not None:
            found.append(Size(what="wal", bytes=self.wal))
        return tuple(found)


class SizeWatch:
    """Tables, databases and WAL, every quarter of an hour; less often where it takes long."""

    def __init__(self) -> None:
        self._kept: Kept[Sizes] = Kept()
        self._every: timedelta = SIZES_EVERY

    def is_due(self, now: datetime) -> bool:
        """Whether to measure again."""
        return self._kept.is_due(now, self._every)

    async def read(self, conn: Any) -> Sizes:
        """Measure.

        Raises:
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError: it failed.
        """
        began = time.perf_counter()
        tables, tables_note = await largest_tables(conn)
        databases, databases_note = await database_sizes(conn)
        wal = await wal_bytes(conn)
        is_slow = time.perf_counter() - began > _SLOW_SECONDS
        self._every = _SLOW_TIMES * SIZES_EVERY if is_slow else SIZES_EVERY
        return Sizes(
            tables=tables,
            databases=databases,
            wal=wal,
            note=" ".join(filter(None, (tables_note, databases_note))),
            is_whole=not databases_note,
        )

    def remember(self, now: datetime, found: Sizes | None) -> None:
        """What was measured now, None when it failed."""
        self._kept = self._kept.after(now, found)

    @property
    def known_bytes(self) -> int | None:
        """What SQL sees on the disk, or None."""
        sizes = self._kept.value
        if sizes is None or sizes.total is None:
            return None
        return sizes.total + (sizes.wal or 0)

    def note(self, now: datetime) -> str:
        """What could not be measured."""
        current = self._kept.current(now, self._every)
        return current.note if current else ""

    def told(self, now: datetime) -> tuple[Mapping[str, float | None], Mapping[str, Any]]:
        """Numbers and detail, as long as they hold."""
        sizes = self._kept.current(now, self._every)
        if sizes is None:
            return {"database_bytes": None}, {"tables": [], "databases": [], "sizes_at": None}
        total = sizes.total
        return {"database_bytes": None if total is None else float(total)}, {
            "tables": [table.told() for table in sizes.tables],
            "databases": [{"name": name, "bytes": size} for name, size in sizes.databases],
            "sizes_at": self._kept.at.isoformat() if self._kept.at else None,
        }


class CatalogWatch:
    """Settings and invalid indexes, a few times a day."""

    def __init__(self) -> None:
        self._kept: Kept[Catalog] = Kept()

    def is_due(self, now: datetime) -> bool:
        """Whether to look again."""
        return self._kept.is_due(now, CATALOG_EVERY)

    async def read(self, conn: Any) -> Catalog:
        """Look.

        Raises:
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError: it failed.
        """
        return await read_catalog(conn)

    def remember(self, now: datetime, found: Catalog | None) -> None:
        """What was seen now, None when it failed."""
        self._kept = self._kept.after(now, found)

    def note(self, now: datetime) -> str:  # noqa: ARG002 (as SizeWatch has it)
        """Nothing is ever left out."""
        return ""

    def told(self, now: datetime) -> tuple[Mapping[str, float | None], Mapping[str, Any]]:
        """Numbers and detail, as long as they hold."""
        catalog = self._kept.current(now, CATALOG_EVERY)
        if catalog is None:
            numbers = {"invalid_indexes": None, "pending_restart": None}
            return numbers, {"settings": {}, "invalid_indexes": []}
        return {
            "invalid_indexes": float(len(catalog.invalid_indexes)),
            "pending_restart": float(catalog.pending_restart),
        }, {
            "settings": dict(catalog.settings),
            "invalid_indexes": list(catalog.invalid_indexes),
        }
