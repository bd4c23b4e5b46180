"""What is particular to pgBackRest: its own backups, its retention, its storage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from postgres.backup.engine import TakeOrder
from postgres.backup.progress import Progress
from postgres.backup.source import wal_files
from postgres.binaries import Binaries
from postgres.errors import DamagedError
from postgres.restore.folders import remove_scratch
from postgres.restore.scratch import start_scratch
from tests.postgres.backup.houses import ROWS, PgBackRestHouse, Source, count_rows, give
from tests.postgres.backup.object_store import Bucket, object_store, write_certificate

pytestmark = [pytest.mark.timeout(120), pytest.mark.needs("pgbackrest")]


@pytest.fixture
def bucket(home: Path) -> Iterator[Bucket]:
    """A bucket behind a certificate that only `home/ca.pem` vouches for."""
    made = Bucket(name="twokey-backups", key="orders-key")
    write_certificate(home / "ca.pem", home / "key.pem")
    with object_store(made, home / "ca.pem", home / "key.pem"):
        yield made


def s3_lines(bucket: Bucket, home: Path) -> str:
    """As docs/backups.md shows them."""
    return f"""\
repo1-type=s3
repo1-path=/orders
repo1-s3-bucket={bucket.name}
repo1-s3-endpoint=localhost
repo1-s3-region=eu-central-1
repo1-s3-key={bucket.key}
repo1-s3-key-secret=orders-secret
repo1-s3-uri-style=path
repo1-storage-host=localhost
repo1-storage-port={bucket.port}
repo1-storage-verify-tls=y
repo1-storage-ca-file={home}/ca.pem
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=a-long-pass-phrase-for-orders
"""


async def test_backups_live_in_object_storage_encrypted(
    source: Source, source_binaries: Binaries, home: Path, bucket: Bucket
) -> None:
    house = PgBackRestHouse(source=source, home=home / "house", storage=s3_lines(bucket, home))
    await house.open()
    source.write_script([house])
    await source.switch()
    engine = house.engine
    assert (await engine.probe()).findings == ()
    facts = await engine.take(TakeOrder(backup_id="far-1"))
    assert facts.encryption == "aes-256-cbc"
    assert [each.id for each in (await engine.backups()).backups] == ["far-1"]
    assert facts.end_wal in {each.name for each in (await engine.archive()).segments}
    assert bucket.objects
    assert not any(b"orders" in body for body in bucket.objects.values())
    laid = await engine.lay_out("far-1", home / "work")
    server = await start_scratch(
        source_binaries, facts, home / "work", settings=dict(laid.settings)
    )
    try:
        assert await count_rows(server.dsn("shop")) == ROWS
    finally:
        await server.stop("immediate")
        await remove_scratch(home / "work")
    for name in [each for each in bucket.objects if f"{facts.end_wal}-" in each]:
        del bucket.objects[name]
    with pytest.raises(DamagedError, match=f"WAL {facts.end_wal} is missing"):
        await engine.lay_out("far-1", home / "work")


async def test_a_certificate_that_nobody_vouches_for_stops_everything(
    source: Source, home: Path, bucket: Bucket
) -> None:
    (home / "other").mkdir()
    write_certificate(home / "other" / "ca.pem", home / "other" / "key.pem")
    lines = s3_lines(bucket, home / "other") + "io-timeout=1\n"
    house = PgBackRestHouse(source=source, home=home / "house", storage=lines)
    house.make_folders()
    [finding] = (await house.engine.probe()).findings
    assert "unable to verify certificate" in finding.problem
    assert bucket.requests == {}


async def test_backups_that_others_took_are_restored_with_their_tablespaces_and_wal_is_trimmed(
    source: Source, source_binaries: Binaries, home: Path
) -> None:
    (home / "space").mkdir()
    give(home / "space")
    house = PgBackRestHouse(source=source, home=home / "house")
    await house.open()
    source.write_script([house])
    await source.sql(f"CREATE TABLESPACE space LOCATION '{home}/space'", "SELECT 1")
    await source.sql("CREATE TABLE aside TABLESPACE space AS SELECT 1 AS n", "SELECT 1")
    await source.switch()
    engine, seen = house.engine, Seen()
    try:
        first = await engine.take(TakeOrder(backup_id="own-1"), on_progress=seen.note)
        for _ in range(2):
            await source.switch()
        done = await house.program.run("backup", "--type=full", "--no-expire-auto")
        assert done.code == 0, done.stderr
        [_, foreign] = (await engine.backups()).backups
        assert foreign.id == foreign.label
        assert list(await engine.inspect(foreign.id)) == []
        laid = await engine.lay_out(foreign.id, home / "work")
        server = await start_scratch(
            source_binaries, foreign, home / "work", settings=dict(laid.settings)
        )
        try:
            assert laid.settings["max_connections"] == "30"
            assert await count_rows(server.dsn("shop"), "aside") == 1
            [link] = (laid.data / "pg_tblspc").iterdir()
            assert link.resolve().is_relative_to(home / "work")
        finally:
            await server.stop("immediate")
            await remove_scratch(home / "work")
        before = {each.name for each in (await engine.archive()).segments}
        assert await engine.trim(foreign.start_wal) > 0
        gone = before - {each.name for each in (await engine.archive()).segments}
        own = set(wal_files(first.start_wal, first.end_wal, first.wal_segment_bytes))
        assert gone == {name for name in before - own if name < foreign.start_wal}
        assert list(await engine.inspect("own-1")) == []
        assert await engine.trim(first.start_wal) == 0
    finally:
        await source.sql("DROP TABLE aside", "SELECT 1")
        await source.sql("DROP TABLESPACE space", "SELECT 1")
    assert seen.all
    assert all("pgBackRest" in moment.phase and moment.total_bytes for moment in seen.all)


@dataclass(slots=True)
class Seen:
    """Collects how far a backup was."""

    all: list[Progress] = field(default_factory=list)

    async def note(self, progress: Progress) -> None:
        self.all.append(progress)
