"""Which book a tool keeps."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from postgres.migrate.books import alembic, dbmate, flyway, golang_migrate, plain, prisma
from postgres.migrate.books.book import Book
from postgres.migrate.books.tables import table_name
from postgres.migrate.own_schema import SCHEMA
from postgres.migrate.words import Tool


def book_of(tool: Tool, *, table: str = "", folder: Path | None = None) -> Book:
    """The book of a tool. `table` is its name where it is not the usual one.

    `folder` is where the migrations are: Flyway writes down a script's path within it.

    Raises:
        PostgresError: `table` is no name of a table.
    """
    match tool:
        case Tool.ALEMBIC:
            return alembic.AlembicBook(name=table_name(table, usual=alembic.USUAL))
        case Tool.PRISMA:
            name = table_name(table, usual=prisma.USUAL, schema=prisma.SCHEMA)
            return prisma.PrismaBook(name=name)
        case Tool.FLYWAY:
            return flyway.FlywayBook(name=table_name(table, usual=flyway.USUAL), folder=folder)
        case Tool.GOLANG_MIGRATE:
            name = table_name(table, usual=golang_migrate.USUAL)
            return golang_migrate.GolangMigrateBook(name=name)
        case Tool.DBMATE:
            return dbmate.DbmateBook(name=table_name(table, usual=dbmate.USUAL))
        case Tool.PLAIN:
            return plain.PlainBook(name=table_name(table, usual=plain.USUAL, schema=SCHEMA))
        case _:
            assert_never(tool)
