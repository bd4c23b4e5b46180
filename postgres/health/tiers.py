"""What is due to be collected, and what was collected earlier and still holds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

SIZES_EVERY: Final = timedelta(minutes=15)
CATALOG_EVERY: Final = timedelta(hours=6)
# What failed is tried again sooner, but not with every look: it may have taken its whole limit.
AGAIN_AFTER: Final = timedelta(minutes=2)
# Older than so many times its cadence, a value is not shown as of now.
_STALE_AFTER: Final = 3

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Which tiers to collect beside the usual one (counters, connections, statements).

    `sizes`: tables, databases, WAL. `catalog`: settings, invalid indexes.
    """

    sizes: bool = False
    catalog: bool = False


EVERYTHING: Final = Due(sizes=True, catalog=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept(Generic[_T]):
    """What a tier found last: `value` of `at`, tried last at `tried_at`."""

    value: _T | None = None
    at: datetime | None = None
    tried_at: datetime | None = None

    def is_due(self, now: datetime, every: timedelta) -> bool:
        """Whether to collect it again."""
        if self.tried_at is None:
            return True
        failed = self.at != self.tried_at
        return now - self.tried_at >= (min(AGAIN_AFTER, every) if failed else every)

    def after(self, now: datetime, value: _T | None) -> Kept[_T]:
        """After another try, which found `value`, or None when it failed."""
        if value is None:
            return Kept(value=self.value, at=self.at, tried_at=now)
        return Kept(value=value, at=now, tried_at=now)

    def current(self, now: datetime, every: timedelta) -> _T | None:
        """What still holds, or None."""
        if self.at is None or now - self.at > _STALE_AFTER * every:
            return None
        return self.value
