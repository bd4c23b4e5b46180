"""Bring the store's schema up to date, and say whether it is."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from store.connect import CONNECT_SECONDS_MAX, Store
from store.reach import Reach

MIGRATIONS: Final = Path(__file__).parent / "migrations"
SchemaState = Literal["current", "behind", "ahead", "empty"]

CURRENT_REVISION: Final = "SELECT version_num FROM public.alembic_version"


async def upgrade(owner_dsn: SecretStr | str) -> None:
    """Migrate to the newest schema; does nothing when it is there already.

    `owner_dsn` names the user that owns the tables. It must be able to create roles the
    first time, or the role `twokey_app` must exist. A plain text is for servers that ask
    for no password.
    """
    secret = owner_dsn if isinstance(owner_dsn, SecretStr) else SecretStr(owner_dsn)
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=Reach(secret).connect,
    )
    try:
        async with engine.begin() as conn:
            await conn.run_sync(_upgrade)
    finally:
        await engine.dispose()


async def schema_state(store: Store) -> SchemaState:
    """How the store's schema stands to what this program was written for."""
    conn = await store.direct()
    try:
        stored = await conn.fetchval(CURRENT_REVISION)
    except asyncpg.UndefinedTableError:
        return "empty"
    finally:
        await conn.close(timeout=CONNECT_SECONDS_MAX)
    known = ScriptDirectory(str(MIGRATIONS))
    if stored == known.get_current_head():
        return "current"
    return "behind" if stored in {script.revision for script in known.walk_revisions()} else "ahead"


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
