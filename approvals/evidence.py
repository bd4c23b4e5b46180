"""The evidence of a period as one archive: all requests, not a sample, and what proves them.

The same store gives the same bytes: rows come in a fixed order, files carry no time, and
nothing is compressed. `approvals.evidence_check` reads it without a store.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from approvals import audit
from approvals.anchoring import SCHEDULE
from approvals.chain import stamp, to_line
from approvals.evidence_text import (
    ANCHORS,
    AUDIT,
    MANIFEST,
    README,
    RELATED,
    Population,
    readme,
)
from approvals.exports import Filters
from approvals.plans import canonical

VERSION: Final = 1
ACTION: Final = "evidence"
_BATCH_ROWS: Final = 500
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)

POPULATION: Final = sa.text("""
    SELECT id, asked_at >= :since AND asked_at < :until AS asked
      FROM requests
     WHERE asked_at >= :since AND asked_at < :until
        OR id IN (SELECT request_id FROM audit_log WHERE at >= :since AND at < :until)
     ORDER BY id
""")

# The version in force when the period began, and all that came within it.
_IN_FORCE: Final = """
    SELECT * FROM policies_in_force
     WHERE at < :until
       AND (at >= :since
            OR id = (SELECT max(id) FROM policies_in_force WHERE at < :since))
"""

TABLES: Final[Mapping[str, str]] = {
    "requests": "SELECT * FROM requests WHERE id = ANY(:ids) ORDER BY id",
    "gates": "SELECT * FROM gates WHERE request_id = ANY(:ids) ORDER BY request_id, position",
    "votes": "SELECT * FROM votes WHERE request_id = ANY(:ids) ORDER BY id",
    "readings": """
        SELECT * FROM readings WHERE request_id = ANY(:ids)
         ORDER BY request_id, plan_hash, person COLLATE "C", page
    """,
    "runs": "SELECT * FROM runs WHERE request_id = ANY(:ids) ORDER BY id",
    "run_steps": """
        SELECT s.* FROM run_steps s JOIN runs r ON r.id = s.run_id
         WHERE r.request_id = ANY(:ids)
         ORDER BY s.run_id, s.position, s.name COLLATE "C"
    """,
    "policies": f"""
        SELECT * FROM policies
         WHERE hash IN (SELECT policy_hash FROM requests WHERE id = ANY(:ids)
                         UNION SELECT policy_hash FROM votes WHERE request_id = ANY(:ids)
                         UNION SELECT detail ->> 'policy' FROM audit_log
                                WHERE request_id = ANY(:ids)
                         UNION SELECT policy_hash FROM ({_IN_FORCE}) AS f)
         ORDER BY hash COLLATE "C"
    """,  # noqa: S608 - a constant of ours
    "policies_in_force": f"{_IN_FORCE} ORDER BY id",
    "delegations": """
        SELECT * FROM delegations WHERE at < :until AND greatest(at, ends_at) >= :since ORDER BY id
    """,
    "backups": """
        SELECT * FROM backups
         WHERE (started_at >= :since AND started_at < :until)
            OR id IN (SELECT backup_id FROM verifications WHERE at >= :since AND at < :until)
         ORDER BY id COLLATE "C"
    """,
    "verifications": """
        SELECT * FROM verifications WHERE at >= :since AND at < :until ORDER BY id
    """,
    "drills": """
        SELECT * FROM drills
         WHERE request_id = ANY(:ids)
            OR (started_at >= :since AND started_at < :until)
            OR (ended_at >= :since AND ended_at < :until)
         ORDER BY request_id
    """,
}

# What the audit says about these requests before and after the period.
READ_RELATED: Final = """
    SELECT chain, seq, at, actor, action, request_id, database, detail, prev_hash, hash
      FROM audit_log
     WHERE request_id = ANY(:ids) AND (at < :since OR at >= :until)
     ORDER BY chain COLLATE "C", seq
"""

READ_ANCHORS: Final = """
    SELECT at, detail FROM firings
     WHERE schedule = :schedule AND detail ? 'heads' AND at >= :since AND at < :until
     ORDER BY at, due_at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From `since` on, up to `until`, which is not in it."""

    since: datetime
    until: datetime


@dataclass(slots=True)
class Pack:
    """An archive while it is written. Every file's hash and rows go into the manifest."""

    archive: zipfile.ZipFile
    files: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    async def write(self, name: str, lines: AsyncIterator[str]) -> None:
        """A file of lines, as they come."""
        digest, rows = hashlib.sha256(), 0
        with self.archive.open(_info(name), "w", force_zip64=True) as file:
            async for line in lines:
                data = f"{line}\n".encode()
                digest.update(data)
                file.write(data)
                rows += 1
        self.files[name] = {"rows": rows, "sha256": digest.hexdigest()}

    def write_text(self, name: str, text: str) -> str:
        """A short file; its hash."""
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        self.archive.writestr(_info(name), data)
        self.files[name] = {"rows": text.count("\n"), "sha256": digest}
        return digest


async def write_pack(
    conn: AsyncConnection, file: BinaryIO, period: Period
) -> tuple[str, Population]:
    """Write the archive of a period; the hash of its manifest, and who is in it.

    In a snapshot (REPEATABLE READ), or its files do not agree with one another.
    """
    found = await conn.execute(_bound(POPULATION), _times(period))
    rows = found.all()
    ids = [row.id for row in rows]
    population = Population(
        requests=len(ids),
        asked=sum(row.asked for row in rows),
        since=stamp(period.since),
        until=stamp(period.until),
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        pack = Pack(archive)
        for name, statement in TABLES.items():
            await pack.write(f"{name}.jsonl", _rows(conn, statement, period, ids))
        filters = Filters(since=period.since, until=period.until)
        await pack.write(AUDIT, audit.export_lines(conn, filters, "jsonl"))
        await pack.write(RELATED, _related(conn, period, ids))
        await pack.write(ANCHORS, _anchors(conn, period))
        pack.write_text(README, readme(population))
        manifest = {"v": VERSION, "population": population.to_json(), "files": dict(pack.files)}
        return pack.write_text(MANIFEST, f"{canonical(manifest)}\n"), population


async def note(
    conn: AsyncConnection, population: Population, *, manifest: str, by: str, at: datetime
) -> None:
    """Say in the audit that the evidence was taken, and what its manifest's hash is."""
    await audit.append(
        conn,
        chain="",
        at=at,
        actor=by,
        action=ACTION,
        detail={"manifest": manifest, **population.to_json()},
    )


async def _rows(
    conn: AsyncConnection, statement: str, period: Period, ids: Sequence[int]
) -> AsyncIterator[str]:
    async for row in _streamed(conn, statement, {**_times(period), "ids": list(ids)}):
        yield canonical(_plain(row))


async def _related(conn: AsyncConnection, period: Period, ids: Sequence[int]) -> AsyncIterator[str]:
    async for row in _streamed(conn, READ_RELATED, {**_times(period), "ids": list(ids)}):
        yield to_line(audit.Entry(**row))


async def _anchors(conn: AsyncConnection, period: Period) -> AsyncIterator[str]:
    async for row in _streamed(conn, READ_ANCHORS, {**_times(period), "schedule": SCHEDULE}):
        yield canonical(_plain({"taken_at": row["at"], **row["detail"]}))


async def _streamed(
    conn: AsyncConnection, statement: str, values: Mapping[str, object]
) -> AsyncIterator[Mapping[str, Any]]:
    bound = _bound(sa.text(statement))
    known = bound.compile().params
    result = await conn.stream(
        bound,
        {name: value for name, value in values.items() if name in known},
        execution_options={"yield_per": _BATCH_ROWS},
    )
    async for row in result.mappings():
        yield dict(row)


def _bound(statement: sa.TextClause) -> sa.TextClause:
    """With types: what a time is compared with does not say which one is meant."""
    types: dict[str, TypeEngine[Any]] = {
        "since": TIMESTAMP(timezone=True),
        "until": TIMESTAMP(timezone=True),
        "ids": ARRAY(sa.BigInteger()),
    }
    known = statement.compile().params
    return statement.bindparams(
        *(sa.bindparam(name, type_=kind) for name, kind in types.items() if name in known)
    )


def _times(period: Period) -> dict[str, object]:
    return {"since": period.since, "until": period.until}


def _plain(value: Any) -> Any:
    """A value as JSON has it; a time in UTC."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat()
        case Mapping():
            return {str(name): _plain(part) for name, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case _:
            return value


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=_NO_TIME)
    info.create_system = 3
    info.external_attr = 0o640 << 16
    return info
