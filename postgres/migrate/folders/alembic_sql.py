"""What Alembic's `--sql` wrote for one revision, without its transactions and its book. Pure.

PostgreSQL's own grammar tells the statements apart: nothing here looks for words in SQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_WRITES: Final = ("InsertStmt", "UpdateStmt", "DeleteStmt", "CreateStmt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The statements of a revision. `is_transactional` False: some stand in no transaction.

    `problem`: why there is no SQL; '' when there is.
    """

    sql: str
    is_transactional: bool | None
    problem: str = ""


def read_script(sql: str, *, table: str, schema: str) -> Script:
    """Take out BEGIN and COMMIT, and the statements about the version table.

    `table` and `schema` are those of env.py; '' is Alembic's own.
    """
    import pglast  # noqa: PLC0415  (heavy: only where Alembic is in use)
    from pglast.ast import TransactionStmt  # noqa: PLC0415
    from pglast.enums import TransactionStmtKind as Kind  # noqa: PLC0415

    try:
        statements = pglast.parse_sql(sql)
    except pglast.parser.ParseError as error:
        return Script(sql="", is_transactional=None, problem=f"its SQL is no SQL: {error.args[0]}")
    kept: list[str] = []
    is_inside, is_transactional = False, True
    for statement in statements:
        match statement.stmt:
            case TransactionStmt(kind=Kind.TRANS_STMT_BEGIN | Kind.TRANS_STMT_START):
                is_inside = True
            case TransactionStmt(kind=Kind.TRANS_STMT_COMMIT):
                is_inside = False
            case TransactionStmt():
                return Script(
                    sql="", is_transactional=None, problem="it handles transactions itself"
                )
            case node if _is_book(node, table or "alembic_version", schema):
                continue
            case _:
                kept.append(_text(sql, statement))
                is_transactional = is_transactional and is_inside
    return Script(sql="\n".join(kept), is_transactional=is_transactional)


def _text(sql: str, statement: Any) -> str:
    """The statement with the comments before it; positions are of characters."""
    start = statement.stmt_location
    end = start + statement.stmt_len if statement.stmt_len else len(sql)
    return sql[start:end].strip() + ";"


def _is_book(node: Any, table: str, schema: str) -> bool:
    """Whether it is Alembic's own note of the revision."""
    if type(node).__name__ not in _WRITES:
        return False
    relation = node.relation
    return bool(relation.relname == table and (relation.schemaname or "") == schema)
