"""`/db draft-migration orders`: the migration that makes the database what is declared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field

from jobs.alembic_draft import alembic_draft
from jobs.declared_schema import SCOPES, binaries_of, ddl_of
from jobs.operation import Answer, Context, JobError, Kind, Operation, Risk
from jobs.text import count_text
from postgres.migrate.books.opening import book_of
from postgres.migrate.words import Tool
from postgres.schema.catalog import Catalog
from postgres.schema.drafting import Drafted, draft
from postgres.schema.reading import read_everything
from postgres.schema.statements import split_statements

LIMIT: Final = timedelta(seconds=10)
# So much fits into a message with room for the rest; the tool's own folder takes more.
CHARS_MAX: Final = 12_000
_NAMED_MAX: Final = 8


class Params(BaseModel, extra="forbid"):
    """For which database, and what it is called."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    name: str = Field(
        default="draft", pattern=r"^[A-Za-z0-9_ -]{1,60}$", description="What it is for",
        examples=["add_email"],
    )  # fmt: skip


async def answer(context: Context, params: Params) -> Answer:
    """The statements to copy into the team's folder, proved on a small server of our own.

    Raises:
        JobError: nothing is declared, or it cannot be read.
    """
    source, settings = context.database.monitoring.schema, context.database.migrations
    folder = settings.folder
    is_alembic = folder is not None and await asyncio.to_thread((folder / "alembic.ini").is_file)
    if source is None and not is_alembic:
        raise JobError(
            f"The inventory does not say what declares the schema of {params.database}.",
            next_step="Name it there: monitoring.schema, with kind sql, alembic or prisma.",
        )
    if folder is not None and is_alembic:
        return await _of_alembic(context, params, folder)
    present, major = await _present(context)
    if source is None:
        raise TypeError("looked at above")
    found = await draft(
        binaries_of(major),
        await ddl_of(source),
        split=split_statements,
        present=present,
        scope=SCOPES[source.kind],
    )
    return _answer(params, source.path.name, found)


async def _present(context: Context) -> tuple[Catalog, int]:
    """The catalog in one moment."""
    async with context.reader.session(limit=LIMIT) as session:
        await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found = await read_everything(session)
        await session.execute("COMMIT")
    return found, found.major


def _answer(params: Params, declared: str, found: Drafted) -> Answer:
    if not found.steps and found.is_whole:
        return Answer(title=f"The schema of {params.database} is as {declared} declares it")
    shown, left = _shown([step.text for step in found.steps])
    verdict = (
        "Run on a copy of the schema, it leaves nothing different."
        if found.is_whole
        else "Run on a copy of the schema, something stays different:"
    )
    drops = sum(step.is_drop for step in found.steps)
    lines = [
        f"Made by comparing {declared} with the database. {verdict}",
        *(f"No statement does it: {each}." for each in found.undone[:_NAMED_MAX]),
        *(f"It failed on the copy: {s.sql}: {why}" for s, why in found.failed[:_NAMED_MAX]),
        *(f"Still {each.kind}: {each.what} {each.name}" for each in found.remains[:_NAMED_MAX]),
        *(f"Not in the copy: {each}" for each in found.not_copied[:_NAMED_MAX]),
        *(f"Left out of what is declared: {each}" for each in found.left_out[:_NAMED_MAX]),
    ]
    if drops:
        lines.append(
            f"{count_text(drops, 'drop')} stand as comments: take the dashes away when nobody"
            " needs it. What was renamed looks like that too: write RENAME instead."
        )
    lines.append("What says CONCURRENTLY runs outside a transaction, in a file of its own.")
    if left:
        lines.append(f"{count_text(left, 'more statement')} do not fit here.")
    return Answer(
        title=f"A migration for {params.database}: {params.name},"
        f" {count_text(len(found.steps), 'statement')}",
        lines=tuple(lines),
        statements=tuple(shown),
    )


def _shown(texts: Sequence[str]) -> tuple[list[str], int]:
    """As many as fit, in order; and how many do not."""
    shown: list[str] = []
    for text in texts:
        if sum(map(len, shown)) + len(text) > CHARS_MAX:
            break
        shown.append(text)
    return shown, len(texts) - len(shown)


async def _of_alembic(context: Context, params: Params, folder: Path) -> Answer:
    settings = context.database.migrations
    book = book_of(Tool.ALEMBIC, table=settings.table)
    async with context.reader.session(limit=LIMIT) as session:
        entries = await book.read(session) or ()
    present, major = await _present(context)
    schema, _, name = settings.table.rpartition(".")
    files, missing = await alembic_draft(
        binaries_of(major),
        folder,
        python=settings.python,
        present=present,
        versions=[each.version for each in entries],
        table=(schema, name or "alembic_version"),
        message=params.name,
    )
    texts = [f"# {file}\n{text.rstrip()}" for file, text in files]
    shown, left = _shown(texts)
    made = (
        "Made by `alembic revision --autogenerate` on a copy of the folder and of the schema."
        " Nothing was written into yours: save it there under versions/."
    )
    lines = [
        made,
        *(f"Not in the copy: {each}" for each in missing[:_NAMED_MAX]),
    ]
    if left:
        lines.append("It is too long to be shown here: run Alembic there yourself.")
    return Answer(
        title=f"A revision for {params.database}: {params.name}",
        lines=tuple(lines),
        statements=tuple(shown),
    )


OPERATION = Operation(
    name="draft-migration",
    summary="Draft the migration from a changed source of truth",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db draft-migration orders add_email",
    answer=answer,
    patience=timedelta(seconds=60),
)
