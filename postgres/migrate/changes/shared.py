"""What both kinds of change compile to in the same way. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

from postgres.migrate.changes.facts import Facts
from postgres.migrate.changes.machine import State
from postgres.migrate.changes.objections import other_before_triggers
from postgres.migrate.changes.sides import mode_of, sync_of
from postgres.migrate.changes.steps import Alone, Short, Step, mark_sql
from postgres.migrate.changes.sync import quoted, trigger_sql
from postgres.migrate.changes.words import Change

NAME_BYTES_MAX: Final = 63


def table_of(change: Change) -> str:
    """The table with its schema, quoted."""
    return f"{quoted(change.schema)}.{quoted(change.table)}"


def beside(name: str, ending: str) -> str:
    """A name like `name`, with an ending, that PostgreSQL does not cut off."""
    if len((name + ending).encode()) <= NAME_BYTES_MAX:
        return name + ending
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    room = NAME_BYTES_MAX - len(ending.encode()) - len(mark) - 1
    return f"{name.encode()[:room].decode(errors='ignore')}_{mark}{ending}"


def sync_statements(change: Change, facts: Facts, state: State) -> tuple[str, ...]:
    """Statements after which the trigger is what it is to be in a state."""
    return trigger_sql(
        change.name,
        table_of(change),
        sync_of(change, facts, state),
        mode_of(change, state),
        on_columns=not other_before_triggers(change, facts),
    )


def short(change: Change, name: str, mark: str, *statements: str) -> Short:
    """A short transaction that leaves a mark with its name."""
    left = mark_sql(change.name, change.sha256, mark)
    return Short(name=name, statements=(*statements, left), mark=mark)


def not_null_steps(change: Change, column: str, *, prefix: str = "") -> tuple[Step, ...]:
    """NOT NULL by way of a CHECK: nobody waits while rows are read."""
    table, check = table_of(change), quoted(beside(f"{change.name}_{column}", "_nn"))
    key = f"{prefix}not null {column}"
    return (
        short(
            change,
            f"begin to refuse NULL in {column}",
            f"{key} asked",
            f"ALTER TABLE {table} ADD CONSTRAINT {check}"
            f" CHECK ({quoted(column)} IS NOT NULL) NOT VALID",
        ),
        validate_step(change, key, f"see that no {column} is NULL", check),
        short(
            change,
            f"call {column} NOT NULL",
            key,
            f"ALTER TABLE {table} ALTER COLUMN {quoted(column)} SET NOT NULL",
            f"ALTER TABLE {table} DROP CONSTRAINT {check}",
        ),
    )


def validate_step(change: Change, key: str, name: str, constraint: str) -> Alone:
    """VALIDATE, until the mark `key` says that its work is done. `constraint` is quoted."""
    statement = f"ALTER TABLE {table_of(change)} VALIDATE CONSTRAINT {constraint}"
    return Alone(name=name, statement=statement, unless=key)
