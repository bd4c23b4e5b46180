"""The source of truth of a schema, whatever declares it, as DDL."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from jobs.health_settings import SchemaKind, SchemaSource
from jobs.operation import JobError
from postgres.binaries import Binaries, find_binaries
from postgres.errors import PostgresError
from postgres.programs import run_program
from postgres.schema.declared import BYTES_MAX, Declared, declared_schema
from postgres.schema.drift import Scope
from postgres.schema.prisma_ddl import prisma_ddl
from postgres.schema.statements import split_statements

IMPORT_LIMIT: Final = timedelta(seconds=30)
_FILES_MAX: Final = 500
# Runs in the application's own Python: it imports the models and prints what would make them.
_PRINT_METADATA: Final = """
import importlib, sys
folder, wanted = sys.argv[1:3]
sys.path.insert(0, folder)
module, _, attribute = wanted.partition(":")
found = importlib.import_module(module)
for name in attribute.split("."):
    found = getattr(found, name)
from sqlalchemy import create_mock_engine
from sqlalchemy.dialects import postgresql
def show(statement, *_, **__):
    print(str(statement.compile(dialect=postgresql.dialect())).strip() + ";")
found.create_all(create_mock_engine("postgresql://", show), checkfirst=False)
"""
# By the files' mark and the server's major version: what they declared, and when it was made.
_made: Final[dict[tuple[str, int], tuple[Declared, float]]] = {}
_MADE_MAX: Final = 20
SCOPES: Final[Mapping[SchemaKind, Scope]] = {
    SchemaKind.SQL: Scope.ALL,
    SchemaKind.ALEMBIC: Scope.TABLES,
    SchemaKind.PRISMA: Scope.TABLES,
}


async def declared(
    source: SchemaSource, *, major: int, environ: Mapping[str, str] = os.environ
) -> tuple[Declared, Binaries]:
    """What the source declares, made by a server of the same major version where there is one.

    Raises:
        JobError: it cannot be read.
        PostgresError: it is no schema, or no server can be started here.
    """
    mark = await asyncio.to_thread(_mark, source)
    ddl = await ddl_of(source)
    binaries = binaries_of(major, environ)
    made = await declared_schema(binaries, ddl, split=split_statements)
    if mark and mark == await asyncio.to_thread(_mark, source):
        while len(_made) >= _MADE_MAX:
            del _made[next(iter(_made))]
        _made[mark, major] = (made, time.monotonic())
    return made, binaries


async def remembered(source: SchemaSource, *, major: int) -> tuple[Declared, timedelta] | None:
    """What these very files declared when somebody last looked, in this process; and its age.

    None: nobody has, or the files have changed since.
    """
    found = _made.get((await asyncio.to_thread(_mark, source), major))
    if found is None:
        return None
    return found[0], timedelta(seconds=time.monotonic() - found[1])


def binaries_of(major: int, environ: Mapping[str, str] = os.environ) -> Binaries:
    """Programs of this major version, or else what there is.

    Raises:
        PostgresError: there are none here.
    """
    try:
        return find_binaries(environ, major=major)
    except PostgresError:
        return find_binaries(environ)


def _mark(source: SchemaSource) -> str:
    """Which bytes declare it; '' where they cannot be read, or are not all known."""
    path, patterns = source.path, {SchemaKind.SQL: "*.sql", SchemaKind.PRISMA: "*.prisma"}
    pattern = patterns.get(source.kind)
    digest = hashlib.sha256(f"{source.kind} {source.metadata} {path}".encode())
    try:
        # Models may import anything; of those that stand beside them we can tell.
        listed = path.rglob("*.py") if pattern is None else path.glob(pattern)
        files = sorted(listed)[:_FILES_MAX] if path.is_dir() else [path]
        if sum(file.stat().st_size for file in files) > BYTES_MAX:
            return ""
        for file in files:
            digest.update(f"{file} ".encode() + hashlib.sha256(file.read_bytes()).digest())
    except OSError:
        return ""
    return digest.hexdigest()


async def ddl_of(source: SchemaSource) -> str:
    """What the source declares, as DDL.

    Raises:
        JobError: it cannot be read.
    """
    match source.kind:
        case SchemaKind.SQL:
            return await asyncio.to_thread(_read, source.path, "*.sql")
        case SchemaKind.PRISMA:
            return prisma_ddl(await asyncio.to_thread(_read, source.path, "*.prisma"))
        case SchemaKind.ALEMBIC:
            return await _of_metadata(source)


async def _of_metadata(source: SchemaSource) -> str:
    python = source.python or Path(sys.executable)
    if not await asyncio.to_thread(source.path.is_dir):
        raise JobError(
            f"{source.path} is no folder, so {source.metadata} cannot be imported from it.",
            next_step="Name the folder in which the application is imported: schema.path.",
        )
    done = await run_program(
        [python, "-c", _PRINT_METADATA, source.path, source.metadata],
        time_limit=IMPORT_LIMIT,
        as_server=False,
        stdout_bytes_max=BYTES_MAX,
    )
    if done.code != 0:
        raise JobError(
            f"{source.metadata} cannot be imported from {source.path}: {done.last_words}.",
            next_step="Name the Python that has the application's packages: schema.python.",
        )
    return done.stdout


def _read(path: Path, pattern: str) -> str:
    """A file, or all files of a folder in the order of their names.

    Raises:
        JobError: it cannot be read, or is too large.
    """
    try:
        files = sorted(path.glob(pattern))[:_FILES_MAX] if path.is_dir() else [path]
        if sum(file.stat().st_size for file in files) > BYTES_MAX:
            raise JobError(
                f"{path} is larger than {BYTES_MAX:,} bytes.",
                next_step="Declare the schema without its data: pg_dump --schema-only.",
            )
        texts = [file.read_text(encoding="utf-8") for file in files]
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(
            f"{path} cannot be read: {error}.",
            next_step="Correct monitoring.schema in the inventory, on the bot's host.",
        ) from error
    if not texts:
        raise JobError(
            f"There is no {pattern} in {path}.",
            next_step="Correct monitoring.schema in the inventory, on the bot's host.",
        )
    return "\n".join(texts)
