"""Before the first batch: what the table is, whether it can be done, and whose turn it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate.backfill.batch import (
    Statements,
    batch_session,
    plain_statements_of,
    statements_of,
)
from postgres.migrate.backfill.key import Table, read_table
from postgres.migrate.backfill.ledger import (
    Claim,
    claim,
    ensure_ledger,
    is_known,
    open_backfill,
)
from postgres.migrate.backfill.ranges import cuts_of, last_key, pieces_of, wanted_pieces
from postgres.migrate.backfill.signals import LOST, check_primary
from postgres.migrate.backfill.spec import BackfillLimits, BackfillSpec
from postgres.migrate.own_schema import ASIDE_SCHEMA, ensure_schema

_COUNTED_ROWS_MAX: Final = 300_000
# Names come with their schemas where nothing is found without.
_QUIET: Final = (
    "SET search_path = ''; SET application_name = 'twokey backfill'; SET statement_timeout = '60s';"
    " SET lock_timeout = '60s'"
)
_SECONDS_MAX: Final = 65.0


@asynccontextmanager
async def quiet_session(target: Target) -> AsyncIterator[Any]:
    """A connection for the catalog and the ledger, where nothing is found without its schema.

    Raises:
        PostgresError: the server cannot be reached.
    """
    async with connection(target) as conn:
        await conn.execute(_QUIET)
        yield conn


async def claim_backfill(
    target: Target, spec: BackfillSpec, limits: BackfillLimits, assigned: tuple[str, ...]
) -> tuple[Claim, Statements]:
    """Look at the table, write the backfill down if it is new, and take it over.

    Raises:
        PostgresError: it cannot be done; no row has changed.
    """
    async with quiet_session(target) as conn:
        await check_primary(conn)
        table = await read_table(conn, spec.schema, spec.table)
        _check_assigned(table, assigned)
        statements = statements_of(spec, table)
        await _try_out(target, spec, table, limits, plain_statements_of(spec, table))
        try:
            await ensure_ledger(conn)
            is_new = not await is_known(conn, spec.key)
            if is_new:
                if spec.keep is not None:
                    await ensure_schema(conn, ASIDE_SCHEMA)
                await _open(conn, spec, table, limits)
            return await claim(conn, spec, table, is_new=is_new), statements
        except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, TimeoutError) as error:
            raise PostgresError(
                f"A batch of an earlier run of {spec.key} has not ended yet.",
                next_step="See with /db locks what it waits for; then ask again.",
            ) from error
        except asyncpg.DuplicateTableError as error:
            raise PostgresError(
                f"What is to be kept has no place: {error.args[0]}. Nothing was changed.",
                next_step="Ask again: it gets another name.",
            ) from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise PostgresError(
                f"The ledger of backfills cannot be written: {error.args[0]}.",
                next_step="Our user needs CREATE on the database, for the schema twokey_migrate.",
            ) from error


async def estimated_rows(conn: Any, table: Table) -> int:
    """How many rows the table has: counted where they are few, else as the planner believes."""
    plan = await conn.fetchval(f"EXPLAIN (FORMAT JSON) SELECT FROM {table.quoted}")
    believed = int(json.loads(plan)[0]["Plan"]["Plan Rows"])
    if believed > _COUNTED_ROWS_MAX:
        return believed
    query = f"SELECT count(*) FROM {table.quoted}"  # noqa: S608 - quoted by the server
    return int(await conn.fetchval(query, timeout=_SECONDS_MAX))


async def _open(conn: Any, spec: BackfillSpec, table: Table, limits: BackfillLimits) -> None:
    total = await estimated_rows(conn, table)
    last = await last_key(conn, table)
    wanted = wanted_pieces(total, workers=spec.ranges, batch_rows=limits.rows)
    cuts = await cuts_of(conn, table, wanted) if last else []
    await open_backfill(conn, spec, table, total=total, pieces=pieces_of(cuts, last))


def _check_assigned(table: Table, assigned: tuple[str, ...]) -> None:
    if moved := sorted(set(assigned) & set(table.key.names)):
        raise PostgresError(
            f"{', '.join(moved)} of {table.quoted} is part of the key by which the backfill walks"
            " through the table: a row whose key changes could be done twice, or never.",
            next_step="Fill a new column, and exchange the two once it is done.",
        )


async def _try_out(
    target: Target, spec: BackfillSpec, table: Table, limits: BackfillLimits, made: Statements
) -> None:
    """Have the server plan a batch, and run none: what is wrong with it is said before."""
    async with batch_session(target, spec, table.key, limits) as conn:
        try:
            if await conn.fetchval("SELECT row_security_active($1::oid)", table.oid):
                raise _hidden(table)
            async with conn.transaction(readonly=True):
                await conn.prepare(made.end_first)
                nothing = [None] * len(table.key.types)
                await conn.fetchrow(f"EXPLAIN {made.update_first}", *nothing)
        except asyncpg.PostgresError as error:
            if isinstance(error, LOST):
                raise
            if isinstance(error, asyncpg.InsufficientPrivilegeError):
                hint = f"GRANT SELECT, UPDATE ON {table.quoted} to our user."
            else:
                hint = "Mend what it names, then ask again."
            raise PostgresError(
                f"The server does not take this backfill of {table.quoted}: {error.args[0]}.",
                next_step=hint,
            ) from error


def _hidden(table: Table) -> PostgresError:
    return PostgresError(
        f"Policies hide rows of {table.quoted} from our user, which would be left out.",
        next_step="Give our user BYPASSRLS, or the table.",
    )
