"""Whole statements of a change's file, by PostgreSQL's own grammar, and printed again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.migrate.changes.expressions import names_of, walk
from postgres.migrate.changes.words import Constraint, NewColumn, NewIndex

_OURS: Final = "twokey_"
_NAME_BYTES_MAX: Final = 63


class StatementError(PostgresError):
    """A statement says something else than its place in the file is for."""


def read_columns(text: str, *, schema: str, table: str) -> tuple[NewColumn, ...]:
    """The columns that `ALTER TABLE … ADD COLUMN …` of this table adds.

    Raises:
        StatementError: it does anything else: that belongs into a migration of its own.
    """
    from pglast import enums  # noqa: PLC0415

    statement = one_statement(text)
    if type(statement).__name__ != "AlterTableStmt" or not _is_of(
        statement.relation, schema, table
    ):
        raise StatementError(
            f"That is no ALTER TABLE of {schema}.{table}.",
            next_step="What is not a new column of the table belongs into a migration of its own.",
        )
    found: list[NewColumn] = []
    for command in statement.cmds:
        if command.subtype != enums.AlterTableType.AT_AddColumn or command.missing_ok:
            raise StatementError(
                "That does more than add columns.",
                next_step="Constraints and indexes stand under validate; anything else is a"
                " migration of its own.",
            )
        found.append(_column(command.def_))
    return tuple(found)


def read_type(text: str) -> str:
    """A type, with its collation where it has one, printed again.

    Raises:
        StatementError: it is no type, or more than that.
    """
    statement = one_statement(f"ALTER TABLE t ADD COLUMN c {text}")
    commands: Sequence[Any] = getattr(statement, "cmds", None) or ()
    column = commands[0].def_ if len(commands) == 1 else None
    if column is None or type(column).__name__ != "ColumnDef" or column.constraints:
        raise StatementError("That is more than a type.", next_step="Write bigint, or text.")
    return str(_definition(column).removeprefix("c "))


def read_constraint(name: str, text: str) -> Constraint:
    """A CHECK or FOREIGN KEY, as it stands after its name.

    Raises:
        StatementError: it is another constraint, or more than one.
    """
    from pglast import enums  # noqa: PLC0415

    check_name(name)
    statement = one_statement(f'ALTER TABLE t ADD CONSTRAINT "{_doubled(name)}" {text}')
    commands: Sequence[Any] = getattr(statement, "cmds", None) or ()
    made: Any = commands[0].def_ if len(commands) == 1 else None
    kinds = {enums.ConstrType.CONSTR_CHECK, enums.ConstrType.CONSTR_FOREIGN}
    if type(made).__name__ != "Constraint" or made.contype not in kinds:
        raise StatementError(
            "Only CHECK (…) and FOREIGN KEY (…) REFERENCES … stand here.",
            next_step="A unique index stands under validate.indexes.",
        )
    made.skip_validation, made.initially_valid = False, True
    made.conname = None
    named = frozenset(names_of(made.fk_attrs or ())) | _columns(statement)
    return Constraint(name=name, body=node_text(statement).partition(" ADD ")[2], columns=named)


def read_index(text: str, *, schema: str, table: str) -> NewIndex:
    """`CREATE INDEX name ON table (…)`, made to run CONCURRENTLY.

    Raises:
        StatementError: it is no index of this table, or has no name.
    """
    statement = one_statement(text)
    if type(statement).__name__ != "IndexStmt" or not _is_of(statement.relation, schema, table):
        raise StatementError(
            f"That is no CREATE INDEX on {schema}.{table}.",
            next_step=f"Write CREATE INDEX name ON {schema}.{table} (column).",
        )
    if not statement.idxname:
        raise StatementError("The index has no name.", next_step="Give it one: it is shown.")
    check_name(statement.idxname)
    statement.concurrent, statement.if_not_exists = True, False
    statement.relation.schemaname = schema
    return NewIndex(
        name=statement.idxname, create=node_text(statement), columns=_columns(statement)
    )


def read_check(text: str) -> str:
    """A SELECT that asks whether something holds.

    Raises:
        StatementError: it is anything else, locks rows or makes a table.
    """
    statement = one_statement(text)
    nodes = list(walk(statement))
    writes = {"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "IntoClause", "LockingClause"}
    if type(statement).__name__ != "SelectStmt" or any(
        type(node).__name__ in writes for node in nodes
    ):
        raise StatementError(
            "That is no question.", next_step="Write a SELECT of which the answer is true or false."
        )
    return node_text(statement)


def renamed_index(definition: str, *, name: str, column: str, to: str) -> str:
    """An index's definition once more, on another column and under another name, CONCURRENTLY."""
    statement = one_statement(definition)
    for node in walk(statement):
        if type(node).__name__ == "IndexElem" and node.name == column:
            node.name = to
        _rename_reference(node, column, to)
    statement.idxname, statement.concurrent = name, True
    return node_text(statement)


def renamed_check(definition: str, *, column: str, to: str) -> str:
    """A CHECK's definition once more, on another column, without NOT VALID."""
    statement = one_statement(f"ALTER TABLE t ADD {definition}")
    for node in walk(statement):
        _rename_reference(node, column, to)
    made = statement.cmds[0].def_
    made.skip_validation, made.initially_valid = False, True
    return node_text(statement).partition(" ADD ")[2]


def one_statement(text: str) -> Any:
    """The only statement of a text.

    Raises:
        StatementError: it does not parse, is more than one, or is about what is ours.
    """
    from pglast import parse_sql  # noqa: PLC0415
    from pglast.parser import ParseError  # noqa: PLC0415

    try:
        parsed = parse_sql(text)
    except (ParseError, RecursionError) as error:
        raise StatementError(
            f"PostgreSQL does not read that: {error}.", next_step="Write one statement of SQL."
        ) from error
    if len(parsed) != 1:
        raise StatementError(
            "That is not one statement.", next_step="Write each as an item of the list."
        )
    statement = parsed[0].stmt
    for node in walk(statement):
        for name in (getattr(node, "schemaname", None), *_paths(node)):
            if isinstance(name, str) and name.startswith(_OURS):
                raise StatementError(
                    f"{name} is where our own bookkeeping stands.",
                    next_step="Leave it out: no change of yours goes there.",
                )
    return statement


def node_text(node: Any) -> str:
    """A statement as SQL.

    Raises:
        StatementError: what would be printed does not mean the same.
    """
    from pglast import parse_sql  # noqa: PLC0415
    from pglast.stream import RawStream  # noqa: PLC0415

    text = str(RawStream()(node))
    parsed = parse_sql(text)
    if len(parsed) != 1 or parsed[0].stmt != node:
        raise StatementError(
            "The statement cannot be printed so that it means the same.",
            next_step="Write it more simply, or as a migration of its own.",
        )
    return text


def check_name(name: str) -> None:
    """Refuse a name that PostgreSQL would cut off, or that is taken for ours.

    Raises:
        StatementError: it is empty, has more than 63 bytes, or begins like ours.
    """
    if not name or "\0" in name or len(name.encode()) > _NAME_BYTES_MAX or name.startswith(_OURS):
        raise StatementError(
            f"{name[:80]!r} is no name that it could have.",
            next_step=f"Take one of 1 to {_NAME_BYTES_MAX} bytes that does not begin with {_OURS}.",
        )


def _column(node: Any) -> NewColumn:
    from pglast import enums  # noqa: PLC0415

    check_name(node.colname)
    kinds = enums.ConstrType
    for each in node.constraints or ():
        if each.contype not in {kinds.CONSTR_NULL, kinds.CONSTR_DEFAULT}:
            raise StatementError(
                f"{node.colname} is added with a constraint.",
                next_step="Add it without; NOT NULL, CHECK and indexes stand under validate.",
            )
    has_default = any(each.contype == kinds.CONSTR_DEFAULT for each in node.constraints or ())
    return NewColumn(
        name=node.colname,
        type=_printed(node.typeName),
        definition=_definition(node),
        has_default=has_default,
    )


def _definition(node: Any) -> str:
    from pglast.stream import RawStream  # noqa: PLC0415

    text = str(RawStream()(node))
    again = one_statement(f"ALTER TABLE t ADD COLUMN {text}")
    if again.cmds[0].def_ != node:
        raise StatementError(
            "The column cannot be printed so that it means the same.",
            next_step="Write it more simply.",
        )
    return text


def _printed(node: Any) -> str:
    from pglast.stream import RawStream  # noqa: PLC0415

    return str(RawStream()(node))


def _columns(statement: Any) -> frozenset[str]:
    """The columns that an index or a CHECK names."""
    found: set[str] = set()
    for node in walk(statement):
        match type(node).__name__:
            case "IndexElem" if node.name:
                found.add(node.name)
            case "ColumnRef":
                found.add(names_of(node.fields)[-1])
            case _:
                pass
    return frozenset(found)


def _is_of(relation: Any, schema: str, table: str) -> bool:
    return (relation.schemaname or schema, relation.relname) == (schema, table)


def _rename_reference(node: Any, column: str, to: str) -> None:
    from pglast.ast import String  # noqa: PLC0415

    if type(node).__name__ == "ColumnRef" and names_of(node.fields) == (column,):
        node.fields = (String(sval=to),)


def _paths(node: Any) -> tuple[str, ...]:
    found: list[str] = []
    for name in ("names", "funcname", "fields"):
        path = getattr(node, name, None)
        if isinstance(path, tuple) and len(path) > 1:
            found.append(names_of(path)[0])
    return tuple(found)


def _doubled(name: str) -> str:
    return name.replace('"', '""')
