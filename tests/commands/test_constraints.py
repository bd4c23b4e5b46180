"""`/db constraints`: what is found is said, with the statements that mend it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from commands.constraints import OPERATION, Params
from jobs.operation import Database, Tier
from jobs.reader import LiveContext, Readers
from store.connect import Store
from tests.commands.conftest import NOW
from tests.conftest import Target


@pytest.fixture
async def context(target: Target, store: Store, tmp_path: Path) -> AsyncIterator[LiveContext]:
    database = Database(
        name="orders", dsn=SecretStr(target.dsn), environment="production", tier=Tier.CRITICAL,
        channel="C0ORDERS", backup_folder=tmp_path,
    )  # fmt: skip
    readers = Readers()
    yield LiveContext(target=database, readers=readers, store=store, clock=lambda: NOW)
    await readers.close()


async def test_nothing_to_mend_is_said(context: LiveContext) -> None:
    assert OPERATION.answer is not None
    found = await OPERATION.answer(context, Params(database="orders"))
    assert found.title == "Constraints of orders: nothing found"


async def test_findings_come_with_the_statements_that_mend_them(
    context: LiveContext, target: Target
) -> None:
    conn = await asyncpg.connect(target.dsn)
    await conn.execute("""
        CREATE TABLE users (id int PRIMARY KEY, email text);
        CREATE TABLE posts (id int PRIMARY KEY, user_id int);
    """)
    await conn.close()
    assert OPERATION.answer is not None
    found = await OPERATION.answer(context, Params(database="orders"))
    assert found.title == "Constraints of orders: 3 findings"
    assert found.lines[0] == (
        "1 foreign key missing, 1 unique missing, 1 check missing."
        " 3 of them are guessed by a column's name."
    )
    assert found.statements[0] == (
        "-- foreign key missing: public.posts\n"
        "ALTER TABLE public.posts ADD CONSTRAINT posts_user_id_fkey FOREIGN KEY (user_id)"
        " REFERENCES public.users (id) NOT VALID;\n"
        "ALTER TABLE public.posts VALIDATE CONSTRAINT posts_user_id_fkey;"
    )
    assert found.table is not None
    assert [row[:2] for row in found.table.rows] == [
        ("foreign key missing", "public.posts"),
        ("unique missing", "public.users"),
        ("check missing", "public.users"),
    ]
