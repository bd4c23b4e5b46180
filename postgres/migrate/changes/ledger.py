"""The marks of declared changes: a table in the target, written with what they are about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from postgres.migrate.changes.facts import Session
from postgres.migrate.changes.steps import MARKS_TABLE, TOKEN, Mark
from postgres.migrate.own_schema import ensure_schema

CREATE: Final = f"""
    CREATE TABLE IF NOT EXISTS {MARKS_TABLE} (
        change text NOT NULL,
        mark text NOT NULL,
        sha256 text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        detail jsonb NOT NULL,
        PRIMARY KEY (change, mark)
    )
"""
THERE: Final = "SELECT to_regclass($1) IS NOT NULL AS there"
READ: Final = f"""
    SELECT change, mark, sha256, detail::text AS detail
      FROM {MARKS_TABLE}
     ORDER BY change, at
"""  # noqa: S608 - a constant of ours


async def ensure_marks(conn: Any) -> None:
    """Have the table, in a schema that is ours.

    Raises:
        PostgresError: the schema belongs to somebody else.
    """
    await ensure_schema(conn)
    await conn.execute(CREATE)


async def read_marks(session: Session) -> Mapping[str, Mapping[str, Mark]]:
    """The marks of each change, by its name; none where nothing was ever changed."""
    (row,) = await session.fetch(THERE, MARKS_TABLE)
    found: dict[str, dict[str, Mark]] = {}
    for each in await session.fetch(READ) if row["there"] else ():
        mark = Mark(sha256=each["sha256"], detail=json.loads(each["detail"]))
        found.setdefault(each["change"], {})[each["mark"]] = mark
    return found


def lasting(marks: Mapping[str, Mark]) -> Mapping[str, Mark]:
    """Without those that only say what a run has done."""
    return {name: mark for name, mark in marks.items() if not name.startswith(TOKEN)}
