"""What tests of books share: the tools' own tables, and a first migration of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from postgres.migrate.books.book import Book
from postgres.migrate.books.opening import book_of
from postgres.migrate.words import Migration, Tool

# What each tool itself runs to have its table, out of its source.
OWN_DDL = {
    Tool.ALEMBIC: """CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,
        CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))""",
    Tool.DBMATE: "create table if not exists public.schema_migrations"
    " (version varchar(255) primary key)",
    Tool.GOLANG_MIGRATE: 'CREATE TABLE IF NOT EXISTS "public"."schema_migrations"'
    " (version bigint not null primary key, dirty boolean not null)",
    Tool.PRISMA: """CREATE TABLE _prisma_migrations (
        id                      VARCHAR(36) PRIMARY KEY NOT NULL,
        checksum                VARCHAR(64) NOT NULL,
        finished_at             TIMESTAMPTZ,
        migration_name          VARCHAR(255) NOT NULL,
        logs                    TEXT,
        rolled_back_at          TIMESTAMPTZ,
        started_at              TIMESTAMPTZ NOT NULL DEFAULT now(),
        applied_steps_count     INTEGER NOT NULL DEFAULT 0)""",
    Tool.FLYWAY: """CREATE TABLE "public"."flyway_schema_history" (
        "installed_rank" INT NOT NULL, "version" VARCHAR(50), "description" VARCHAR(200) NOT NULL,
        "type" VARCHAR(20) NOT NULL, "script" VARCHAR(1000) NOT NULL, "checksum" INTEGER,
        "installed_by" VARCHAR(100) NOT NULL, "installed_on" TIMESTAMP NOT NULL DEFAULT now(),
        "execution_time" INTEGER NOT NULL, "success" BOOLEAN NOT NULL);
        ALTER TABLE "public"."flyway_schema_history" ADD CONSTRAINT "flyway_schema_history_pk"
            PRIMARY KEY ("installed_rank");
        CREATE INDEX "flyway_schema_history_s_idx" ON "public"."flyway_schema_history"
            ("success")""",
}


def made(tool: Tool, version: str, **facts: Any) -> Migration:
    values: dict[str, Any] = {
        "tool": tool,
        "version": version,
        "name": "x",
        "path": Path(f"{version}_x.sql"),
        "up": "SELECT 1",
        "sha256": "s",
    }
    return Migration(**{**values, **facts})


FIRST = {
    Tool.ALEMBIC: made(Tool.ALEMBIC, "a1", book_after=("a1",)),
    Tool.DBMATE: made(Tool.DBMATE, "20260101"),
    Tool.GOLANG_MIGRATE: made(Tool.GOLANG_MIGRATE, "1", book_after=("1",)),
    Tool.PRISMA: made(Tool.PRISMA, "20260101_x", checksum="ab" * 32),
    Tool.FLYWAY: made(
        Tool.FLYWAY, "1", path=Path("/db/sub/V1_0__a_table.sql"), checksum="-1602969721"
    ),
    Tool.PLAIN: made(Tool.PLAIN, "001", checksum="c" * 64),
}


async def opened(conn: Any, tool: Tool) -> Book:
    book = book_of(tool, folder=Path("/db"))
    await book.ensure(conn)
    return book


async def record(conn: Any, book: Book, migration: Migration, seconds: float = 1.5) -> None:
    async with conn.transaction():
        await book.guard(conn)
        await book.record(conn, migration, seconds=seconds)


async def rows(conn: Any, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await conn.fetch(query)]
