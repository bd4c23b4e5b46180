"""What doctor says about the engine that takes a database's backups."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot.doctor_backups import examine_engine
from jobs.backup_settings import BackupSettings, Engine, RepositorySettings
from jobs.operation import Database
from tests.jobs.support import database


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the server account can enter."""
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def kept_by_pgbackrest(config: Path) -> Database:
    settings = BackupSettings(
        engine=Engine.PGBACKREST, repository=RepositorySettings(config=config, name="orders")
    )
    return replace(database("orders", "postgresql://127.0.0.1:1/orders"), backups=settings)


async def test_a_native_engine_that_works_is_one_line() -> None:
    [finding] = await examine_engine(database("orders", "postgresql://127.0.0.1:1/orders"))
    assert (finding.name, finding.ok) == ("engine of orders", True)
    assert "native 1" in finding.says
    assert "full" in finding.says


async def test_an_engine_whose_repository_is_not_named_is_a_finding() -> None:
    orders = replace(
        database("orders", "postgresql://127.0.0.1:1/orders"),
        backups=BackupSettings(engine=Engine.PGBACKREST),
    )
    [finding] = await examine_engine(orders)
    assert not finding.ok
    assert "does not say where pgbackrest keeps the backups" in finding.says


async def test_a_program_that_is_not_installed_is_named(home: Path) -> None:
    [finding] = await examine_engine(kept_by_pgbackrest(home / "none"), {"PATH": str(home)})
    assert finding.says == "pgBackRest is not installed on this machine."
    assert "apt-get install pgbackrest" in finding.fix


@pytest.mark.needs("pgbackrest")
async def test_every_weakness_of_a_repository_is_a_line_of_its_own(home: Path) -> None:
    assert shutil.which("pgbackrest")
    config = home / "pgbackrest.conf"
    config.write_text(
        "[global]\nrepo1-type=s3\nrepo1-path=/orders\nrepo1-s3-bucket=b\n"
        "repo1-s3-endpoint=localhost\nrepo1-s3-region=r\nrepo1-s3-key=k\n"
        "repo1-s3-key-secret=hidden\nrepo1-storage-host=localhost\nrepo1-storage-port=1\n"
        "repo1-storage-verify-tls=n\nio-timeout=1\n[orders]\npg1-path=/nowhere\n"
    )
    config.chmod(0o644)
    found = await examine_engine(kept_by_pgbackrest(config))
    said = " ".join(finding.says for finding in found)
    assert not any(finding.ok for finding in found)
    assert "does not encrypt" in said
    assert "does not check the certificate" in said
    assert "Everybody on this machine can read the keys" in said
    assert "cannot be used" in said
    assert "hidden" not in said + " ".join(finding.fix for finding in found)
