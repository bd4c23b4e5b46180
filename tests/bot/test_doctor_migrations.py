"""What doctor says about what migrations need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from bot.doctor_migrations import examine_migrations
from bot.finding import Finding
from jobs.migration_settings import MigrationSettings
from jobs.reader import Readers
from tests.conftest import Target
from tests.jobs.support import database


@pytest.fixture
async def readers() -> AsyncIterator[Readers]:
    made = Readers()
    yield made
    await made.close()


async def looked(dsn: str, folder: Path | None, readers: Readers) -> list[Finding]:
    settings = MigrationSettings(folder=folder)
    target = replace(database("orders", dsn), migrations=settings)
    return [each async for each in examine_migrations(target, readers)]


def written(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)


async def test_without_a_folder_nothing_is_looked_at(target: Target, readers: Readers) -> None:
    assert await looked(target.dsn, None, readers) == []


async def test_what_is_pending_is_counted(target: Target, readers: Readers, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    written(folder, "001_a.sql", "-- migrate:up\nSELECT 1;\n-- migrate:down\n")
    (found,) = await looked(target.dsn, folder, readers)
    assert found.ok
    assert found.says == "dbmate, 1 migration pending, book schema_migrations"


async def test_what_is_wrong_with_the_folder_is_a_finding_with_its_fix(
    target: Target, readers: Readers, tmp_path: Path
) -> None:
    (gone,) = await looked(target.dsn, tmp_path / "nowhere", readers)
    assert not gone.ok
    assert "nowhere" in gone.says
    assert gone.fix
    folder = tmp_path / "m"
    written(folder, "001_a.sql", "-- migrate:up\nSELECT 1;\n-- migrate:down\n")
    written(folder, "003_c.sql", "-- migrate:up\nSELECT 1;\n-- migrate:down\n")
    (gap, *_) = await looked(target.dsn, folder, readers)
    assert not gap.ok
    assert "/db migrate orders status" in gap.fix


async def test_a_login_with_few_rights_is_told_what_it_lacks(
    target: Target, readers: Readers, tmp_path: Path
) -> None:
    role = f"mover_{target.name}"
    conn = await asyncpg.connect(target.dsn)
    await conn.execute(f"CREATE ROLE {role} LOGIN")
    folder = tmp_path / "m"
    written(folder, "001_a.sql", "-- migrate:up\nSELECT 1;\n-- migrate:down\n")
    dsn = target.dsn.replace("postgres@", f"{role}@", 1)
    found = await looked(dsn, folder, readers)
    await readers.close()
    said = {each.says: each for each in found}
    (create,) = (each for each in found if "may make no schema" in each.says)
    assert create.fix == f"GRANT CREATE ON DATABASE {target.name} TO {role};"
    assert any("GRANT SET ON PARAMETER deadlock_timeout" in says for says in said)
    await conn.execute(f"GRANT CREATE ON DATABASE {target.name} TO {role}")
    await conn.execute(f"GRANT SET ON PARAMETER deadlock_timeout TO {role}")
    after = await looked(dsn, folder, readers)
    await readers.close()
    await conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await conn.close()
    assert [each.ok for each in after] == [True]
