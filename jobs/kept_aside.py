"""What is kept aside in databases: entered after a migration, measured, and told when it is due.

Nothing is dropped here: when its time is up the channel hears it once, with a button.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

from pydantic import TypeAdapter

from jobs.away import is_away
from jobs.operation import Answer, Context, Database, Job, JobError, Suggestion
from jobs.text import count_text, span_text
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.aside_words import Kept
from postgres.migrate.own_schema import ASIDE_SCHEMA, ensure_schema
from postgres.sizes import pretty_bytes
from store import outbox
from store.connect import Store
from store.kept_aside import KeptRow, mark_told, open_kept, record_kept, untold_kept

log: Final = logging.getLogger("twokey.jobs")

EVERY: Final = timedelta(minutes=1)
ANSWER: Final = TypeAdapter(Answer)
# Everything in our schema that holds data, whoever put it there.
STANDS: Final = """
    SELECT c.relname::text AS name, c.oid::bigint AS oid, c.relkind::text AS kind,
           pg_total_relation_size(c.oid) AS bytes, greatest(c.reltuples, -1)::bigint AS rows
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'm', 'S')
       -- A sequence of a kept table is part of it.
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                          AND d.objid = c.oid AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i'))
     ORDER BY c.relname
"""


async def prepare_aside(database: Database) -> None:
    """Have the schema that kept things go to: before statements that move them.

    Raises:
        PostgresError: it belongs to somebody else, or we may not make it.
    """
    async with connection(parse_dsn(database.dsn.get_secret_value())) as conn:
        await ensure_schema(conn, ASIDE_SCHEMA)


async def enter_kept(job: Job, kept: Sequence[Kept]) -> Sequence[KeptRow]:
    """Store what a run has kept, as large as it is; what is not there was not kept.

    May be repeated: what is stored already stays as it is.
    """
    if not kept:
        return ()
    async with connection(parse_dsn(job.database.dsn.get_secret_value())) as conn:
        there = {row["name"]: row for row in await conn.fetch(STANDS, ASIDE_SCHEMA)}
    rows = [_row(job, each, there[each.name]) for each in kept if each.name in there]
    async with job.store.begin() as conn:
        for row in rows:
            await record_kept(conn, row)
    return rows


def _row(job: Job, kept: Kept, there: Mapping[str, Any]) -> KeptRow:
    rows = there["rows"] if there["rows"] >= 0 else kept.before.rows
    return KeptRow(
        database=job.database.name,
        what=str(kept.what),
        original=kept.original,
        kept=kept.kept,
        bytes=there["bytes"],
        rows=rows if rows >= 0 else None,
        request_id=job.request_id,
        at=job.now,
        until=job.now + job.database.migrations.keep_aside,
        detail=kept.to_json(),
    )


async def the_kept(context: Context, wanted: str) -> KeptRow:
    """What is kept under this name: of the thing as it was, of its copy, or a number.

    Raises:
        JobError: nothing is, or several things are.
    """
    async with context.store.begin() as conn:
        rows = await open_kept(conn, context.database.name)
    found = [row for row in rows if wanted in names_of(row)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} things of that name are" if found else "Nothing of that name is"
    raise JobError(
        f"{what} kept aside of {context.database.name}: {wanted}.",
        next_step=f"Take a name of /db aside {context.database.name}, such as"
        f" {rows[0].kept.partition('.')[2]}." if rows else
        f"See what is: /db aside {context.database.name}",
    )  # fmt: skip


def names_of(row: KeptRow) -> frozenset[str]:
    """How people may name it."""
    plain = row.original.partition(".")[2]
    return frozenset({str(row.id), row.kept, row.kept.partition(".")[2], row.original, plain})


async def tell_kept(
    store: Store,
    databases: Mapping[str, Database],
    *,
    clock: Callable[[], datetime],
    every: timedelta = EVERY,
) -> None:
    """Tell what is due, for ever."""
    while True:
        try:
            await tell_due(store, databases, now=clock())
        except PostgresError as error:
            log.warning("What is kept aside could not be looked at: %s", error)
        except Exception as error:
            if not is_away(error):
                raise
        await asyncio.sleep(every.total_seconds())


async def tell_due(store: Store, databases: Mapping[str, Database], *, now: datetime) -> int:
    """Once: post what is due, and note that it was told, together; how many things."""
    async with store.begin() as conn:
        rows = sorted(await untold_kept(conn, now=now), key=lambda row: row.database)
        for name, group in groupby(rows, key=lambda row: row.database):
            due = list(group)
            if (database := databases.get(name)) is not None:
                answer = due_words(name, due, now=now)
                await outbox.post(
                    conn, topic="result", request_id=None, channel=database.channel,
                    payload={"answer": ANSWER.dump_python(answer, mode="json")}, now=now,
                )  # fmt: skip
            await mark_told(conn, [row.id for row in due], at=now)
    return len(rows)


def due_words(database: str, due: Sequence[KeptRow], *, now: datetime) -> Answer:
    """What the channel hears. Pure."""
    bytes_ = sum(row.bytes for row in due)
    return Answer(
        title=f"Kept aside of {database}: the time of {count_text(len(due), 'thing')} is up",
        lines=(
            f"{pretty_bytes(bytes_)} stay until somebody asks for their end.",
            *(
                f"{row.what} {row.original}, kept {span_text(now - row.at)} ago"
                f" by request {row.request_id}"
                for row in due[:10]
            ),
        ),
        suggestions=(
            Suggestion(
                text="Drop what is due",
                operation="drop-aside",
                params={"database": database},
                reason="Its time is up.",
            ),
            Suggestion(text="What is kept", operation="aside", params={"database": database}),
        ),
    )
