"""A named moment in the WAL before something that cannot be undone otherwise."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg

NAME_BYTES_MAX: Final = 63  # of a restore point's name, in PostgreSQL

# The time first: recovery to it ends before whatever comes after.
_NOW: Final = """
    SELECT clock_timestamp() AS at,
           pg_current_wal_insert_lsn()::text AS lsn,
           has_function_privilege('pg_create_restore_point(text)', 'EXECUTE')
                AND current_setting('wal_level') <> 'minimal' AS may_name
"""
_NAME: Final = "SELECT pg_create_restore_point($1)::text"


class RestorePoint(NamedTuple):
    """`at` and `lsn` are what `/db restore --to` takes; `named`: the WAL has its name too."""

    lsn: str
    at: datetime
    named: bool


async def mark(conn: Any, name: str) -> RestorePoint:
    """Note where the server stands, and name it where we may: a superuser's, or granted.

    Not inside a transaction that has changed something: that would be after the mark.
    """
    row = await conn.fetchrow(_NOW)
    if not row["may_name"]:
        return RestorePoint(lsn=row["lsn"], at=row["at"], named=False)
    try:
        lsn = await conn.fetchval(_NAME, name.encode()[:NAME_BYTES_MAX].decode(errors="ignore"))
    except asyncpg.PostgresError:  # a standby, or no WAL: the time is what there is
        return RestorePoint(lsn=row["lsn"], at=row["at"], named=False)
    return RestorePoint(lsn=lsn, at=row["at"], named=True)
