"""A light look at a restored copy that shall be used: nothing that it finds out stays in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import asyncpg

from postgres.backup.counts import databases
from postgres.connect import connection
from postgres.dsn import Target
from postgres.restore.quiet import NEXT_XID

CHECK_LIMIT: Final = timedelta(hours=2)

# The extension is made in a transaction that is rolled back, so it stays where it is only if
# it was there. PostgreSQL quotes its schema.
WHERE_AMCHECK: Final = """
    SELECT format('%I.bt_index_check', n.nspname)
      FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
     WHERE e.extname = 'amcheck'
"""

# The first broken one ends it, with its name in the error.
CHECK_INDEXES: Final = """
    SELECT count({function}(i.indexrelid))
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_am a    ON a.oid = c.relam
     WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'
       AND i.indisvalid AND i.indisready
"""

# Whether our own login of the inventory existed at that time: after the exchange it must work.
LOGIN: Final = """
    SELECT (SELECT rolcanlogin FROM pg_roles WHERE rolname = $1)         AS may_log_in,
           EXISTS (SELECT FROM pg_database WHERE datname = $2)           AS has_database
"""


async def next_xid(target: Target) -> int:
    """The number that the copy's next transaction would get.

    Raises:
        PostgresError: it cannot be reached.
    """
    async with connection(target) as conn:
        return int(await conn.fetchval(NEXT_XID))


async def index_problem(target: Target) -> str | None:
    """The first B-tree index of any database that is broken, or None.

    Raises:
        PostgresError: a database cannot be reached.
    """
    for name in await databases(target):
        async with connection(target, name) as conn:
            try:
                await _check_indexes(conn)
            except (asyncpg.PostgresError, TimeoutError) as error:
                return f"{name}: {str(error) or 'the check of its indexes took too long'}"
    return None


async def login_problem(target: Target, wanted: Target) -> str | None:
    """Why the inventory's own login would not work on the copy, as far as that shows.

    Raises:
        PostgresError: it cannot be reached.
    """
    user = wanted.words.get("user", "")
    async with connection(target) as conn:
        row = await conn.fetchrow(LOGIN, user, wanted.database)
    if user and not row["may_log_in"]:
        return f"at that time there was no role {user} that may log in"
    if not row["has_database"]:
        return f"at that time there was no database {wanted.database}"
    return None


async def _check_indexes(conn: Any) -> None:
    work = conn.transaction()
    await work.start()
    try:
        await conn.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
        function = await conn.fetchval(WHERE_AMCHECK)
        await conn.fetchval(
            CHECK_INDEXES.format(function=function), timeout=CHECK_LIMIT.total_seconds()
        )
    finally:
        await work.rollback()
