"""Taking an anchor: the heads of all chains, into the audit, the channel and the firing.

All in one transaction. `approvals.anchor_file` brings it to a host's own file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import audit
from approvals.anchors import heads_json, make_anchors, root_of, to_line
from approvals.chain import GENESIS, Head, stamp
from store import outbox
from store.connect import Store

SCHEDULE: Final = "audit anchor"
# So many heads with names of the greatest length fit into one code block of Slack's.
HEADS_PER_MESSAGE: Final = 11

# Two anchors at once would both follow the same one before them.
ALONE: Final = sa.text("SELECT pg_advisory_xact_lock(hashtext('twokey anchor'), 0)")

NEWEST: Final = sa.text("""
    SELECT detail
      FROM firings
     WHERE schedule = :schedule AND detail ? 'heads'
     ORDER BY at DESC, due_at DESC
     LIMIT 1
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An anchor that was taken. `hash` is that of the last page that the channel gets."""

    at: datetime
    heads: tuple[Head, ...]
    root: str
    hash: str

    def to_json(self) -> dict[str, JsonValue]:
        """For the row of its firing."""
        return {
            "at": self.at.isoformat(),
            "heads": [heads_json(head) for head in self.heads],
            "root": self.root,
            "hash": self.hash,
        }

    @staticmethod
    def of(detail: Mapping[str, Any]) -> Taken:
        """What `to_json` wrote.

        Raises:
            ValueError: the heads are not those of the combined hash.
        """
        heads = tuple(Head(**head) for head in detail["heads"])
        if root_of(heads) != detail["root"]:
            raise ValueError("the combined hash is not that of the heads")
        return Taken(
            at=datetime.fromisoformat(detail["at"]),
            heads=heads,
            root=detail["root"],
            hash=detail["hash"],
        )


async def take(conn: AsyncConnection, *, at: datetime, by: str, channel: str | None) -> Taken:
    """Anchor all chains as they are now, in the caller's transaction."""
    await conn.execute(ALONE)
    before = (await conn.execute(NEWEST, {"schedule": SCHEDULE})).scalar_one_or_none()
    heads = await audit.heads(conn)
    pages = make_anchors(
        heads, at=at, prev=before["hash"] if before else GENESIS, heads_max=HEADS_PER_MESSAGE
    )
    for page in pages if channel else ():
        await outbox.post(
            conn,
            topic="anchor",
            request_id=None,
            channel=channel or "",
            payload={"line": to_line(page), "chains": len(heads)},
            now=at,
        )
    await audit.append(
        conn,
        chain="",
        at=at,
        actor=by,
        action="anchor",
        detail={"at": stamp(at), "root": pages[0].root, "chains": len(heads)},
    )
    return Taken(at=at, heads=tuple(heads), root=pages[0].root, hash=pages[-1].hash)


async def newest(store: Store) -> Taken | None:
    """The anchor that was taken last, anywhere.

    Raises:
        ValueError: somebody edited what is stored of it.
    """
    async with store.begin() as conn:
        found = (await conn.execute(NEWEST, {"schedule": SCHEDULE})).scalar_one_or_none()
    return Taken.of(found) if found else None
