"""The values that a backfill overwrites, kept aside by the very statement that overwrites them.

Key, old and new value of each row go to a table of its own in `twokey_aside`. One statement locks
the rows as they are, writes them, and stores what was there: so what is kept is what was
overwritten, also where another transaction has changed a row since the statement began, and it
commits with its batch or not at all. RETURNING OLD is only there from PostgreSQL 18 on; this works
on all that we know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.migrate.backfill.key import Table
from postgres.migrate.backfill.spec import BackfillSpec, Keep
from postgres.migrate.own_schema import ASIDE_SCHEMA
from postgres.schema.catalog import full, ident, literal
from postgres.sizes import pretty_bytes

# Of whoever looks at a kept table: the old value has the column's own name.
WRITTEN: Final = "twokey_written_"
# Two backfills of one second may have chosen one name: the second fails, and has done nothing.
_CREATE: Final = """
    CREATE TABLE {kept} AS SELECT {columns} FROM {table} WITH NO DATA;
    ALTER TABLE {kept} ADD PRIMARY KEY ({key});
    COMMENT ON TABLE {kept} IS {says};
"""
_NOTE: Final = """
    INSERT INTO twokey_migrate.backfill_kept (key, name, oid)
    VALUES ($1, $2, to_regclass($3)::oid)
"""
_NOTED: Final = """
    SELECT name, oid, to_regclass(format('%I.%I', $2::text, name))::oid AS now
      FROM twokey_migrate.backfill_kept WHERE key = $1
"""


def written_names(count: int) -> tuple[str, ...]:
    """Under which names a kept table has the values that were written. Pure."""
    return tuple(f"{WRITTEN}{number}" for number in range(1, count + 1))


def keeping_update(
    spec: BackfillSpec, keep: Keep, table: Table, assigned: Sequence[str], *, has_start: bool
) -> str:
    """A batch that keeps: one row with `rows`, how many it changed, and `bytes` kept in all. Pure.

    The condition is asked once, of each row as it is when it is locked. Our names stand for no
    column of anybody's, so that what is assigned means the table's own.
    """
    where = table.key.within(has_start=has_start)
    condition = f" AND ({spec.where_sql}\n)" if spec.where_sql else ""
    keys = [f"twokey_key_{number}" for number, _ in enumerate(table.key.quoted, start=1)]
    olds = [f"twokey_old_{number}" for number, _ in enumerate(assigned, start=1)]
    columns = [ident(name) for name in assigned]
    read = ", ".join(
        f"{column} AS {name}"
        for column, name in zip([*table.key.quoted, *columns], [*keys, *olds], strict=True)
    )
    same = " AND ".join(
        f"{column} = {name}" for column, name in zip(table.key.quoted, keys, strict=True)
    )
    place = full(ASIDE_SCHEMA, keep.name)
    return (
        f"WITH twokey_old AS MATERIALIZED (SELECT {read} FROM {table.quoted}\n"  # noqa: S608
        f" WHERE {where}{condition} ORDER BY {table.key.columns} FOR NO KEY UPDATE),\n"
        f"twokey_new AS (UPDATE {table.quoted} SET {spec.assignments_sql}\n"
        f" FROM twokey_old WHERE {where} AND {same}\n"
        f" RETURNING {', '.join([*keys, *olds, *columns])}),\n"
        f"twokey_kept AS (INSERT INTO {place} SELECT * FROM twokey_new RETURNING 1)\n"
        f"SELECT count(*) AS rows, pg_total_relation_size({literal(place)}::regclass) AS bytes"
        " FROM twokey_kept"
    )


async def make_kept(
    conn: Any, spec: BackfillSpec, keep: Keep, table: Table, assigned: Sequence[str]
) -> None:
    """Have the table for what is kept, in the transaction that writes the backfill down.

    Raises:
        asyncpg.DuplicateTableError: something else has its name.
    """
    place = full(ASIDE_SCHEMA, keep.name)
    columns = [ident(name) for name in assigned]
    new = [f"{c} AS {name}" for c, name in zip(columns, written_names(len(columns)), strict=True)]
    await conn.execute(
        _CREATE.format(
            kept=place,
            columns=", ".join([*table.key.quoted, *columns, *new]),
            table=table.quoted,
            key=table.key.columns,
            says=literal(f"What {spec.key} has overwritten in {spec.name}").strip(),
        )
    )
    await conn.execute(_NOTE, spec.key, keep.name, place)


async def check_kept(conn: Any, spec: BackfillSpec) -> None:
    """Whether a backfill goes on keeping as it began, where it began to.

    Raises:
        PostgresError: it does not. Nothing has changed.
    """
    row = await conn.fetchrow(_NOTED, spec.key, ASIDE_SCHEMA)
    wanted = spec.keep.name if spec.keep else None
    if (row["name"] if row else None) != wanted:
        began = f"keeping the old values in {row['name']}" if row else "without keeping old values"
        raise PostgresError(
            f"The backfill {spec.key} was begun {began}, and would go on otherwise.",
            next_step="Ask for it as it was, or anew, as a request of its own.",
        )
    if row is not None and row["now"] != row["oid"]:
        raise PostgresError(
            f"What the backfill {spec.key} has kept, {ASIDE_SCHEMA}.{row['name']}, is not there any"
            " more: it was put back or dropped.",
            next_step="Ask for the backfill anew, as a request of its own.",
        )


def too_much(spec: BackfillSpec, keep: Keep, found: int) -> PostgresError:
    """Why a batch was taken back that would have kept more than is agreed to. Pure."""
    return PostgresError(
        f"The old values of {spec.name} take {pretty_bytes(found)}, and"
        f" {pretty_bytes(keep.bytes_max)} may be kept.",
        next_step="Raise keep_max of the inventory's migrations.backfill, or backfill a part of"
        " the table at a time; what is done stays done and kept.",
    )
