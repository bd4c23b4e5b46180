"""The audit: a chain of entries per database in which nothing can be changed unseen.

Here entries are appended and read. `approvals.chain` says what is wrong with them, and works
without the database and without us.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.anchors import Anchors
from approvals.chain import (
    GENESIS,
    Entry,
    Finding,
    Head,
    entry_hash,
    from_line,
    to_line,
    verify,
)
from approvals.exports import Filters, Format, entry_line, first_lines
from approvals.offline import Check, Report
from approvals.plans import lasting
from approvals.words import RequestId
from store.redact import redact_json

__all__ = [
    "GENESIS",
    "Entry",
    "Finding",
    "Head",
    "append",
    "check_store",
    "entry_hash",
    "export",
    "export_lines",
    "from_line",
    "heads",
    "read",
    "to_line",
    "verify",
]

_BATCH_ROWS: Final = 1000

APPEND: Final = sa.text("""
    SELECT seq, hash
      FROM audit_append(:chain, :at, :actor, :action, :request_id, :database, :detail)
""")

# One look into the index per chain, however long the chains are.
READ_CHAINS: Final = sa.text("""
    WITH RECURSIVE known AS (
        (SELECT chain FROM audit_log ORDER BY chain LIMIT 1)
        UNION ALL
        SELECT (SELECT a.chain FROM audit_log a WHERE a.chain > k.chain ORDER BY a.chain LIMIT 1)
          FROM known k
         WHERE k.chain IS NOT NULL
    )
    SELECT chain FROM known WHERE chain IS NOT NULL
""")

# A time takes all between a chain's first and last entry of it, so that what is exported has
# no holes where a clock was set back.
READ_SPAN: Final = sa.text("""
    SELECT min(seq) AS first, max(seq) AS last
      FROM audit_log
     WHERE chain = :chain
       AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
       AND (CAST(:until AS timestamptz) IS NULL OR at < :until)
""").bindparams(
    sa.bindparam("since", type_=TIMESTAMP(timezone=True)),
    sa.bindparam("until", type_=TIMESTAMP(timezone=True)),
)

READ: Final = sa.text("""
    SELECT chain, seq, at, actor, action, request_id, database, detail, prev_hash, hash
      FROM audit_log
     WHERE chain = :chain
       AND seq >= :first
       AND (CAST(:last AS bigint) IS NULL OR seq <= :last)
       AND (CAST(:actor AS text) IS NULL OR actor = :actor)
       AND (CAST(:action AS text) IS NULL OR action = :action)
       AND (CAST(:request AS bigint) IS NULL OR request_id = :request)
     ORDER BY seq
""")

READ_HEADS: Final = sa.text("""
    SELECT chain, seq, hash FROM audit_heads WHERE CAST(:chain AS text) IS NULL OR chain = :chain
""")


async def append(
    conn: AsyncConnection,
    *,
    chain: str,
    at: datetime,
    actor: str,
    action: str,
    request_id: RequestId | None = None,
    detail: Mapping[str, Any],
) -> Head:
    """Add an entry in the caller's transaction. The chain is a database's name, or ''.

    Raises:
        TypeError: `detail` holds what would not come back as it is, such as a float.
    """
    row = (
        await conn.execute(
            APPEND,
            {
                "chain": chain,
                "at": at,
                "actor": actor,
                "action": action,
                "request_id": request_id,
                "database": chain,
                "detail": lasting(redact_json(detail)),
            },
        )
    ).one()
    return Head(chain=chain, seq=row.seq, hash=row.hash)


async def read(
    conn: AsyncConnection, *, chain: str | None = None, filters: Filters | None = None
) -> AsyncIterator[Entry]:
    """Entries in order, in bounded memory: all of them, a chain's, or what a filter chooses."""
    chosen = filters or Filters(chain=chain)
    picked = {"actor": chosen.actor, "action": chosen.action, "request": chosen.request}
    for name in await _chains(conn, chosen):
        first, last = await _span(conn, name, chosen)
        if first is None:
            continue
        values = {"chain": name, "first": first, "last": last, **picked}
        result = await conn.stream(READ, values, execution_options={"yield_per": _BATCH_ROWS})
        async for row in result:
            yield Entry(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


async def _chains(conn: AsyncConnection, filters: Filters) -> list[str]:
    if filters.chain is not None:
        return [filters.chain]
    return sorted((await conn.execute(READ_CHAINS)).scalars())


async def _span(
    conn: AsyncConnection, chain: str, filters: Filters
) -> tuple[int | None, int | None]:
    """The first and last entry of a time; None as the last: whatever comes."""
    if filters.since is None and filters.until is None:
        return 0, None
    values = {"chain": chain, "since": filters.since, "until": filters.until}
    row = (await conn.execute(READ_SPAN, values)).one()
    first = row.first if filters.since is not None or row.first is None else 0
    return first, row.last if filters.until is not None else None


async def heads(conn: AsyncConnection, *, chain: str | None = None) -> list[Head]:
    """Where the chains end, as the database remembers."""
    rows = await conn.execute(READ_HEADS, {"chain": chain})
    return [Head(**row) for row in rows.mappings()]


async def check_store(
    conn: AsyncConnection, *, chain: str | None = None, anchors: Anchors | None = None
) -> Report:
    """What is wrong in the store, in one pass and bounded memory.

    In a snapshot (REPEATABLE READ), or an entry that comes meanwhile is a finding. The heads
    that the store itself remembers are held against it too.
    """
    check = Check(
        scope=Filters(chain=chain).scope,
        anchors=anchors,
        remembered={head.chain: head for head in await heads(conn, chain=chain)},
    )
    async for entry in read(conn, chain=chain):
        check.take(entry)
    return check.end()


async def export(conn: AsyncConnection, *, chain: str | None = None) -> AsyncIterator[str]:
    """All entries as lines of JSON."""
    async for entry in read(conn, chain=chain):
        yield to_line(entry)


async def export_lines(conn: AsyncConnection, filters: Filters, form: Format) -> AsyncIterator[str]:
    """What a filter chooses as an export that says what it holds, without line ends."""
    for line in first_lines(filters, form):
        yield line
    async for entry in read(conn, filters=filters):
        yield entry_line(entry, form)
