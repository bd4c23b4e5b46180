"""Whether a restored copy takes a row and gives it back: the first thing that work needs."""

from __future__ import annotations

from typing import Final

import asyncpg

from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError

_SECONDS_MAX: Final = 60.0
# Nothing of the original's shall fire in a copy, such as its triggers on DDL.
_QUIET: Final = "SET LOCAL session_replication_role = replica"
_TABLE: Final = """
    CREATE SCHEMA IF NOT EXISTS twokey_drill;
    CREATE TABLE IF NOT EXISTS twokey_drill.first_rows (id text NOT NULL);
"""
_WRITE: Final = "INSERT INTO twokey_drill.first_rows (id) VALUES ($1)"
_READ: Final = "SELECT count(*) FROM twokey_drill.first_rows WHERE id = $1"


async def first_row_problem(copy: Target, row: str) -> str:
    """Commit a row called `row` on the copy and read it in another session; '' where that worked.

    `copy`: as a superuser. Never raises for what the copy does.
    """
    try:
        async with connection(copy) as conn, conn.transaction():
            await conn.execute(_QUIET, timeout=_SECONDS_MAX)
            await conn.execute(_TABLE, timeout=_SECONDS_MAX)
            await conn.execute(_WRITE, row, timeout=_SECONDS_MAX)
        async with connection(copy) as conn:
            found = await conn.fetchval(_READ, row, timeout=_SECONDS_MAX)
    except PostgresError as error:
        return error.problem.removesuffix(".")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        return f"it takes no rows: {str(error) or 'no answer in time'}"
    return "" if found == 1 else "what was written could not be read back"
