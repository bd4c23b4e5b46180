"""Where a backfill stands, in the target itself: a checkpoint commits together with its batch.

Two tables in `twokey_migrate`, and a third for where old values are kept. A backfill has an epoch
that each life raises, in every range's row too: a batch locks its range's row first and finds its
epoch there, or does nothing. So a second life waits for the last batch of the first, and the
first, should it wake up, does none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.migrate.backfill.kept import check_kept, make_kept
from postgres.migrate.backfill.key import Table
from postgres.migrate.backfill.parts import assigned_columns
from postgres.migrate.backfill.ranges import Piece
from postgres.migrate.backfill.spec import BackfillSpec
from postgres.migrate.own_schema import ensure_schema

FINISHED_DAYS_KEPT: Final = 30
UNFINISHED_DAYS_KEPT: Final = 365
FINISHED_KEPT_MAX: Final = 500
_WAIT_SECONDS_MAX: Final = 65.0  # longer than an earlier life's batch may take

# Two at once would both create them.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('twokey_migrate.backfills', 7203))"
_TABLES: Final = """
    CREATE TABLE IF NOT EXISTS twokey_migrate.backfills (
        key         text PRIMARY KEY,
        fingerprint text NOT NULL,
        table_oid   oid NOT NULL,
        table_name  text NOT NULL,
        epoch       bigint NOT NULL DEFAULT 0,
        total       bigint NOT NULL,
        last        text[],
        is_swept    boolean NOT NULL DEFAULT false,
        rows        bigint NOT NULL DEFAULT 0,
        passed      bigint NOT NULL DEFAULT 0,
        batches     bigint NOT NULL DEFAULT 0,
        started_at  timestamptz NOT NULL DEFAULT now(),
        touched_at  timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz
    );
    CREATE TABLE IF NOT EXISTS twokey_migrate.backfill_ranges (
        key        text NOT NULL REFERENCES twokey_migrate.backfills ON DELETE CASCADE,
        number     integer NOT NULL,
        epoch      bigint NOT NULL,
        reached    text[],
        upto       text[] NOT NULL,
        is_done    boolean NOT NULL DEFAULT false,
        rows       bigint NOT NULL DEFAULT 0,
        passed     bigint NOT NULL DEFAULT 0,
        batches    bigint NOT NULL DEFAULT 0,
        batch_rows integer,
        PRIMARY KEY (key, number)
    ) WITH (fillfactor = 50);
    CREATE TABLE IF NOT EXISTS twokey_migrate.backfill_kept (
        key  text PRIMARY KEY REFERENCES twokey_migrate.backfills ON DELETE CASCADE,
        name text NOT NULL,
        oid  oid NOT NULL
    );
"""
# One life at a time has a backfill's row; what nobody came back to is forgotten some day.
_FORGET_OLD: Final = f"""
    DELETE FROM twokey_migrate.backfills
     WHERE finished_at < now() - interval '{FINISHED_DAYS_KEPT} days'
        OR touched_at < now() - interval '{UNFINISHED_DAYS_KEPT} days'
        OR key IN (SELECT key FROM twokey_migrate.backfills WHERE finished_at IS NOT NULL
                    ORDER BY finished_at DESC OFFSET {FINISHED_KEPT_MAX})
"""  # noqa: S608 - numbers of ours
_OPEN: Final = """
    INSERT INTO twokey_migrate.backfills (key, fingerprint, table_oid, table_name, total, last)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING
"""
_ADD_RANGE: Final = """
    INSERT INTO twokey_migrate.backfill_ranges (key, number, epoch, reached, upto)
    SELECT $1, coalesce(max(number) + 1, 0), $2, $3, $4
      FROM twokey_migrate.backfill_ranges WHERE key = $1
"""
_FIND: Final = "SELECT * FROM twokey_migrate.backfills WHERE key = $1"
_TAKE: Final = """
    UPDATE twokey_migrate.backfills SET epoch = epoch + 1, touched_at = now()
     WHERE key = $1 RETURNING *
"""
# Waits for the batch that an earlier life may still be at.
_FENCE: Final = "UPDATE twokey_migrate.backfill_ranges SET epoch = $2 WHERE key = $1"
_RANGES: Final = """
    SELECT number, is_done, rows, passed, batches, batch_rows
      FROM twokey_migrate.backfill_ranges WHERE key = $1 ORDER BY number
"""
# The lock comes first in each batch's transaction. The table may have been replaced since.
HOLD: Final = """
    SELECT r.reached, r.upto, r.is_done, to_regclass($4)::oid AS table_oid
      FROM twokey_migrate.backfill_ranges r
     WHERE r.key = $1 AND r.number = $2 AND r.epoch = $3
       FOR UPDATE
"""
CHECKPOINT: Final = """
    UPDATE twokey_migrate.backfill_ranges
       SET reached = $3, is_done = $4, rows = rows + $5, passed = passed + $6,
           batches = batches + 1, batch_rows = $7
     WHERE key = $1 AND number = $2
"""
_MINE: Final = """
    SELECT 1 FROM twokey_migrate.backfills WHERE key = $1 AND epoch = $2 FOR UPDATE
"""
_SWEPT: Final = "UPDATE twokey_migrate.backfills SET is_swept = true WHERE key = $1"
_FINISH: Final = """
    UPDATE twokey_migrate.backfills b
       SET finished_at = now(), touched_at = now(), rows = r.rows, passed = r.passed,
           batches = r.batches
      FROM (SELECT coalesce(sum(rows), 0)::bigint AS rows,
                   coalesce(sum(passed), 0)::bigint AS passed,
                   coalesce(sum(batches), 0)::bigint AS batches
              FROM twokey_migrate.backfill_ranges WHERE key = $1) r
     WHERE b.key = $1 RETURNING b.rows, b.passed, b.batches
"""
_DROP_RANGES: Final = "DELETE FROM twokey_migrate.backfill_ranges WHERE key = $1"
_FORGET: Final = "DELETE FROM twokey_migrate.backfills WHERE key = $1"
_THERE: Final = "SELECT to_regclass('twokey_migrate.backfills') IS NOT NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A range that is not done. `batch_rows`: how large its batches had become."""

    number: int
    batch_rows: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A backfill that this life may work on, and what is left of it.

    `total`: rows at its start, about. `last`: the greatest key then. `finished`: nothing is left.
    """

    key: str
    table: Table
    epoch: int
    total: int
    last: tuple[str, ...] | None
    is_new: bool
    finished: bool
    is_swept: bool
    left: tuple[Left, ...]
    rows: int
    passed: int
    batches: int


async def ensure_ledger(conn: Any) -> None:
    """Have the tables, and forget what is old. Not inside a transaction.

    Raises:
        PostgresError: the schema belongs to somebody else.
    """
    await ensure_schema(conn)
    async with conn.transaction():
        await conn.execute(_LOCK)
        await conn.execute(_TABLES)
        await conn.execute(_FORGET_OLD)


async def is_known(conn: Any, key: str) -> bool:
    """Whether the ledger has this backfill already."""
    return await conn.fetchrow(_FIND, key) is not None


async def open_backfill(
    conn: Any, spec: BackfillSpec, table: Table, *, total: int, pieces: Sequence[Piece]
) -> None:
    """Write a backfill down, unless somebody else just did; what it keeps gets its table.

    Raises:
        asyncpg.DuplicateTableError: something else has that table's name. Nothing has changed.
    """
    last = list(pieces[-1].upto) if pieces else None
    async with conn.transaction():
        made = await conn.execute(
            _OPEN, spec.key, spec.fingerprint(table.key.names), table.oid, spec.name, total, last
        )
        if made.endswith(" 0"):
            return
        if spec.keep is not None:
            await make_kept(conn, spec, spec.keep, table, assigned_columns(spec))
        for piece in pieces:
            await _add(conn, spec.key, 0, piece)


async def claim(conn: Any, spec: BackfillSpec, table: Table, *, is_new: bool) -> Claim:
    """Take a backfill over: from now on no earlier life of it can do a batch.

    Raises:
        PostgresError: it is about something else than `spec`. Nothing has changed.
        asyncpg.QueryCanceledError: an earlier life's batch did not end in time.
    """
    async with conn.transaction():
        row = await conn.fetchrow(_TAKE, spec.key, timeout=_WAIT_SECONDS_MAX)
        _check(row, spec, table)
        if row["finished_at"] is None:
            await check_kept(conn, spec)
        await conn.execute(_FENCE, spec.key, row["epoch"], timeout=_WAIT_SECONDS_MAX)
        ranges = await conn.fetch(_RANGES, spec.key)
    is_finished = row["finished_at"] is not None
    sums = (row,) if is_finished else ranges
    return Claim(
        key=spec.key,
        table=table,
        epoch=row["epoch"],
        total=row["total"],
        last=tuple(row["last"]) if row["last"] else None,
        is_new=is_new,
        finished=is_finished,
        is_swept=row["is_swept"],
        left=tuple(
            Left(number=each["number"], batch_rows=each["batch_rows"])
            for each in ranges
            if not each["is_done"]
        ),
        rows=sum(each["rows"] for each in sums),
        passed=sum(each["passed"] for each in sums),
        batches=sum(each["batches"] for each in sums),
    )


async def add_sweep(conn: Any, claim: Claim, piece: Piece | None) -> Left | None:
    """Write the last range down: what was inserted behind the end. None: there is nothing.

    Raises:
        TakenOverError: another life has the backfill.
    """
    async with conn.transaction():
        await _hold(conn, claim)
        await conn.execute(_SWEPT, claim.key)
        if piece is None:
            return None
        await _add(conn, claim.key, claim.epoch, piece)
        rows = await conn.fetch(_RANGES, claim.key)
    return Left(number=rows[-1]["number"], batch_rows=rows[0]["batch_rows"])


async def finish(conn: Any, claim: Claim) -> tuple[int, int, int]:
    """Write down that all is done: (rows changed, rows passed, batches), over all lives.

    Raises:
        TakenOverError: another life has the backfill.
    """
    async with conn.transaction():
        await _hold(conn, claim)
        row = await conn.fetchrow(_FINISH, claim.key)
        await conn.execute(_DROP_RANGES, claim.key)
    return row["rows"], row["passed"], row["batches"]


async def forget(conn: Any, key: str) -> bool:
    """Forget where a backfill stands, so that its key begins anew; False: nothing was known.

    What it has done stays done: begun anew, it does those rows once more.
    """
    if not await conn.fetchval(_THERE):
        return False
    return not str(await conn.execute(_FORGET, key)).endswith(" 0")


class TakenOverError(PostgresError):
    """Another life has this backfill: whoever finds out stops, and has done nothing since."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"Another worker has taken the backfill {key} over.",
            next_step="Look at that one's progress; this one has stopped.",
        )


async def _hold(conn: Any, claim: Claim) -> None:
    if await conn.fetchrow(_MINE, claim.key, claim.epoch) is None:
        raise TakenOverError(claim.key)


async def _add(conn: Any, key: str, epoch: int, piece: Piece) -> None:
    after = None if piece.after is None else list(piece.after)
    await conn.execute(_ADD_RANGE, key, epoch, after, list(piece.upto))


def _check(row: Any, spec: BackfillSpec, table: Table) -> None:
    if row is None:
        raise TakenOverError(spec.key)
    if row["table_oid"] != table.oid:
        raise PostgresError(
            f"{spec.name} is not the table that the backfill {spec.key} began with: it was"
            " replaced since.",
            next_step="Ask for the backfill anew, as a request of its own.",
        )
    if row["fingerprint"] != spec.fingerprint(table.key.names):
        raise PostgresError(
            f"The backfill {spec.key} was begun with other values, another condition or another"
            " key.",
            next_step="Ask for it anew, as a request of its own: what is done stays done.",
        )
