"""New columns beside old ones: the steps of each phase. Pure."""

from __future__ import annotations

from postgres.migrate.changes.facts import Facts
from postgres.migrate.changes.machine import State
from postgres.migrate.changes.shared import (
    not_null_steps,
    short,
    sync_statements,
    table_of,
    validate_step,
)
from postgres.migrate.changes.steps import Alone, Step
from postgres.migrate.changes.sync import quoted
from postgres.migrate.changes.words import Change, ExpandContract


def add_columns(change: Change, wide: ExpandContract) -> tuple[str, ...]:
    """The new columns, in one statement: one lock."""
    added = ", ".join(f"ADD COLUMN {column.definition}" for column in wide.columns)
    return (f"ALTER TABLE {table_of(change)} {added}",)


def tighten(change: Change, wide: ExpandContract) -> tuple[Step, ...]:
    """Constraints, NOT NULL and indexes on columns that are filled."""
    found: list[Step] = []
    table = table_of(change)
    for made in wide.constraints:
        name = quoted(made.name)
        key = f"constraint {made.name}"
        add = f"ALTER TABLE {table} ADD CONSTRAINT {name} {made.body} NOT VALID"
        found.append(short(change, f"add {made.name}", key, add))
        found.append(validate_step(change, "", f"see that every row keeps {made.name}", name))
    for column in wide.not_null:
        found += not_null_steps(change, column)
    found += [Alone(name=f"build {index.name}", statement=index.create) for index in wide.indexes]
    return tuple(found)


def switch(change: Change, facts: Facts) -> tuple[str, ...]:
    """From now on what is written to either half reaches the other."""
    return sync_statements(change, facts, State.SWITCHED)


def switch_back(change: Change, facts: Facts) -> tuple[str, ...]:
    """The old columns are the truth again."""
    return sync_statements(change, facts, State.BACKFILLED)


def drop_new(change: Change, wide: ExpandContract) -> tuple[str, ...]:
    """The new columns go, with whatever was built on them."""
    dropped = [f"DROP CONSTRAINT IF EXISTS {quoted(made.name)}" for made in wide.constraints]
    dropped += [f"DROP COLUMN IF EXISTS {quoted(column.name)}" for column in wide.columns]
    return (f"ALTER TABLE {table_of(change)} {', '.join(dropped)}",)


def drop_old(change: Change, wide: ExpandContract) -> tuple[str, ...]:
    """The old columns go."""
    if not wide.drop:
        return ()
    dropped = ", ".join(f"DROP COLUMN {quoted(name)}" for name in wide.drop)
    return (f"ALTER TABLE {table_of(change)} {dropped}",)
