"""Which parts of an expression a backfill may have, and what each of them names. Pure.

Only kinds of nodes that are listed here pass, so what a newer grammar brings is refused until
somebody has thought about it. Every new value depends on its own row alone: there is no
sub-select, no aggregate, no window and no whole row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from postgres.errors import PostgresError

_DEPTH_MAX: Final = 40
Path: TypeAlias = tuple[str, ...]  # of a name: with its schema, or alone
CATALOG: Final = "pg_catalog"
# What a printed text need not repeat: where it stood, and which of two spellings was taken.
_UNSAID: Final = frozenset(
    {"location", "list_start", "list_end", "rexpr_list_start", "rexpr_list_end", "funcformat"}
)
_NAME_PARTS_MAX: Final = 2

_TAKEN: Final = frozenset(
    {
        "ColumnRef", "A_Const", "TypeCast", "TypeName", "FuncCall", "NamedArgExpr", "A_Expr",
        "BoolExpr", "NullTest", "BooleanTest", "CoalesceExpr", "MinMaxExpr", "CaseExpr",
        "CaseWhen", "A_ArrayExpr", "A_Indirection", "A_Indices", "RowExpr", "CollateClause",
        "SQLValueFunction", "SetToDefault", "String", "Integer", "Float", "Boolean", "BitString",
    }
)  # fmt: skip
_WHY_NOT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "SubLink": "a sub-select: a backfill computes each row from itself",
        "ParamRef": "a parameter such as $1",
        "CurrentOfExpr": "WHERE CURRENT OF",
        "MultiAssignRef": "several columns in parentheses: give each its own ="
    }
)  # fmt: skip


class TermsError(PostgresError):
    """The text is no list of assignments or no condition, or says more than we take."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Called:
    """A function as it is called: its name with or without a schema, how many arguments."""

    path: Path
    args: int

    @property
    def name(self) -> str:
        """Without its schema."""
        return self.path[-1]

    @property
    def text(self) -> str:
        """For people."""
        return ".".join(self.path)


@dataclass(slots=True, kw_only=True)
class Named:
    """What expressions name, gathered while they are read."""

    columns: set[str] = field(default_factory=set)
    functions: set[Called] = field(default_factory=set)
    types: set[Path] = field(default_factory=set)
    operators: set[Path] = field(default_factory=set)
    collations: set[Path] = field(default_factory=set)
    has_backslash: bool = False
    has_clock: bool = False  # current_date and its kind


def gather(node: Any, named: Named, *, table: frozenset[str], depth: int = 0) -> None:
    """Note what an expression names. `table`: the names by which its own table may be called.

    Raises:
        TermsError: it has something that we do not take.
    """
    if isinstance(node, tuple):
        for each in node:
            gather(each, named, table=table, depth=depth)
        return
    kind = type(node).__name__
    if kind not in _TAKEN:
        raise TermsError(
            f"A backfill does not take {_WHY_NOT.get(kind, kind)}.",
            next_step="Take columns of the row, constants, operators and functions.",
        )
    if depth > _DEPTH_MAX:
        raise TermsError(
            f"The expression is nested more than {_DEPTH_MAX} times.",
            next_step="Say it with fewer parts, or put it into a function.",
        )
    if look := _LOOK.get(kind):
        look(node, named, table)
    for _, child in children(node):
        gather(child, named, table=table, depth=depth + 1)


def children(node: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a node that are nodes, or several of them."""
    for name in node:
        value = getattr(node, name)
        if isinstance(value, tuple) or _is_node(value):
            yield name, value


def same(one: Any, other: Any) -> bool:
    """Whether two parsed texts mean the same, however they were written."""
    return bool(_shape(one) == _shape(other))


def _shape(value: Any) -> Any:
    """A node as plain values, without what a printed text need not repeat."""
    if isinstance(value, tuple):
        return tuple(_shape(each) for each in value)
    if not _is_node(value):
        return value
    kind = type(value).__name__
    parts = {name: _shape(getattr(value, name)) for name in value if name not in _UNSAID}
    return (kind, tuple(sorted(parts.items(), key=lambda part: part[0])))


def _is_node(value: Any) -> bool:
    return type(value).__module__ == "pglast.ast"


def path_of(parts: Any) -> Path:
    """A name in one or two parts.

    Raises:
        TermsError: it has more of them, or a star.
    """
    names = tuple(str(getattr(part, "sval", None) or "") for part in parts)
    if not all(names) or len(names) > _NAME_PARTS_MAX:
        raise TermsError(
            f"{'.'.join(name or '*' for name in names)} is no name that a backfill takes.",
            next_step="Name a column alone; functions and types with their schema at most.",
        )
    return names


def _column(node: Any, named: Named, table: frozenset[str]) -> None:
    *before, name = path_of(node.fields)
    # t.f may also mean f(t): only the table's own name stands before a column.
    if before and before[0] not in table:
        raise TermsError(
            f"{'.'.join((*before, name))} is no column of this table.",
            next_step="Name columns of the table alone: first_name.",
        )
    named.columns.add(name)


def _call(node: Any, named: Named, table: frozenset[str]) -> None:
    del table
    path = path_of(node.funcname)
    unusual = (node.agg_order, node.agg_filter, node.over, node.agg_star, node.agg_distinct,
               node.agg_within_group)  # fmt: skip
    if any(unusual):
        raise TermsError(
            f"{'.'.join(path)} is called as an aggregate or over a window.",
            next_step="A backfill computes each row from itself.",
        )
    named.functions.add(Called(path=path, args=len(node.args or ())))


def _type(node: Any, named: Named, table: frozenset[str]) -> None:
    del table
    if node.setof or node.pct_type:
        raise TermsError("SETOF and %TYPE are no types of a value.", next_step="Name the type.")
    named.types.add(path_of(node.names))


def _operator(node: Any, named: Named, table: frozenset[str]) -> None:
    del table
    # The names of BETWEEN and its kind are words, and they use the comparisons.
    path = path_of(node.name)
    spelled = ("<", "<=", ">", ">=") if path[-1].replace(" ", "").isalpha() else ()
    named.operators |= {(name,) for name in spelled} or {path}


def _collation(node: Any, named: Named, table: frozenset[str]) -> None:
    del table
    named.collations.add(path_of(node.collname))


def _constant(node: Any, named: Named, table: frozenset[str]) -> None:
    del table
    text = getattr(node.val, "sval", None)
    named.has_backslash |= isinstance(text, str) and "\\" in text


def _indirection(node: Any, named: Named, table: frozenset[str]) -> None:
    del named, table
    # (x).f may also mean f(x).
    if any(type(part).__name__ != "A_Indices" for part in node.indirection):
        raise TermsError(
            "A field of a value, as in (x).y, is not taken.",
            next_step="Take a function that gives it, or a subscript such as x[1].",
        )


def _value_function(node: Any, named: Named, table: frozenset[str]) -> None:
    del table
    named.has_clock |= "TIME" in node.op.name or "DATE" in node.op.name


_LOOK: Final[Mapping[str, Callable[[Any, Named, frozenset[str]], None]]] = MappingProxyType(
    {
        "ColumnRef": _column,
        "FuncCall": _call,
        "TypeName": _type,
        "A_Expr": _operator,
        "CollateClause": _collation,
        "A_Const": _constant,
        "A_Indirection": _indirection,
        "SQLValueFunction": _value_function,
    }
)
