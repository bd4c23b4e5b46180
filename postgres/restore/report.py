"""What was found when a backup was looked at."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydantic import BaseModel, ConfigDict

WAL: Final = "wal"
FILES: Final = "files"
MANIFEST: Final = "manifest"
RESTORE: Final = "restore"
INTEGRITY: Final = "amcheck"
ROWS: Final = "row counts"
QUERIES: Final = "critical queries"
PAGES: Final = "page checksums"

_FINDINGS_MAX: Final = 5
_FINDING_CHARS_MAX: Final = 300

OnStep = Callable[[str], Awaitable[None]]


class Check(BaseModel):
    """One check: what it found, in one sentence or a few."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    ok: bool
    detail: str
    seconds: float


class VerificationReport(BaseModel):
    """All checks of one backup, in the order in which they were made.

    `restore_seconds` is from the first byte unpacked until the copy took connections; None: it
    never did. `target` is what it was recovered to, as people write it, and `reached_at` the
    last commit that the copy has. `wal_bytes` is the WAL that was replayed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backup_id: str
    ok: bool
    restore_seconds: float | None
    seconds: float
    data_bytes: int
    checks: tuple[Check, ...]
    target: str = "end"
    reached_at: datetime | None = None
    wal_bytes: int = 0

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, for people; empty for a good backup."""
        return tuple(f"{check.name}: {check.detail}" for check in self.checks if not check.ok)


@dataclass(slots=True)
class Record:
    """The checks so far, and whom to tell about the next."""

    on_step: OnStep | None
    checks: list[Check] = field(default_factory=list)

    async def step(self, text: str) -> float:
        """Tell what comes next; the moment at which it begins."""
        if self.on_step:
            await self.on_step(text)
        return time.monotonic()

    def add(self, name: str, began: float, findings: Sequence[str], fine: str) -> None:
        """Note a check: what it found wrong, or the sentence for a good one."""
        shown = [finding[:_FINDING_CHARS_MAX] for finding in findings[:_FINDINGS_MAX]]
        if len(findings) > _FINDINGS_MAX:
            shown.append(f"and {len(findings) - _FINDINGS_MAX} more")
        self.checks.append(
            Check(
                name=name,
                ok=not findings,
                detail="; ".join(shown) or fine,
                seconds=round(time.monotonic() - began, 3),
            )
        )
