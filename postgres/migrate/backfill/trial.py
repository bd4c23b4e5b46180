"""A backfill tried on a copy that is thrown away: by the engine itself, and for good.

Batches that are rolled back cost more than those of a backfill: each begins on pages that nobody
has touched since the checkpoint, which the WAL then gets whole, while a backfill touches a page of
an index once for all the rows that it has there. So the trial commits, with VACUUM beside it, in
slices spread over the table, until all are done or its time is up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import asyncpg

from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate.backfill.engine import run_backfill
from postgres.migrate.backfill.key import ALIAS, Table, read_table
from postgres.migrate.backfill.ledger import ensure_ledger, forget, open_backfill
from postgres.migrate.backfill.parts import assigned_columns
from postgres.migrate.backfill.prepare import estimated_rows, quiet_session
from postgres.migrate.backfill.ranges import Piece, cuts_of, last_key, pieces_of
from postgres.migrate.backfill.signals import LOST
from postgres.migrate.backfill.spec import BackfillLimits, BackfillSpec, BatchDone

# What marks a server whose contents nobody keeps; whoever makes one sets it in its configuration.
DISPOSABLE: Final = "twokey.disposable"
TRIAL_LIMIT: Final = timedelta(minutes=2)
_SLICES_MAX: Final = 256
_SLICE_ROWS: Final = 50_000  # some ten batches: what is left over at its end weighs little
_KEY: Final = "twokey-trial"

_IS_DISPOSABLE: Final = "SELECT coalesce(current_setting($1, true), '') = 'on'"
_AHEAD: Final = (
    "SELECT {texts} FROM {table} AS {alias} WHERE {where} ORDER BY {order}"
    " OFFSET ${at}::bigint - 1 LIMIT 1"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch of the trial: when it had ended and how long it took, in seconds."""

    ended: float
    seconds: float
    passed: int
    updated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a trial came to, on a copy whose table has about `rows`.

    `passed` rows were looked at and `updated` changed within `seconds` of work, which were
    `start_seconds` in coming. `late_per_second`: rows passed in the second half of that time.
    `is_whole`: there are no others.
    """

    rows: int
    ranges: int
    passed: int = 0
    updated: int = 0
    batches: int = 0
    seconds: float = 0.0
    start_seconds: float = 0.0
    late_per_second: float = 0.0
    is_whole: bool = False

    @property
    def per_second(self) -> float:
        """Rows passed a second, over all of it."""
        return self.passed / self.seconds if self.seconds else 0.0

    def seconds_for(self, rows: int) -> float:
        """How long so many rows take: those of the trial as they did, others as the later ones.

        The first batches touch most pages for the first time, the later ones few.
        """
        if not self.late_per_second:
            return 0.0
        beyond = rows - self.passed
        if beyond <= 0:
            return self.start_seconds + self.seconds * rows / self.passed
        return self.start_seconds + self.seconds + beyond / self.late_per_second


async def try_backfill(
    target: Target,
    spec: BackfillSpec,
    limits: BackfillLimits | None = None,
    *,
    most: timedelta = TRIAL_LIMIT,
) -> Trial:
    """Do the backfill on a disposable copy, or as much of it as fits into the time.

    It waits for nobody: how long a real one waits, no copy can tell.

    Raises:
        PostgresError: this server is not marked as disposable and nothing has changed; or the
            backfill cannot be done there.
    """
    assigned_columns(spec)
    limits = limits or BackfillLimits()
    spec = replace(spec, key=_KEY, sweep=False)
    try:
        async with quiet_session(target) as conn:
            await _must_be_disposable(conn, target)
            table = await read_table(conn, spec.schema, spec.table)
            rows = await estimated_rows(conn, table)
            slices, is_all = await _slices(conn, table, rows, spec.ranges)
            await _begin(conn, spec, table, rows, slices)
    except (asyncpg.PostgresError, *LOST) as error:
        raise _failed(str(error.args[0] if error.args else error)) from error
    is_done, seen, began = await _run(target, spec, limits, most)
    found = trial_of(seen, began=began, rows=rows, ranges=spec.ranges)
    return replace(found, is_whole=is_done and is_all)


def trial_of(seen: Sequence[Batch], *, began: float, rows: int, ranges: int) -> Trial:
    """What batches that began at `began` come to. Pure."""
    if not seen:
        return Trial(rows=rows, ranges=ranges)
    first, last = min(each.ended - each.seconds for each in seen), max(each.ended for each in seen)
    middle = (first + last) / 2
    return Trial(
        rows=rows,
        ranges=ranges,
        passed=sum(each.passed for each in seen),
        updated=sum(each.updated for each in seen),
        batches=len(seen),
        seconds=last - first,
        start_seconds=first - began,
        late_per_second=sum(each.passed * _share_after(each, middle) for each in seen)
        / max(last - middle, 1e-6),
    )


def spread(count: int) -> list[int]:
    """The numbers below `count`, in an order whose every beginning is spread evenly. Pure.

    By their bits from the last to the first (van der Corput): 0, 4, 2, 6, 1, 5, 3, 7.
    """
    width = max(count - 1, 1).bit_length()
    return sorted(range(count), key=lambda at: f"{at:0{width}b}"[::-1])


def _share_after(batch: Batch, moment: float) -> float:
    """How much of a batch's time is after a moment."""
    return min(max(batch.ended - moment, 0.0) / max(batch.seconds, 1e-9), 1.0)


async def _must_be_disposable(conn: Any, target: Target) -> None:
    if not await conn.fetchval(_IS_DISPOSABLE, DISPOSABLE):
        raise PostgresError(
            f"The server on {target.place} is not a copy that is thrown away: nothing was tried.",
            next_step="Try it on a restored copy: /db rehearse-backfill.",
        )


async def _slices(conn: Any, table: Table, rows: int, ranges: int) -> tuple[list[Piece], bool]:
    """Parts of the table, of some ten batches each, and whether they are all of it."""
    last = await last_key(conn, table)
    wanted = max(ranges, min(_SLICES_MAX, rows // _SLICE_ROWS))
    pieces = pieces_of(await cuts_of(conn, table, wanted) if last else [], last)
    is_all = rows <= wanted * _SLICE_ROWS * 2
    if not is_all:
        pieces = tuple([await _cut_short(conn, table, piece) for piece in pieces])
    return [pieces[at] for at in spread(len(pieces))], is_all


async def _cut_short(conn: Any, table: Table, piece: Piece) -> Piece:
    after, key = piece.after or (), table.key
    query = _AHEAD.format(
        texts=key.texts, table=table.quoted, alias=ALIAS, order=key.order(),
        where=key.within(has_start=piece.after is not None), at=len(after) + len(piece.upto) + 1,
    )  # fmt: skip
    end = await conn.fetchrow(query, *after, *piece.upto, _SLICE_ROWS)
    return piece if end is None else replace(piece, upto=tuple(end))


async def _begin(
    conn: Any, spec: BackfillSpec, table: Table, rows: int, slices: Sequence[Piece]
) -> None:
    await ensure_ledger(conn)
    await forget(conn, spec.key)
    await open_backfill(conn, spec, table, total=rows, pieces=slices)


class _Control:
    """Nobody pauses a trial."""

    is_paused = False


async def _run(
    target: Target, spec: BackfillSpec, limits: BackfillLimits, most: timedelta
) -> tuple[bool, list[Batch], float]:
    """Whether it came to its end, its batches, and when it began."""
    seen: list[Batch] = []

    def did(done: BatchDone) -> None:
        at = time.monotonic()
        seen.append(Batch(ended=at, seconds=done.seconds, passed=done.passed, updated=done.updated))

    unheld = replace(
        limits, lag_max=timedelta(0), lag_bytes_max=0, wal_max=0, dead_max=0, slower_max=0,
        waiters_max=0, time_limit=most * 2,
    )  # fmt: skip
    began, clock = time.monotonic(), asyncio.timeout(most.total_seconds())
    try:
        async with clock:
            await run_backfill(
                target, spec, control=_Control(), tell=_nobody, limits=unheld, on_batch=did
            )
    except TimeoutError:
        if not clock.expired():
            raise
        return False, seen, began
    except PostgresError as error:
        raise _failed(error.problem) from error
    return True, seen, began


async def _nobody(text: str, fraction: float | None) -> None:
    """Tells nobody: whoever waits for the trial knows."""


def _failed(said: str) -> PostgresError:
    return PostgresError(
        f"The backfill could not be tried on the copy: {said.removesuffix('.')}.",
        next_step="Mend what it names: on the original it would fail as well.",
    )
