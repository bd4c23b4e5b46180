"""What an index is made of, read by PostgreSQL's own grammar from what people write. Pure.

Nothing that a person wrote gets into a statement: the text is parsed, only nodes that are
listed here pass, and each becomes a template for the server's `format()`, which quotes every
name (%I) and every constant (%L).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from postgres.errors import PostgresError

TEXT_CHARS_MAX: Final = 1000
KEYS_MAX: Final = 16  # PostgreSQL allows 32; nobody wants them
NAME_BYTES_MAX: Final = 63  # NAMEDATALEN - 1
_DEPTH_MAX: Final = 8
_HASH_CHARS: Final = 6
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One column or expression of an index. `opclass` may have a schema: ("public", "x")."""

    piece: Piece
    column: str | None
    collation: str = ""
    opclass: tuple[str, ...] = ()
    order: str = ""  # such as "DESC NULLS LAST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """All that makes an index, but its table and its name. `where` None: not partial."""

    method: str
    keys: tuple[Key, ...]
    include: tuple[str, ...] = ()
    where: Piece | None = None
    is_unique: bool = False

    @property
    def functions(self) -> frozenset[str]:
        """Every function that it calls."""
        return frozenset().union(*(piece.functions for piece in self._pieces()))

    @property
    def columns(self) -> frozenset[str]:
        """Every column that it names."""
        named = (piece.columns for piece in self._pieces())
        return frozenset(self.include).union(*named)

    @property
    def canonical(self) -> str:
        """The same text for the same index, also when the server wrote casts into it."""
        keys = [
            "|".join((key.piece.plain, key.collation, "".join(key.opclass[-1:]), key.order))
            for key in self.keys
        ]
        where = self.where.plain if self.where else ""
        parts = (self.method, str(self.is_unique), ";".join(keys), ",".join(self.include), where)
        return "\n".join(parts)

    def body(self, opclasses: Mapping[str, Sequence[str]] = MappingProxyType({})) -> Piece:
        """`USING btree (...) INCLUDE (...) WHERE ...`; `opclasses`: where foreign ones live."""
        keys = [_key_piece(key, opclasses) for key in self.keys]
        pieces = [_joined(keys, ", ", before=f"USING {self.method} (", after=")")]
        if self.include:
            named = [Piece(template="%I", args=(name,)) for name in self.include]
            pieces.append(_joined(named, ", ", before="INCLUDE (", after=")"))
        if self.where is not None:
            pieces.append(_joined([self.where], "", before="WHERE "))
        return _joined(pieces, " ")

    def _pieces(self) -> list[Piece]:
        return [key.piece for key in self.keys] + ([self.where] if self.where else [])


def read_terms(
    columns: str, *, where: str = "", include: str = "", method: str = "btree", unique: bool = False
) -> Terms:
    """What `columns` and the rest mean: "customer_id, created_at DESC", "lower(email)".

    Raises:
        TermsError: it does not parse, or has something that we do not take.
    """
    for text in (columns, where, include):
        if len(text) > TEXT_CHARS_MAX:
            raise TermsError(
                f"The index is described in {len(text)} characters; {TEXT_CHARS_MAX} are allowed.",
                next_step="Name columns, or short expressions.",
            )
    statement = _statement(f"CREATE INDEX ON t ({columns}\n)", columns)
    if any((statement.whereClause, statement.indexIncludingParams)):
        raise _no_list(columns)
    filters = f" INCLUDE ({include}\n)" if include.strip() else ""
    kept = _statement(f"CREATE INDEX ON t (a){filters}", include) if filters else None
    if kept is not None and (kept.whereClause or len(kept.indexParams) != 1):
        raise _no_list(include)
    condition = _condition(where) if where.strip() else None
    return _terms(
        method=method,
        unique=unique,
        keys=statement.indexParams,
        include=(kept.indexIncludingParams or ()) if kept is not None else (),
        where=condition,
    )


def terms_of(definition: str) -> Terms:
    """What `pg_get_indexdef` says, as terms.

    Raises:
        TermsError: it has something that `read_terms` would not take.
    """
    statement = _one(definition, definition, "IndexStmt")
    if statement.options or statement.tableSpace or statement.nulls_not_distinct:
        raise TermsError(
            "The index has storage options or NULLS NOT DISTINCT.",
            next_step="Write its CREATE INDEX down: it cannot be asked for here.",
        )
    return _terms(
        method=statement.accessMethod,
        unique=bool(statement.unique),
        keys=statement.indexParams,
        include=statement.indexIncludingParams or (),
        where=statement.whereClause,
    )


def plain_terms(columns: Sequence[str]) -> Terms:
    """A btree over these columns, by their real names."""
    return Terms(
        method="btree", keys=tuple(Key(piece=_column(name), column=name) for name in columns)
    )


def call_terms(function: str, column: str) -> Terms:
    """A btree over one function of PostgreSQL's own of one column, such as lower(email)."""
    called = _joined([_column(column)], "", before="%I(", after=")")
    piece = replace(
        called,
        args=(function, column),
        plain=f"{function}({column})",
        functions=frozenset({function}),
    )
    return Terms(method="btree", keys=(Key(piece=piece, column=None),))


def written(terms: Terms) -> Mapping[str, str]:
    """The terms as people would type them: `columns`, `where` and `include`.

    Names are quoted by PostgreSQL's own rules, so that `read_terms` gives the same again.
    """
    keys = [_typed(_key_piece(key, {})) for key in terms.keys]
    include = [_typed(Piece(template="%I", args=(name,))) for name in terms.include]
    return {
        "columns": ", ".join(keys),
        "include": ", ".join(include),
        "where": _typed(terms.where) if terms.where else "",
    }


def create_template(
    schema: str,
    table: str,
    name: str,
    terms: Terms,
    opclasses: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Piece:
    """The statement that creates the index while its table stays in use, for `FORMAT`."""
    unique = "UNIQUE " if terms.is_unique else ""
    head = Piece(
        template=f"CREATE {unique}INDEX CONCURRENTLY %I ON %I.%I", args=(name, schema, table)
    )
    return _joined([head, terms.body(opclasses)], " ")


def index_name(schema: str, table: str, terms: Terms) -> str:
    """A name that says what the index is, fits 63 bytes, and is the same for the same index.

    `tk` and the hash make it ours: nobody picks it by chance.
    """
    digest = hashlib.sha256(f"{schema}\n{table}\n{terms.canonical}".encode()).hexdigest()
    tail = f"_tk{digest[:_HASH_CHARS]}"
    words = [key.column or _word(key.piece) for key in terms.keys]
    head = "_".join([table, *words]).encode()[: NAME_BYTES_MAX - len(tail)]
    return head.decode(errors="ignore") + tail


def _word(piece: Piece) -> str:
    return "_".join([*sorted(piece.functions), *sorted(piece.columns)]) or "expr"


def _terms(
    *, method: str, unique: bool, keys: Sequence[Any], include: Sequence[Any], where: Any
) -> Terms:
    if len(keys) > KEYS_MAX:
        raise TermsError(
            f"The index would have {len(keys)} columns.", next_step=f"Name at most {KEYS_MAX}."
        )
    kept = [element.name for element in include]
    if None in kept:
        raise TermsError("INCLUDE takes columns only.", next_step="Name columns after include.")
    return Terms(
        method=method,
        keys=tuple(_key(element) for element in keys),
        include=tuple(kept),
        where=None if where is None else _piece(where, 0),
        is_unique=unique,
    )


def _key(element: Any) -> Key:
    from pglast import enums  # noqa: PLC0415 - a heavy import, for those who need it

    if element.opclassopts:
        raise TermsError("Options of operator classes are not taken.", next_step="Leave them out.")
    piece = _column(element.name) if element.name else _piece(element.expr, 0)
    order = {enums.SortByDir.SORTBY_DESC: "DESC"}.get(element.ordering, "")
    nulls = {
        enums.SortByNulls.SORTBY_NULLS_FIRST: "NULLS FIRST",
        enums.SortByNulls.SORTBY_NULLS_LAST: "NULLS LAST",
    }.get(element.nulls_ordering, "")
    # What is usual anyhow is not said, so that two texts for one index are equal.
    if nulls == ("NULLS FIRST" if order else "NULLS LAST"):
        nulls = ""
    collation = [part.sval for part in element.collation or ()]
    return Key(
        piece=piece,
        column=element.name,
        collation=collation[-1] if collation else "",
        opclass=tuple(part.sval for part in element.opclass or ()),
        order=" ".join(filter(None, (order, nulls))),
    )


def _key_piece(key: Key, opclasses: Mapping[str, Sequence[str]]) -> Piece:
    is_call = key.column is None and key.piece.template.startswith("%I(")
    piece = key.piece if key.column or is_call else _joined([key.piece], "", before="(", after=")")
    parts = [piece]
    if key.collation:
        parts.append(Piece(template="COLLATE %I", args=(key.collation,)))
    if key.opclass:
        path = tuple(opclasses.get(key.opclass[-1], key.opclass))
        parts.append(Piece(template=".".join(["%I"] * len(path)), args=path))
    if key.order:
        parts.append(Piece(template=key.order))
    return _joined(parts, " ")


def _condition(where: str) -> Any:
    statement = _statement(f"CREATE INDEX ON t (a) WHERE {where}\n", where)
    if statement.whereClause is None or len(statement.indexParams) != 1:
        raise _no_list(where)
    return statement.whereClause


def _statement(sql: str, said: str) -> Any:
    """The one plain CREATE INDEX in `sql`: what somebody wrote may not have ended it early."""
    statement = _one(sql, said, "IndexStmt")
    extra = (statement.options, statement.tableSpace, statement.idxname, statement.unique,
             statement.concurrent, statement.nulls_not_distinct, statement.relation.schemaname,
             statement.relation.relname != "t")  # fmt: skip
    if any(extra):
        raise _no_list(said)
    return statement


def _one(sql: str, said: str, kind: str) -> Any:
    import pglast  # noqa: PLC0415 - a heavy import, for those who need it

    try:
        parsed = pglast.parse_sql(sql)
    except pglast.parser.ParseError:
        raise _no_list(said) from None
    if len(parsed) != 1 or type(parsed[0].stmt).__name__ != kind:
        raise _no_list(said)
    return parsed[0].stmt


def _no_list(said: str) -> TermsError:
    return TermsError(
        f"PostgreSQL does not read {said.strip()[:100]!r} as columns of an index.",
        next_step="Write columns with commas: customer_id, created_at DESC, lower(email).",
    )


def _piece(node: Any, depth: int) -> Piece:
    """A node that we take, as a template; everything else is refused by its kind."""
    kind = type(node).__name__
    render = _RENDER.get(kind)
    if render is None or depth > _DEPTH_MAX:
        raise TermsError(
            f"An index of ours has no {kind} in it.",
            next_step="Take columns, constants, comparisons and simple functions such as lower(x).",
        )
    return render(node, depth + 1)


def _column(name: str) -> Piece:
    return Piece(template="%I", args=(name,), plain=name, columns=frozenset({name}))


def _column_ref(node: Any, depth: int) -> Piece:
    del depth
    names = [getattr(part, "sval", None) for part in node.fields]
    if len(names) != 1 or names[0] is None:
        raise TermsError(
            "Columns are named without their table.", next_step="Write customer_id alone."
        )
    return _column(names[0])


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
    inner = _piece(node.arg, depth)
    return replace(_joined([inner, goal], "::", before="(", after=")"), plain=inner.plain)


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
    args = [_piece(arg, depth) for arg in node.args or ()]
    called = _joined(args, ", ", before="%I(", after=")")
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
    left = [_piece(node.lexpr, depth)] if node.lexpr is not None else []
    match node.kind:
        case kinds.AEXPR_OP | kinds.AEXPR_LIKE | kinds.AEXPR_ILIKE:
            right = _piece(node.rexpr, depth)
            return _joined([*left, right], f" {sign} " if left else "",
                           before="(" if left else f"({sign} ", after=")")  # fmt: skip
        case kinds.AEXPR_OP_ANY | kinds.AEXPR_OP_ALL:
            word = "ANY" if node.kind == kinds.AEXPR_OP_ANY else "ALL"
            array = _joined([_piece(node.rexpr, depth)], "", before="(", after=")")
            array = replace(array, plain=_piece(node.rexpr, depth).plain)
            return _joined([*left, array], f" {sign} {word} ", before="(", after=")")
        case kinds.AEXPR_IN:
            word = "IN" if name == "=" else "NOT IN"
            items = _joined([_piece(item, depth) for item in node.rexpr], ", ")
            listed = _joined([items], "", before="(", after=")")
            made = _joined([*left, listed], f" {word} ", before="(", after=")")
            # As the server keeps it.
            sign = "= ANY" if name == "=" else "<> ALL"
            return replace(made, plain=f"({left[0].plain} {sign} ARRAY[{items.plain}])")
        case kinds.AEXPR_BETWEEN | kinds.AEXPR_NOT_BETWEEN:
            word = "BETWEEN" if node.kind == kinds.AEXPR_BETWEEN else "NOT BETWEEN"
            ends = _joined([_piece(end, depth) for end in node.rexpr], " AND ")
            return _joined([*left, ends], f" {word} ", before="(", after=")")
        case kinds.AEXPR_DISTINCT | kinds.AEXPR_NOT_DISTINCT:
            word = "IS DISTINCT FROM" if node.kind == kinds.AEXPR_DISTINCT else (
                "IS NOT DISTINCT FROM"
            )  # fmt: skip
            right = _piece(node.rexpr, depth)
            return _joined([*left, right], f" {word} ", before="(", after=")")
        case _:
            raise TermsError(
                f"The form {node.kind.name} is not taken.", next_step="Take a plain comparison."
            )


def _bool(node: Any, depth: int) -> Piece:
    from pglast import enums  # noqa: PLC0415

    args = [_piece(arg, depth) for arg in node.args]
    if node.boolop == enums.BoolExprType.NOT_EXPR:
        return _joined(args, "", before="(NOT ", after=")")
    word = " AND " if node.boolop == enums.BoolExprType.AND_EXPR else " OR "
    return _joined(args, word, before="(", after=")")


def _null_test(node: Any, depth: int) -> Piece:
    from pglast import enums  # noqa: PLC0415

    is_null = node.nulltesttype == enums.NullTestType.IS_NULL
    word = " IS NULL)" if is_null else " IS NOT NULL)"
    return _joined([_piece(node.arg, depth)], "", before="(", after=word)


def _boolean_test(node: Any, depth: int) -> Piece:
    word = node.booltesttype.name.removeprefix("IS_").replace("_", " ")
    return _joined([_piece(node.arg, depth)], "", before="(", after=f" IS {word})")


def _coalesce(node: Any, depth: int) -> Piece:
    return _joined([_piece(arg, depth) for arg in node.args], ", ", before="COALESCE(", after=")")


def _array(node: Any, depth: int) -> Piece:
    items = [_piece(item, depth) for item in node.elements or ()]
    return _joined(items, ", ", before="ARRAY[", after="]")


def _joined(pieces: Sequence[Piece], sign: str, *, before: str = "", after: str = "") -> Piece:
    return Piece(
        template=before + sign.join(piece.template for piece in pieces) + after,
        args=tuple(arg for piece in pieces for arg in piece.args),
        plain=before + sign.join(piece.plain for piece in pieces) + after,
        functions=frozenset().union(*(piece.functions for piece in pieces)),
        columns=frozenset().union(*(piece.columns for piece in pieces)),
    )


def _typed(piece: Piece) -> str:
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
