"""`/db schema` beside real databases: SQL files, dumps, Alembic's metadata, Prisma's schema."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from commands.schema import OPERATION, Params
from jobs.health_settings import MonitoringSettings, SchemaKind, SchemaSource
from jobs.operation import Answer, Database, JobError, Tier
from jobs.reader import LiveContext, Readers
from postgres.binaries import find_binaries
from postgres.errors import PostgresError
from postgres.programs import run_program
from postgres.schema.prisma_ddl import prisma_ddl
from store.connect import Store
from tests.commands.conftest import NOW
from tests.conftest import Target
from tests.postgres.schema.test_prisma import GUIDE

SQL = """
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customers, total int);
    CREATE VIEW big AS SELECT id FROM orders WHERE total > 100;
    INSERT INTO customers VALUES (1, 'Ana');
"""
MODELS = """
import sqlalchemy as sa

class Base:
    metadata = sa.MetaData()

sa.Table(
    "customers", Base.metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
)
sa.Table(
    "orders", Base.metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("customer_id", sa.Integer, sa.ForeignKey("customers.id")),
    sa.Column("total", sa.Integer),
)
"""
Looker = Callable[..., Any]


@pytest.fixture
async def look(target: Target, store: Store, tmp_path: Path) -> AsyncIterator[Looker]:
    """Asks about the target, with a schema declared in a file of this text."""
    readers = Readers()

    async def asked(kind: SchemaKind, path: Path, **more: Any) -> Answer:
        source = SchemaSource(kind=kind, path=path, **more)
        database = Database(
            name="orders", dsn=SecretStr(target.dsn), environment="production", tier=Tier.CRITICAL,
            channel="C0ORDERS", backup_folder=tmp_path,
            monitoring=MonitoringSettings(schema=source),
        )  # fmt: skip
        context = LiveContext(target=database, readers=readers, store=store, clock=lambda: NOW)
        assert OPERATION.answer is not None
        found: Answer = await OPERATION.answer(context, Params(database="orders"))
        return found

    yield asked
    await readers.close()


async def execute(target: Target, sql: str) -> None:
    conn = await asyncpg.connect(target.dsn)
    await conn.execute(sql)
    await conn.close()


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


async def test_a_database_that_is_as_its_sql_says(
    look: Looker, target: Target, tmp_path: Path
) -> None:
    await execute(target, SQL)
    found = await look(SchemaKind.SQL, file(tmp_path, "schema.sql", SQL))
    assert found.title == "The schema of orders is as it is declared"


async def test_what_somebody_did_by_hand_is_found(
    look: Looker, target: Target, tmp_path: Path
) -> None:
    await execute(target, SQL)
    await execute(target, "DROP VIEW big")
    await execute(
        target,
        "ALTER TABLE orders ALTER total TYPE bigint, ADD note text;"
        " CREATE INDEX by_customer ON orders (customer_id)",
    )
    found = await look(SchemaKind.SQL, file(tmp_path, "schema.sql", SQL))
    assert found.title == "The schema of orders has drifted: 4 differences"
    assert found.lines[0] == "1 missing, 2 not declared, 1 different."
    assert found.table is not None
    assert [row[:3] for row in found.table.rows] == [
        ("missing", "class", "public.big"),
        ("not declared", "column", "public.orders: note"),
        ("different", "column", "public.orders: total"),
        ("not declared", "index", "public.by_customer"),
    ]


async def test_a_dump_declares_a_schema_whoever_owns_it(
    look: Looker, target: Target, tmp_path: Path
) -> None:
    await execute(target, SQL)
    role = f"owner_{target.name}"
    await execute(target, f"CREATE ROLE {role}; ALTER TABLE orders OWNER TO {role};"
                          f" GRANT SELECT ON customers TO {role}")  # fmt: skip
    binaries = find_binaries(os.environ)
    done = await run_program(
        [binaries.program("pg_dump"), "-d", target.dsn], time_limit=timedelta(minutes=1),
        stdout_bytes_max=1_000_000,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "COPY public.customers" in done.stdout
    found = await look(SchemaKind.SQL, file(tmp_path, "dump.sql", done.stdout))
    await execute(target, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
    assert found.title == "The schema of orders is as it is declared"


async def test_alembics_metadata_is_compared_by_its_tables(
    look: Looker, target: Target, tmp_path: Path
) -> None:
    await execute(target, SQL)
    await execute(target, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    file(tmp_path, "shop_models.py", MODELS)
    found = await look(SchemaKind.ALEMBIC, tmp_path, metadata="shop_models:Base.metadata")
    assert found.title == "The schema of orders is as it is declared"
    await execute(target, "ALTER TABLE orders DROP total CASCADE")
    found = await look(SchemaKind.ALEMBIC, tmp_path, metadata="shop_models:Base.metadata")
    assert found.table is not None
    assert [row[:3] for row in found.table.rows] == [("missing", "column", "public.orders: total")]


async def test_models_that_cannot_be_imported_are_said(look: Looker, tmp_path: Path) -> None:
    file(tmp_path, "broken_models.py", "import nothing_like_this")
    with pytest.raises(JobError, match="No module named 'nothing_like_this'") as said:
        await look(SchemaKind.ALEMBIC, tmp_path, metadata="broken_models:metadata")
    assert "schema.python" in said.value.next_step


async def test_prismas_schema_is_compared_by_its_tables(
    look: Looker, target: Target, tmp_path: Path
) -> None:
    await execute(target, prisma_ddl(GUIDE))
    await execute(target, "CREATE TABLE _prisma_migrations (id varchar(36) PRIMARY KEY)")
    path = file(tmp_path, "schema.prisma", GUIDE)
    found = await look(SchemaKind.PRISMA, path)
    assert found.title == "The schema of orders is as it is declared"
    await execute(target, 'DROP INDEX "User_email_key"')
    found = await look(SchemaKind.PRISMA, path)
    assert found.table is not None
    assert [row[:3] for row in found.table.rows] == [
        ("missing", "index", 'public."User_email_key"')
    ]


async def test_an_extension_that_this_host_lacks_is_left_out_and_said(
    look: Looker, target: Target, tmp_path: Path
) -> None:
    await execute(target, "CREATE EXTENSION citext; CREATE TABLE t (x citext PRIMARY KEY)")
    text = """
        CREATE EXTENSION citext;
        CREATE EXTENSION IF NOT EXISTS no_such_thing;
        CREATE TABLE t (x citext PRIMARY KEY);
    """
    found = await look(SchemaKind.SQL, file(tmp_path, "schema.sql", text))
    assert found.title == "The schema of orders is as it is declared"
    assert any("no_such_thing" in line for line in found.lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("CREATE TABLE", "no SQL that PostgreSQL understands"),
        (
            "CREATE TABLE t (x nothing)",
            'cannot be made: CREATE TABLE t .* "nothing" does not exist',
        ),
        ("COPY (SELECT 1) TO PROGRAM 'touch /tmp/x'", "permission denied"),
        ("SET ROLE postgres; DROP ROLE postgres", "cannot be made: DROP ROLE"),
    ],
)
async def test_a_file_that_does_more_or_less_than_declare_is_refused(
    look: Looker, tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(PostgresError, match=says):
        await look(SchemaKind.SQL, file(tmp_path, "schema.sql", text))


async def test_without_a_declaration_it_says_where_to_write_one(
    store: Store, target: Target, tmp_path: Path
) -> None:
    database = Database(
        name="orders", dsn=SecretStr(target.dsn), environment="production", tier=Tier.CRITICAL,
        channel="C0ORDERS", backup_folder=tmp_path,
    )  # fmt: skip
    context = LiveContext(target=database, readers=Readers(), store=store, clock=lambda: NOW)
    assert OPERATION.answer is not None
    with pytest.raises(JobError, match="does not say what declares") as said:
        await OPERATION.answer(context, Params(database="orders"))
    assert "monitoring.schema" in said.value.next_step
