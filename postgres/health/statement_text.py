"""Texts of statements: what kind they are, what may be shown of them, and what can be planned.

Pure. A text comes from pg_stat_statements (its constants are `$1` already) or from
pg_stat_activity (as it was sent, and cut off). Nothing that is shown holds a literal, a comment
or more than the first words of a utility statement, which may carry a password.
pglast is imported where it is used: whoever only starts does not pay for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

TEXT_MAX: Final = 20_000  # longer ones are neither parsed nor drawn whole
SHOWN_CHARS_MAX: Final = 120
_UTILITY_WORDS_MAX: Final = 3
_ENDS_TRIED_MAX: Final = 3

# Constants were replaced inside of what no grammar accepts without them: `interval $1`.
_TYPED: Final = re.compile(
    r"\b(?P<type>interval(?:\s*\(\s*\d+\s*\))?"
    r"|time(?:stamp)?(?:\s*\(\s*\d+\s*\))?(?:\s+with(?:out)?\s+time\s+zone)?"
    r"|timestamptz|timetz|date|bool(?:ean)?|int[248]?|integer|bigint|smallint|float[48]?|real"
    r"|numeric(?:\s*\(\s*\d+\s*(?:,\s*\d+\s*)?\))?|text|uuid|jsonb?|inet|cidr|bytea|point|regclass)"
    r"\s+(?P<number>\$\d+)"
    r"(?P<field>\s+(?:year|month|day|hour|minute|second)(?:\s+to\s+(?:month|hour|minute|second))?\b)?",
    re.IGNORECASE,
)
_EXTRACT: Final = re.compile(r"\bextract\s*\(\s*(\$\d+)\s+from\b", re.IGNORECASE)

_LITERALS: Final = frozenset({"SCONST", "USCONST", "BCONST", "XCONST", "ICONST", "FCONST"})
_COMMENTS: Final = frozenset({"C_COMMENT", "SQL_COMMENT"})
_QUERIES: Final = frozenset(
    {"SELECT", "WITH", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE", "("}
)


class StatementKind(StrEnum):
    """What a statement does, as far as planning cares."""

    SELECT = "SELECT"
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    MERGE = "MERGE"
    UTILITY = "utility"


class UnreadableError(ValueError):
    """The text is not one statement that can be read; what it says is a reason for people."""


_KINDS: Final = {
    "SelectStmt": StatementKind.SELECT,
    "InsertStmt": StatementKind.INSERT,
    "UpdateStmt": StatementKind.UPDATE,
    "DeleteStmt": StatementKind.DELETE,
    "MergeStmt": StatementKind.MERGE,
}


def parsed(text: str) -> tuple[str, Any]:
    """The text as a grammar accepts it, and its only statement as pglast's tree.

    Raises:
        UnreadableError: it is too long, no SQL, cut off, or several statements.
    """
    from pglast import parse_sql  # noqa: PLC0415
    from pglast.parser import ParseError  # noqa: PLC0415

    if len(text) > TEXT_MAX:
        raise UnreadableError(f"it is longer than {TEXT_MAX:,} characters")
    # pglast takes `interval $1` as it is; a server does not.
    sql = parseable(text.strip().rstrip("; \n\t"))
    try:
        found = parse_sql(sql)
    except ParseError:
        raise UnreadableError("its text is cut off, or not PostgreSQL's grammar") from None
    if len(found) != 1:
        raise UnreadableError("it is several statements in one" if found else "it is empty")
    return sql, found[0].stmt


def parseable(text: str) -> str:
    """The text with constants where the grammar allows a parameter: `interval $1` is a cast."""
    cast = _TYPED.sub(lambda m: f"{m['number']}::{m['type']}{m['field'] or ''}", text)
    return _EXTRACT.sub(r"date_part(\1::text,", cast)


def kind_of(statement: Any) -> StatementKind:
    """The kind of a tree of `parsed`."""
    if type(statement).__name__ == "SelectStmt" and statement.intoClause is not None:
        return StatementKind.UTILITY  # SELECT INTO makes a table
    return _KINDS.get(type(statement).__name__, StatementKind.UTILITY)


def as_select(statement: Any) -> str | None:
    """An UPDATE or DELETE as the SELECT that finds its rows, which needs no right to write.

    Parameters that remain are numbered anew from 1. None: it is neither, or it is not that simple.
    """
    from pglast import ast, enums  # noqa: PLC0415
    from pglast.stream import RawStream  # noqa: PLC0415

    if isinstance(statement, ast.UpdateStmt):
        others = statement.fromClause
    elif isinstance(statement, ast.DeleteStmt):
        others = statement.usingClause
    else:
        return None
    if statement.withClause is not None or isinstance(statement.whereClause, ast.CurrentOfExpr):
        return None
    one = ast.ResTarget(val=ast.A_Const(val=ast.Integer(ival=1)))
    select = ast.SelectStmt(
        targetList=(one,),
        fromClause=(statement.relation, *(others or ())),
        whereClause=statement.whereClause,
        op=enums.SetOperation.SETOP_NONE,
        limitOption=enums.LimitOption.LIMIT_OPTION_DEFAULT,
    )
    return _renumbered(RawStream()(select))


def shown(text: str, *, chars_max: int = SHOWN_CHARS_MAX) -> str:
    """What people may see of a statement: one line, no literal, no comment, shortened.

    Of a utility statement only its first words: a password may stand in the rest.
    """
    words = _words(text[:TEXT_MAX])
    if not words:
        return "(nothing that can be shown)" if text.strip() else ""
    line = "; ".join(_told(part) for part in _parts(words) if part)
    return line if len(line) <= chars_max else line[: chars_max - 1].rstrip() + "…"


def _told(words: list[str]) -> str:
    if words[0].strip().upper() not in _QUERIES:
        return " ".join(_command(words))
    return "".join(words).strip()


def _parts(words: list[str]) -> list[list[str]]:
    """The words of each statement: a client may send several at once."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word.strip() == ";":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def is_query(text: str) -> bool:
    """Whether it begins as something that can be planned; without parsing the whole of it."""
    words = _words(text[:TEXT_MAX])
    return bool(words) and words[0].strip().upper() in _QUERIES


def _words(text: str) -> list[str]:
    """The tokens, with `?` for each literal and without comments; [] where there are none.

    A token has a space before it where its text had any, or a comment. pg_stat_activity cuts
    texts off, perhaps inside of quotes: then up to what is whole.
    """
    from pglast.parser import ParseError, scan  # noqa: PLC0415

    for _ in range(_ENDS_TRIED_MAX):
        try:
            tokens = scan(text)
        except ParseError as error:
            cut = _unfinished(text, error)
            if cut <= 0:
                return []
            text = text[:cut]
        else:
            return _spaced(text, [token for token in tokens if token.name not in _COMMENTS])
    return []


def _spaced(text: str, tokens: Sequence[Any]) -> list[str]:
    words: list[str] = []
    end = -1
    for token in tokens:
        word = "?" if token.name in _LITERALS else text[token.start : token.end + 1]
        words.append(f" {word}" if token.start > end + 1 else word)
        end = token.end
    return words


def _unfinished(text: str, error: Any) -> int:
    """Where the part begins that the lexer could not read to its end."""
    place = error.args[1] if len(error.args) > 1 else None
    return place if isinstance(place, int) and place < len(text) else 0


def _command(words: list[str]) -> list[str]:
    """The leading keywords of a utility statement, without any name."""
    known: list[str] = []
    for word in words[:_UTILITY_WORDS_MAX]:
        if (plain := word.strip().upper()) not in _COMMAND_WORDS:
            break
        known.append(plain)
    return known or ["(utility statement)"]


# fmt: off
_COMMAND_WORDS: Final = frozenset(
    {
        "ALTER", "ANALYZE", "BEGIN", "CALL", "CHECKPOINT", "CLOSE", "CLUSTER", "COMMENT",
        "COMMIT", "COPY", "CREATE", "CONCURRENTLY", "DATABASE", "DEALLOCATE", "DECLARE",
        "DISCARD", "DO", "DROP", "END", "EXECUTE", "EXPLAIN", "EXTENSION", "FETCH",
        "FOREIGN", "FULL", "FUNCTION", "GRANT", "INDEX", "IMPORT", "LISTEN", "LOCK",
        "MATERIALIZED", "MOVE", "NOTIFY", "OWNED", "POLICY", "PREPARE", "PREPARED",
        "PROCEDURE", "PUBLICATION", "REASSIGN", "REFRESH", "REINDEX", "RELEASE", "RESET",
        "REVOKE", "ROLE", "ROLLBACK", "SAVEPOINT", "SCHEMA", "SECURITY", "SEQUENCE", "SET",
        "SHOW", "START", "STATISTICS", "SUBSCRIPTION", "TABLE", "TABLESPACE", "TEMP",
        "TEMPORARY", "TRANSACTION", "TRIGGER", "TRUNCATE", "TYPE", "UNIQUE", "UNLISTEN",
        "UNLOGGED", "USER", "VACUUM", "VIEW",
    }
)
# fmt: on


def _renumbered(sql: str) -> str:
    numbers = sorted({int(number) for number in re.findall(r"\$(\d+)", sql)})
    new = {number: place for place, number in enumerate(numbers, start=1)}
    return re.sub(r"\$(\d+)", lambda found: f"${new[int(found[1])]}", sql)


def key_lookup(text: str) -> str | None:
    """`customers.id` for a SELECT of one table's rows by equality with parameters; else None.

    With several columns, the first stands for all.
    """
    from pglast import ast, enums  # noqa: PLC0415

    try:
        _, tree = parsed(text)
    except UnreadableError:
        return None
    sources = tree.fromClause if isinstance(tree, ast.SelectStmt) else None
    if sources is None or len(sources) != 1:
        return None
    table = sources[0]
    if not isinstance(table, ast.RangeVar) or tree.groupClause or tree.withClause:
        return None
    where = tree.whereClause
    terms = (
        where.args
        if isinstance(where, ast.BoolExpr) and where.boolop == enums.BoolExprType.AND_EXPR
        else (where,)
    )
    columns = [_equal_to_parameter(term) for term in terms or ()]
    first = next((column for column in columns if column is not None), None)
    return f"{table.relname}.{first}" if first is not None else None


def _equal_to_parameter(term: Any) -> str | None:
    """The column of `column = $1`."""
    from pglast import ast, enums  # noqa: PLC0415

    if not isinstance(term, ast.A_Expr) or term.kind != enums.A_Expr_Kind.AEXPR_OP:
        return None
    if [name.sval for name in term.name or ()] != ["="]:
        return None
    sides = [term.lexpr, term.rexpr]
    parameters = [_bare(side) for side in sides if isinstance(_bare(side), ast.ParamRef)]
    columns = [_bare(side) for side in sides if isinstance(_bare(side), ast.ColumnRef)]
    if len(parameters) != 1 or len(columns) != 1:
        return None
    last = columns[0].fields[-1]
    return str(last.sval) if isinstance(last, ast.String) else None


def _bare(expression: Any) -> Any:
    """Without its casts."""
    while type(expression).__name__ == "TypeCast":
        expression = expression.arg
    return expression


def nodes(tree: Any) -> Iterator[Any]:
    """Every node of a tree of pglast's."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (tuple, list)):
            waiting.extend(node)
        elif type(node).__module__ == "pglast.ast":
            yield node
            waiting.extend(getattr(node, name) for name in node)
