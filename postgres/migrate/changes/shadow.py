"""A column of another type takes a column's name: the steps of each phase. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from postgres.migrate.changes.facts import Attached, Facts
from postgres.migrate.changes.machine import State
from postgres.migrate.changes.objections import carried
from postgres.migrate.changes.shared import (
    beside,
    not_null_steps,
    short,
    sync_statements,
    table_of,
    validate_step,
)
from postgres.migrate.changes.statements import renamed_check, renamed_index
from postgres.migrate.changes.steps import Alone, Step
from postgres.migrate.changes.sync import drop_trigger_sql, quoted
from postgres.migrate.changes.words import Change, ShadowColumn

NEW, OLD = "__new", "__old"


def add_column(change: Change, what: ShadowColumn) -> tuple[str, ...]:
    """The shadow, empty."""
    return (f"ALTER TABLE {table_of(change)} ADD COLUMN {quoted(what.shadow)} {what.type}",)


def tighten(change: Change, what: ShadowColumn, facts: Facts) -> tuple[Step, ...]:
    """What the old column has, the shadow gets: constraints, indexes, NOT NULL."""
    found: list[Step] = []
    for each in carried(what, facts, what.column):
        found += _copy(change, what, each)
    wanted = what.not_null
    if facts.columns[what.column].not_null if wanted is None else wanted:
        found += not_null_steps(change, what.shadow)
    return tuple(found)


def detail_of(what: ShadowColumn, facts: Facts) -> Mapping[str, Any]:
    """What the way back needs to know of the column that steps aside."""
    column = facts.columns[what.column]
    return {
        "not_null": column.not_null,
        "default": column.default,
        "carried": [[each.kind, each.name] for each in carried(what, facts, what.column)],
    }


def switch(change: Change, what: ShadowColumn, facts: Facts) -> tuple[str, ...]:
    """The two columns exchange names, with all that was copied; nobody sees it half-done."""
    table, detail = table_of(change), detail_of(what, facts)
    column, shadow = quoted(what.column), quoted(what.shadow)
    default = detail["default"]
    wanted = what.default.text if what.default else default if what.copies_default else None
    function, *trigger = sync_statements(change, facts, State.SWITCHED)
    return (
        function,  # others see it with the rest; no lock of the table yet
        *drop_trigger_sql(change.name, table),
        *(
            (f"ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL",)
            if detail["not_null"]
            else ()
        ),
        *((f"ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT",) if default else ()),
        *((f"ALTER TABLE {table} ALTER COLUMN {shadow} SET DEFAULT {wanted}",) if wanted else ()),
        f"ALTER TABLE {table} RENAME COLUMN {column} TO {quoted(what.old)}",
        f"ALTER TABLE {table} RENAME COLUMN {shadow} TO {column}",
        *_renamed(change, detail["carried"], ("", OLD), (NEW, "")),
        *trigger,
    )


def switch_back(
    change: Change, what: ShadowColumn, facts: Facts, detail: Mapping[str, Any]
) -> tuple[str, ...]:
    """The switch, the other way round."""
    table = table_of(change)
    column, shadow = quoted(what.column), quoted(what.shadow)
    default = detail.get("default")
    is_not_null = facts.columns[what.column].not_null
    function, *trigger = sync_statements(change, facts, State.BACKFILLED)
    return (
        function,
        *drop_trigger_sql(change.name, table),
        *((f"ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL",) if is_not_null else ()),
        f"ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT",
        f"ALTER TABLE {table} RENAME COLUMN {column} TO {shadow}",
        f"ALTER TABLE {table} RENAME COLUMN {quoted(what.old)} TO {column}",
        *((f"ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT {default}",) if default else ()),
        *_renamed(change, detail.get("carried", ()), ("", NEW), (OLD, "")),
        *trigger,
    )


def drop_new(change: Change, what: ShadowColumn) -> tuple[str, ...]:
    """The shadow goes, with its indexes and constraints."""
    return (f"ALTER TABLE {table_of(change)} DROP COLUMN IF EXISTS {quoted(what.shadow)}",)


def drop_old(change: Change, what: ShadowColumn) -> tuple[str, ...]:
    """The old column goes, with its indexes and constraints."""
    return (f"ALTER TABLE {table_of(change)} DROP COLUMN {quoted(what.old)}",)


def _copy(change: Change, what: ShadowColumn, each: Attached) -> Iterator[Step]:
    """One index or constraint once more, on the shadow and under another name."""
    name, table = beside(each.name, NEW), table_of(change)
    if each.kind == "c":
        body = renamed_check(each.definition, column=what.column, to=what.shadow)
        yield short(
            change,
            f"add {name}",
            f"constraint {name}",
            f"ALTER TABLE {table} ADD CONSTRAINT {quoted(name)} {body} NOT VALID",
        )
        if each.is_valid:
            yield validate_step(change, "", f"see that every row keeps {name}", quoted(name))
        return
    definition = each.index_definition or each.definition
    create = renamed_index(definition, name=name, column=what.column, to=what.shadow)
    yield Alone(name=f"build {name}", statement=create, unless=f"constraint {name}")
    if each.kind == "u":
        yield short(
            change,
            f"make {name} a constraint",
            f"constraint {name}",
            f"ALTER TABLE {table} ADD CONSTRAINT {quoted(name)} UNIQUE USING INDEX"
            f" {quoted(name)}{_deferral(each.definition)}",
        )


def _deferral(text: str) -> str:
    for word in (" DEFERRABLE INITIALLY DEFERRED", " DEFERRABLE"):
        if text.endswith(word):
            return word
    return ""


def _renamed(
    change: Change, names: Any, first: tuple[str, str], second: tuple[str, str]
) -> Iterator[str]:
    """Both of each pair get other endings, such as '' to __old and __new to ''."""
    for kind, name in names:
        for before, after in (first, second):
            old, new = (beside(name, end) if end else name for end in (before, after))
            if kind == "index":
                yield (f"ALTER INDEX {quoted(change.schema)}.{quoted(old)} RENAME TO {quoted(new)}")
            else:
                yield (
                    f"ALTER TABLE {table_of(change)} RENAME CONSTRAINT {quoted(old)}"
                    f" TO {quoted(new)}"
                )
