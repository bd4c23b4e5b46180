"""Restore into place: what a plan says about it, and the run that carries it out.

`commands.restore` chooses the backup and the target and asks here for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from pydantic import JsonValue

from jobs.operation import Answer, Context, Job, JobError, Risk, UndoCall
from postgres.restore.target import RecoveryTarget

UNDO_WITHIN: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder:
    """What is to take the place of the running server: this backup, recovered to this target.

    `data_bytes` is the size of the data folder that comes out of it; `wal_bytes` of the WAL
    that is replayed on the way. `target` None: the end of the backup.
    """

    backup_id: str
    target: RecoveryTarget | None
    data_bytes: int
    wal_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacePart:
    """The pieces of a Plan that are about the place. The risk is `risk`, the undo `undo`."""

    steps: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    pins: Mapping[str, str]
    undo: str
    attributes: Mapping[str, str | int] = field(
        default_factory=lambda: MappingProxyType({"into": "place"})
    )
    risk: Risk = Risk.DESTRUCTIVE


async def plan_place(context: Context, order: PlaceOrder) -> PlacePart:
    """What a restore into place would do here.

    Raises:
        JobError: the server of this database cannot be replaced from here; it says why.
    """
    raise _unplaced(context)


async def place_pins(context: Context) -> Mapping[str, str]:
    """Today's values of `PlacePart.pins`, for `Operation.pins`."""
    raise _unplaced(context)


async def run_place(job: Job, order: PlaceOrder) -> Answer:
    """Recover a copy beside the server, and put it in its place. All steps of the run.

    Raises:
        JobError: it could not be done; it says what stands where.
    """
    raise _unplaced(job)


def undo_of_place(database: str, numbers: Mapping[str, JsonValue]) -> UndoCall | None:
    """What undoes a restore into place: for `Operation.undo`, from the answer's numbers."""
    if numbers.get("into") != "place":
        return None
    params: Mapping[str, JsonValue] = {"database": database, "request": numbers["request"]}
    return UndoCall(operation="restore-undo", params=params, within=UNDO_WITHIN)


def _unplaced(context: Context) -> JobError:
    return JobError(
        f"{context.database.name} has no place to restore into.",
        next_step="Restore it into a scratch server: --into scratch.",
    )
