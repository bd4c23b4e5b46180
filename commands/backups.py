"""`/db backups orders`: what could be restored, how old it is, and whether it was proven."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, Field

from jobs.operation import RTO, Answer, Context, Kind, Operation, Risk, Table
from jobs.text import span_text
from postgres.sizes import pretty_bytes
from store.backups import ListedBackup, list_backups

# Taken daily and verified weekly; the rest is time to notice.
BACKUP_AGE_MAX: Final = timedelta(hours=26)
PROOF_AGE_MAX: Final = timedelta(days=8)
COLUMNS: Final = ("Backup", "Age", "Kind", "Size", "Took", "Verified", "Restored in")


class Params(BaseModel, extra="forbid"):
    """Which database."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


async def answer(context: Context, params: Params) -> Answer:
    """The backups that are kept, newest first, and what is missing."""
    async with context.store.begin() as conn:
        listed = await list_backups(conn, params.database)
    rto = RTO[context.database.tier]
    rows = tuple(_row(item, context.now) for item in listed)
    return Answer(
        title=f"Backups of {params.database}",
        lines=tuple(_missing(params.database, listed, context.now, rto)),
        facts=(
            ("Tier", f"{context.database.tier}: back within {span_text(rto)}"),
            ("Kept", f"{len(listed)}, {pretty_bytes(sum(i.backup.size_bytes for i in listed))}"),
        ),
        table=Table(columns=COLUMNS, rows=rows) if rows else None,
    )


def _row(item: ListedBackup, now: datetime) -> tuple[str, ...]:
    backup, proof = item.backup, item.verified
    return (
        backup.id,
        span_text(now - backup.ended_at),
        backup.kind,
        pretty_bytes(backup.size_bytes),
        span_text(timedelta(seconds=backup.seconds)),
        _proof(item, now),
        span_text(timedelta(seconds=proof.restore_seconds)) if proof and proof.ok else "-",
    )


def _proof(item: ListedBackup, now: datetime) -> str:
    if item.verified is None:
        return "never"
    ago = span_text(now - item.verified.at)
    return f"{ago} ago" if item.verified.ok else f"DAMAGED, found {ago} ago"


def _missing(
    name: str, listed: Sequence[ListedBackup], now: datetime, rto: timedelta
) -> Iterator[str]:
    """What is not as it should be, each with the next step."""
    usable = [item for item in listed if item.backup.state == "complete"]
    if not usable:
        yield f"There is no usable backup of {name}. Take one: /db backup {name}"
        return
    newest = usable[0].backup
    if now - newest.ended_at > BACKUP_AGE_MAX:
        age = span_text(now - newest.ended_at)
        yield f"The newest usable backup is {age} old. Take one: /db backup {name}"
    proofs = [item.verified for item in usable if item.verified]
    if not proofs:
        yield f"No backup was ever restored as a test. Do it now: /db verify {name}"
        return
    newest_proof = max(proofs, key=lambda proof: proof.at)
    if now - newest_proof.at > PROOF_AGE_MAX:
        age = span_text(now - newest_proof.at)
        yield f"The last verification was {age} ago. Verify again: /db verify {name}"
    if newest_proof.restore_seconds > rto.total_seconds():
        took = span_text(timedelta(seconds=newest_proof.restore_seconds))
        yield (
            f"The last restore took {took}, longer than the tier allows ({span_text(rto)})."
            " Restore onto faster disks, or agree on another tier."
        )


OPERATION = Operation(
    name="backups",
    summary="List the backups of a database, their age and their proof",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db backups orders",
    answer=answer,
)
