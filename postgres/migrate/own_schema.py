"""The schema in a target database where our own bookkeeping of changes stands.

A checkpoint must commit together with the batch that it is about, and a ledger of statements
with the statement: both need a table in the target itself.
"""

from __future__ import annotations

from typing import Any, Final

from postgres.errors import PostgresError

SCHEMA: Final = "twokey_migrate"
ASIDE_SCHEMA: Final = "twokey_aside"

# Who owns what stands there could make our statements do their work, with our rights.
_STRANGERS: Final = """
    SELECT DISTINCT pg_get_userbyid(o.owner)::text AS name
      FROM (SELECT nspowner FROM pg_namespace WHERE nspname = $1
             UNION ALL
            SELECT relowner FROM pg_class WHERE relnamespace = to_regnamespace($1)
             UNION ALL
            SELECT proowner FROM pg_proc WHERE pronamespace = to_regnamespace($1)) AS o(owner)
     WHERE pg_get_userbyid(o.owner) <> current_user
     LIMIT 5
"""
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7203))"


async def ensure_schema(conn: Any, schema: str = SCHEMA) -> None:
    """Have a schema of ours, which nobody else owns or can use. Not inside a transaction.

    Raises:
        PostgresError: it belongs to somebody else.
    """
    async with conn.transaction():
        await conn.execute(_LOCK, schema)  # two at once would both create it
        strangers = [row["name"] for row in await conn.fetch(_STRANGERS, schema)]
        if strangers:
            raise PostgresError(
                f"The schema {schema} belongs to {', '.join(strangers)}, not to us.",
                next_step="Find out who made it; then drop it, or give it to our user whole.",
            )
        if not await conn.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema):
            await conn.execute(f'CREATE SCHEMA "{schema}"')
            await conn.execute(f'REVOKE ALL ON SCHEMA "{schema}" FROM PUBLIC')
