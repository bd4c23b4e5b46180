"""The store that needs no set-up: a PostgreSQL server of our own under TWOKEY_HOME."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
from pydantic import SecretStr

from postgres.layout import Layout
from postgres.server import Server, create, find_binaries, open_server
from store.connect import CONNECT_SECONDS_MAX
from store.upgrade import upgrade

DATABASE: Final = "twokey"
_KEY_BYTES: Final = 32
_SETTINGS: Final = {"max_connections": "200"}


@asynccontextmanager
async def embedded_store(home: Path, environ: Mapping[str, str]) -> AsyncIterator[SecretStr]:
    """The DSN of a running, migrated store under `home`.

    The server ends with the block if the block started it; one that runs already is used.

    Raises:
        PostgresError: there are no programs of PostgreSQL, or the server does not start.
    """
    server = await _opened(home / "store", environ)
    ours = not await server.is_running()
    await server.start()
    try:
        await _create_database(server)
        dsn = SecretStr(server.dsn(DATABASE))
        await upgrade(dsn)
        yield dsn
    finally:
        if ours:
            await server.stop("fast")


async def running_dsn(home: Path, environ: Mapping[str, str]) -> SecretStr | None:
    """The DSN of the store under `home` if its server runs; nothing is started or changed.

    Raises:
        PostgresError: there are no programs of PostgreSQL, or its folder is not ours.
    """
    data = home / "store"
    if not await asyncio.to_thread(Layout.at(data).data.exists):
        return None
    server = open_server(find_binaries(environ), data)
    return SecretStr(server.dsn(DATABASE)) if await server.is_running() else None


def kept_key(path: Path) -> str:
    """A random key that is made once and then read from `path`, which only we can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    # The mode is there before the content: there is no moment at which others could read it.
    handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link appears with its content or not at all, and never replaces another one's.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(made)
    finally:
        made.unlink(missing_ok=True)
    return path.read_text(encoding="ascii").strip()


async def _opened(data: Path, environ: Mapping[str, str]) -> Server:
    binaries = find_binaries(environ)
    # As root a server may really stand elsewhere, where its account can walk to.
    if await asyncio.to_thread(Layout.at(data).data.exists):
        return open_server(binaries, data)
    await asyncio.to_thread(data.parent.mkdir, parents=True, exist_ok=True)
    return await create(binaries, data, settings=_SETTINGS)


async def _create_database(server: Server) -> None:
    async with asyncio.timeout(CONNECT_SECONDS_MAX):
        conn = await asyncpg.connect(server.dsn("postgres"))
    try:
        if not await conn.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await conn.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await conn.close(timeout=CONNECT_SECONDS_MAX)
