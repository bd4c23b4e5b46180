"""Full, incremental and logical backups of one real server, plain and encrypted, and laid out."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from postgres.account import server_account
from postgres.backup.engine import TakeOrder
from postgres.backup.facts import BackupFacts, BackupKind
from postgres.backup.native_engine import NativeEngine
from postgres.backup.sealing import KeyPair, WrongKeyError, new_identity
from postgres.errors import DamagedError, PostgresError
from postgres.restore.scratch import missing_wal, pg_verifybackup, remove_scratch, start_scratch
from postgres.server import Binaries, Server, create
from tests.postgres.conftest import FAST, run_sql

KEYS = new_identity()
STRANGER = new_identity()
ORDER: tuple[tuple[str, BackupKind, str | None], ...] = (
    ("full", "full", None),
    ("one", "incremental", "full"),
    ("two", "incremental", "one"),
    ("dump", "logical", None),
)
FAR = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'far'"
LOCKED = ("locked-full", "locked-one", "locked-dump")


@dataclass(frozen=True, slots=True, kw_only=True)
class Yard:
    """A server, its backups of every kind, and how many rows each of them must have."""

    server: Server
    plain: NativeEngine
    locked: NativeEngine
    rows: Mapping[str, int]
    facts: Mapping[str, BackupFacts]

    def engine(self, backup_id: str) -> NativeEngine:
        return self.locked if backup_id.startswith("locked") else self.plain


@pytest.fixture(scope="module")
def yard(binaries: Binaries) -> Iterator[Yard]:
    """Shared by all tests of this file: do not change what it holds."""
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        made = asyncio.run(_open(binaries, home))
        try:
            yield made
        finally:
            asyncio.run(made.server.remove())


async def _open(binaries: Binaries, home: Path) -> Yard:
    settings = {**FAST, "wal_level": "replica", "autovacuum": "off", "summarize_wal": "on"}
    server = await create(binaries, home / "yard", settings=settings, sync=False)
    await server.start()
    (home / "far").mkdir()
    if account := server_account():
        shutil.chown(home / "far", account.uid, account.gid)
    await run_sql(server.dsn(), f"CREATE TABLESPACE far LOCATION '{home / 'far'}'")
    await run_sql(server.dsn(), 'CREATE DATABASE "od/d ""name" TABLESPACE far')
    await run_sql(server.dsn(), "CREATE ROLE bob; ALTER ROLE bob SET work_mem = '8MB'")
    await run_sql(
        server.dsn(),
        """
        CREATE TABLE orders (id int PRIMARY KEY, note text);
        INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(1, 5000) AS n;
        CREATE TABLE away TABLESPACE far AS SELECT generate_series(1, 100) AS n;
        ALTER TABLE orders OWNER TO bob;
        """,
    )
    dsn = SecretStr(server.dsn())
    plain = NativeEngine(dsn=dsn, folder=home / "plain")
    locked = NativeEngine(
        dsn=dsn, folder=home / "locked", recipient=KEYS.recipient, identity=KEYS.identity
    )
    rows, facts = {}, {}
    for number, (name, kind, base) in enumerate(ORDER):
        facts[name] = await plain.take(TakeOrder(backup_id=name, kind=kind, base=base))
        rows[name] = 100 + number
        sealed, its_base = f"locked-{name}", f"locked-{base}" if base else None
        if sealed in LOCKED:
            order = TakeOrder(backup_id=sealed, kind=kind, base=its_base)
            facts[sealed], rows[sealed] = await locked.take(order), rows[name]
        await run_sql(server.dsn(), "INSERT INTO away VALUES (0)")
    return Yard(server=server, plain=plain, locked=locked, rows=rows, facts=facts)


@asynccontextmanager
async def started(
    yard: Yard, binaries: Binaries, backup_id: str, home: Path
) -> AsyncIterator[asyncpg.Connection]:
    """The copy, running, and nothing of it afterwards."""
    facts = yard.facts[backup_id]
    laid = await yard.engine(backup_id).lay_out(backup_id, home / "work")
    assert {file.name for file in laid.read} <= {file.name for file in facts.files}
    assert all(file in facts.files for file in laid.read)
    if facts.kind != "logical":
        proof = await pg_verifybackup(binaries, home / "work")
        assert proof.code == 0, proof.stderr
    assert missing_wal(facts, home / "work") == []
    server = await start_scratch(binaries, facts, home / "work")
    conn = await asyncpg.connect(server.dsn())
    try:
        yield conn
    finally:
        await conn.close()
        await server.stop("immediate")
        await remove_scratch(home / "work")


@pytest.mark.parametrize("backup_id", ["two", "dump", "locked-one", "locked-dump"])
async def test_every_kind_comes_back_with_the_rows_of_its_moment(
    yard: Yard, binaries: Binaries, home: Path, backup_id: str
) -> None:
    async with started(yard, binaries, backup_id, home) as copy:
        assert await copy.fetchval("SELECT count(*) FROM away") == yard.rows[backup_id]
        assert await copy.fetchval("SELECT count(*), max(note) FROM orders") == 5000
        assert await copy.fetchval("SHOW data_checksums") == "on"
        config = await copy.fetchval("SELECT rolconfig FROM pg_roles WHERE rolname = 'bob'")
        assert config == ["work_mem=8MB"]
        owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'orders'"
        assert await copy.fetchval(owner) == "bob"
        names = [row["datname"] for row in await copy.fetch("SELECT datname FROM pg_database")]
        assert 'od/d "name' in names
        # Never the original's own place, which may be that of a live server here.
        assert await copy.fetchval(FAR) in (None, str(home / "work/scratch/tblspc/16384"))


@pytest.mark.parametrize("backup_id", ["full", "one", "dump", *LOCKED])
def test_a_backup_says_what_it_is(yard: Yard, backup_id: str) -> None:
    facts, place = yard.facts[backup_id], yard.engine(backup_id).folder / backup_id
    kinds = {"full": "full", "one": "incremental", "dump": "logical"}
    assert facts.kind == kinds[backup_id.removeprefix("locked-")]
    assert facts.size_bytes == sum(file.size_bytes for file in facts.files)
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["twokey.json", *(file.name for file in facts.files)]
    )
    assert facts.page_checksums
    assert len(facts.fingerprint) == 64


def test_an_incremental_is_small_and_says_how_large_it_becomes(yard: Yard) -> None:
    full, one = yard.facts["full"], yard.facts["one"]
    assert one.base == "full"
    assert one.size_bytes < full.size_bytes / 4
    assert one.data_bytes == pytest.approx(full.data_bytes, rel=0.02)


def test_the_counts_of_a_dump_are_exact(yard: Yard) -> None:
    counts = {table.table: table.bounds() for table in yard.facts["dump"].tables}
    assert counts == {"public.orders": (5000, 5000), "public.away": (103, 103)}
    assert yard.facts["dump"].counting_problem == ""


def test_nothing_of_the_data_can_be_read_in_an_encrypted_backup(yard: Yard) -> None:
    for name in LOCKED:
        place = yard.locked.folder / name
        plain = {path.name for path in place.iterdir() if path.suffix != ".age"}
        assert plain <= {"twokey.json", "backup_manifest"}
        for path in place.glob("*.age"):
            assert path.read_bytes().startswith(b"age-encryption.org/v1\n")
        assert yard.facts[name].encryption == "age"
        assert yard.facts[name].recipient == KEYS.recipient


@pytest.mark.parametrize("backup_id", LOCKED)
@pytest.mark.parametrize("keys", [None, STRANGER])
async def test_without_its_key_an_encrypted_backup_is_refused_before_anything_is_written(
    yard: Yard, home: Path, backup_id: str, keys: KeyPair | None
) -> None:
    engine = replace(yard.locked, identity=keys.identity if keys else None)
    wanted = "belongs to" if keys else "has no identity"
    with pytest.raises(WrongKeyError, match=wanted) as refusal:
        await engine.lay_out(backup_id, home / "work")
    assert "encryption.identity" in refusal.value.next_step
    assert not (home / "work").exists()


async def test_an_encrypted_incremental_needs_no_identity_to_be_taken(yard: Yard) -> None:
    blind = replace(yard.locked, identity=None)
    order = TakeOrder(backup_id="locked-blind", kind="incremental", base="locked-one")
    facts = await blind.take(order)
    try:
        assert (facts.base, facts.encryption) == ("locked-one", "age")
    finally:
        await blind.remove("locked-blind")


@pytest.mark.parametrize(
    ("backup_id", "name"),
    [
        ("locked-full", "base.tar.zst.age"),
        ("locked-one", "backup_manifest"),
        ("locked-dump", "globals.sql.age"),
        ("dump", "databases.json"),
    ],
)
@pytest.mark.parametrize("part", [0.05, 0.5])
async def test_a_flipped_byte_is_found_with_the_key_and_without(
    yard: Yard, home: Path, backup_id: str, name: str, part: float
) -> None:
    engine = _copied(yard, backup_id, home)
    _flip(engine.folder / backup_id / name, part)
    blind = replace(engine, identity=None)
    assert await blind.inspect(backup_id) == [
        f"{name} is not what was written: its SHA-256 differs"
    ]
    if name != "backup_manifest":
        with pytest.raises(DamagedError, match=name):
            await engine.lay_out(backup_id, home / "work")


async def test_a_damaged_head_is_damage_and_not_the_wrong_key(yard: Yard, home: Path) -> None:
    engine = _copied(yard, "locked-full", home)
    path = engine.folder / "locked-full" / "base.tar.zst.age"
    body = bytearray(path.read_bytes())
    body[40] = ord("A") if body[40] != ord("A") else ord("B")  # in the recipient's own lines
    path.write_bytes(body)
    with pytest.raises(DamagedError, match=r"base\.tar\.zst\.age is not what was written"):
        await engine.lay_out("locked-full", home / "work")


async def test_damage_in_what_an_incremental_builds_on_is_found_and_named(
    yard: Yard, home: Path
) -> None:
    engine = _copied(yard, "one", home)
    _flip(engine.folder / "full" / "base.tar.zst", 0.5)
    assert await engine.inspect("one") == [
        "full: base.tar.zst is not what was written: its SHA-256 differs"
    ]
    with pytest.raises(DamagedError, match=r"full: base\.tar\.zst"):
        await engine.lay_out("one", home / "work")
    order = TakeOrder(backup_id="next", kind="incremental", base="one")
    _flip(engine.folder / "one" / "backup_manifest", 0.5)
    with pytest.raises(PostgresError, match="manifest of one is missing or damaged"):
        await engine.take(order)


async def test_a_chain_that_lost_its_beginning_is_refused(yard: Yard, home: Path) -> None:
    engine = _copied(yard, "two", home)
    shutil.rmtree(engine.folder / "full")
    with pytest.raises(PostgresError, match="builds on full, which is not whole"):
        await engine.lay_out("two", home / "work")
    with pytest.raises(PostgresError, match="builds on full, which is not whole"):
        await engine.take(TakeOrder(backup_id="next", kind="incremental", base="two"))
    assert not (engine.folder / "next.partial").exists()


async def test_what_others_build_on_is_not_removed(yard: Yard, home: Path) -> None:
    engine = _copied(yard, "two", home)
    with pytest.raises(PostgresError, match="full cannot be removed: one builds on it") as refusal:
        await engine.remove("full")
    assert "Remove one first" in refusal.value.next_step
    assert (engine.folder / "full" / "twokey.json").exists()
    for name in ("two", "one", "full"):
        assert await engine.remove(name) > 0
    assert list(engine.folder.iterdir()) == []


async def test_a_server_that_notes_no_changes_makes_no_incremental(
    yard: Yard, fresh: Server
) -> None:
    await fresh.start()
    engine = replace(yard.plain, dsn=SecretStr(fresh.dsn()))
    with pytest.raises(PostgresError, match="summarize_wal is off") as refusal:
        await engine.take(TakeOrder(backup_id="next", kind="incremental", base="full"))
    assert "ALTER SYSTEM SET summarize_wal = on" in refusal.value.next_step
    await run_sql(fresh.dsn(), "ALTER SYSTEM SET summarize_wal = on")
    await fresh.reload()
    await _until(fresh.dsn(), "SHOW summarize_wal", "on")
    with pytest.raises(PostgresError, match="it is of another cluster") as refusal:
        await engine.take(TakeOrder(backup_id="next", kind="incremental", base="full"))
    assert "Take a full backup" in refusal.value.next_step


async def test_keys_that_are_no_pair_keep_a_backup_from_being_taken(yard: Yard) -> None:
    engine = replace(yard.locked, identity=STRANGER.identity)
    (finding,) = (await engine.probe()).findings
    assert "could not be restored here" in finding.problem
    with pytest.raises(PostgresError, match="could not be restored here"):
        await engine.take(TakeOrder(backup_id="next"))


async def test_a_dump_that_would_leave_a_database_out_is_refused(yard: Yard) -> None:
    await run_sql(yard.server.dsn(), "CREATE ROLE half LOGIN")
    await run_sql(yard.server.dsn(), 'REVOKE CONNECT ON DATABASE "od/d ""name" FROM PUBLIC')
    engine = replace(yard.plain, dsn=SecretStr(yard.server.dsn(user="half")))
    with pytest.raises(PostgresError, match='may not connect to od/d "name'):
        await engine.take(TakeOrder(backup_id="next", kind="logical"))
    await run_sql(yard.server.dsn(), 'GRANT CONNECT ON DATABASE "od/d ""name" TO PUBLIC')
    with pytest.raises(PostgresError, match="may not read everything") as refusal:
        await engine.take(TakeOrder(backup_id="next", kind="logical"))
    assert "pg_read_all_data" in refusal.value.next_step
    assert not (engine.folder / "next.partial").exists()


def _copied(yard: Yard, backup_id: str, home: Path) -> NativeEngine:
    """An engine on copies of a backup and of all that it builds on."""
    source, names = yard.engine(backup_id), []
    base: str | None = backup_id
    while base:
        names.append(base)
        base = yard.facts[base].base
    for name in names:
        shutil.copytree(source.folder / name, home / "copies" / name)
    return replace(source, folder=home / "copies")


def _flip(path: Path, part: float) -> None:
    body = bytearray(path.read_bytes())
    body[int(len(body) * part)] ^= 1
    path.write_bytes(body)


async def _until(dsn: str, query: str, wanted: Any) -> None:
    async with asyncio.timeout(30):
        conn = await asyncpg.connect(dsn)
        try:
            while await conn.fetchval(query) != wanted:
                await asyncio.sleep(0.05)
        finally:
            await conn.close()
