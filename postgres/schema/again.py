"""Statements that make something again as the catalog had it. Pure.

Definitions are the server's own; owners, rights and comments come with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from postgres.schema.catalog import (
    Column,
    Constraint,
    Function,
    Index,
    Relation,
    Trigger,
    Type,
    ident,
    literal,
)

_CONCURRENT: Final = (("CREATE UNIQUE INDEX ", "CREATE UNIQUE INDEX CONCURRENTLY "),
                      ("CREATE INDEX ", "CREATE INDEX CONCURRENTLY "))  # fmt: skip
_ENABLED: Final = {"D": "DISABLE TRIGGER", "A": "ENABLE ALWAYS TRIGGER",
                   "R": "ENABLE REPLICA TRIGGER"}  # fmt: skip
VIEWS: Final = {"v": "VIEW", "m": "MATERIALIZED VIEW"}


def concurrently(definition: str) -> str:
    """The definition of an index, so that it blocks nobody's writes."""
    for plain, online in _CONCURRENT:
        if definition.startswith(plain):
            return online + definition.removeprefix(plain)
    return definition


def index_again(index: Index, *, is_partitioned: bool = False) -> str:
    """CREATE INDEX: concurrently where that can be."""
    return index.definition if is_partitioned else concurrently(index.definition)


def column_again(table: str, column: Column, *, with_default: bool = True) -> str:
    """ADD COLUMN. `with_default` False: nullable and empty, to be filled."""
    words = [ident(column.name), column.type]
    if column.collation:
        words.append(f"COLLATE {column.collation}")
    if column.generated:
        word = "STORED" if column.generated == "s" else "VIRTUAL"
        words.append(f"GENERATED ALWAYS AS ({column.default}) {word}")
    elif column.identity:
        words.append(identity_clause(column))
    elif with_default:
        if column.default:
            words.append(f"DEFAULT {column.default}")
        if column.not_null and column.default:
            words.append("NOT NULL")
    return f"ALTER TABLE {table} ADD COLUMN {' '.join(words)}"


def column_and_its_own(table: Relation, column: Column) -> tuple[str, ...]:
    """A column with the indexes, constraints and comment that went with it. Without values."""
    is_partitioned = table.kind == "p"
    indexes = {each.name: each for each in table.indexes}
    constraints = [each for each in table.constraints if column.name in each.columns]
    return (
        column_again(table.sql, column),
        *(
            text
            for each in constraints
            for text in constraint_again(
                table.sql, each, indexes.get(each.index), is_partitioned=is_partitioned
            )
        ),
        *(
            index_again(each, is_partitioned=is_partitioned)
            for each in table.indexes
            if column.name in each.columns and not each.constraint
        ),
        *column_comments(table.sql, (column,)),
    )


def identity_clause(column: Column) -> str:
    """GENERATED … AS IDENTITY."""
    when = "ALWAYS" if column.identity == "a" else "BY DEFAULT"
    return f"GENERATED {when} AS IDENTITY"


def constraint_again(
    table: str, constraint: Constraint, index: Index | None, *, is_partitioned: bool = False
) -> tuple[str, ...]:
    """ADD CONSTRAINT in the forms that hold their locks for a moment only."""
    name = ident(constraint.name)
    add = f"ALTER TABLE {table} ADD CONSTRAINT {name} "
    if is_partitioned:
        return (add + constraint.definition,)
    if constraint.kind in ("c", "f") and constraint.is_valid:
        return (
            f"{add}{constraint.definition} NOT VALID",
            f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}",
        )
    if constraint.kind in ("p", "u") and index is not None:
        word = "PRIMARY KEY" if constraint.kind == "p" else "UNIQUE"
        _, found, late = constraint.definition.partition(" DEFERRABLE")
        return (
            concurrently(index.definition),
            f"{add}{word} USING INDEX {ident(index.name)}{found}{late}",
        )
    return (add + constraint.definition,)


def trigger_again(table: str, trigger: Trigger) -> tuple[str, ...]:
    """CREATE TRIGGER, and whether it fires."""
    if trigger.enabled not in _ENABLED:
        return (trigger.definition,)
    return (
        trigger.definition,
        f"ALTER TABLE {table} {_ENABLED[trigger.enabled]} {ident(trigger.name)}",
    )


def view_again(view: Relation) -> tuple[str, ...]:
    """A view with all that stood on it. A materialized one has what its query finds today."""
    word = VIEWS[view.kind]
    made = f"CREATE {word} {view.sql}{options_clause(view)} AS {_query(view)}"
    return (
        made,
        *(each.definition for each in view.indexes),
        *view.rules,
        *(text for each in view.triggers for text in trigger_again(view.sql, each)),
        *rights(word, view.sql, view),
    )


def replace_view(view: Relation) -> str:
    """CREATE OR REPLACE with the definition that it had: its columns must be the same."""
    return f"CREATE OR REPLACE VIEW {view.sql}{options_clause(view)} AS {_query(view)}"


def _query(view: Relation) -> str:
    return view.definition.strip().removesuffix(";")


def options_clause(relation: Relation) -> str:
    """WITH (…), or ''."""
    return f" WITH ({', '.join(relation.options)})" if relation.options else ""


def rights(word: str, sql: str, owned: Relation | Function) -> tuple[str, ...]:
    """Owner, grants and comment of what was just made again."""
    comment = (f"COMMENT ON {word} {sql} IS {literal(owned.comment)}",) if owned.comment else ()
    return (f"ALTER {word} {sql} OWNER TO {ident(owned.owner)}", *owned.grants, *comment)


def function_again(function: Function) -> tuple[str, ...]:
    """A function that is not there any more."""
    return (
        function.definition.rstrip(),
        *rights(function.word, function.sql, function),
    )


def type_again(found: Type) -> tuple[str, ...]:
    """A type that is not there any more; () where its definition is not known."""
    if not found.definition:
        return ()
    word = "DOMAIN" if found.kind == "d" else "TYPE"
    owner = f"ALTER {word} {found.sql} OWNER TO {ident(found.owner)}"
    return (found.definition, owner)


def sequence_again(relation: Relation) -> tuple[str, ...]:
    """A sequence, which begins anew."""
    if relation.sequence is None:
        return ()
    owned = relation.sequence
    by = (
        (f"ALTER SEQUENCE {relation.sql} OWNED BY {owned.owner_table}.{ident(owned.owner_column)}",)
        if owned.owner_column
        else ()
    )
    return (
        f"CREATE SEQUENCE {relation.sql} {owned.clauses}",
        *rights("SEQUENCE", relation.sql, relation),
        *by,
    )


def table_again(table: Relation, *, keys: bool = True) -> tuple[str, ...]:
    """A table without its rows. `keys` False: without foreign keys, for who adds them last."""
    lines = [_column_line(each) for each in table.columns if not each.inherited]
    persistence = "UNLOGGED " if table.persistence == "u" else ""
    if table.bound and table.parents:
        head = (
            f"CREATE {persistence}TABLE {table.sql} PARTITION OF {table.parents[0]} {table.bound}"
        )
    else:
        inherits = f" INHERITS ({', '.join(table.parents)})" if table.parents else ""
        head = f"CREATE {persistence}TABLE {table.sql} ({', '.join(lines)}){inherits}"
    if table.partition_key:
        head += f" PARTITION BY {table.partition_key}"
    own = [each for each in table.constraints if not each.inherited]
    # Keys before what refers to them.
    own.sort(key=lambda each: "puxcf".index(each.kind))
    return (
        head + options_clause(table),
        *(
            f"ALTER TABLE {table.sql} ADD CONSTRAINT {ident(each.name)} {each.definition}"
            for each in own
            if keys or each.kind != "f"
        ),
        *(i.definition for i in table.indexes if not i.constraint and not i.inherited),
        *(text for each in table.triggers for text in trigger_again(table.sql, each)),
        *security(table),
        *table.rules,
        *rights("TABLE", table.sql, table),
        *column_comments(table.sql, table.columns),
    )


def security(table: Relation) -> tuple[str, ...]:
    """Row security and its policies."""
    on = (f"ALTER TABLE {table.sql} ENABLE ROW LEVEL SECURITY",) if table.row_security else ()
    force = (
        (f"ALTER TABLE {table.sql} FORCE ROW LEVEL SECURITY",) if table.force_row_security else ()
    )
    return (*on, *force, *(each.definition for each in table.policies))


def column_comments(table: str, columns: Iterable[Column]) -> tuple[str, ...]:
    """Comments on columns."""
    return tuple(
        f"COMMENT ON COLUMN {table}.{ident(each.name)} IS {literal(each.comment)}"
        for each in columns
        if each.comment
    )


def _column_line(column: Column) -> str:
    words = [ident(column.name), column.type]
    if column.collation:
        words.append(f"COLLATE {column.collation}")
    if column.generated:
        word = "STORED" if column.generated == "s" else "VIRTUAL"
        words.append(f"GENERATED ALWAYS AS ({column.default}) {word}")
    elif column.identity:
        words.append(identity_clause(column))
    elif column.default:
        words.append(f"DEFAULT {column.default}")
    if column.not_null:
        words.append("NOT NULL")
    return " ".join(words)
