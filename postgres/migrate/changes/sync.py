"""The trigger that keeps old and new columns together while both are written. Pure.

It fires ALWAYS, so also for what a logical replication worker applies and whatever
`session_replication_role` says: a row without its other half would be a lost write. Its function
runs with the writer's rights and finds PostgreSQL's own functions and operators alone. A write of
the application never fails because a value cannot be computed: the other half is NULL then, and
the comparison finds the row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, assert_never

from postgres.migrate.changes.expressions import Expression
from postgres.migrate.own_schema import SCHEMA


class Mode(StrEnum):
    """Who is right where the two halves of a row differ."""

    FORWARD = "forward"  # the old columns; the new ones follow
    TWO_WAY = "two-way"  # whichever a write has changed; the new ones where it changed both
    REVERSE = "reverse"  # the new columns; the old ones follow


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A column and what it should be. `names`: what the expression's columns are called now.

    `type` is the column's, as SQL.
    """

    column: str
    type: str
    expression: Expression
    names: Mapping[str, str] = field(default_factory=dict)

    def sql(self, row: str = "") -> str:
        """The expression, of `row` such as `NEW`."""
        return self.expression.sql(row=row, names=self.names)

    def typed(self, row: str = "") -> str:
        """The expression as the column would hold it, to be compared with it."""
        return f"CAST(({self.sql(row)}) AS {self.type})"

    def is_held(self, row: str = "") -> str:
        """Whether the column holds it."""
        column = f"{row}.{quoted(self.column)}" if row else quoted(self.column)
        return f"{column} IS NOT DISTINCT FROM {self.typed(row)}"

    @property
    def sources(self) -> frozenset[str]:
        """The columns that it is computed from, by what they are called now."""
        return frozenset(self.names.get(name, name) for name in self.expression.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """How new columns follow old ones, and old ones new ones."""

    forward: tuple[Value, ...]
    reverse: tuple[Value, ...]

    @property
    def new(self) -> tuple[str, ...]:
        """The columns that the old ones fill."""
        return tuple(value.column for value in self.forward)

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that the new ones are computed from, sorted."""
        return tuple(sorted(frozenset().union(*(value.sources for value in self.forward))))

    @property
    def reverse_sources(self) -> tuple[str, ...]:
        """The columns that the old ones are computed from, sorted."""
        return tuple(sorted(frozenset().union(*(value.sources for value in self.reverse))))


_TAGS: Final = ("twokey", "twokey1", "twokey2", "twokey3")


def quoted(name: str) -> str:
    """An identifier, always in quotes: right whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A constant; the session has standard_conforming_strings on."""
    return "'" + text.replace("'", "''") + "'"


def trigger_name(change: str) -> str:
    """What our trigger is called: triggers of a kind fire by name, and ours comes late."""
    return f"zz_twokey_{change}"


def function_name(change: str) -> str:
    """The trigger's function, with its schema, quoted."""
    return f"{quoted(SCHEMA)}.{quoted(f'{change}_sync')}"


def trigger_sql(
    change: str, table: str, sync: Sync, mode: Mode, *, on_columns: bool
) -> tuple[str, ...]:
    """Statements after which the trigger keeps `mode`, whatever was there. `table` is quoted.

    `on_columns`: fire only where one of the columns is set. Not where other triggers may change
    them: what those do is not in the statement's list of columns.
    """
    body = function_body(sync, mode)
    tag = next(tag for tag in _TAGS if f"${tag}$" not in body)
    name = quoted(trigger_name(change))
    events = f" OF {', '.join(map(quoted, watched(sync, mode)))}" if on_columns else ""
    function = (
        f"CREATE OR REPLACE FUNCTION {function_name(change)}() RETURNS trigger\n"
        f"    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp\n"
        f"    AS ${tag}${body}${tag}$"
    )
    trigger = (
        f"CREATE TRIGGER {name} BEFORE INSERT OR UPDATE{events} ON {table}\n"
        f"    FOR EACH ROW EXECUTE FUNCTION {function_name(change)}()"
    )
    return (
        function,
        *drop_trigger_sql(change, table),
        trigger,
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}",
    )


def drop_sql(change: str, table: str) -> tuple[str, ...]:
    """Statements after which there is neither trigger nor function."""
    return (
        *drop_trigger_sql(change, table),
        f"DROP FUNCTION IF EXISTS {function_name(change)}()",
    )


def drop_trigger_sql(change: str, table: str) -> tuple[str, ...]:
    """A statement after which nothing fires."""
    return (f"DROP TRIGGER IF EXISTS {quoted(trigger_name(change))} ON {table}",)


def watched(sync: Sync, mode: Mode) -> tuple[str, ...]:
    """The columns that concern the trigger when one of them is set."""
    match mode:
        case Mode.FORWARD:
            return sync.sources
        case Mode.REVERSE:
            return sync.reverse_sources
        case Mode.TWO_WAY:
            return tuple(sorted({*sync.sources, *sync.new, *sync.reverse_sources}))
        case _:
            assert_never(mode)


def body_md5(sync: Sync, mode: Mode) -> str:
    """What `md5(prosrc)` is of a trigger function that nobody has changed."""
    body = function_body(sync, mode).encode()
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def function_body(sync: Sync, mode: Mode) -> str:
    """The body of the trigger's function."""
    match mode:
        case Mode.FORWARD:
            lines = ["BEGIN", *_indented(_set(sync.forward)), "    RETURN NEW;", "END"]
        case Mode.REVERSE:
            lines = ["BEGIN", *_indented(_set(sync.reverse)), "    RETURN NEW;", "END"]
        case Mode.TWO_WAY:
            lines = _two_way(sync)
        case _:
            assert_never(mode)
    return "\n" + "\n".join(lines) + "\n"


def _two_way(sync: Sync) -> list[str]:
    """A write that makes the new half just what the old one says, as a backfill's, is no news."""
    given = " OR ".join(f"NEW.{quoted(name)} IS NOT NULL" for name in sync.new)
    return [
        "DECLARE",
        "    twokey_same boolean := false;",
        "BEGIN",
        "    BEGIN",
        f"        twokey_same := {_same(sync.forward)};",
        "    EXCEPTION WHEN OTHERS THEN",
        "        twokey_same := false;",
        "    END;",
        "    IF TG_OP = 'INSERT' THEN",
        f"        IF {given} THEN",
        *_indented(_unless_same(sync), 3),
        "        ELSE",
        *_indented(_set(sync.forward), 3),
        "        END IF;",
        f"    ELSIF {_changed(sync.new)} THEN",
        *_indented(_unless_same(sync), 2),
        f"    ELSIF {_changed(sync.sources)} THEN",
        *_indented(_set(sync.forward), 2),
        "    END IF;",
        "    RETURN NEW;",
        "END",
    ]


def _unless_same(sync: Sync) -> list[str]:
    if not sync.reverse:
        return ["NULL;"]
    return ["IF NOT twokey_same THEN", *_indented(_set(sync.reverse)), "END IF;"]


def _set(values: Sequence[Value]) -> list[str]:
    return [
        "BEGIN",
        *(f"    NEW.{quoted(value.column)} := {value.sql('NEW')};" for value in values),
        "EXCEPTION WHEN OTHERS THEN",
        *(f"    NEW.{quoted(value.column)} := NULL;" for value in values),
        "END;",
    ]


def _same(values: Sequence[Value]) -> str:
    return " AND ".join(value.is_held("NEW") for value in values)


def _changed(columns: Sequence[str]) -> str:
    return " OR ".join(
        f"NEW.{quoted(name)} IS DISTINCT FROM OLD.{quoted(name)}" for name in columns
    )


def _indented(lines: Sequence[str], by: int = 1) -> list[str]:
    return ["    " * by + line for line in lines]
