"""Types of columns: what changing one costs, what adding one costs, and what is lost. Pure.

PostgreSQL leaves the table alone where the old bytes are good as the new type
(ATColumnChangeRequiresRewrite in tablecmds.c, and the support functions of varchar, numeric,
varbit and the times). What is not in the list here is counted as a rewrite.
"""

from __future__ import annotations

from typing import Any, Final

from postgres.migrate.review.effects import Scene
from postgres.migrate.review.facts import Column
from postgres.migrate.review.nodes import constant, kind_of, parts

_VARLENA_HEADER: Final = 4
_NUMERIC_SCALE: Final = 0x7FF
_PRECISION_MAX: Final = 6
_SERIAL: Final = frozenset({
    "serial", "serial2", "serial4", "serial8", "smallserial", "bigserial",
})  # fmt: skip
_COUNTED: Final = frozenset({"varchar", "varbit"})
_TIMES: Final = frozenset({"timestamp", "timestamptz", "time", "timetz"})
# Old and new where both look the same on disk, whatever the new one's length.
_SAME_BYTES: Final = frozenset({("varchar", "text"), ("cidr", "inet")})
# What the new type holds whole: nothing is lost although the table is written anew.
_WIDENS: Final = frozenset({
    ("int2", "int4"), ("int2", "int8"), ("int4", "int8"), ("int2", "numeric"),
    ("int4", "numeric"), ("int8", "numeric"), ("float4", "float8"), ("json", "text"),
    ("varchar", "text"), ("uuid", "text"), ("bool", "text"), ("cidr", "inet"),
    ("int2", "text"), ("int4", "text"), ("int8", "text"), ("date", "timestamp"),
    ("int2", "float8"), ("int4", "float8"),
})  # fmt: skip


def is_serial(type_name: Any) -> bool:
    """Whether it is one of the pseudo-types that make a sequence."""
    return parts(type_name)[-1] in _SERIAL


def is_checked(type_name: Any, scene: Scene) -> bool:
    """Whether values of this type are checked by a domain, or nobody knows."""
    name = parts(type_name)
    if name[0] == "pg_catalog" or is_serial(type_name):
        return False
    if name[-1] in scene.past.types:
        return scene.past.types[name[-1]]
    known = scene.facts.types.get(name[-1])
    if known is None:
        return scene.facts.is_read or name[-1] not in _PLAIN
    return known.kind == "d" and known.is_checked


# Types of PostgreSQL's own that the grammar leaves unqualified; others are somebody's.
_PLAIN: Final = frozenset({
    "text", "uuid", "json", "jsonb", "bytea", "date", "timestamptz", "int2", "int4", "int8",
    "float4", "float8", "bool", "inet", "cidr", "citext", "tsvector", "oid", "money", "xml",
    "varchar", "macaddr", "point", "int4range", "int8range", "numrange", "tsrange",
    "tstzrange", "daterange",
})  # fmt: skip


def needs_rewrite(column: Column | None, change: Any) -> bool:
    """Whether `ALTER COLUMN … TYPE` writes the table anew. `change` is its ColumnDef."""
    if column is None or not _is_plain_use(change, column.name):
        return True
    if not _is_builtin(change.typeName) or change.collClause is not None:
        return True
    old, new = column.type_name, parts(change.typeName)[-1]
    lengths = _lengths(change.typeName)
    if lengths is None:
        return True
    if (old, new) in _SAME_BYTES or (old, new) == ("text", "varchar"):
        return bool(lengths)
    if old != new:
        return True
    return not _is_wider(old, column.typmod, lengths)


def loses(column: Column | None, change: Any) -> bool:
    """Whether values may come out smaller than they went in. Unknown counts as yes."""
    if column is not None and not needs_rewrite(column, change):
        return False
    new, lengths = parts(change.typeName)[-1], _lengths(change.typeName)
    if column is None or not _is_plain_use(change, column.name, new):
        return True
    if not _is_builtin(change.typeName) or lengths is None:
        return True
    old = column.type_name
    # Without USING, a string that is too long is an error and not cut.
    if old in {"text", "varchar"} and new == "varchar" and change.raw_default is None:
        return False
    if (old, new) in _WIDENS:
        return bool(lengths)
    return old != new or not _is_wider(old, column.typmod, lengths)


def _is_builtin(type_name: Any) -> bool:
    """No array, and none of somebody's own: those are always counted as written anew."""
    name = parts(type_name)
    return not type_name.arrayBounds and (len(name) == 1 or name[0] == "pg_catalog")


def _is_plain_use(change: Any, column: str, cast_to: str = "") -> bool:
    """No USING, or one that says the column itself (cast to the new type, where allowed)."""
    using = change.raw_default
    if using is None:
        return True
    if kind_of(using) == "TypeCast" and cast_to and parts(using.typeName)[-1] == cast_to:
        using = using.arg
    if kind_of(using) != "ColumnRef":
        return False
    return parts(using.fields) == (column,)


def _lengths(type_name: Any) -> tuple[int, ...] | None:
    """The numbers in the brackets; None where they are no plain numbers."""
    found: list[int] = []
    for each in type_name.typmods or ():
        value = constant(each)
        if not isinstance(value, int):
            return None
        found.append(value)
    return tuple(found)


def _is_wider(name: str, typmod: int, lengths: tuple[int, ...]) -> bool:
    """Whether every value of the old type modifier is one of the new, as it is on disk."""
    if name in _COUNTED:
        # varchar's modifier counts a header of 4 bytes, varbit's does not.
        header = _VARLENA_HEADER if name == "varchar" else 0
        return not lengths or (typmod >= 0 and lengths[0] >= typmod - header)
    if name == "numeric":
        return not lengths or (typmod >= 0 and _is_wider_numeric(typmod, lengths))
    if name in _TIMES:
        old = _PRECISION_MAX if typmod < 0 else typmod
        return not lengths or lengths[0] >= old
    if name == "interval":
        return not lengths and typmod < 0
    if name in {"bpchar", "bit"}:
        # Always with a length, 1 where none is written; and always written anew.
        header = _VARLENA_HEADER if name == "bpchar" else 0
        return bool(lengths) and typmod >= 0 and lengths[0] == typmod - header
    return not lengths and typmod < 0


def _is_wider_numeric(typmod: int, lengths: tuple[int, ...]) -> bool:
    bare = typmod - _VARLENA_HEADER
    # Precision, and a scale of 11 bits that is signed since PostgreSQL 15 (numeric.c).
    precision, scale = (bare >> 16) & 0xFFFF, ((bare & _NUMERIC_SCALE) ^ 1024) - 1024
    wanted, *rest = lengths
    return (rest or [0]) == [scale] and wanted >= precision
