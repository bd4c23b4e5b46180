"""A folder of migrations: which tool keeps it, and what is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import assert_never

from postgres.migrate.folders import alembic, dbmate, flyway, golang_migrate, plain, prisma
from postgres.migrate.folders.folder import Folder
from postgres.migrate.folders.sniffing import find_tool as _find_tool
from postgres.migrate.words import Tool


def find_tool(folder: Path) -> Tool:
    """Whose folder this is, by its files. Blocks: call it in a thread.

    Raises:
        PostgresError: it is nobody's that we know, or more than one's.
    """
    return _find_tool(folder)


async def read_folder(
    folder: Path,
    *,
    tool: Tool | None = None,
    python: Path | None = None,
    versions: Collection[str] | None = None,
) -> Folder:
    """All migrations of a folder, in order.

    `python` is the interpreter that has the application's packages, and `versions` are those
    whose SQL is wanted: for Alembic alone, where the SQL is rendered by the application's code.

    Raises:
        PostgresError: there is no such folder, a file of it cannot be read or leads out of it,
            or it is of no tool that we know. The file is named.
    """
    found = tool if tool is not None else await asyncio.to_thread(_find_tool, folder)
    match found:
        case Tool.PLAIN:
            return await asyncio.to_thread(plain.read, folder)
        case Tool.DBMATE:
            return await asyncio.to_thread(dbmate.read, folder)
        case Tool.FLYWAY:
            return await asyncio.to_thread(flyway.read, folder)
        case Tool.GOLANG_MIGRATE:
            return await asyncio.to_thread(golang_migrate.read, folder)
        case Tool.PRISMA:
            return await asyncio.to_thread(prisma.read, folder)
        case Tool.ALEMBIC:
            return await alembic.read(folder, python=python, versions=versions)
        case _:
            assert_never(found)
