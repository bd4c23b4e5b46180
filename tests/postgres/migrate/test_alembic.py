"""Alembic itself and we on one database: each sees what the other has done."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config

from postgres.errors import PostgresError
from postgres.migrate.books.book import Book
from postgres.migrate.books.opening import book_of
from postgres.migrate.folders import alembic
from postgres.migrate.folders.folder import Folder
from postgres.migrate.folders.reading import read_folder
from postgres.migrate.standing import Standing, down_to, standing, up_to
from postgres.migrate.words import Direction, Migration
from postgres.programs import run_program

INI = "[alembic]\nscript_location = %(here)s/migrations\nsqlalchemy.url = driver://nowhere\n"
# As teams write it: a URL out of the environment, an asynchronous engine, prints.
ENV = """
import asyncio, os
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

print("the application is loaded")
url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")

def run(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

async def online():
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()

if context.is_offline_mode():
    context.configure(url=context.config.get_main_option("sqlalchemy.url"), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(online())
"""
REVISION = '''"""{name}"""
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {parents!r}


def upgrade():
    {up}


def downgrade():
    {down}
'''
USERS = 'op.create_table("users", sa.Column("id", sa.Integer, primary_key=True))'


def revision(root: Path, name: str, parents: Any, up: str, down: str = "pass") -> None:
    text = REVISION.format(
        name=f"Step {name}", revision=name, parents=parents, up=up.strip(), down=down.strip()
    )
    (root / "migrations" / "versions" / f"{name}_x.py").write_text(text)


def project(root: Path, env: str = ENV) -> Path:
    (root / "migrations" / "versions").mkdir(parents=True)
    (root / "alembic.ini").write_text(INI)
    (root / "migrations" / "env.py").write_text(env)
    revision(root, "a1", None, USERS, 'op.drop_table("users")')
    return root


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Three revisions in a line, the second of them outside a transaction."""
    root = project(tmp_path)
    concurrently = """
    op.execute("ALTER TABLE users ADD note text DEFAULT '100%'")
    with op.get_context().autocommit_block():
        op.create_index("by_note", "users", ["note"], postgresql_concurrently=True)
    """
    revision(root, "b2", "a1", concurrently, 'op.drop_column("users", "note")')
    revision(root, "c3", "b2", 'op.execute("UPDATE users SET note = $$a;b$$")')
    return root


@pytest.fixture
def diamond(tmp_path: Path) -> Path:
    """Two branches that were merged again."""
    root = project(tmp_path)
    for name in ("b2", "c3"):
        table = f'op.create_table("{name}", sa.Column("id", sa.Integer))'
        revision(root, name, "a1", table, f'op.drop_table("{name}")')
    revision(root, "d4", ("b2", "c3"), "pass")
    return root


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    alembic._remembered.clear()
    yield
    alembic._remembered.clear()


async def itself(root: Path, dsn: str, what: str, *args: str) -> str:
    """Run Alembic's own command, and give back what it prints."""
    said = io.StringIO()

    def run() -> None:
        before = os.environ.get("DATABASE_URL")
        os.environ["DATABASE_URL"] = dsn
        try:
            getattr(command, what)(Config(root / "alembic.ini", stdout=said), *args)
        finally:
            os.environ.pop("DATABASE_URL")
            if before is not None:
                os.environ["DATABASE_URL"] = before

    await asyncio.to_thread(run)
    return said.getvalue().strip()


async def stood(conn: Any, folder: Folder, book: Book) -> Standing:
    return standing(folder, await book.read(conn))


async def apply(conn: Any, book: Book, migration: Migration, direction: Direction) -> None:
    """As a run of ours does it: the SQL, and the book with it."""
    sql = migration.up if direction is Direction.UP else migration.down
    if migration.is_transactional is False and sql:
        for statement in sql.split(";\n"):
            await conn.execute(statement)
        sql = None
    async with conn.transaction():
        await book.guard(conn)
        if sql:
            await conn.execute(sql)
        if direction is Direction.UP:
            await book.record(conn, migration, seconds=1)
        else:
            await book.unrecord(conn, migration)


async def test_alembic_goes_on_where_we_stopped_and_we_where_it_stopped(
    conn: Any, dsn: str, shop: Path
) -> None:
    folder = await read_folder(shop)
    book = book_of(folder.tool, table=folder.table)
    await book.ensure(conn)
    for migration in up_to(await stood(conn, folder, book), "b2"):
        await apply(conn, book, migration, Direction.UP)
    assert await itself(shop, dsn, "current") == "b2"
    await itself(shop, dsn, "upgrade", "head")
    after = await stood(conn, folder, book)
    assert (after.newest, after.pending, after.problems) == (folder.migrations[-1], (), ())
    (last,) = down_to(after)
    await apply(conn, book, last, Direction.DOWN) if last.down else await book.unrecord(conn, last)
    assert await itself(shop, dsn, "current") == "b2"
    await itself(shop, dsn, "downgrade", "a1")
    assert [each.version for each in (await stood(conn, folder, book)).pending] == ["b2", "c3"]
    (first,) = down_to(await stood(conn, folder, book))
    await apply(conn, book, first, Direction.DOWN)
    assert await itself(shop, dsn, "current") == ""
    assert await conn.fetchval("SELECT to_regclass('users')") is None
    await itself(shop, dsn, "upgrade", "head")
    assert (await stood(conn, folder, book)).pending == ()


async def test_merged_branches_are_one_line_and_alembic_agrees_at_each_point(
    conn: Any, dsn: str, diamond: Path
) -> None:
    folder = await read_folder(diamond)
    assert folder.problems == ()
    book = book_of(folder.tool)
    await book.ensure(conn)
    seen = []
    for migration in up_to(await stood(conn, folder, book)):
        await apply(conn, book, migration, Direction.UP)
        heads = (await itself(diamond, dsn, "current")).splitlines()
        seen.append(sorted(head.split()[0] for head in heads))
        assert (await stood(conn, folder, book)).problems == ()
    assert seen == [["a1"], ["b2"], ["b2", "c3"], ["d4"]]
    back = down_to(await stood(conn, folder, book), "base")
    assert [each.version for each in back] == ["d4", "c3", "b2", "a1"]
    for migration in back:
        await apply(conn, book, migration, Direction.DOWN)
    assert await itself(diamond, dsn, "current") == ""


async def test_a_branch_that_alembic_took_first_is_refused_until_it_is_merged(
    conn: Any, dsn: str, diamond: Path
) -> None:
    folder = await read_folder(diamond, versions=())
    book = book_of(folder.tool)
    await itself(diamond, dsn, "upgrade", "c3")
    (problem,) = (await stood(conn, folder, book)).problems
    assert "The database stands at c3, between branches that c3_x.py is part of" in problem
    await itself(diamond, dsn, "upgrade", "head")
    assert (await stood(conn, folder, book)).problems == ()


async def test_the_command_line_of_alembic_reads_our_book(conn: Any, dsn: str, shop: Path) -> None:
    folder = await read_folder(shop)
    book = book_of(folder.tool)
    await book.ensure(conn)
    await apply(conn, book, folder.migrations[0], Direction.UP)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "alembic", "current",
        cwd=shop, env={**os.environ, "DATABASE_URL": dsn}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), timeout=150)
    assert said.decode().splitlines()[-1] == "a1"


async def test_a_revision_is_the_sql_that_alembic_would_run(shop: Path) -> None:
    first, second, third = (await read_folder(shop)).migrations
    assert (first.version, first.name, first.path.name) == ("a1", "Step a1", "a1_x.py")
    assert first.up == "CREATE TABLE users (\n    id SERIAL NOT NULL, \n    PRIMARY KEY (id)\n);"
    assert (first.down, first.is_transactional) == ("DROP TABLE users;", True)
    assert second.up == (
        "ALTER TABLE users ADD note text DEFAULT '100%';\n"
        "CREATE INDEX CONCURRENTLY by_note ON users (note);"
    )
    assert (second.is_transactional, second.down_is_transactional) == (False, True)
    assert (third.up, third.down) == ("UPDATE users SET note = $$a;b$$;", None)


async def test_a_revision_that_needs_a_database_is_named_and_the_others_go_on(
    shop: Path,
) -> None:
    revision(shop, "d4", "c3", 'op.get_bind().execute("SELECT 1").scalar()', "raise SystemExit")
    migrations = (await read_folder(shop)).migrations
    assert [each.problem for each in migrations[:3]] == ["", "", ""]
    assert "Revision d4 (d4_x.py) cannot be written as SQL without a" in migrations[3].problem
    assert "'NoneType' object has no attribute 'scalar'" in migrations[3].problem
    assert (migrations[3].up, migrations[3].down) == ("", None)


@pytest.mark.parametrize(
    ("up", "because"),
    [
        ('op.execute("SELEC 1")', "its SQL is no SQL"),
        ('op.execute("ROLLBACK")', "it handles transactions itself"),
        ("op.execute('SELECT 1 /*' + 'x' * 5_300_000 + '*/')", "more than 5242880 characters"),
    ],
)
async def test_what_nobody_can_review_is_no_migration(
    tmp_path: Path, up: str, because: str
) -> None:
    root = project(tmp_path)
    revision(root, "b2", "a1", up)
    (found,) = (m for m in (await read_folder(root)).migrations if m.version == "b2")
    assert because in found.problem
    assert found.up == ""


async def test_the_application_gets_nothing_of_ours(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWOKEY_VOTE_KEY", "secret")
    monkeypatch.setenv("PGPASSWORD", "secret")
    text = "import os, sys; open('seen', 'w').write(repr((dict(os.environ), sys.path[0])))\n"
    (shop / "migrations" / "env.py").write_text(text + ENV)
    await read_folder(shop, versions=())
    seen = (shop / "seen").read_text()
    assert "secret" not in seen
    assert "TWOKEY" not in seen
    assert str(Path.home()) not in seen.replace(sys.prefix, "")
    assert f"'{shop}')" in seen
    assert "127.0.0.1:1/offline" in seen
    assert not list(shop.rglob("*.pyc"))


@pytest.mark.parametrize(
    ("env", "because"),
    [
        ("import os; os._exit(0)", "cannot be understood"),
        ("import os; os._exit(3)", "cannot be read"),
        ("import time; time.sleep(60)", "did not end within 1 seconds and was stopped"),
    ],
)
async def test_whatever_the_application_does_there_is_an_answer(
    tmp_path: Path, env: str, because: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alembic, "TIME_LIMIT", timedelta(seconds=1))
    if "sleep" not in env:
        monkeypatch.setattr(alembic, "TIME_LIMIT", timedelta(seconds=30))
    with pytest.raises(PostgresError, match=because):
        await read_folder(project(tmp_path, env))


async def test_a_broken_revision_file_is_said_with_its_error(shop: Path) -> None:
    (shop / "migrations" / "versions" / "d4_x.py").write_text("import nothing_like_it\n")
    with pytest.raises(PostgresError, match="No module named 'nothing_like_it'"):
        await read_folder(shop)


async def test_without_alembic_ini_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PostgresError, match=r"There is no alembic\.ini in"):
        await alembic.read(tmp_path)


async def test_a_table_that_env_py_names_is_the_book(conn: Any, dsn: str, shop: Path) -> None:
    env = ENV.replace("configure(", 'configure(version_table="done", version_table_schema="app", ')
    (shop / "migrations" / "env.py").write_text(env)
    await conn.execute("CREATE SCHEMA app")
    folder = await read_folder(shop, versions=())
    assert folder.table == "app.done"
    await itself(shop, dsn, "upgrade", "a1")
    book = book_of(folder.tool, table=folder.table)
    assert [entry.version for entry in await book.read(conn) or ()] == ["a1"]
    assert (await read_folder(shop)).migrations[0].up.startswith("CREATE TABLE users")


async def test_only_what_is_asked_for_is_rendered_and_it_is_remembered(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def counted(*args: Any, **kw: Any) -> Any:
        asked.append(kw["environ"]["TWOKEY_ALEMBIC_ASK"])
        return await run_program(*args, **kw)

    monkeypatch.setattr(alembic, "run_program", counted)
    first, second, _ = (await read_folder(shop, versions=["a1"])).migrations
    assert first.up
    assert (second.up, second.sha256, second.problem) == ("", "", "")
    await read_folder(shop, versions=())
    assert len(asked) == 1
    both = (await read_folder(shop, versions=["b2"])).migrations
    assert [bool(each.up) for each in both] == [True, True, False]
    assert len(asked) == 2
    file = shop / "migrations" / "versions" / "b2_x.py"
    file.write_text(file.read_text().replace("100%", "200%"))
    assert "200%" in (await read_folder(shop, versions=["b2"])).migrations[1].up
    assert len(asked) == 3


async def test_scripts_that_stand_elsewhere_are_asked_for_again(tmp_path: Path) -> None:
    project(tmp_path / "elsewhere")
    here = tmp_path / "here"
    here.mkdir()
    (here / "alembic.ini").write_text(INI.replace("%(here)s", "%(here)s/../elsewhere"))
    assert (await read_folder(here)).migrations[0].up
    assert not alembic._remembered
    first = next((tmp_path / "elsewhere").rglob("a1_x.py"))
    first.write_text(first.read_text().replace("users", "people"))
    assert "CREATE TABLE people" in (await read_folder(here)).migrations[0].up
