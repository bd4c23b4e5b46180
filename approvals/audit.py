"""The audit: a chain of entries per database in which nothing can be changed unseen.

`verify` is pure and works on exported lines, without the database and without us.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.plans import canonical
from approvals.words import BadInputError, RequestId
from store.redact import redact_json

GENESIS: Final = "0" * 64
_BATCH_ROWS: Final = 1000

APPEND: Final = sa.text("""
    SELECT seq, hash
      FROM audit_append(:chain, :at, :actor, :action, :request_id, :database, :detail)
""")

READ: Final = sa.text("""
    SELECT chain, seq, at, actor, action, request_id, database, detail, prev_hash, hash
      FROM audit_log
     WHERE (CAST(:chain AS text) IS NULL OR chain = :chain)
     ORDER BY chain, seq
""")

READ_HEADS: Final = sa.text("""
    SELECT chain, seq, hash FROM audit_heads WHERE CAST(:chain AS text) IS NULL OR chain = :chain
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the audit. `detail` is JSON; `at` is aware."""

    chain: str
    seq: int
    at: datetime
    actor: str
    action: str
    request_id: int | None
    database: str
    detail: Mapping[str, Any]
    prev_hash: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a chain ends, as the database or an anchor outside of it remembers."""

    chain: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong in a chain, at or just before the entry `seq`."""

    chain: str
    seq: int
    problem: str


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
    """Add an entry in the caller's transaction. The chain is a database's name, or ''."""
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
                "detail": canonical(redact_json(detail)),
            },
        )
    ).one()
    return Head(chain=chain, seq=row.seq, hash=row.hash)


async def read(conn: AsyncConnection, *, chain: str | None = None) -> AsyncIterator[Entry]:
    """All entries in order, in bounded memory."""
    result = await conn.stream(READ, {"chain": chain}, execution_options={"yield_per": _BATCH_ROWS})
    async for row in result.mappings():
        yield Entry(**row)


async def heads(conn: AsyncConnection, *, chain: str | None = None) -> list[Head]:
    """Where the chains end, as the database remembers."""
    rows = await conn.execute(READ_HEADS, {"chain": chain})
    return [Head(**row) for row in rows.mappings()]


def verify(entries: Iterable[Entry], heads: Iterable[Head]) -> list[Finding]:
    """What is wrong: edits, gaps, insertions, and chains that end too early.

    `entries` come in order of chain and seq. A rewrite of a whole chain with all its
    hashes shows only against heads that were kept outside of the database.
    """
    findings: list[Finding] = []
    last: dict[str, Entry] = {}
    known = {(head.chain, head.seq): head for head in heads}
    for entry in entries:
        findings += _checked(entry, last.get(entry.chain), known.get((entry.chain, entry.seq)))
        last[entry.chain] = entry
    for head in known.values():
        end = last[head.chain].seq if head.chain in last else 0
        if end < head.seq:
            findings.append(
                Finding(
                    chain=head.chain,
                    seq=end + 1,
                    problem=f"the chain was cut: it ends at {end} and should reach {head.seq}",
                )
            )
    return findings


def _checked(entry: Entry, before: Entry | None, head: Head | None) -> Iterator[Finding]:
    def finding(problem: str) -> Finding:
        return Finding(chain=entry.chain, seq=entry.seq, problem=problem)

    expected = before.seq + 1 if before else 1
    prev_hash = before.hash if before else GENESIS
    if entry.seq > expected:
        yield finding(f"entries {expected} to {entry.seq - 1} are missing")
    elif entry.seq < expected:
        yield finding(f"the entry {entry.seq} stands twice")
    elif entry.prev_hash != prev_hash:
        yield finding("it does not follow the entry before it: one of them was replaced")
    if entry.hash != entry_hash(entry):
        yield finding("it was edited: its hash is not that of its content")
    elif head is not None and head.hash != entry.hash:
        yield finding("the chain was rewritten: its remembered head is another one")


def entry_hash(entry: Entry) -> str:
    """The hash that an entry must have."""
    at = entry.at.astimezone(UTC)
    lines = (
        "v1",
        entry.prev_hash,
        entry.chain,
        str(entry.seq),
        f"{at:%Y-%m-%dT%H:%M:%S.%f}Z",
        entry.actor,
        entry.action,
        "" if entry.request_id is None else str(entry.request_id),
        entry.database,
        canonical(entry.detail),
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def to_line(entry: Entry) -> str:
    """An entry as a line of JSON."""
    return canonical({**asdict(entry), "at": entry.at.astimezone(UTC).isoformat()})


def from_line(line: str) -> Entry:
    """The entry in a line that `to_line` wrote.

    Raises:
        BadInputError: it is none.
    """
    try:
        data = json.loads(line)
        entry = Entry(**{**data, "at": datetime.fromisoformat(data["at"])})
    except (ValueError, TypeError, KeyError) as error:
        raise BadInputError(
            f"This is no line of an exported audit: {line[:80]!r} ({error}).",
            next_step="Export it again with `twokey audit export`.",
        ) from None
    return entry


async def export(conn: AsyncConnection, *, chain: str | None = None) -> AsyncIterator[str]:
    """All entries as lines of JSON."""
    async for entry in read(conn, chain=chain):
        yield to_line(entry)
