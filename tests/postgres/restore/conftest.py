"""A server with a history that is worth going back in, with all its WAL in an archive."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from postgres.backup.engine import TakeOrder
from postgres.backup.facts import BackupFacts
from postgres.backup.native_engine import NativeEngine
from postgres.binaries import Binaries
from postgres.restore.window import Mark
from postgres.server import Server, create, standby
from tests.postgres.conftest import FAST


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Right after something happened: the server's time, its LSN, and its next transaction."""

    at: datetime
    lsn: str
    xid: int
    timeline: int

    @property
    def mark(self) -> Mark:
        """What an archive's keeper would have noted."""
        return Mark(at=self.at, timeline=self.timeline, lsn=self.lsn, next_xid=self.xid)


@dataclass(slots=True, kw_only=True)
class History:
    """What happened, by name. `folder` has backups and WAL: copy it before you change it."""

    folder: Path
    binaries: Binaries
    backups: dict[str, BackupFacts] = field(default_factory=dict)
    moments: dict[str, Moment] = field(default_factory=dict)
    # The file of the table, below the data folder.
    table: str = ""

    @property
    def engine(self) -> NativeEngine:
        """The engine that keeps all of it."""
        return NativeEngine(dsn=SecretStr("postgresql:///unused"), folder=self.folder)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """All moments, as they would have been noted."""
        return tuple(moment.mark for moment in self.moments.values())

    def copy(self, into: Path) -> History:
        """The same in a folder of its own; files may be replaced or removed, not written to."""
        shutil.copytree(self.folder, into / "kept", copy_function=_link)
        return History(
            folder=into / "kept",
            binaries=self.binaries,
            backups=self.backups,
            moments=self.moments,
            table=self.table,
        )


@pytest.fixture(scope="session")
def history(binaries: Binaries) -> Iterator[History]:
    """Shared by all tests of a process.

    first       a backup
    one, two    a row each; then the restore point `before the mistake`
    mistake     all rows are deleted
    raised      a row, after max_connections was raised; the server was started anew for it
    promoted    a standby became the primary, and has a row of its own
    second      a backup
    last        a row; and then nothing any more
    quiet       much later
    """
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        made = History(folder=home / "kept", binaries=binaries)
        asyncio.run(_happen(made, home))
        yield made


async def _happen(made: History, home: Path) -> None:
    wal = made.folder / "wal"
    wal.mkdir(parents=True)
    made.folder.chmod(0o755)
    wal.chmod(0o777)  # the servers' account puts files into it
    settings = {
        **FAST,
        "archive_mode": "on",
        # Identical again is fine, as for every good archive_command.
        "archive_command": f"cmp -s %p {wal}/%f || (test ! -e {wal}/%f"
        f" && cp %p {wal}/.%f.tmp && mv {wal}/.%f.tmp {wal}/%f)",
        "autovacuum": "off",
        "max_wal_senders": "4",
    }
    server = await create(made.binaries, home / "a", settings=settings, sync=False)
    servers = [server]
    try:
        await server.start()
        await _run(server, "CREATE TABLE rows (note text)")
        made.table = (await _row(server, "SELECT pg_relation_filepath('rows') AS path"))["path"]
        made.backups["first"] = await _backup(made, server, "first")
        await _until_mistake(made, server)
        await _raise(server)
        await _add(made, server, "raised")
        await _switch(server, wal)
        other = await standby(server, home / "b", settings={**settings, "max_connections": "35"})
        servers.append(other)
        await other.start()
        await server.stop("fast")
        await other.promote()
        await _add(made, other, "promoted")
        made.backups["second"] = await _backup(made, other, "second")
        await _add(made, other, "last")
        await _switch(other, wal)
        made.moments["quiet"] = await _moment(other)
    finally:
        for each in servers:
            await each.remove()


async def _until_mistake(made: History, server: Server) -> None:
    await _add(made, server, "one")
    await _add(made, server, "two")
    await _run(server, "SELECT pg_create_restore_point('before the mistake')")
    await _run(server, "DELETE FROM rows")
    made.moments["mistake"] = await _moment(server)
    await _switch(server, made.folder / "wal")


async def _add(made: History, server: Server, note: str) -> None:
    await _run(server, f"INSERT INTO rows VALUES ('{note}')")
    made.moments[note] = await _moment(server)


async def _raise(server: Server) -> None:
    await server.stop()
    notes = server._notes
    settings: Mapping[str, str] = {**notes.settings, "max_connections": "35"}
    server._remember(notes.model_copy(update={"settings": settings}))
    await server.start()


async def _backup(made: History, server: Server, name: str) -> BackupFacts:
    engine = NativeEngine(dsn=SecretStr(server.dsn()), folder=made.folder)
    return await engine.take(TakeOrder(backup_id=name))


async def _moment(server: Server) -> Moment:
    row = await _row(
        server,
        "SELECT clock_timestamp() AS at, pg_current_wal_insert_lsn()::text AS lsn,"
        " pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xid,"
        " timeline_id AS timeline FROM pg_control_checkpoint()",
    )
    await asyncio.sleep(0.002)  # the next commit is later than this moment, on any clock
    return Moment(
        at=row["at"].astimezone(UTC), lsn=row["lsn"], xid=row["xid"], timeline=row["timeline"]
    )


async def _switch(server: Server, wal: Path) -> None:
    """Begin a new segment, and wait until the old one is in the archive."""
    row = await _row(server, "SELECT pg_walfile_name(pg_switch_wal()) AS name")
    async with asyncio.timeout(30):
        while not (wal / row["name"]).exists():
            await asyncio.sleep(0.02)


async def _run(server: Server, statement: str) -> None:
    await _row(server, statement)


async def _row(server: Server, statement: str) -> asyncpg.Record:
    conn = await asyncpg.connect(server.dsn(), timeout=30)
    try:
        return await conn.fetchrow(statement, timeout=30)
    finally:
        await conn.close()


def _link(source: str, target: str) -> str:
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
    return target


def flip(path: Path, at: int) -> None:
    """Change one bit of a file, but not of another one that it is a link to."""
    body = bytearray(path.read_bytes())
    body[at] ^= 0x01
    path.unlink()
    path.write_bytes(body)
