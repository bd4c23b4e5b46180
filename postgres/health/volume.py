"""How full the disk is: as `df` counts it where we can see it, else by what was bought."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

_LOOK_SECONDS_MAX: Final = 3.0


class Place(Protocol):
    """Where the data lies. `path`: as this process sees it; `total_bytes`: as it was bought."""

    @property
    def path(self) -> Path | None:
        """The data folder, or any other of its volume."""
        ...

    @property
    def wal_path(self) -> Path | None:
        """The WAL's folder, where it stands on a volume of its own."""
        ...

    @property
    def total_bytes(self) -> int | None:
        """The size of the volume."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """A volume. `source` says how it is known: path, wal_path, configured or unknown.

    `total` may be more than `used` and `free`: file systems keep a reserve for root, which is
    why `pct` is used/(used + free), as df has it.
    """

    source: str
    total: int | None = None
    used: int | None = None
    free: int | None = None

    @property
    def pct(self) -> float | None:
        """How full it is, or None."""
        if self.used is None or self.free is None or self.used + self.free <= 0:
            return None
        return min(100.0 * self.used / (self.used + self.free), 100.0)

    def told(self) -> Mapping[str, Any]:
        """As `detail` has it."""
        return {
            "source": self.source, "total": self.total, "used": self.used, "free": self.free,
            "pct": self.pct,
        }  # fmt: skip


UNKNOWN: Final = Usage(source="unknown")


class Volumes:
    """Looks at the volumes of one node.

    A file system over a network may hang. Then its one look is waited for with a limit, and no
    other is begun until that one returns.
    """

    def __init__(self, place: Place | None) -> None:
        self._place = place
        self._looks: dict[Path, Future[os.statvfs_result]] = {}

    async def usage(self, *, known_bytes: int | None) -> tuple[Usage, str]:
        """The fuller of the data's volume and the WAL's, and a note when less is known than asked.

        `known_bytes`: what SQL can see on the disk (databases and WAL), or None.
        """
        if self._place is None:
            return UNKNOWN, ""
        looked = [
            await self._look(source, path)
            for source, path in (("path", self._place.path), ("wal_path", self._place.wal_path))
            if path is not None
        ]
        seen = [each for each in looked if isinstance(each, Usage)]
        note = " ".join(each for each in looked if isinstance(each, str))
        if not any(each.source == "path" for each in seen):
            seen.insert(0, _of_what_was_bought(self._place.total_bytes, known_bytes))
        return max(seen, key=lambda each: each.pct or 0.0), note

    async def _look(self, source: str, path: Path) -> Usage | str:
        if path not in self._looks:
            self._looks[path] = _statvfs(path)
        look = self._looks[path]
        try:
            async with asyncio.timeout(_LOOK_SECONDS_MAX):
                found = await asyncio.shield(asyncio.wrap_future(look))
        except (OSError, TimeoutError) as error:
            said = getattr(error, "strerror", None) or "no answer in time"
            return f"The volume of {path} cannot be looked at: {said}."
        finally:
            if look.done():
                self._looks.pop(path, None)
        return as_df_counts(source, found)


def _statvfs(path: Path) -> Future[os.statvfs_result]:
    """In a thread that keeps no process alive, however long it hangs."""
    future: Future[os.statvfs_result] = Future()

    def look() -> None:
        try:
            future.set_result(os.statvfs(path))
        except OSError as error:
            future.set_exception(error)

    threading.Thread(target=look, daemon=True, name="statvfs").start()
    return future


def _of_what_was_bought(total: int | None, known: int | None) -> Usage:
    if total is None or known is None:
        return UNKNOWN
    return Usage(source="configured", total=total, used=known, free=max(total - known, 0))


def as_df_counts(source: str, found: os.statvfs_result) -> Usage:
    """What `df` shows for the same numbers."""
    unit = found.f_frsize
    return Usage(
        source=source,
        total=found.f_blocks * unit,
        used=(found.f_blocks - found.f_bfree) * unit,
        free=found.f_bavail * unit,
    )
