"""`/db draft-migration` and what is said of drift, beside a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from commands.draft_migration import CHARS_MAX, OPERATION, Params
from jobs.drift_words import DriftLook, drift_change, drift_now
from jobs.health_settings import MonitoringSettings, SchemaKind, SchemaSource
from jobs.migration_settings import MigrationSettings
from jobs.operation import Answer, Database, JobError, Tier
from jobs.reader import LiveContext, Readers
from postgres.schema.drift import Drift, DriftKind
from store.connect import Store
from tests.commands.conftest import NOW
from tests.conftest import Target
from tests.postgres.migrate.test_alembic import project

PRESENT = "CREATE TABLE users (id int PRIMARY KEY, old text)"
DECLARED = "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL)"
PRISMA = """
model users {
  id    Int     @id
  old   String?
  email String?
}
"""
ENV = """
import asyncio, os
import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

assert "TWOKEY_VOTE_KEY" not in os.environ and "SECRET" not in os.environ
metadata = sa.MetaData()
sa.Table("users", metadata, sa.Column("id", sa.Integer, primary_key=True),
         sa.Column("old", sa.Text), sa.Column("email", sa.Text))
url = context.config.get_main_option("sqlalchemy.url").replace("ql://", "ql+asyncpg://")

def run(connection):
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()

async def online():
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()

asyncio.run(online())
"""
MAKO = '''"""${message}"""
from alembic import op
import sqlalchemy as sa
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
def upgrade():
    ${upgrades if upgrades else "pass"}
def downgrade():
    ${downgrades if downgrades else "pass"}
'''
Maker = Callable[..., LiveContext]


@pytest.fixture
async def make(target: Target, store: Store, tmp_path: Path) -> AsyncIterator[Maker]:
    """Contexts of the target, with something that declares its schema."""
    readers = Readers()

    def made(
        kind: SchemaKind | None, path: Path | None = None, folder: Path | None = None
    ) -> LiveContext:
        source = SchemaSource(kind=kind, path=path) if kind and path else None
        database = Database(
            name="orders", dsn=SecretStr(target.dsn), environment="production", tier=Tier.CRITICAL,
            channel="C0ORDERS", backup_folder=tmp_path,
            monitoring=MonitoringSettings(schema=source),
            migrations=MigrationSettings(folder=folder),
        )  # fmt: skip
        return LiveContext(target=database, readers=readers, store=store, clock=lambda: NOW)

    try:
        yield made
    finally:
        await readers.close()


async def _run(target: Target, sql: str) -> None:
    conn = await asyncpg.connect(target.dsn)
    try:
        await conn.execute(sql)
    finally:
        await conn.close()


async def _answer(context: LiveContext, name: str = "draft") -> Answer:
    assert OPERATION.answer is not None
    found: Answer = await OPERATION.answer(context, Params(database="orders", name=name))
    return found


def _file(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


async def test_a_changed_file_becomes_a_migration_that_was_proved(
    make: Maker, target: Target, tmp_path: Path
) -> None:
    await _run(target, PRESENT)
    path = _file(tmp_path, "schema.sql", DECLARED)

    found = await _answer(make(SchemaKind.SQL, path), "add_email")

    assert found.title == "A migration for orders: add_email, 6 statements"
    assert "it leaves nothing different" in found.lines[0]
    text = "\n".join(found.statements)
    assert "ALTER TABLE public.users ADD COLUMN email text;" in text
    assert "VALIDATE CONSTRAINT email_not_null;" in text
    assert "\n-- ALTER TABLE public.users DROP COLUMN old;" in text
    assert "1 drop stand as comments" in " ".join(found.lines)
    assert len(text) < CHARS_MAX


async def test_a_prisma_file_becomes_one_too(make: Maker, target: Target, tmp_path: Path) -> None:
    await _run(target, PRESENT)
    path = _file(tmp_path, "schema.prisma", PRISMA)

    found = await _answer(make(SchemaKind.PRISMA, path))

    assert [each for each in found.statements if "ADD COLUMN" in each] == [
        "ALTER TABLE public.users ADD COLUMN email text;"
    ]


async def test_what_is_declared_already_needs_no_migration(
    make: Maker, target: Target, tmp_path: Path
) -> None:
    await _run(target, PRESENT)
    path = _file(tmp_path, "schema.sql", PRESENT + ";")

    found = await _answer(make(SchemaKind.SQL, path))

    assert found.title == "The schema of orders is as schema.sql declares it"


async def test_alembic_drafts_a_revision_and_nothing_is_written_into_the_folder(
    make: Maker, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    folder = project(tmp_path / "team", ENV)
    (folder / "migrations" / "script.py.mako").write_text(MAKO)
    await _run(target, f"{PRESENT}; CREATE TABLE alembic_version (version_num varchar(32));"
                       "INSERT INTO alembic_version VALUES ('a1')")  # fmt: skip
    before = sorted(folder.rglob("*"))

    found = await _answer(make(None, folder=folder), "add email")

    (text,) = found.statements
    assert "down_revision = 'a1'" in text
    assert "op.add_column('users', sa.Column('email', sa.Text(), nullable=True))" in text
    assert "op.drop" not in text.partition("def downgrade")[0]
    assert sorted(folder.rglob("*")) == before


async def test_alembic_that_is_not_up_to_date_says_so(
    make: Maker, target: Target, tmp_path: Path
) -> None:
    folder = project(tmp_path / "team", ENV)
    (folder / "migrations" / "script.py.mako").write_text(MAKO)
    await _run(target, PRESENT)

    with pytest.raises(JobError, match="not up to date"):
        await _answer(make(None, folder=folder))


async def test_without_a_source_of_truth_it_is_said_where_to_name_one(make: Maker) -> None:
    with pytest.raises(JobError, match="does not say what declares"):
        await _answer(make(None))


async def test_planning_says_drift_from_memory_alone_and_a_run_may_look(
    make: Maker, target: Target, tmp_path: Path
) -> None:
    await _run(target, PRESENT)
    path = _file(tmp_path, "schema.sql", DECLARED)
    context = make(SchemaKind.SQL, path)

    unknown = await drift_now(context, may_take_long=False)
    looked = await drift_now(context, may_take_long=True)
    await _run(target, "ALTER TABLE users ADD email text NOT NULL; ALTER TABLE users DROP old")
    after = await drift_now(context, may_take_long=False)
    path.write_text(PRESENT)
    changed = await drift_now(context, may_take_long=False)

    assert (unknown.drift, unknown.text) == (None, "Not looked at yet: /db schema orders")
    assert looked.text.startswith("2 differences: ")
    assert after.text == "As declared"
    assert changed.drift is None  # what is remembered is of other bytes


async def test_a_file_that_cannot_be_read_stops_nothing(make: Maker, tmp_path: Path) -> None:
    found = await drift_now(make(SchemaKind.SQL, tmp_path / "nope.sql"), may_take_long=True)

    assert found.drift is None
    assert "cannot be read" in found.text


def _look(*names: str, **more: Any) -> DriftLook:
    return DriftLook(
        drift=tuple(
            Drift(kind=DriftKind.UNDECLARED, what="column", name=name, declared="", actual="x")
            for name in names
        ),
        **more,
    )


def test_what_a_migration_changes_about_drift_is_said() -> None:
    assert drift_change(_look("a", "b"), _look("b", "c")) == [
        "Source of truth: 2 differences before, 2 after.",
        "New: c. Declare it, or the next look calls it drift.",
    ]
    assert drift_change(DriftLook(drift=None), DriftLook(drift=None)) == ()
    assert drift_change(_look(), DriftLook(drift=None, why="gone")) == ("Source of truth: gone",)
    assert "1 difference" in _look("a", age=timedelta(hours=3)).text
    assert "as of 3 h ago" in _look("a", age=timedelta(hours=3)).text
