"""What an index is made of, read by PostgreSQL's own grammar from what people write. Pure.

Nothing that a person wrote gets into a statement: the text is parsed, only nodes that are
listed here pass, and each becomes a template for the server's `format()`, which quotes every
name (%I) and every constant (%L).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from postgres.health.index_nodes import Piece, TermsError, column, joined, piece, typed

TEXT_CHARS_MAX: Final = 1000
KEYS_MAX: Final = 16  # PostgreSQL allows 32; nobody wants them
NAME_BYTES_MAX: Final = 63  # NAMEDATALEN - 1
_HASH_CHARS: Final = 6


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
        pieces = [joined(keys, ", ", before=f"USING {self.method} (", after=")")]
        if self.include:
            named = [Piece(template="%I", args=(name,)) for name in self.include]
            pieces.append(joined(named, ", ", before="INCLUDE (", after=")"))
        if self.where is not None:
            pieces.append(joined([self.where], "", before="WHERE "))
        return joined(pieces, " ")

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
        method="btree", keys=tuple(Key(piece=column(name), column=name) for name in columns)
    )


def call_terms(function: str, name: str) -> Terms:
    """A btree over one function of PostgreSQL's own of one column, such as lower(email)."""
    called = joined([column(name)], "", before="%I(", after=")")
    made = replace(
        called,
        args=(function, name),
        plain=f"{function}({name})",
        functions=frozenset({function}),
    )
    return Terms(method="btree", keys=(Key(piece=made, column=None),))


def written(terms: Terms) -> Mapping[str, str]:
    """The terms as people would type them: `columns`, `where` and `include`.

    Names are quoted by PostgreSQL's own rules, so that `read_terms` gives the same again.
    """
    keys = [typed(_key_piece(key, {})) for key in terms.keys]
    include = [typed(Piece(template="%I", args=(name,))) for name in terms.include]
    return {
        "columns": ", ".join(keys),
        "include": ", ".join(include),
        "where": typed(terms.where) if terms.where else "",
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
    return joined([head, terms.body(opclasses)], " ")


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
        where=None if where is None else piece(where, 0),
        is_unique=unique,
    )


def _key(element: Any) -> Key:
    from pglast import enums  # noqa: PLC0415 - a heavy import, for those who need it

    if element.opclassopts:
        raise TermsError("Options of operator classes are not taken.", next_step="Leave them out.")
    made = column(element.name) if element.name else piece(element.expr)
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
        piece=made,
        column=element.name,
        collation=collation[-1] if collation else "",
        opclass=tuple(part.sval for part in element.opclass or ()),
        order=" ".join(filter(None, (order, nulls))),
    )


def _key_piece(key: Key, opclasses: Mapping[str, Sequence[str]]) -> Piece:
    is_call = key.column is None and key.piece.template.startswith("%I(")
    piece = key.piece if key.column or is_call else joined([key.piece], "", before="(", after=")")
    parts = [piece]
    if key.collation:
        parts.append(Piece(template="COLLATE %I", args=(key.collation,)))
    if key.opclass:
        path = tuple(opclasses.get(key.opclass[-1], key.opclass))
        parts.append(Piece(template=".".join(["%I"] * len(path)), args=path))
    if key.order:
        parts.append(Piece(template=key.order))
    return joined(parts, " ")


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
