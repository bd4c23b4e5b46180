"""Two schemas in which a table stands as the old and as the new version sees it. Pure.

Simple views, so that PostgreSQL itself passes writes on to the table. From 15 on they look with
the rights of whoever asks; before, with their owner's, so that a role needs rights on the view
alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from postgres.migrate.changes.facts import Facts
from postgres.migrate.changes.sync import quoted
from postgres.migrate.changes.words import Change, ExpandContract, ShadowColumn, Views

INVOKER_MAJOR: Final = 15


def create_views(change: Change, facts: Facts) -> tuple[str, ...]:
    """Statements that make both views, before any column has another name."""
    if change.views is None:
        return ()
    return (
        *_create(change, facts, change.views.old, _old_shape(facts)),
        *_create(change, facts, change.views.new, _new_shape(change, facts)),
    )


def drop_views(change: Change, facts: Facts, created: Collection[str]) -> tuple[str, ...]:
    """Statements after which neither view is there, nor a schema that was made for it."""
    if change.views is None:
        return ()
    found: list[str] = []
    for schema in (change.views.old, change.views.new):
        found.append(f"DROP VIEW IF EXISTS {quoted(schema)}.{quoted(change.table)}")
        if schema in created and not facts.others_in.get(schema, 0):
            found.append(f"DROP SCHEMA IF EXISTS {quoted(schema)}")
    return tuple(found)


def schemas_created(views: Views | None, facts: Facts) -> tuple[str, ...]:
    """The schemas that are made for the views."""
    if views is None:
        return ()
    return tuple(name for name in (views.old, views.new) if name not in facts.others_in)


def _create(
    change: Change, facts: Facts, schema: str, shape: Iterator[tuple[str, str]]
) -> Iterator[str]:
    """One view: `shape` is each column of the table and what it is called in the view."""
    if schema not in facts.others_in:
        yield f"CREATE SCHEMA {quoted(schema)}"
    columns = ", ".join(
        quoted(column) if column == shown else f"{quoted(column)} AS {quoted(shown)}"
        for column, shown in shape
    )
    view = f"{quoted(schema)}.{quoted(change.table)}"
    option = " WITH (security_invoker = true)" if facts.major >= INVOKER_MAJOR else ""
    source = f"{quoted(change.schema)}.{quoted(change.table)}"
    yield f"CREATE VIEW {view}{option} AS\n    SELECT {columns}\n      FROM {source}"  # noqa: S608
    for who, what in sorted(facts.grants.items()):
        yield f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {who}"
        yield f"GRANT {what} ON {view} TO {who}"


def _old_shape(facts: Facts) -> Iterator[tuple[str, str]]:
    return ((name, name) for name in facts.columns)


def _new_shape(change: Change, facts: Facts) -> Iterator[tuple[str, str]]:
    match change.what:
        case ShadowColumn() as shadow:
            for name in facts.columns:
                yield (shadow.shadow, name) if name == shadow.column else (name, name)
        case ExpandContract() as wide:
            yield from ((name, name) for name in facts.columns if name not in wide.drop)
            yield from ((column.name, column.name) for column in wide.columns)
