"""How a table is cut into pieces of about the same size, by a sample of its keys.

A sample works for keys of any type, with several columns and with holes, and needs no
statistics. Where it is wrong the pieces are unequal, and nothing else: together they always are
all keys up to the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from postgres.migrate.backfill.key import ALIAS, Table

# More pieces than workers: who is done early takes another, so that none has a long end alone.
PIECES_PER_WORKER: Final = 8
_BATCHES_PER_PIECE: Final = 4
_PAGES_SAMPLED: Final = 400
_WHOLE: Final = 100.0

_LAST: Final = "SELECT {texts} FROM {table} AS {alias} ORDER BY {last_first} LIMIT 1"
# Every time that n/pieces of the sample are passed, the key there is a cut.
_CUTS: Final = """
    SELECT {names}
      FROM (SELECT {texts},
                   row_number() OVER (ORDER BY {columns}) AS at, count(*) OVER () AS total
              FROM {table} AS {alias} TABLESAMPLE SYSTEM ($1) REPEATABLE (7203)) AS sample
     WHERE at < total AND at * $2::bigint / total > (at - 1) * $2::bigint / total
     ORDER BY at
"""
_SIZE: Final = """
    SELECT coalesce(sum(pg_relation_size(relid)), 0)::bigint
           / current_setting('block_size')::bigint
      FROM pg_partition_tree($1::oid::regclass) WHERE isleaf
"""
_PLAIN_SIZE: Final = "SELECT pg_relation_size($1::oid) / current_setting('block_size')::bigint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Keys after one (None: from the first) up to and with another, as texts."""

    after: tuple[str, ...] | None
    upto: tuple[str, ...]


def pieces_of(cuts: Sequence[tuple[str, ...]], last: tuple[str, ...] | None) -> tuple[Piece, ...]:
    """The pieces between `cuts` up to `last`; none where the table has no rows. Pure."""
    if last is None:
        return ()
    ends = [*(cut for cut in cuts if cut != last), last]
    starts = [None, *ends[:-1]]
    return tuple(Piece(after=a, upto=b) for a, b in zip(starts, ends, strict=True))


def wanted_pieces(rows: int, *, workers: int, batch_rows: int) -> int:
    """How many pieces are worth their while for so many rows. Pure."""
    if workers == 1:
        return 1
    return max(1, min(workers * PIECES_PER_WORKER, rows // (batch_rows * _BATCHES_PER_PIECE)))


async def last_key(conn: Any, table: Table) -> tuple[str, ...] | None:
    """The greatest key now; None: the table is empty."""
    row = await conn.fetchrow(
        _LAST.format(
            texts=table.key.texts,
            table=table.quoted,
            last_first=table.key.order(" DESC"),
            alias=ALIAS,
        )
    )
    return None if row is None else tuple(row)


async def cuts_of(conn: Any, table: Table, pieces: int) -> list[tuple[str, ...]]:
    """Up to `pieces` - 1 keys, rising, that cut the table into parts of about the same size."""
    if pieces < 2:  # noqa: PLR2004 - one piece has no cut
        return []
    pages = await conn.fetchval(_SIZE if table.is_partitioned else _PLAIN_SIZE, table.oid)
    share = min(_WHOLE, _WHOLE * _PAGES_SAMPLED / max(pages, 1))
    key = table.key
    names = [f"k{at}" for at in range(len(key.quoted))]
    texts = ", ".join(f"{text} AS {name}" for text, name in zip(key.each_text, names, strict=True))
    rows = await conn.fetch(
        _CUTS.format(
            names=", ".join(names),
            texts=texts,
            columns=key.order(),
            table=table.quoted,
            alias=ALIAS,
        ),
        share,
        pieces,
    )
    return [tuple(row) for row in rows]
