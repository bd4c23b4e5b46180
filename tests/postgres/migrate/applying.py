"""What the tests of applying share: units out of SQL, limits that are short, other people."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
from pglast.parser import split

from postgres.dsn import Target, parse_dsn
from postgres.migrate.apply import Applied, ApplyLimits, Unit, apply_unit
from postgres.migrate.books.opening import book_of
from postgres.migrate.words import (
    Direction,
    Migration,
    Review,
    ReviewedStatement,
    StatementKind,
    Tool,
)

QUICK = ApplyLimits(
    lock=timedelta(milliseconds=100),
    tries=4,
    pause_seconds=0.02,
    pause_seconds_max=0.05,
    additive=timedelta(seconds=5),
    statement=timedelta(seconds=10),
    alone=timedelta(seconds=20),
    look=timedelta(milliseconds=50),
    life=timedelta(seconds=10),
    tool=timedelta(seconds=0.3),
    reconnect=timedelta(seconds=10),
    cleanup=timedelta(seconds=5),
)
_ALONE = ("CONCURRENTLY", "VACUUM", "ALTER SYSTEM", "CREATE DATABASE")


def statements_of(sql: str, kind: StatementKind) -> tuple[ReviewedStatement, ...]:
    return tuple(
        ReviewedStatement(
            index=index, sql=text, line=1 + sql[: sql.index(text)].count("\n"), node="", kind=kind,
            must_be_alone=any(word in text for word in _ALONE),
        )
        for index, text in enumerate(split(sql))
    )  # fmt: skip


def unit_of(
    sql: str,
    *,
    version: str = "0001",
    down: str | None = None,
    direction: Direction = Direction.UP,
    tool: Tool = Tool.PLAIN,
    kind: StatementKind = StatementKind.ADDITIVE,
    **more: Any,
) -> Unit:
    """A file that was reviewed; whether it is one transaction follows from its statements."""
    sha = hashlib.sha256(sql.encode()).hexdigest()
    migration = Migration(
        tool=tool, version=version, name="change", path=Path(f"{version}_change.sql"), up=sql,
        sha256=sha, checksum=sha, down=down, **more,
    )  # fmt: skip
    statements = statements_of(sql if direction is Direction.UP else down or "", kind)
    alone = any(each.must_be_alone for each in statements)
    return Unit(
        key=f"{version} {direction}", migration=migration, direction=direction,
        review=Review(statements=statements, is_transactional=not alone),
    )  # fmt: skip


@dataclass(slots=True)
class Told:
    """Keeps what was told."""

    texts: list[str] = field(default_factory=list)

    async def __call__(self, text: str, fraction: float | None) -> None:
        self.texts.append(text)

    def has(self, part: str) -> bool:
        return any(part in text for text in self.texts)


async def silent(text: str, fraction: float | None) -> None:
    """Tells nobody."""


async def apply_now(dsn: str | Target, unit: Unit, **more: Any) -> Applied:
    target = parse_dsn(dsn) if isinstance(dsn, str) else dsn
    settings = {
        "book": book_of(unit.migration.tool), "expected": None, "limits": QUICK, "tell": silent
    } | more  # fmt: skip
    return await apply_unit(target, unit, **settings)


@asynccontextmanager
async def other(dsn: str, *statements: str, name: str = "shop") -> AsyncIterator[Any]:
    """Somebody else's session, in a transaction of statements that does not end by itself."""
    conn = await asyncpg.connect(dsn, server_settings={"application_name": name})
    try:
        await conn.execute("BEGIN")
        for statement in statements:
            await conn.execute(statement)
        yield conn
    finally:
        conn.terminate() if conn.is_in_transaction() else await conn.close()


async def until(probe: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(30):
        while not (found := await probe()):
            await asyncio.sleep(0.01)
        return found
