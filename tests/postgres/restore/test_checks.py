"""Verifying backups: good ones pass, and whatever is wrong with the others is said."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncpg
import pytest
import zstandard
from pydantic import SecretStr

from postgres.backup.facts import FACTS_FILE, BackupFacts, TableCount, read_facts
from postgres.backup.hashing import hash_file
from postgres.backup.manner import Manner
from postgres.backup.native import take_backup
from postgres.backup.native_engine import NativeEngine
from postgres.errors import PostgresError
from postgres.restore.checks import check_files
from postgres.restore.looks import Query
from postgres.restore.recovery import plan_recovery, recover
from postgres.restore.report import OnStep, VerificationReport
from postgres.restore.scratch import remove_scratch, unpack
from postgres.restore.target import END
from postgres.restore.verification import verify_backup
from postgres.server import Binaries, Server, create, find_binaries
from tests.postgres.conftest import FAST, Shop, run_sql

ALL = [
    "files",
    "manifest",
    "restore",
    "amcheck",
    "row counts",
    "critical queries",
    "page checksums",
]
ROOT = Path(__file__).parents[3]


def replace(path: Path, body: bytes) -> None:
    """Not through the link that the shared backup also has."""
    path.unlink()
    path.write_bytes(body)


def flip(path: Path, at: float) -> None:
    body = bytearray(path.read_bytes())
    body[int(len(body) * at)] ^= 0x01
    replace(path, bytes(body))


def rewrite_archive(backup: Path, name: str, change: Callable[[str, bytes], bytes | None]) -> None:
    """Change or leave out files in an archive, as somebody would who also mends our facts."""
    path = backup / name
    packed = name.endswith(".zst")
    body = path.read_bytes()
    if packed:
        body = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).readall()
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(body)) as old,
        tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for member in old:
            inside = old.extractfile(member)
            contents = change(member.name, inside.read() if inside else b"")
            if contents is not None:
                member.size = len(contents)
                new.addfile(member, io.BytesIO(contents))
    replace(path, zstandard.compress(out.getvalue()) if packed else out.getvalue())
    believe_files(backup)


def believe_files(backup: Path) -> None:
    facts = read_facts(backup)
    files = tuple(hash_file(backup / file.name) for file in facts.files)
    store(backup, facts.model_copy(update={"files": files}))


def store(backup: Path, facts: BackupFacts) -> None:
    replace(backup / FACTS_FILE, facts.model_dump_json().encode())


def found(report: VerificationReport) -> dict[str, str]:
    return {check.name: check.detail for check in report.checks if not check.ok}


def left_over(home: Path) -> list[Path]:
    return list((home / "work").rglob("*")) if (home / "work").exists() else []


async def verified(
    backup: Path,
    work_folder: Path,
    *,
    critical_queries: Sequence[Query] = (),
    on_step: OnStep | None = None,
) -> VerificationReport:
    """Verify the backup in a folder at its own end."""
    return await verify_backup(
        NativeEngine(dsn=SecretStr("postgresql:///unused"), folder=backup.parent),
        read_facts(backup),
        work_folder,
        environ=os.environ,
        critical_queries=critical_queries,
        on_step=on_step,
    )


async def test_a_good_backup_passes_every_check_and_leaves_nothing(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    steps: list[str] = []

    async def note(text: str) -> None:
        steps.append(text)

    report = await verified(
        shop.folder / "shop-1",
        home / "work",
        critical_queries=[
            ("orders", "SELECT count(*) FROM orders", "20000"),
            ("last order", "SELECT true FROM orders WHERE id = 20000", "t"),
            ("any", "SELECT 1", None),
        ],
        on_step=note,
    )
    assert report.ok, report.problems
    assert [check.name for check in report.checks] == ALL
    assert report.restore_seconds
    assert report.restore_seconds < report.seconds
    assert len(steps) == len(ALL)
    assert "20,011 rows in 4 tables" in report.model_dump_json()
    assert left_over(home) == []
    assert VerificationReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
async def test_a_flipped_byte_is_found_and_its_file_named(
    shop: Shop, binaries: Binaries, home: Path, at: float
) -> None:
    backup = shop.damaged_copy(home)
    flip(backup / "base.tar.zst", at)
    report = await verified(backup, home / "work")
    assert not report.ok
    assert "base.tar.zst is not what was written" in found(report)["files"]
    assert left_over(home) == []


async def test_a_flipped_byte_in_the_manifest_is_found(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    backup = shop.damaged_copy(home)
    flip(backup / "backup_manifest", 0.5)
    report = await verified(backup, home / "work")
    assert "backup_manifest is not what was written" in found(report)["files"]
    assert "manifest" in found(report)
    assert [check.name for check in report.checks] == ALL


async def test_a_change_that_our_own_facts_hide_is_found_by_postgresqls_manifest(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    conn = await asyncpg.connect(shop.dsn)
    file = await conn.fetchval("SELECT pg_relation_filepath('orders')")
    await conn.close()
    backup = shop.damaged_copy(home)

    def damage(name: str, body: bytes) -> bytes:
        return body[:20000] + b"damage" + body[20006:] if name == file else body

    rewrite_archive(backup, "base.tar.zst", damage)
    report = await verified(backup, home / "work")
    assert "files" not in found(report)
    assert file in found(report)["manifest"]
    # It goes on, so one run tells everything.
    assert [check.name for check in report.checks] == ALL
    assert "orders" in found(report)["amcheck"]
    assert file in found(report)["page checksums"]


async def test_missing_wal_is_found(shop: Shop, binaries: Binaries, home: Path) -> None:
    backup = shop.damaged_copy(home)
    rewrite_archive(backup, "pg_wal.tar.zst", lambda name, body: None)
    report = await verified(backup, home / "work")
    assert "files" not in found(report)
    assert f"WAL {shop.facts.start_wal} is missing" in found(report)["manifest"]
    assert "did not start" in found(report)["restore"]
    assert report.restore_seconds is None
    assert left_over(home) == []


@pytest.mark.parametrize("name", ["base.tar.zst", "pg_wal.tar.zst", "backup_manifest"])
async def test_a_missing_file_is_named(
    shop: Shop, binaries: Binaries, home: Path, name: str
) -> None:
    backup = shop.damaged_copy(home)
    (backup / name).unlink()
    report = await verified(backup, home / "work")
    assert found(report)["files"] == f"{name} is missing"
    assert f"{name} is missing" in found(report)["restore"]


@pytest.mark.parametrize("name", ["base.tar.zst", "pg_wal.tar.zst"])
async def test_a_cut_archive_is_named(
    shop: Shop, binaries: Binaries, home: Path, name: str
) -> None:
    backup = shop.damaged_copy(home)
    body = (backup / name).read_bytes()
    replace(backup / name, body[: len(body) // 2])
    report = await verified(backup, home / "work")
    assert f"{name} has {len(body) // 2} bytes instead of {len(body)}" in found(report)["files"]
    assert f"{name} ends too early" in found(report)["restore"]
    assert left_over(home) == []


async def test_other_row_counts_are_found(shop: Shop, binaries: Binaries, home: Path) -> None:
    backup = shop.damaged_copy(home)
    facts = read_facts(backup)
    gone = TableCount(database="shop", table="public.gone", before=5, after=5)
    changed = tuple(
        table.model_copy(update={"before": 20001, "after": 20003})
        if table.table == "public.orders"
        else table
        for table in facts.tables
    )
    store(backup, facts.model_copy(update={"tables": (*changed, gone)}))
    report = await verified(backup, home / "work")
    assert found(report) == {
        "row counts": "shop public.orders has 20,000 rows instead of 20,001 to 20,003; "
        "shop public.gone is missing"
    }


async def test_critical_queries_that_fail_are_named(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    report = await verified(
        shop.folder / "shop-1",
        home / "work",
        critical_queries=[
            ("wrong", "SELECT 1", "2"),
            ("empty", "SELECT 1 WHERE false", None),
            ("broken", "SELECT nothing", None),
            ("writing", "DELETE FROM orders", None),
            ("fine", "SELECT 1.50", "1.50"),
        ],
    )
    said = found(report)["critical queries"]
    assert list(found(report)) == ["critical queries"]
    assert "wrong says '1' instead of '2'; empty found no row; broken failed: column" in said
    assert "writing failed: cannot execute DELETE in a read-only transaction" in said
    assert "fine" not in said


async def test_a_gzip_backup_is_verified_too(shop: Shop, binaries: Binaries, home: Path) -> None:
    await take_backup(
        binaries,
        SecretStr(shop.dsn),
        home / "backups",
        backup_id="b",
        manner=Manner(compression="gzip"),
    )
    report = await verified(home / "backups" / "b", home / "work")
    assert report.ok, report.problems
    flip(home / "backups" / "b" / "base.tar.gz", 0.5)
    report = await verified(home / "backups" / "b", home / "work")
    assert "base.tar.gz is not what was written" in found(report)["files"]


async def test_writes_during_a_backup_are_no_false_alarm(
    fresh: Server, binaries: Binaries, home: Path
) -> None:
    await fresh.start()
    await run_sql(fresh.dsn(), "CREATE TABLE grows (n int); CREATE TABLE churns (n int)")
    await run_sql(fresh.dsn(), "CREATE TABLE swept AS SELECT generate_series(1, 100) AS n")
    done = asyncio.Event()

    async def write() -> None:
        conn = await asyncpg.connect(fresh.dsn())
        while not done.is_set():
            await conn.execute("INSERT INTO grows SELECT generate_series(1, 7)")
            await conn.execute("INSERT INTO churns SELECT generate_series(1, 50)")
            await conn.execute("DELETE FROM churns")
            await conn.execute("TRUNCATE swept; INSERT INTO swept SELECT generate_series(1, 90)")
        await conn.close()

    writer = asyncio.create_task(write())
    facts = await take_backup(binaries, SecretStr(fresh.dsn()), home / "backups", backup_id="b")
    done.set()
    await writer
    grows = next(table for table in facts.tables if table.table == "public.grows")
    assert (grows.before or 0) < (grows.after or 0)
    report = await verified(home / "backups" / "b", home / "work")
    assert report.ok, report.problems


async def test_the_copy_does_not_act_as_the_original(
    fresh: Server, binaries: Binaries, home: Path
) -> None:
    await fresh.start()
    await run_sql(fresh.dsn(), "ALTER SYSTEM SET archive_mode = 'always'")
    await run_sql(fresh.dsn(), f"ALTER SYSTEM SET archive_command = 'touch {home}/archived'")
    await run_sql(fresh.dsn(), "ALTER SYSTEM SET shared_preload_libraries = 'no_such_library'")
    await run_sql(fresh.dsn(), "ALTER SYSTEM SET listen_addresses = '*'")
    await take_backup(binaries, SecretStr(fresh.dsn()), home / "backups", backup_id="b")
    engine = NativeEngine(dsn=SecretStr(fresh.dsn()), folder=home / "backups")
    copy = await recover(engine, binaries, await plan_recovery(engine, END), home / "work")
    try:
        conn = await asyncpg.connect(copy.dsn.url())
        assert await conn.fetchval("SHOW archive_mode") == "off"
        assert await conn.fetchval("SHOW listen_addresses") == ""
        assert await conn.fetchval("SHOW max_logical_replication_workers") == "0"
        await conn.execute("CREATE TABLE written AS SELECT 1; SELECT pg_switch_wal()")
        await conn.close()
    finally:
        await copy.server.stop("immediate")
        await remove_scratch(home / "work")
    assert not (home / "archived").exists()
    assert left_over(home) == []


async def test_tablespaces_are_restored_beside_the_copy(
    fresh: Server, binaries: Binaries, home: Path
) -> None:
    await fresh.start()
    place = home / "fast-disk"
    place.mkdir()
    os.chown(place, fresh.data.stat().st_uid, -1)
    await run_sql(fresh.dsn(), f"CREATE TABLESPACE fast LOCATION '{place}'")
    await run_sql(fresh.dsn(), "CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 99) n")
    await take_backup(binaries, SecretStr(fresh.dsn()), home / "backups", backup_id="b")
    before = sorted(place.rglob("*"))
    report = await verified(
        home / "backups" / "b",
        home / "work",
        critical_queries=[("t", "SELECT count(*) FROM t", "99")],
    )
    assert report.ok, report.problems
    assert sorted(place.rglob("*")) == before
    assert left_over(home) == []


async def test_a_superuser_of_another_name_is_no_obstacle(
    fresh: Server, binaries: Binaries, home: Path
) -> None:
    await fresh.start()
    await run_sql(fresh.dsn(), "CREATE ROLE other SUPERUSER LOGIN")
    await run_sql(fresh.dsn(user="other"), "ALTER ROLE postgres RENAME TO root_of_all")
    await take_backup(binaries, SecretStr(fresh.dsn(user="other")), home / "backups", backup_id="b")
    report = await verified(home / "backups" / "b", home / "work")
    assert report.ok, report.problems


async def test_a_backup_of_another_major_version_needs_its_programs(shop: Shop, home: Path) -> None:
    try:
        other = find_binaries(os.environ, major=15)
    except PostgresError:
        pytest.skip("PostgreSQL 15 is not installed")
    with pytest.raises(PostgresError, match=r"is of PostgreSQL \d+, but the programs here are"):
        await unpack(other, shop.folder / "shop-1", shop.facts, home / "work")
    server = await create(other, home / "old", settings=FAST, sync=False)
    async with server.running():
        await take_backup(
            find_binaries(os.environ), SecretStr(server.dsn()), home / "b15", backup_id="b"
        )
    await server.remove()
    report = await verified(home / "b15" / "b", home / "work")
    assert report.ok, report.problems


async def test_too_little_room_is_said_before_anything_is_written(
    shop: Shop, binaries: Binaries, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postgres.restore.laying._MARGIN_BYTES", 1 << 60)
    with pytest.raises(PostgresError, match=r"needs .* TB, but .* free") as refusal:
        await verified(shop.folder / "shop-1", home / "work")
    assert "TWOKEY_HOME" in refusal.value.next_step
    assert left_over(home) == []


async def test_a_backup_that_is_gone_meanwhile_is_said(shop: Shop, home: Path) -> None:
    engine = NativeEngine(dsn=SecretStr(shop.dsn), folder=home)
    with pytest.raises(PostgresError, match="no backup"):
        await verify_backup(engine, shop.facts, home / "work", environ=os.environ)
    assert left_over(home) == []


async def test_a_cancelled_verification_leaves_nothing(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    started = asyncio.Event()

    async def note(text: str) -> None:
        if "amcheck" in text:
            started.set()

    task = asyncio.create_task(verified(shop.folder / "shop-1", home / "work", on_step=note))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_over(home) == []


async def test_a_verification_cancelled_while_unpacking_leaves_nothing(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    task = asyncio.create_task(verified(shop.folder / "shop-1", home / "work"))
    while not (home / "work" / "scratch" / "data").exists():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_over(home) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../../outside", tarfile.REGTYPE),
        ("/tmp/twokey-outside", tarfile.REGTYPE),
        ("base/../../../outside", tarfile.REGTYPE),
        ("link", tarfile.SYMTYPE),
        ("hard", tarfile.LNKTYPE),
        ("device", tarfile.CHRTYPE),
    ],
)
async def test_an_archive_that_would_write_elsewhere_is_refused(
    shop: Shop, binaries: Binaries, home: Path, name: str, kind: bytes
) -> None:
    backup = shop.damaged_copy(home)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, "/etc/passwd", 0
        archive.addfile(member)
    replace(backup / "base.tar.zst", zstandard.compress(out.getvalue()))
    believe_files(backup)
    report = await verified(backup, home / "work")
    assert "base.tar.zst holds a" in found(report)["restore"]
    assert sorted(path.name for path in home.iterdir()) == ["shop-1", "work"]
    assert not Path("/tmp/twokey-outside").exists()


async def test_files_can_be_checked_alone(shop: Shop, home: Path) -> None:
    backup = shop.damaged_copy(home)
    assert check_files(backup, shop.facts) == []
    flip(backup / "pg_wal.tar.zst", 0.3)
    assert check_files(backup, shop.facts) == [
        "pg_wal.tar.zst is not what was written: its SHA-256 differs"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder of ours is never closed to ourselves")
async def test_a_work_folder_that_is_closed_to_the_server_account_works_and_is_removed(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    home.chmod(0o700)
    await unpack(binaries, shop.folder / "shop-1", shop.facts, home / "work")
    await remove_scratch(home / "work")
    report = await verified(shop.folder / "shop-1", home / "work")
    assert report.ok, report.problems
    assert left_over(home) == []
