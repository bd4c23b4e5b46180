"""Which tables, functions and types statements name: what must be known beforehand. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.schema.reading import Names

_RELATIONS: Final = frozenset(
    {"OBJECT_TABLE", "OBJECT_INDEX", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_SEQUENCE",
     "OBJECT_FOREIGN_TABLE"}
)  # fmt: skip
ON_TABLES: Final = frozenset({"OBJECT_TRIGGER", "OBJECT_POLICY", "OBJECT_RULE", "OBJECT_COLUMN",
                              "OBJECT_TABCONSTRAINT"})  # fmt: skip
ROUTINES: Final = frozenset(
    {"OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_ROUTINE", "OBJECT_AGGREGATE"}
)
TYPES: Final = frozenset({"OBJECT_TYPE", "OBJECT_DOMAIN"})


def parsed(sql: str) -> tuple[Any, ...]:
    """The statements of a text.

    Raises:
        PostgresError: it is no SQL that PostgreSQL would take.
    """
    import pglast  # noqa: PLC0415 - a heavy import, for those who need it
    from pglast.parser import ParseError  # noqa: PLC0415

    try:
        return tuple(each.stmt for each in pglast.parse_sql(sql))
    except (ParseError, UnicodeError) as error:
        raise PostgresError(
            f"This is no SQL that PostgreSQL understands: {error}.",
            next_step="Correct the file: psql says the same about it.",
        ) from error


def path_of(names: Any) -> tuple[str, ...]:
    """A name in its parts, from the list of strings that it is in the tree."""
    return tuple(each.sval for each in names or ())


def split_name(path: tuple[str, ...]) -> tuple[str, str]:
    """Schema or '', and name."""
    return (path[-2], path[-1]) if len(path) > 1 else ("", path[-1] if path else "")


def names_of(sql: str) -> Names:
    """What `sql` names.

    Raises:
        PostgresError: it is no SQL that PostgreSQL would take.
    """
    relations: set[tuple[str, str]] = set()
    routines: set[str] = set()
    types: set[str] = set()
    for statement in parsed(sql):
        for node in every(statement):
            match type(node).__name__:
                case "RangeVar":
                    relations.add((node.schemaname or "", node.relname))
                case "CreateFunctionStmt":
                    routines.add(split_name(path_of(node.funcname))[1])
                case "ObjectWithArgs":
                    routines.add(split_name(path_of(node.objname))[1])
                case "CreateEnumStmt" | "AlterEnumStmt" | "CreateRangeStmt" | "AlterDomainStmt":
                    types.add(split_name(path_of(node.typeName))[1])
                case "CreateDomainStmt":
                    types.add(split_name(path_of(node.domainname))[1])
                case "TypeName":
                    types.add(split_name(path_of(node.names))[1])
                case "DropStmt" | "CommentStmt" | "RenameStmt" | "AlterObjectSchemaStmt":
                    _objects(node, relations, types)
                case _:
                    pass
    return Names(
        relations=frozenset(relations), routines=frozenset(routines), types=frozenset(types)
    )


def _objects(node: Any, relations: set[tuple[str, str]], types: set[str]) -> None:
    kind = next(
        getattr(node, field).name
        for field in ("removeType", "objtype", "renameType", "objectType")
        if getattr(node, field, None) is not None
    )
    objects = node.objects if type(node).__name__ == "DropStmt" else (node.object,)
    for each in objects or ():
        if not isinstance(each, tuple):
            continue  # a TypeName or a routine, which is met as such
        path = path_of(each)
        if kind in _RELATIONS:
            relations.add(split_name(path))
        elif kind in ON_TABLES:
            relations.add(split_name(path[:-1]))
        elif kind in TYPES:
            types.add(split_name(path)[1])


def every(node: Any) -> Iterator[Any]:
    """A node and all below it."""
    if isinstance(node, tuple):
        for each in node:
            yield from every(each)
        return
    from pglast.ast import Node  # noqa: PLC0415 - a heavy import, for those who need it

    if not isinstance(node, Node):
        return
    yield node
    for name in node:
        yield from every(getattr(node, name))
