"""The pace of a backfill as a trial on a restored copy found it, and what a plan makes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import JsonValue, TypeAdapter, ValidationError

from postgres.migrate.backfill.estimate import Estimate, is_measured
from postgres.migrate.backfill.trial import Trial
from store.rehearsals import RehearsalRow

CATALOG: Final = "by the catalog"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A trial of a statement, on a copy of a backup that has all up to `reached_at`."""

    trial: Trial
    backup_id: str
    reached_at: datetime
    data_bytes: int

    @property
    def source(self) -> str:
        """What a time goes by, for people."""
        return f"measured on a restored copy of {self.reached_at:%Y-%m-%d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How long the work should take, in seconds and without what it waits for; and by what.

    `note`: why it goes by the catalog although something was measured once.
    """

    low_seconds: float
    likely_seconds: float
    high_seconds: float
    source: str
    note: str = ""

    @property
    def is_measured(self) -> bool:
        """Whether a trial says so."""
        return self.source != CATALOG

    def of(self, share: float) -> Expected:
        """The same for a part of the rows."""
        return Expected(
            low_seconds=self.low_seconds * share,
            likely_seconds=self.likely_seconds * share,
            high_seconds=self.high_seconds * share,
            source=self.source,
            note=self.note,
        )


_DETAIL: Final = TypeAdapter(Tried)


def subject_of(statement: str, ranges: int, *, keeps: bool) -> str:
    """What is tried, as a hash: a batch's statement, how many side by side, and what is kept."""
    parts = ["backfill", statement, ranges, keeps]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def row_of(
    tried: Tried, *, database: str, subject: str, at: datetime, request_id: int | None
) -> RehearsalRow:
    """As the store keeps it."""
    detail: dict[str, JsonValue] = _DETAIL.dump_python(tried, mode="json")
    return RehearsalRow(
        database=database,
        subject=subject,
        at=at,
        ok=True,
        backup_id=tried.backup_id,
        seconds=tried.trial.seconds,
        data_bytes=tried.data_bytes,
        request_id=request_id,
        detail=detail,
    )


def from_row(detail: Mapping[str, JsonValue]) -> Tried | None:
    """What `row_of` wrote; None: another version of us did, in a way that cannot be read."""
    try:
        return _DETAIL.validate_python(dict(detail))
    except ValidationError:
        return None


def usable(row: RehearsalRow | None, *, now: datetime, age: timedelta) -> tuple[Tried | None, str]:
    """The trial to go by, or why there is none to go by ('': none was made). Pure."""
    if row is None:
        return None, ""
    if now - row.at > age:
        return None, f"the trial of {row.at:%Y-%m-%d} is too old"
    tried = from_row(row.detail)
    if tried is None or not is_measured(tried.trial):
        return None, f"the trial of {row.at:%Y-%m-%d} says nothing"
    return tried, ""


def expected_of(estimate: Estimate, tried: Tried | None, note: str) -> Expected:
    """An estimate and what it goes by. Pure."""
    by_trial = tried is not None and estimate.is_measured
    return Expected(
        low_seconds=estimate.low_seconds,
        likely_seconds=estimate.likely_seconds,
        high_seconds=estimate.high_seconds,
        source=tried.source if tried is not None and by_trial else CATALOG,
        note=note,
    )
