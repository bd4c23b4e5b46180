"""SQL expressions out of a file, by PostgreSQL's own grammar, and printed again. Pure.

Nothing is pasted as it was written: only nodes that are listed here pass, and what is printed is
parsed once more and must be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from postgres.errors import PostgresError

CHARS_MAX: Final = 4000
_ROW_NAMES: Final = frozenset({"new", "old"})
# What may stand in a value that is computed from one row alone, and means the same tomorrow.
_NODES: Final = frozenset(
    {"A_ArrayExpr", "A_Const", "A_Expr", "A_Indices", "A_Indirection", "BitString", "Boolean",
     "BooleanTest", "BoolExpr", "CaseExpr", "CaseWhen", "CoalesceExpr", "CollateClause",
     "ColumnRef", "Float", "FuncCall", "Integer", "MinMaxExpr", "NullTest", "RowExpr", "String",
     "TypeCast", "TypeName"}
)  # fmt: skip
_OF_TIME_OR_CHANCE: Final = frozenset(
    {"now", "transaction_timestamp", "statement_timestamp", "clock_timestamp", "timeofday",
     "random", "random_normal", "gen_random_uuid", "uuidv4", "uuidv7", "nextval", "setval",
     "currval", "lastval", "txid_current", "pg_current_xact_id", "current_setting", "set_config",
     "pg_sleep", "pg_backend_pid", "dblink", "lo_import", "pg_read_file", "pg_notify"}
)  # fmt: skip


class ExpressionError(PostgresError):
    """The text is no expression, or says more than a value of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """An expression over the columns of one row, printed in PostgreSQL's way.

    `text` names columns plainly. `columns` are their real names; `functions` of other schemas
    than PostgreSQL's own, as schema.name.
    """

    text: str
    columns: frozenset[str]
    functions: frozenset[str] = frozenset()

    def sql(self, *, row: str = "", names: Mapping[str, str] | None = None) -> str:
        """The expression with its columns under other names, and of a row such as `NEW`."""
        given = names or {}
        node = _parsed(self.text)

        def renamed(column: str) -> tuple[str, ...]:
            name = given.get(column, column)
            return (row.lower(), name) if row else (name,)

        _rename(node, renamed)
        return printed(node)


def read_expression(text: str) -> Expression:
    """What `text` computes from a row; `NEW.name` and `name` are the same there.

    Raises:
        ExpressionError: it is no expression, or one that asks more than the row.
    """
    if not 0 < len(text) <= CHARS_MAX:
        raise ExpressionError(
            f"An expression has 1 to {CHARS_MAX} characters.", next_step="Write lower(email)."
        )
    node = _parsed(text)
    columns: set[str] = set()
    functions: set[str] = set()
    for each in walk(node):
        _take(each, columns, functions)
    _rename(node, lambda name: (name,))
    return Expression(
        text=printed(node), columns=frozenset(columns), functions=frozenset(functions)
    )


def read_assignments(text: str) -> dict[str, str]:
    """`a = lower(b), c = 1` as it stands in an UPDATE: the text of each expression by column.

    Raises:
        ExpressionError: it is no such list.
    """
    # Only parsed: no text of this is ever sent to a server.
    (statement,) = _statements(f"UPDATE t SET {text}", what="a list of assignments")  # noqa: S608
    more = [name for name in statement if name not in {"relation", "targetList"}]
    plain = type(statement).__name__ == "UpdateStmt" and not any(
        getattr(statement, name) for name in more
    )
    found: dict[str, str] = {}
    for target in statement.targetList if plain else ():
        if target.indirection or type(target.val).__name__ in {"MultiAssignRef", "SetToDefault"}:
            plain = False
            break
        found[target.name] = printed(target.val)
    if not plain or len(found) != len(statement.targetList):
        raise ExpressionError(
            "That is no list of columns with their values.",
            next_step="Write a column, =, and an expression; then a comma and the next.",
        )
    return found


def printed(node: Any) -> str:
    """A node as SQL.

    Raises:
        ExpressionError: what would be printed does not mean the same.
    """
    from pglast.stream import RawStream  # noqa: PLC0415

    text = str(RawStream()(node))
    if _parsed(text) != node:
        raise ExpressionError(
            "The expression cannot be printed so that it means the same.",
            next_step="Write it more simply.",
        )
    return text


def walk(node: Any) -> Iterator[Any]:
    """A node of the grammar and all below it."""
    from pglast.ast import Node  # noqa: PLC0415

    if isinstance(node, Node):
        yield node
        for name in node:
            yield from walk(getattr(node, name))
    elif isinstance(node, list | tuple):
        for each in node:
            yield from walk(each)


def names_of(parts: Any) -> tuple[str, ...]:
    """The parts of a name; '*' for a star."""
    return tuple(getattr(part, "sval", None) or "*" for part in parts)


def _parsed(text: str) -> Any:
    (statement,) = _statements(f"SELECT {text}", what="an expression")
    target = statement.targetList[0] if getattr(statement, "targetList", None) else None
    alone = {"targetList", "limitOption", "op", "groupDistinct", "all"}
    more = [name for name in statement if getattr(statement, name) and name not in alone]
    if more or len(statement.targetList or ()) != 1 or target is None or target.name:
        raise ExpressionError(
            "That is more than one expression.", next_step="Write one, such as lower(email)."
        )
    return target.val


def _statements(text: str, *, what: str) -> tuple[Any, ...]:
    from pglast import parse_sql  # noqa: PLC0415
    from pglast.parser import ParseError  # noqa: PLC0415

    try:
        parsed = tuple(each.stmt for each in parse_sql(text))
    except (ParseError, RecursionError) as error:
        raise ExpressionError(
            f"PostgreSQL does not read that as {what}: {error}.",
            next_step="Write it as it would stand in an UPDATE.",
        ) from error
    if len(parsed) != 1:
        raise ExpressionError(f"That is more than {what}.", next_step="Leave out the semicolon.")
    return parsed


def _take(node: Any, columns: set[str], functions: set[str]) -> None:
    """Note what a node asks for, or refuse it by its kind."""
    kind = type(node).__name__
    if kind not in _NODES:
        raise ExpressionError(
            f"A value of one row has no {kind} in it.",
            next_step="Compute it from columns of the same row, without time, chance or queries.",
        )
    if kind == "ColumnRef":
        columns.add(_column(node))
    elif kind == "FuncCall":
        _take_call(node, functions)


def _column(node: Any) -> str:
    path = names_of(node.fields)
    if len(path) == 2 and path[0] == "new":  # noqa: PLR2004
        path = path[1:]
    if len(path) != 1 or path[0] == "*":
        raise ExpressionError(
            f"{'.'.join(path)} is no column of the row.", next_step="Write its name alone."
        )
    return path[0]


def _take_call(node: Any, functions: set[str]) -> None:
    path = names_of(node.funcname)
    special = (node.agg_order, node.agg_filter, node.over, node.agg_star, node.agg_distinct,
               node.agg_within_group)  # fmt: skip
    if any(special) or path[-1] in _OF_TIME_OR_CHANCE:
        raise ExpressionError(
            f"{'.'.join(path)} gives another value at another time, or looks at other rows.",
            next_step="Compute the value from columns of the same row alone.",
        )
    if len(path) > 1 and path[0] != "pg_catalog":
        functions.add(".".join(path))


def _rename(node: Any, renamed: Callable[[str], tuple[str, ...]]) -> None:
    """Give each column another path. Changes the node."""
    from pglast.ast import String  # noqa: PLC0415

    for each in walk(node):
        if type(each).__name__ == "ColumnRef":
            each.fields = tuple(String(sval=part) for part in renamed(_column(each)))
