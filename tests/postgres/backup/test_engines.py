"""One contract for every engine that is installed: native and pgBackRest."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pytest

from postgres.backup.engine import TakeOrder
from postgres.backup.facts import BackupFacts
from postgres.backup.wal import gaps
from postgres.errors import DamagedError, PostgresError
from postgres.restore.folders import remove_scratch
from postgres.restore.recovery import plan_recovery, recover
from postgres.restore.target import at_time
from postgres.restore.verification import verify_backup
from postgres.server import Binaries
from tests.postgres.backup.houses import (
    ROWS,
    House,
    NativeHouse,
    PgBackRestHouse,
    Source,
    count_rows,
    moment,
    setting,
)

pytestmark = pytest.mark.timeout(120)

ENGINES: Final = (
    "native",
    pytest.param("pgbackrest", marks=pytest.mark.needs("pgbackrest")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An engine that has one full backup, and the WAL after it."""

    house: House
    source: Source
    facts: BackupFacts


@pytest.fixture(scope="module", params=ENGINES)
def kept(request: pytest.FixtureRequest, source: Source) -> Iterator[Kept]:
    """Shared by the tests of one engine: what is damaged is a copy."""
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        house = _house(request.param, source, home / "house")
        yield asyncio.run(_keep(house, source))


def _house(name: str, source: Source, home: Path) -> House:
    match name:
        case "native":
            return NativeHouse(source=source, home=home)
        case _:
            return PgBackRestHouse(source=source, home=home)


async def _keep(house: House, source: Source) -> Kept:
    await house.open()
    source.write_script([house])
    await source.switch()
    await house.settle()
    facts = await house.engine.take(TakeOrder(backup_id="shop-1"))
    for _ in range(3):
        await source.switch()
    await house.settle()
    return Kept(house=house, source=source, facts=facts)


async def test_an_engine_says_what_it_is_and_what_it_can_take(kept: Kept) -> None:
    probe = await kept.house.engine.probe()
    assert probe.name == kept.house.engine.name
    assert probe.version[0].isdigit()
    assert "full" in probe.kinds
    assert probe.findings == ()


async def test_a_backup_is_described_and_listed_with_its_rows(kept: Kept) -> None:
    facts = kept.facts
    assert facts.engine == kept.house.engine.name
    assert facts.kind == "full"
    assert facts.major == 15
    assert facts.data_bytes > facts.size_bytes > 100_000
    assert facts.start_wal <= facts.end_wal
    assert [(each.table, each.before, each.after) for each in facts.tables] == [
        ("public.orders", ROWS, ROWS)
    ]
    listing = await kept.house.engine.backups()
    assert listing.unreadable == ()
    assert [each.id for each in listing.backups] == ["shop-1"]
    assert listing.backups[0] == facts


async def test_the_same_order_again_gives_the_same_backup(kept: Kept) -> None:
    assert await kept.house.engine.take(TakeOrder(backup_id="shop-1")) == kept.facts
    assert len((await kept.house.engine.backups()).backups) == 1


async def test_a_sound_backup_has_no_findings_and_its_wal_no_gap(kept: Kept) -> None:
    assert list(await kept.house.engine.inspect("shop-1")) == []
    archive = await kept.house.engine.archive()
    assert gaps(archive, kept.facts.wal_segment_bytes) == ()
    assert max(each.name for each in archive.segments) > kept.facts.end_wal


async def test_a_flipped_byte_is_found(kept: Kept, home: Path) -> None:
    copy = kept.house.copy(home / "copy")
    copy.flip("shop-1")
    assert list(await copy.engine.inspect("shop-1")) != []


async def test_a_sound_backup_is_proven_and_a_damaged_one_is_not(kept: Kept, home: Path) -> None:
    before = _started()
    good = await verify_backup(
        kept.house.engine, kept.facts, home / "work", environ=dict(os.environ)
    )
    assert good.ok, good.problems
    assert "row counts" in {check.name for check in good.checks}
    copy = kept.house.copy(home / "copy")
    copy.flip("shop-1")
    bad = await verify_backup(copy.engine, kept.facts, home / "work", environ=dict(os.environ))
    assert not bad.ok
    assert not (home / "work" / "scratch").exists()
    assert _started() == before


async def test_wal_that_a_backup_needs_and_that_is_missing_is_named(kept: Kept, home: Path) -> None:
    copy = kept.house.copy(home / "copy")
    copy.lose_own_wal("shop-1")
    found = list(await copy.engine.inspect("shop-1"))
    assert any("missing" in finding for finding in found), found
    with pytest.raises(DamagedError, match="missing"):
        await copy.engine.lay_out("shop-1", home / "work")


async def test_a_hole_in_the_wal_after_a_backup_is_seen(kept: Kept, home: Path) -> None:
    segments = sorted(
        each.name
        for each in (await kept.house.engine.archive()).segments
        if each.name > kept.facts.end_wal
    )
    copy = kept.house.copy(home / "copy")
    copy.lose(segments[1])
    [gap] = gaps(await copy.engine.archive(), kept.facts.wal_segment_bytes)
    assert (gap.first, gap.last) == (segments[1], segments[1])


async def test_a_chosen_second_comes_back(
    kept: Kept, home: Path, source_binaries: Binaries
) -> None:
    engine = kept.house.engine
    await kept.source.sql("CREATE TABLE later AS SELECT 1 AS n", "SELECT 1")
    good = await moment(kept.source)
    await kept.source.sql("DROP TABLE later", "SELECT 1")
    # pgBackRest knows of its files in whole seconds alone: the next one must have begun.
    await asyncio.sleep(1 - good.microsecond / 1e6)
    await kept.source.switch()
    await kept.house.settle()
    choice = await plan_recovery(engine, at_time(good))
    recovered = await recover(engine, source_binaries, choice, home / "work")
    try:
        assert await count_rows(recovered.server.dsn("shop"), "later") == 1
        assert await count_rows(recovered.server.dsn("shop")) == ROWS
        assert await setting(recovered.server.dsn("shop"), "archive_mode") == "off"
        assert await setting(recovered.server.dsn("shop"), "listen_addresses") == ""
    finally:
        await recovered.server.stop("immediate")
        await remove_scratch(home / "work")


async def test_a_backup_that_others_build_on_stays(kept: Kept) -> None:
    engine = kept.house.engine
    order = TakeOrder(backup_id="shop-1i", kind="incremental", base="shop-1")
    if engine.name == "native":
        with pytest.raises(PostgresError, match="17"):  # 15 has none of its own
            await engine.take(order)
        return
    await kept.source.sql("CREATE TABLE more AS SELECT 1 AS n", "SELECT 1")
    facts = await engine.take(order)
    try:
        assert (facts.kind, facts.base) == ("incremental", "shop-1")
        with pytest.raises(PostgresError, match="shop-1i build on it"):
            await engine.remove("shop-1")
    finally:
        await engine.remove("shop-1i")
        await kept.source.sql("DROP TABLE more", "SELECT 1")
    assert [each.id for each in (await engine.backups()).backups] == ["shop-1"]


async def test_removing_takes_one_and_leaves_the_others(kept: Kept) -> None:
    engine = kept.house.engine
    await engine.take(TakeOrder(backup_id="shop-2"))
    assert [each.id for each in (await engine.backups()).backups] == ["shop-1", "shop-2"]
    assert await engine.remove("shop-2") > 0
    assert [each.id for each in (await engine.backups()).backups] == ["shop-1"]
    assert await engine.remove("shop-2") == 0
    assert list(await engine.inspect("shop-1")) == []


async def test_a_page_with_a_wrong_checksum_is_reported_and_the_backup_does_not_count(
    kept: Kept,
) -> None:
    engine, source = kept.house.engine, kept.source
    path = str(
        await source.sql(
            "CREATE TABLE bad AS SELECT n FROM generate_series(1, 2000) n",
            "VACUUM FREEZE bad",  # else a look at it writes its pages anew
            "CHECKPOINT",
            "SELECT pg_relation_filepath('bad')",
        )
    )
    with (source.server.data / path).open("r+b") as file:
        file.seek(2 * 8192 + 5000)
        file.write(b"damage")
    try:
        with pytest.raises(PostgresError, match="damaged pages") as caught:
            await engine.take(TakeOrder(backup_id="shop-bad"))
        assert path in caught.value.problem
        assert "shop-bad" not in [each.id for each in (await engine.backups()).backups]
    finally:
        await source.sql("DROP TABLE bad", "SELECT 1")
        await engine.remove("shop-bad")


async def test_a_backup_that_is_cancelled_leaves_nothing_running(kept: Kept) -> None:
    engine = kept.house.engine
    before = _started()
    taking = asyncio.ensure_future(engine.take(TakeOrder(backup_id="shop-cut")))
    async with asyncio.timeout(30):
        while not await kept.source.sql(BACKING_UP):
            await asyncio.sleep(0.01)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert _started() == before
    assert [each.id for each in (await engine.backups()).backups] == ["shop-1"]


BACKING_UP: Final = """
    SELECT count(*) FROM pg_stat_activity
     WHERE application_name ILIKE '%backup%' OR application_name ILIKE '%pgbackrest%'
"""


async def test_two_at_once_are_told_apart(kept: Kept) -> None:
    engine = kept.house.engine
    if engine.name == "native":
        pytest.skip("the native engine takes several at once")
    taking = asyncio.ensure_future(engine.take(TakeOrder(backup_id="shop-3")))
    async with asyncio.timeout(30):
        while not await kept.source.sql(BACKING_UP):
            await asyncio.sleep(0.01)
    with pytest.raises(PostgresError) as caught:
        await engine.take(TakeOrder(backup_id="shop-4"))
    await taking
    await engine.remove("shop-3")
    assert "is at work" in caught.value.next_step


def _started() -> set[int]:
    """What this process has started and not ended: servers (not what they run) and programs."""
    return {child.pid for child in psutil.Process().children()}
