"""What doctor says about what monitoring needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.doctor_monitoring import Statistics, examine_monitoring, what_lacks
from bot.finding import Finding
from jobs.health_settings import MonitoringSettings, Node, Volume
from jobs.operation import Database
from jobs.reader import Readers
from tests.conftest import Target
from tests.jobs.support import database

GOOD = Statistics(
    database="shop", libraries="pg_stat_statements", version="1.10", track="top", times_io=True
)
AWAY = "postgresql://127.0.0.1:1/orders"


@pytest.mark.parametrize(
    ("changes", "says", "fix"),
    [
        ({}, "", ""),
        ({"times_io": False}, "", ""),
        ({"libraries": None}, "", ""),  # without pg_monitor: a finding of its own
        ({"libraries": "a, pg_stat_statements , b"}, "", ""),
        (
            {"libraries": "", "version": None},
            "is not loaded there",
            "shared_preload_libraries = 'pg_stat_statements'; restart the server; then, in the",
        ),
        (
            {"libraries": 'auto_explain, "pgaudit"'},
            "is not loaded there",
            "= 'auto_explain', 'pgaudit', 'pg_stat_statements'; restart the server.",
        ),
        (
            {"version": None},
            "not in the database shop",
            "As a superuser, in the database shop: CREATE EXTENSION pg_stat_statements;",
        ),
        ({"track": "none"}, "track is none", "SET pg_stat_statements.track = 'top'"),
    ],
)
def test_what_keeps_statements_from_being_measured(
    changes: dict[str, Any], says: str, fix: str
) -> None:
    found = list(what_lacks(replace(GOOD, **changes)))
    assert len(found) == bool(says)
    assert all(says in said and fix in mended for said, mended in found)


def monitored(dsn: str, **settings: Any) -> Database:
    return replace(database("orders", dsn), monitoring=MonitoringSettings(**settings))


async def examined(entry: Database) -> list[Finding]:
    readers = Readers()
    try:
        return [finding async for finding in examine_monitoring(entry, readers)]
    finally:
        await readers.close()


async def test_a_server_without_statistics_is_told_how_to_get_them(target: Target) -> None:
    """The tests' own server loads no library."""
    statements, disk = await examined(monitored(target.dsn))
    assert (statements.name, statements.ok) == ("monitoring of orders", False)
    assert "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'" in statements.fix
    assert f"in the database {target.name}: CREATE EXTENSION" in statements.fix
    assert (disk.ok, disk.says[:9]) == (True, "not known")


async def test_a_database_that_nobody_looks_at_needs_nothing(target: Target) -> None:
    assert await examined(database("orders", target.dsn)) == []


async def test_a_server_that_is_away_is_not_told_twice() -> None:
    [disk] = await examined(monitored(AWAY))
    assert disk.name == "disk of orders"


async def test_each_replica_is_asked(target: Target) -> None:
    west, east = (
        Node(name=name, dsn=SecretStr(dsn)) for name, dsn in (("west", AWAY), ("east", target.dsn))
    )
    entry = replace(monitored(target.dsn), replicas=(west, east))
    found = {finding.name: finding for finding in await examined(entry)}
    away, there = found["replica west of orders"], found["replica east of orders"]
    assert not away.ok
    assert away.fix
    assert (there.ok, "takes writes" in there.says) == (True, True)


async def test_a_disk_is_looked_at_from_here(tmp_path: Path) -> None:
    [seen] = await examined(monitored(AWAY, volume=Volume(path=tmp_path)))
    assert (seen.ok, str(tmp_path) in seen.says) == (True, True)
    gone = Volume(path=tmp_path / "gone", wal_path=tmp_path)
    [lost] = await examined(monitored(AWAY, volume=gone))
    assert (lost.ok, "gone cannot be looked at" in lost.says) == (False, True)
    assert "volume: {total" in lost.fix
    [bought] = await examined(monitored(AWAY, volume=Volume(total_bytes=5)))
    assert "as the inventory says" in bought.says


async def test_a_pooler_that_is_away_is_a_finding() -> None:
    *_, pooler = await examined(monitored(AWAY, pgbouncer=SecretStr(AWAY)))
    assert (pooler.name, pooler.ok) == ("pgbouncer of orders", False)
    assert pooler.fix
