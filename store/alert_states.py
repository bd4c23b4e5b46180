"""What the machine of alerts remembers between two looks, whoever looks next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

STATES_MAX: Final = 100_000

LOAD: Final = sa.text("SELECT database, name, label, memory FROM alert_states LIMIT :rows")

SAVE: Final = sa.text("""
    INSERT INTO alert_states (database, name, label, at, memory)
    VALUES (:database, :name, :label, :at, :memory)
        ON CONFLICT (database, name, label) DO UPDATE SET at = excluded.at, memory = excluded.memory
""").bindparams(
    sa.bindparam("at", type_=TIMESTAMP(timezone=True)), sa.bindparam("memory", type_=JSONB)
)

FORGET: Final = sa.text("""
    DELETE FROM alert_states WHERE database = :database AND name = :name AND label = :label
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertState:
    """What is remembered of one alert; `memory` is JSON that `jobs.alert_machine` reads."""

    database: str
    name: str
    label: str
    memory: Any


async def load_states(conn: AsyncConnection) -> Sequence[AlertState]:
    """All of them: those that are pending, fire, or have done so lately."""
    found = await conn.execute(LOAD, {"rows": STATES_MAX})
    return [AlertState(**row) for row in found.mappings()]


async def save_states(conn: AsyncConnection, states: Iterable[AlertState], *, at: datetime) -> None:
    """Store what is remembered from now on."""
    rows: list[Mapping[str, Any]] = [
        {
            "database": each.database, "name": each.name, "label": each.label,
            "memory": each.memory, "at": at,
        }
        for each in states
    ]  # fmt: skip
    if rows:
        await conn.execute(SAVE, rows)


async def forget_states(
    conn: AsyncConnection, database: str, keys: Iterable[tuple[str, str]]
) -> None:
    """Remove what there is nothing to remember of."""
    rows = [{"database": database, "name": name, "label": label} for name, label in keys]
    if rows:
        await conn.execute(FORGET, rows)
