"""Parts of an index's description, out of PostgreSQL's own grammar. Pure.

Only nodes that are listed here pass. Each becomes a template for the server's `format()`, which
quotes every name (%I) and every constant (%L).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from postgres.errors import PostgresError

_DEPTH_MAX: Final = 8
_OPERATORS: Final = frozenset(
    {"=", "<>", "<", ">", "<=", ">=", "+", "-", "*", "/", "%", "||", "->", "->>", "#>", "#>>",
     "~~", "!~~", "~~*", "!~~*", "@>", "<@", "?"}
)  # fmt: skip
# PostgreSQL quotes what stands for %I and %L, so no text from a person gets in as it is.
FORMAT: Final = "SELECT format($1::text, VARIADIC $2::text[]) AS sql"


class TermsError(PostgresError):
    """The text is no list of index columns, or says more than we take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Part of a statement: a template for `format()`, its arguments, and functions it calls.

    `plain` is what it means without casts: the server writes more of them than people do.
    """

    template: str
    args: tuple[str, ...] = ()
    plain: str = ""
    functions: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()


def piece(node: Any, depth: int = 0) -> Piece:
    """A node that we take, as a template; everything else is refused by its kind.

    Raises:
        TermsError: it has something that we do not take.
    """
    kind = type(node).__name__
    render = _RENDER.get(kind)
    if render is None or depth > _DEPTH_MAX:
        raise TermsError(
            f"An index of ours has no {kind} in it.",
            next_step="Take columns, constants, comparisons and simple functions such as lower(x).",
        )
    return render(node, depth + 1)


def column(name: str) -> Piece:
    """A column by its real name."""
    return Piece(template="%I", args=(name,), plain=name, columns=frozenset({name}))


def _column_ref(node: Any, depth: int) -> Piece:
    del depth
    names = [getattr(part, "sval", None) for part in node.fields]
    if len(names) != 1 or names[0] is None:
        raise TermsError(
            "Columns are named without their table.", next_step="Write customer_id alone."
        )
    return column(names[0])


def _constant(node: Any, depth: int) -> Piece:
    del depth
    if node.isnull:
        return Piece(template="NULL", plain="NULL")
    value = node.val
    match type(value).__name__:
        case "Integer":
            number = str(int(value.ival or 0))
            return Piece(template=number, plain=number)
        case "Boolean":
            said = "true" if value.boolval else "false"
            return Piece(template=said, plain=said)
        case "Float":
            return Piece(template="%L", args=(value.fval,), plain=repr(value.fval))
        case "String":
            return Piece(template="%L", args=(value.sval,), plain=repr(value.sval))
        case other:
            raise TermsError(f"A constant of the kind {other}.", next_step="Take a plain one.")


def _cast(node: Any, depth: int) -> Piece:
    path = [part.sval for part in node.typeName.names]
    if node.typeName.typmods or node.typeName.setof or node.typeName.pct_type:
        raise TermsError(
            "A cast to a type with a length.", next_step="Cast to the type without its length."
        )
    bounds = "[]" * len(node.typeName.arrayBounds or ())
    goal = Piece(template=".".join(["%I"] * len(path)) + bounds, args=tuple(path))
    inner = piece(node.arg, depth)
    return replace(joined([inner, goal], "::", before="(", after=")"), plain=inner.plain)


def _call(node: Any, depth: int) -> Piece:
    path = [part.sval for part in node.funcname]
    plain = not any(
        (node.agg_order, node.agg_filter, node.over, node.agg_star, node.agg_distinct,
         node.agg_within_group, node.func_variadic)
    )  # fmt: skip
    if not plain or (len(path) > 1 and path[0] != "pg_catalog"):
        raise TermsError(
            f"{'.'.join(path)} is no function of PostgreSQL's own that an index may call.",
            next_step="Take a simple one, such as lower(x).",
        )
    args = [piece(arg, depth) for arg in node.args or ()]
    called = joined(args, ", ", before="%I(", after=")")
    return Piece(
        template=called.template,
        args=(path[-1], *called.args),
        plain=path[-1] + called.plain.removeprefix("%I"),
        functions=called.functions | {path[-1]},
        columns=called.columns,
    )


def _operator(node: Any, depth: int) -> Piece:
    from pglast import enums  # noqa: PLC0415

    kinds = enums.A_Expr_Kind
    name = node.name[-1].sval
    if name not in _OPERATORS and node.kind not in {kinds.AEXPR_BETWEEN, kinds.AEXPR_NOT_BETWEEN}:
        raise TermsError(f"The operator {name} is not taken.", next_step="Take a plain comparison.")
    sign = name.replace("%", "%%")
    left = [piece(node.lexpr, depth)] if node.lexpr is not None else []
    match node.kind:
        case kinds.AEXPR_OP | kinds.AEXPR_LIKE | kinds.AEXPR_ILIKE:
            right = piece(node.rexpr, depth)
            return joined([*left, right], f" {sign} " if left else "",
                           before="(" if left else f"({sign} ", after=")")  # fmt: skip
        case kinds.AEXPR_OP_ANY | kinds.AEXPR_OP_ALL:
            word = "ANY" if node.kind == kinds.AEXPR_OP_ANY else "ALL"
            array = joined([piece(node.rexpr, depth)], "", before="(", after=")")
            array = replace(array, plain=piece(node.rexpr, depth).plain)
            return joined([*left, array], f" {sign} {word} ", before="(", after=")")
        case kinds.AEXPR_IN:
            word = "IN" if name == "=" else "NOT IN"
            items = joined([piece(item, depth) for item in node.rexpr], ", ")
            listed = joined([items], "", before="(", after=")")
            made = joined([*left, listed], f" {word} ", before="(", after=")")
            # As the server keeps it.
            sign = "= ANY" if name == "=" else "<> ALL"
            return replace(made, plain=f"({left[0].plain} {sign} ARRAY[{items.plain}])")
        case kinds.AEXPR_BETWEEN | kinds.AEXPR_NOT_BETWEEN:
            word = "BETWEEN" if node.kind == kinds.AEXPR_BETWEEN else "NOT BETWEEN"
            ends = joined([piece(end, depth) for end in node.rexpr], " AND ")
            return joined([*left, ends], f" {word} ", before="(", after=")")
        case kinds.AEXPR_DISTINCT | kinds.AEXPR_NOT_DISTINCT:
            word = "IS DISTINCT FROM" if node.kind == kinds.AEXPR_DISTINCT else (
                "IS NOT DISTINCT FROM"
            )  # fmt: skip
            right = piece(node.rexpr, depth)
            return joined([*left, right], f" {word} ", before="(", after=")")
        case _:
            raise TermsError(
                f"The form {node.kind.name} is not taken.", next_step="Take a plain comparison."
            )


def _bool(node: Any, depth: int) -> Piece:
    from pglast import enums  # noqa: PLC0415

    args = [piece(arg, depth) for arg in node.args]
    if node.boolop == enums.BoolExprType.NOT_EXPR:
        return joined(args, "", before="(NOT ", after=")")
    word = " AND " if node.boolop == enums.BoolExprType.AND_EXPR else " OR "
    return joined(args, word, before="(", after=")")


def _null_test(node: Any, depth: int) -> Piece:
    from pglast import enums  # noqa: PLC0415

    is_null = node.nulltesttype == enums.NullTestType.IS_NULL
    word = " IS NULL)" if is_null else " IS NOT NULL)"
    return joined([piece(node.arg, depth)], "", before="(", after=word)


def _boolean_test(node: Any, depth: int) -> Piece:
    word = node.booltesttype.name.removeprefix("IS_").replace("_", " ")
    return joined([piece(node.arg, depth)], "", before="(", after=f" IS {word})")


def _coalesce(node: Any, depth: int) -> Piece:
    return joined([piece(arg, depth) for arg in node.args], ", ", before="COALESCE(", after=")")


def _array(node: Any, depth: int) -> Piece:
    items = [piece(item, depth) for item in node.elements or ()]
    return joined(items, ", ", before="ARRAY[", after="]")


def joined(pieces: Sequence[Piece], sign: str, *, before: str = "", after: str = "") -> Piece:
    return Piece(
        template=before + sign.join(piece.template for piece in pieces) + after,
        args=tuple(arg for piece in pieces for arg in piece.args),
        plain=before + sign.join(piece.plain for piece in pieces) + after,
        functions=frozenset().union(*(piece.functions for piece in pieces)),
        columns=frozenset().union(*(piece.columns for piece in pieces)),
    )


def typed(piece: Piece) -> str:
    """What `format()` would make of it; for people to read and to give back, never to run."""
    args = iter(piece.args)

    def filled(found: re.Match[str]) -> str:
        match found[1]:
            case "I":
                name = next(args)
                return '"' + name.replace('"', '""') + '"' if _needs_quotes(name) else name
            case "L":
                return "'" + next(args).replace("'", "''") + "'"
            case _:
                return "%"

    return re.sub("%([IL%])", filled, piece.template)


def _needs_quotes(name: str) -> bool:
    from pglast.keywords import (  # noqa: PLC0415
        COL_NAME_KEYWORDS,
        RESERVED_KEYWORDS,
        TYPE_FUNC_NAME_KEYWORDS,
    )

    plain = name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit()
    reserved = RESERVED_KEYWORDS | COL_NAME_KEYWORDS | TYPE_FUNC_NAME_KEYWORDS
    return not plain or name != name.lower() or name in reserved


_RENDER: Final[Mapping[str, Callable[[Any, int], Piece]]] = MappingProxyType(
    {
        "ColumnRef": _column_ref,
        "A_Const": _constant,
        "TypeCast": _cast,
        "FuncCall": _call,
        "A_Expr": _operator,
        "BoolExpr": _bool,
        "NullTest": _null_test,
        "BooleanTest": _boolean_test,
        "CoalesceExpr": _coalesce,
        "A_ArrayExpr": _array,
    }
)
