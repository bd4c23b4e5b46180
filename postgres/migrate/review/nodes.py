"""Reading pglast's trees: what stands in them, by name. Pure.

Nodes are looked at by their class's name and enums by their member's, so that importing this
module does not import pglast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

_DML: Final = frozenset({"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})


def kind_of(node: Any) -> str:
    """The class's name, such as `IndexStmt`."""
    return type(node).__name__


def walk(node: Any) -> Iterator[Any]:
    """The node and everything below it, without recursion: a tree may be deep."""
    from pglast.ast import Node  # noqa: PLC0415 - heavy

    waiting = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Node):
            yield each
            waiting.extend(getattr(each, field) for field in reversed(tuple(each)))
        elif isinstance(each, (tuple, list)):
            waiting.extend(reversed(each))


def of_kind(node: Any, *kinds: str) -> Iterator[Any]:
    """Those below that are of one of these kinds."""
    return (each for each in walk(node) if kind_of(each) in kinds)


def dml_of(node: Any) -> tuple[Any, ...]:
    """The statements that change rows: the node itself, and those in its WITH clauses."""
    return tuple(each for each in walk(node) if kind_of(each) in _DML)


def parts(name: Any) -> tuple[str, ...]:  # noqa: PLR0911 - a table
    """A qualified name: of a RangeVar, a TypeName, a list of strings, or one string."""
    if name is None:
        return ()
    if isinstance(name, str):
        return (name,)
    match kind_of(name):
        case "RangeVar":
            return (name.schemaname, name.relname) if name.schemaname else (name.relname,)
        case "TypeName":
            return parts(name.names)
        case "ObjectWithArgs":
            return parts(name.objname)
        case "String":
            return (name.sval,)
        case _ if isinstance(name, (tuple, list)):
            return tuple(text for each in name for text in parts(each))
        case _:
            return ()


def option(options: Any, name: str) -> Any:
    """The DefElem of this name among options, or None."""
    return next((each for each in options or () if each.defname == name), None)


def is_on(options: Any, name: str) -> bool:
    """Whether an option such as VERBOSE is given and not switched off."""
    found = option(options, name)
    if found is None:
        return False
    if found.arg is None:
        return True
    value = constant(found.arg)
    return str(value).lower() not in {"false", "off", "0", "no"}


def constant(node: Any) -> str | int | bool | None:  # noqa: PLR0911 - a table
    """The value of a literal; None for NULL and for everything that is not one."""
    match kind_of(node):
        case "A_Const":
            return None if node.isnull else constant(node.val)
        case "String":
            return str(node.sval)
        case "Integer":
            return int(node.ival or 0)
        case "Boolean":
            return bool(node.boolval)
        case "Float":
            return str(node.fval)
        case "TypeCast":
            return constant(node.arg)
        case _:
            return None
