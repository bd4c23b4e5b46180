"""What a backfill sets and where, read by PostgreSQL's own grammar from what people write. Pure.

Nothing that a person wrote gets into a statement as it was typed: the text is parsed, only
nodes that `backfill_nodes` lists pass, names get the schema that the catalog gave them, and
what is run is written anew from the nodes and read back to mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from postgres.migrate.backfill_nodes import Called, Named, Path, TermsError, gather, path_of, same

TEXT_CHARS_MAX: Final = 2000
COLUMNS_MAX: Final = 50
_COMMENTS: Final = frozenset({"SQL_COMMENT", "C_COMMENT"})
_DRIFTING: Final = frozenset(
    {
        "now", "statement_timestamp", "transaction_timestamp", "clock_timestamp", "timeofday",
        "age", "random", "random_normal", "gen_random_uuid", "nextval",
    }
)  # fmt: skip
# A name that nobody has: what somebody wrote can only mean the columns.
_TABLE: Final = "twokey_rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was written, and everything that it names.

    `set_text` and `where_text` are as they were typed: `written` makes SQL of them.
    `fills_null`: the condition says of every column that is set that it IS NULL, so no value
    is overwritten. `is_drifting`: the condition asks for the time or for chance.
    """

    set_text: str
    where_text: str
    assigned: tuple[str, ...]
    columns: frozenset[str]  # that are read
    functions: frozenset[Called]
    types: frozenset[Path]
    operators: frozenset[Path]
    collations: frozenset[Path]
    has_backslash: bool
    fills_null: bool
    is_drifting: bool
    table: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """SQL that we wrote: `assignments` stand after SET, `where` after WHERE ('' for all rows)."""

    assignments: str
    where: str

    def update(self, table: str, condition: str = "") -> str:
        """One UPDATE of `table` (quoted), for people and for checks."""
        conditions = [part for part in (condition, f"({self.where})" if self.where else "") if part]
        tail = f"\n WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"UPDATE ONLY {table}\n   SET {self.assignments}{tail}"  # noqa: S608 - ours


_NO_PATHS: Final[Mapping[Path, Path]] = MappingProxyType({})


def read_terms(set_text: str, where_text: str = "", *, table: frozenset[str]) -> Terms:
    """What "first_name = split_part(name, ' ', 1)" and a condition mean.

    `table`: the names that may stand before a column.

    Raises:
        TermsError: it does not parse, or has something that we do not take.
    """
    targets, condition = _parsed(set_text, where_text)
    read = Named()
    assigned = tuple(str(target.name) for target in targets)
    if repeated := sorted({name for name in assigned if assigned.count(name) > 1}):
        raise TermsError(f"{', '.join(repeated)} is set twice.", next_step="Set each column once.")
    for target in targets:
        gather(target.val, read, table=table)
    asked = Named()
    if condition is not None:
        if _has_default(condition):
            raise _unreadable(where_text, "a condition")
        gather(condition, asked, table=table)
    drifting = asked.has_clock or any(each.name in _DRIFTING for each in asked.functions)
    return Terms(
        set_text=set_text,
        where_text=where_text,
        assigned=assigned,
        columns=frozenset(read.columns | asked.columns),
        functions=frozenset(read.functions | asked.functions),
        types=frozenset(read.types | asked.types),
        operators=frozenset(read.operators | asked.operators),
        collations=frozenset(read.collations | asked.collations),
        has_backslash=read.has_backslash or asked.has_backslash,
        fills_null=set(assigned) <= _known_null(condition),
        is_drifting=drifting,
        table=table,
    )


def load_grammar() -> None:
    """Load what reads and writes SQL, which takes half a second the first time."""
    import pglast.printers  # noqa: PLC0415 - a heavy import, for those who need it
    import pglast.stream  # noqa: PLC0415, F401


def written(
    terms: Terms,
    *,
    functions: Mapping[Path, Path] = _NO_PATHS,
    types: Mapping[Path, Path] = _NO_PATHS,
) -> Written:
    """The terms as SQL of ours. `functions` and `types`: by what name to call them.

    Raises:
        TermsError: what we wrote would not mean the same. Nothing that is known does that.
    """
    from pglast.stream import RawStream, maybe_double_quote_name  # noqa: PLC0415 - heavy

    targets, condition = _parsed(terms.set_text, terms.where_text)
    for node in (*(target.val for target in targets), condition):
        _rename(node, functions=functions, types=types, table=terms.table)
    made = Written(
        assignments=", ".join(
            f"{maybe_double_quote_name(target.name)} = {RawStream()(target.val)}"
            for target in targets
        ),
        where=RawStream()(condition) if condition is not None else "",
    )
    try:
        again, where = _parsed(made.assignments, made.where)
    except TermsError:
        again, where = (), None
    if not same((tuple(targets), condition), (tuple(again), where)):
        raise TermsError(
            "The expression cannot be written anew so that it means the same for certain.",
            next_step="Say it in a plainer way, such as with CAST(x AS type) and parentheses.",
        )
    return made


def _parsed(set_text: str, where_text: str) -> tuple[tuple[Any, ...], Any]:
    """The assignments and the condition, each of them parsed alone."""
    for text in (set_text, where_text):
        _plain_text(text)
    # Parsed, and never sent anywhere.
    update = _one(f"UPDATE {_TABLE} SET {set_text}\n", set_text, "assignments")  # noqa: S608
    if update.whereClause is not None:
        raise TermsError(
            "The condition stands in the assignments.",
            next_step='Give it apart: "first_name = name" where="first_name IS NULL".',
        )
    targets = tuple(update.targetList)
    if len(targets) > COLUMNS_MAX:
        raise TermsError(
            f"{len(targets)} columns are set.", next_step=f"Set at most {COLUMNS_MAX} at once."
        )
    if any(target.indirection for target in targets):
        raise TermsError(
            "A part of a column is set, such as an element of an array.",
            next_step="Set the whole column to a value that is made of the old one.",
        )
    if not where_text.strip():
        return targets, None
    sql = f"UPDATE {_TABLE} SET a = 1 WHERE {where_text}\n"  # noqa: S608
    filtered = _one(sql, where_text, "a condition")
    if len(filtered.targetList) != 1 or filtered.whereClause is None:
        raise _unreadable(where_text, "a condition")
    return targets, filtered.whereClause


def _plain_text(text: str) -> None:
    """Refuse what is too long, and comments: a reviewer must see all that there is."""
    import pglast  # noqa: PLC0415 - a heavy import, for those who need it

    if len(text) > TEXT_CHARS_MAX:
        raise TermsError(
            f"The expression has {len(text)} characters; {TEXT_CHARS_MAX} are allowed.",
            next_step="Put it into a function, and call that.",
        )
    try:
        tokens = pglast.parser.scan(text)
    except (pglast.parser.ParseError, UnicodeError):
        raise _unreadable(text, "SQL") from None
    if any(token.name in _COMMENTS for token in tokens):
        raise TermsError("There is a comment in the expression.", next_step="Leave it out.")


def _one(sql: str, said: str, what: str) -> Any:
    """The one plain UPDATE in `sql`: what somebody wrote may not have ended it early."""
    import pglast  # noqa: PLC0415 - a heavy import, for those who need it

    try:
        parsed = pglast.parse_sql(sql)
    except (pglast.parser.ParseError, UnicodeError):
        raise _unreadable(said, what) from None
    if len(parsed) != 1 or type(parsed[0].stmt).__name__ != "UpdateStmt":
        raise _unreadable(said, what)
    statement: Any = parsed[0].stmt
    relation = statement.relation
    extra = (statement.fromClause, statement.returningClause, statement.withClause,
             relation.alias, relation.schemaname, relation.relname != _TABLE)  # fmt: skip
    if any(extra):
        raise TermsError(
            f"{said.strip()[:100]!r} says more than {what}: no FROM, no RETURNING, no WITH.",
            next_step="Take columns of the row itself; copy what is elsewhere by a migration.",
        )
    return statement


def _rename(
    node: Any, *, functions: Mapping[Path, Path], types: Mapping[Path, Path], table: frozenset[str]
) -> None:
    """Call everything by the name that the catalog gave; `node` is ours to change."""
    from pglast import ast  # noqa: PLC0415 - a heavy import, for those who need it

    def strings(path: Path) -> tuple[Any, ...]:
        return tuple(ast.String(part) for part in path)

    if isinstance(node, tuple):
        for each in node:
            _rename(each, functions=functions, types=types, table=table)
        return
    match type(node).__name__:
        case "ColumnRef":
            node.fields = node.fields[-1:]
        case "FuncCall":
            path = path_of(node.funcname)
            node.funcname = strings(functions.get(path, path))
        case "TypeName":
            path = path_of(node.names)
            node.names = strings(types.get(path, path))
        case _:
            pass
    if isinstance(node, ast.Node):
        for name in node:
            child = getattr(node, name)
            if isinstance(child, ast.Node | tuple):
                _rename(child, functions=functions, types=types, table=table)


def _known_null(condition: Any) -> set[str]:
    """The columns of which the condition says, whatever else, that they are NULL."""
    from pglast import enums  # noqa: PLC0415 - a heavy import, for those who need it

    match type(condition).__name__:
        case "BoolExpr" if condition.boolop == enums.BoolExprType.AND_EXPR:
            return set().union(*(_known_null(part) for part in condition.args))
        case "NullTest" if condition.nulltesttype == enums.NullTestType.IS_NULL:
            if type(condition.arg).__name__ == "ColumnRef":
                return {path_of(condition.arg.fields)[-1]}
            return set()
        case _:
            return set()


def _has_default(node: Any) -> bool:
    return type(node).__name__ == "SetToDefault"


def _unreadable(said: str, what: str) -> TermsError:
    return TermsError(
        f"PostgreSQL does not read {said.strip()[:100]!r} as {what}.",
        next_step='Write "first_name = split_part(name, \' \', 1)" where="first_name IS NULL".',
    )
