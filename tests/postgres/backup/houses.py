"""A source server that archives its WAL, and one house for each engine that keeps backups of it.

Servers, repositories and programs are real; a house knows where its engine keeps what, so that a
test can damage it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

import asyncpg
from pydantic import SecretStr

from postgres.account import server_account
from postgres.backup.engine import Engine
from postgres.backup.facts import read_backup
from postgres.backup.native_engine import NativeEngine
from postgres.backup.pgbackrest import PgBackRestEngine
from postgres.backup.pgbackrest_program import PgBackRest
from postgres.server import Server

STANZA: Final = "shop"
ROWS: Final = 5000
_ARCHIVED_SECONDS_MAX: Final = 20.0
_PGBACKREST: Final = """\
[global]
{storage}
log-path={home}/log
lock-path={home}/lock
spool-path={home}/spool
repo1-bundle=y
compress-type=zst
compress-level=1
start-fast=y
job-retry=0

[{stanza}]
pg1-path={data}
pg1-port={port}
pg1-socket-path={sockets}
pg1-user=postgres
"""


class House(Protocol):
    """An engine and the place where it keeps things."""

    @property
    def engine(self) -> Engine:
        """The engine."""
        ...

    def archive_line(self) -> str:
        """What the server's archive_command does for it."""
        ...

    async def open(self) -> None:
        """Make it ready for the first backup; the server runs."""
        ...

    async def settle(self) -> None:
        """Bring WAL that has come to where it is kept."""
        ...

    def copy(self, home: Path) -> House:
        """The same once more, to be damaged."""
        ...

    def flip(self, backup_id: str) -> None:
        """Change a byte in a file of a backup."""
        ...

    def lose_own_wal(self, backup_id: str) -> None:
        """Lose WAL that the backup itself needs."""
        ...

    def lose(self, name: str) -> None:
        """Lose a segment of the archive."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The server that backups are taken of. Its archive_command runs a script for each house."""

    server: Server
    script: Path

    @property
    def dsn(self) -> SecretStr:
        """The database `shop`."""
        return SecretStr(self.server.dsn("shop"))

    async def sql(self, *statements: str) -> object:
        """Run statements; the first value that the last one gives."""
        conn = await asyncpg.connect(self.server.dsn("shop"), timeout=30)
        try:
            for statement in statements[:-1]:
                await conn.execute(statement, timeout=30)
            return await conn.fetchval(statements[-1], timeout=30)
        finally:
            await conn.close()

    async def switch(self) -> str:
        """End the segment that is written, and wait until the archive has it."""
        name = str(
            await self.sql(
                "SELECT pg_logical_emit_message(true, 'test', 'end of a segment')",
                "SELECT pg_walfile_name(pg_switch_wal())",
            )
        )
        async with asyncio.timeout(_ARCHIVED_SECONDS_MAX):
            while str(await self.sql("SELECT last_archived_wal FROM pg_stat_archiver")) < name:
                await asyncio.sleep(0.02)
        return name

    def write_script(self, houses: Sequence[House]) -> None:
        """Have the server archive into these houses."""
        lines = ["#!/bin/sh", "set -e", *(house.archive_line() for house in houses)]
        self.script.write_text("\n".join(lines) + "\n")
        self.script.chmod(0o755)


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeHouse:
    """A folder with backups and their WAL."""

    source: Source
    home: Path

    @property
    def engine(self) -> Engine:
        return NativeEngine(dsn=self.source.dsn, folder=self.home)

    def archive_line(self) -> str:
        return f'cp "$1" {self.home}/wal/"$2"'

    async def open(self) -> None:
        (self.home / "wal").mkdir(parents=True)
        give(self.home / "wal")

    async def settle(self) -> None:
        return

    def copy(self, home: Path) -> House:
        shutil.copytree(self.home, home)
        return replace(self, home=home)

    def flip(self, backup_id: str) -> None:
        flip(next((self.home / backup_id).glob("base.tar*")))

    def lose_own_wal(self, backup_id: str) -> None:
        for path in (self.home / backup_id).glob("pg_wal.tar*"):
            path.unlink()

    def lose(self, name: str) -> None:
        (self.home / "wal" / name).unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class PgBackRestHouse:
    """A repository with one stanza. `storage` says where it is, if not in a folder."""

    source: Source
    home: Path
    storage: str = ""

    @property
    def engine(self) -> PgBackRestEngine:
        return PgBackRestEngine(
            dsn=self.source.dsn, folder=self.home / "notes", config=self.config, stanza=STANZA
        )

    @property
    def config(self) -> Path:
        return self.home / "pgbackrest.conf"

    @property
    def program(self) -> PgBackRest:
        return PgBackRest(config=self.config, stanza=STANZA)

    def archive_line(self) -> str:
        return f'pgbackrest --config={self.config} --stanza={STANZA} archive-push "$1"'

    async def open(self) -> None:
        self.make_folders()
        done = await self.program.run("stanza-create")
        assert done.code == 0, done.stderr

    def make_folders(self) -> None:
        """What pgBackRest needs, without a stanza."""
        for part in ("", "repo", "log", "lock", "spool"):
            (self.home / part).mkdir(parents=True, exist_ok=True)
            give(self.home / part)
        self.write_config()

    def write_config(self) -> None:
        server = self.source.server
        self.config.write_text(
            _PGBACKREST.format(
                storage=self.storage or f"repo1-path={self.home}/repo", home=self.home,
                stanza=STANZA,
                data=server.data, port=server.port, sockets=server.sockets,
            )
        )  # fmt: skip
        self.config.chmod(0o640)
        give(self.config)

    async def settle(self) -> None:
        return

    def copy(self, home: Path) -> House:
        copy_with_owners(self.home, home)
        other = replace(self, home=home)
        other.write_config()
        return other

    def flip(self, backup_id: str) -> None:
        [label] = (self.home / "repo/backup" / STANZA).glob("2*F")
        flip(max((label / "bundle").iterdir(), key=lambda path: path.stat().st_size))

    def lose_own_wal(self, backup_id: str) -> None:
        self.lose(read_backup(self.home / "notes", backup_id).start_wal)

    def lose(self, name: str) -> None:
        for path in (self.home / "repo/archive" / STANZA).rglob(f"{name}-*"):
            path.unlink()


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0xFF]))


def give(path: Path) -> None:
    """To the account that servers run as."""
    if account := server_account():
        os.chown(path, account.uid, account.gid)


def copy_with_owners(source: Path, goal: Path) -> None:
    """Copy a folder; its files keep their owners and links."""
    shutil.copytree(source, goal, symlinks=True)
    for path in (source, *source.rglob("*")):
        found = path.lstat()
        os.chown(goal / path.relative_to(source), found.st_uid, found.st_gid, follow_symlinks=False)


async def moment(source: Source) -> datetime:
    """The time on the source server."""
    found = await source.sql("SELECT clock_timestamp()")
    assert isinstance(found, datetime)
    return found


async def count_rows(dsn: str, table: str = "orders") -> int:
    """How many rows a table of the test has."""
    conn = await asyncpg.connect(dsn, timeout=30)
    try:
        return int(await conn.fetchval(f"SELECT count(*) FROM {table}"))
    finally:
        await conn.close()


async def setting(dsn: str, name: str) -> str:
    """A setting of a server."""
    conn = await asyncpg.connect(dsn, timeout=30)
    try:
        return str(await conn.fetchval("SELECT current_setting($1)", name))
    finally:
        await conn.close()
