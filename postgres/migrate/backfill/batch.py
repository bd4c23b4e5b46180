"""One batch and its checkpoint, in one transaction that holds nothing before or after."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate.backfill.kept import keeping_update, too_much
from postgres.migrate.backfill.key import ALIAS, Key, Table
from postgres.migrate.backfill.ledger import CHECKPOINT, HOLD, Claim, TakenOverError
from postgres.migrate.backfill.parts import assigned_columns
from postgres.migrate.backfill.spec import BackfillLimits, BackfillSpec

_GRACE: Final = timedelta(seconds=5)

# Each batch is planned for its own limits, and finds its rows by the index whatever the
# statistics say. A policy that would hide rows from us is an error instead. A server from 14 on
# notices within a second that its client died.
_SETTINGS: Final = """
    SELECT set_config('application_name', left('twokey backfill ' || $1::text, 63), false),
           set_config('search_path', concat_ws(', ',
               nullif(current_setting('search_path'), ''), $2::text), false),
           set_config('statement_timeout', $3, false), set_config('lock_timeout', $4, false),
           set_config('idle_in_transaction_session_timeout', '60s', false),
           set_config('plan_cache_mode', 'force_custom_plan', false),
           set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false),
           set_config('row_security', 'off', false),
           CASE WHEN current_setting('server_version_num')::int >= 140000
                THEN set_config('client_connection_check_interval', '1s', false) END
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """The SQL of a backfill's batches; `_first` has no key to begin after."""

    spec: BackfillSpec
    end: str
    end_first: str
    count: str
    count_first: str
    update: str
    update_first: str

    def of(self, kind: str, *, has_start: bool) -> str:
        """One of them."""
        text: str = getattr(self, kind if has_start else f"{kind}_first")
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one transaction did. `is_last`: its range is done."""

    passed: int
    updated: int
    is_last: bool
    seconds: float


@dataclass(slots=True)
class Reach:
    """Which keys a batch was about, for who has to say why it failed."""

    after: tuple[str, ...] | None = None
    upto: tuple[str, ...] = ()


def statements_of(spec: BackfillSpec, table: Table) -> Statements:
    """The SQL of a backfill. Its two parts were checked to be what they are. Pure."""
    made = {}
    assigned = assigned_columns(spec) if spec.keep else ()
    for has_start in (True, False):
        where = table.key.within(has_start=has_start)
        name = "" if has_start else "_first"
        following = len(table.key.types) * (2 if has_start else 1) + 1
        made[f"end{name}"] = (
            f"SELECT {table.key.texts} FROM {table.quoted} AS {ALIAS}"  # noqa: S608
            f" WHERE {where} ORDER BY {table.key.order()} OFFSET ${following}::bigint - 1 LIMIT 1"
        )
        made[f"count{name}"] = f"SELECT count(*) FROM {table.quoted} WHERE {where}"  # noqa: S608
        # A comment at a part's end must not take our own text with it.
        condition = f" AND ({spec.where_sql}\n)" if spec.where_sql else ""
        made[f"update{name}"] = (
            f"UPDATE {table.quoted} SET {spec.assignments_sql}\n WHERE {where}{condition}"  # noqa: S608
            if spec.keep is None
            else keeping_update(spec, spec.keep, table, assigned, has_start=has_start)
        )
    return Statements(spec=spec, **made)


def plain_statements_of(spec: BackfillSpec, table: Table) -> Statements:
    """The same, keeping nothing: for who only has them planned. Pure."""
    return statements_of(replace(spec, keep=None), table)


@asynccontextmanager
async def batch_session(
    target: Target, spec: BackfillSpec, key: Key, limits: BackfillLimits
) -> AsyncIterator[Any]:
    """A connection for batches, with limits on every wait.

    Raises:
        PostgresError: the server cannot be reached.
    """
    schemas = [name for name in key.operators if name != "pg_catalog"]
    async with connection(target) as conn:
        await conn.fetchrow(
            _SETTINGS,
            spec.key,
            ", ".join(schemas) or None,
            _ms(limits.statement),
            _ms(limits.lock),
        )
        yield conn


def _ms(length: timedelta) -> str:
    return f"{max(1, round(length.total_seconds() * 1000))}ms"


async def run_batch(
    conn: Any,
    statements: Statements,
    claim: Claim,
    number: int,
    *,
    rows: int,
    limits: BackfillLimits,
    reach: Reach,
) -> Batch | None:
    """Do the next `rows` of a range; None: the range was done already.

    Raises:
        TakenOverError: another life has the backfill. Nothing has changed.
        PostgresError: the table was replaced, or more would be kept than may be. Nothing has
            changed.
        asyncpg.PostgresError: the batch failed, and has changed nothing.
        OSError, asyncpg.InterfaceError: the connection was lost; the ledger knows how it ended.
    """
    begun = time.perf_counter()
    seconds_max = (limits.statement + _GRACE).total_seconds()
    async with conn.transaction(isolation="read_committed"):
        held = await conn.fetchrow(
            HOLD, claim.key, number, claim.epoch, claim.table.quoted, timeout=seconds_max
        )
        if held is None:
            raise TakenOverError(claim.key)
        if held["is_done"]:
            return None
        if held["table_oid"] != claim.table.oid:
            raise _replaced(claim)
        return await _do(
            conn, statements, claim, number, held,
            rows=rows, seconds_max=seconds_max, reach=reach, begun=begun,
        )  # fmt: skip


async def _do(
    conn: Any,
    statements: Statements,
    claim: Claim,
    number: int,
    held: Any,
    *,
    rows: int,
    seconds_max: float,
    reach: Reach,
    begun: float,
) -> Batch:
    after, upto = held["reached"] or [], held["upto"]
    has_start = bool(after)
    reach.after, reach.upto = tuple(after) or None, tuple(upto)
    end = await conn.fetchrow(
        statements.of("end", has_start=has_start), *after, *upto, rows, timeout=seconds_max
    )
    to = list(upto if end is None else end)
    reach.upto = tuple(to)
    passed = rows
    if end is None:
        passed = await conn.fetchval(
            statements.of("count", has_start=has_start), *after, *to, timeout=seconds_max
        )
    update = statements.of("update", has_start=has_start)
    updated = await _update(conn, statements.spec, update, (*after, *to), seconds_max)
    is_last = end is None or to == upto
    await conn.execute(
        CHECKPOINT, claim.key, number, to, is_last, updated, passed, rows, timeout=seconds_max
    )
    return Batch(
        passed=passed, updated=updated, is_last=is_last, seconds=time.perf_counter() - begun
    )


async def _update(
    conn: Any, spec: BackfillSpec, update: str, keys: tuple[str, ...], seconds_max: float
) -> int:
    """How many rows it changed."""
    if spec.keep is None:
        done = await conn.execute(update, *keys, timeout=seconds_max)
        return int(str(done).rpartition(" ")[2])
    found = await conn.fetchrow(update, *keys, timeout=seconds_max)
    if found["bytes"] > spec.keep.bytes_max:
        raise too_much(spec, spec.keep, found["bytes"])
    return int(found["rows"])


def _replaced(claim: Claim) -> PostgresError:
    return PostgresError(
        f"{claim.table.quoted} was dropped or replaced while it was worked on.",
        next_step="See what it is now; what was done before stays done.",
    )
