"""Whose folder of migrations it is, told by the names of its files and by their first lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from postgres.errors import PostgresError
from postgres.migrate.folders.dbmate import MARK
from postgres.migrate.folders.files import list_files
from postgres.migrate.words import Tool

GOLANG_NAME: Final = re.compile(r"\d+_.*\.(up|down)\.sql")
FLYWAY_NAME: Final = re.compile(r"([VU]\d[\d._]*|R|B\d[\d._]*)__.+\.sql")
_NUMBERED: Final = re.compile(r"\d+.*\.sql")
_LOOKED_INTO_MAX: Final = 50
_HEAD_BYTES: Final = 65_536
# Tools that keep SQL files too, and a book that we do not know how to write.
_OTHERS: Final = (
    ("atlas.sum", "Atlas"),
    ("meta/_journal.json", "Drizzle"),
    ("sqitch.plan", "Sqitch"),
)
_OTHER_MARKS: Final = (
    (re.compile(r"^--\s*\+goose\s+Up", re.MULTILINE | re.IGNORECASE), "goose"),
    (re.compile(r"\A\s*--\s*liquibase formatted sql", re.IGNORECASE), "Liquibase"),
)


def find_tool(folder: Path) -> Tool:
    """The tool whose folder this is. Blocks: call it in a thread.

    Raises:
        PostgresError: it is nobody's that we know, or more than one's.
    """
    names = [path.name for path in list_files(folder, "*.sql")]
    heads = tuple(_heads(folder, names))
    if other := _other_tool(folder, heads):
        raise PostgresError(
            f"{folder} is a folder of {other}, whose bookkeeping we cannot write.",
            next_step=f"Let {other} apply these, or keep them as plain SQL files.",
        )
    found = set(_tools(folder, names, heads))
    if len(found) != 1:
        raise PostgresError(
            f"{folder} looks like a folder of {_words(found)}.",
            next_step=f"Set `migrations.tool` in the inventory: one of {', '.join(Tool)}.",
        )
    return found.pop()


def _tools(folder: Path, names: Sequence[str], heads: Sequence[str]) -> Iterator[Tool]:
    if (folder / "alembic.ini").is_file():
        yield Tool.ALEMBIC
    if _is_prisma(folder):
        yield Tool.PRISMA
    below = (path.name for path in folder.glob("*/*.sql"))
    if any(FLYWAY_NAME.fullmatch(name) for name in (*names, *below)):
        yield Tool.FLYWAY
    numbered = [name for name in names if _NUMBERED.fullmatch(name)]
    if any(MARK.search(head) for head in heads):
        yield Tool.DBMATE
    elif numbered and all(GOLANG_NAME.fullmatch(name) for name in numbered):
        yield Tool.GOLANG_MIGRATE
    elif numbered:
        yield Tool.PLAIN


def _is_prisma(folder: Path) -> bool:
    return (
        (folder / "migration_lock.toml").is_file()
        or (folder / "schema.prisma").is_file()
        or next(folder.glob("*/migration.sql"), None) is not None
    )


def _other_tool(folder: Path, heads: Sequence[str]) -> str:
    for name, tool in _OTHERS:
        if (folder / name).is_file():
            return tool
    marked = (tool for mark, tool in _OTHER_MARKS if any(mark.search(head) for head in heads))
    return next(marked, "")


def _heads(folder: Path, names: Sequence[str]) -> Iterator[str]:
    """How the first files begin."""
    for name in names[:_LOOKED_INTO_MAX]:
        try:
            with (folder / name).open("rb") as file:
                yield file.read(_HEAD_BYTES).decode(errors="replace")
        except OSError as error:
            raise PostgresError(
                f"{folder / name} cannot be read: {error.strerror or error}.",
                next_step="See whether the account that runs Twokey may read it.",
            ) from error


def _words(found: set[Tool]) -> str:
    return " and of ".join(sorted(found)) if found else "no tool that we know"
