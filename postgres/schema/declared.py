"""What a file of DDL declares: made in a server of its own that is thrown away, and read there.

The file runs as a role that is nobody: it owns an empty database and nothing else, so no
statement of it reaches files or programs. Ownership and grants are no part of a schema here;
what needs more than such a role (an extension that is not trusted, a publication) is left out,
and said.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg

from postgres.account import server_account
from postgres.binaries import Binaries
from postgres.connect import connection
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.facts import SCHEMA_LINES
from postgres.server import Server, create, remove_server

LINES_MAX: Final = 200_000
BYTES_MAX: Final = 50_000_000
STATEMENT_SECONDS_MAX: Final = 30
START_LIMIT: Final = timedelta(seconds=60)
ROLE: Final = "declared"
_COPY: Final = re.compile(r"^COPY .* FROM stdin;$", re.IGNORECASE)
_SETTINGS: Final = {
    "fsync": "off",
    "listen_addresses": "",
    "max_connections": "10",
    "shared_buffers": "16MB",
    "autovacuum": "off",
    "jit": "off",
}
# A dump brings them along; they say whose things are, not what they are.
_NOT_SCHEMA: Final = frozenset({"GrantStmt", "AlterOwnerStmt", "AlterDefaultPrivilegesStmt",
                                "GrantRoleStmt", "CreateRoleStmt", "CommentStmt",
                                "SecLabelStmt"})  # fmt: skip
_FOR_SUPERUSERS: Final = frozenset({"CreatePublicationStmt", "CreateSubscriptionStmt",
                                    "CreateEventTrigStmt", "CreateFdwStmt"})  # fmt: skip

Splitter = Callable[[str], Sequence[tuple[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The lines of `SCHEMA_LINES`, and what of the file could not be made here."""

    lines: tuple[str, ...]
    left_out: tuple[str, ...]


async def declared_schema(binaries: Binaries, ddl: str, *, split: Splitter) -> Declared:
    """Make what `ddl` says, and read what came of it.

    `split`: the text's statements, each with its kind in PostgreSQL's grammar.

    Raises:
        PostgresError: a statement fails, or no server can be started here.
    """
    statements = split(without_psql(ddl))
    async with scratch_server(binaries) as server:
        return await make_declared(server, statements)


@asynccontextmanager
async def scratch_server(binaries: Binaries) -> AsyncIterator[Server]:
    """A small server that runs for as long as the block, and nothing of it stays.

    Raises:
        PostgresError: no server can be started here.
    """
    folder = await asyncio.to_thread(_folder)
    data = folder / "data"
    try:
        server = await create(binaries, data, settings=_SETTINGS, sync=False)
        await server.start(time_limit=START_LIMIT)
        try:
            yield server
        finally:
            await server.stop("immediate")
    finally:
        await remove_server(data)
        await asyncio.to_thread(_remove, folder)


def without_psql(text: str) -> str:
    """SQL without what psql alone understands: its commands, and the rows of COPY."""
    kept: list[str] = []
    in_rows = False
    for line in text.splitlines():
        if in_rows:
            in_rows = line != r"\."
        elif _COPY.match(line):
            in_rows = True
        elif not line.startswith("\\"):
            kept.append(line)
    return "\n".join(kept)


async def read_lines(conn: Any) -> tuple[str, ...]:
    """The definitions of the database at the end of a connection.

    Raises:
        PostgresError: there are more than we compare.
    """
    lines = tuple(row["line"] for row in await conn.fetch(SCHEMA_LINES, LINES_MAX))
    if len(lines) >= LINES_MAX:
        raise PostgresError(
            f"There are more than {LINES_MAX:,} definitions.",
            next_step="Compare such a schema with its own tool.",
        )
    return lines


async def make_empty(server: Server, database: str) -> Target:
    """An empty database of the role that is nobody; how that role gets into it."""
    admin = parse_dsn(server.dsn())
    async with connection(admin) as conn:
        if not await conn.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", ROLE):
            await conn.execute(f"CREATE ROLE {ROLE} LOGIN")
        await conn.execute(f"CREATE DATABASE {database} OWNER {ROLE} TEMPLATE template0")
    async with connection(admin, database) as conn:
        await conn.execute(f"ALTER SCHEMA public OWNER TO {ROLE}")
    return parse_dsn(server.dsn(database, ROLE))


async def make_declared(server: Server, statements: Sequence[tuple[str, str]]) -> Declared:
    """Run what is declared in the database `declared`, and read what came of it.

    Raises:
        PostgresError: a statement fails.
    """
    admin, target = parse_dsn(server.dsn()), await make_empty(server, ROLE)
    left_out: list[str] = []
    # An extension is made by a superuser, out of what is installed on this host: the grammar
    # has said that the statement is that and nothing else.
    async with (
        connection(admin, ROLE) as superuser,
        connection(target) as conn,
    ):
        for kind, sql in statements:
            if kind in _NOT_SCHEMA:
                continue
            maker = superuser if kind == "CreateExtensionStmt" else conn
            if reason := await _made_one(maker, kind, sql):
                left_out.append(reason)
        await conn.execute("RESET ALL")
        lines = await read_lines(conn)
    return Declared(lines=lines, left_out=tuple(left_out))


async def _made_one(conn: Any, kind: str, sql: str) -> str | None:
    """Make one statement; why it was left out, or None.

    Raises:
        PostgresError: it fails.
    """
    if kind in _FOR_SUPERUSERS:
        return f"{_begin(sql)}: only a superuser may make it"
    try:
        await conn.execute(sql, timeout=STATEMENT_SECONDS_MAX)
    except asyncpg.PostgresError as error:
        if kind == "CreateExtensionStmt":
            return f"{_begin(sql)}: {error}"
        # A setting of another version of PostgreSQL, or whose something is: no part of it.
        if kind == "VariableSetStmt" or (kind == "AlterTableStmt" and _is_ownership(sql)):
            return None
        raise PostgresError(
            f"What is declared cannot be made: {_begin(sql)}: {error}.",
            next_step="Correct the file. It must make its schema in an empty database.",
        ) from error
    except TimeoutError as error:
        raise PostgresError(
            f"{_begin(sql)} takes longer than {STATEMENT_SECONDS_MAX} s in an empty database.",
            next_step="Take it out of the file: a schema is not to compute anything.",
        ) from error
    return None


def _is_ownership(sql: str) -> bool:
    return re.search(r"\bOWNER\s+TO\b", sql, re.IGNORECASE) is not None


def _begin(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= 80 else f"{text[:79]}…"  # noqa: PLR2004 - a line


def _folder() -> Path:
    """A new one; as root the server's account must be able to walk through it."""
    made = Path(tempfile.mkdtemp(prefix="twokey-declared-"))
    if server_account() is not None:
        made.chmod(0o755)
    return made


def _remove(folder: Path) -> None:
    """The empty folder that the server stood in; whatever else is there stays."""
    try:
        folder.rmdir()
    except OSError:
        return
