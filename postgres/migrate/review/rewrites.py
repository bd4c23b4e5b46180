"""The safe way to write the same, as SQL that pglast prints out of trees. Pure.

Names and expressions come out of the statement's own tree, so they are quoted as PostgreSQL
reads them. Whatever cannot be printed has no rewrite: the finding's words say it then.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, ParamSpec

from postgres.migrate.review.nodes import kind_of, parts

_NAME_BYTES_MAX: Final = 63
_P = ParamSpec("_P")


def _printed(
    made: Callable[_P, tuple[Any, ...]],
) -> Callable[_P, tuple[str, ...]]:
    """The trees as SQL that PostgreSQL reads again; nothing where that does not work."""

    @wraps(made)
    def sql(*args: _P.args, **kwargs: _P.kwargs) -> tuple[str, ...]:
        from pglast import parse_sql  # noqa: PLC0415 - heavy
        from pglast.parser import ParseError  # noqa: PLC0415
        from pglast.stream import RawStream  # noqa: PLC0415

        try:
            texts = tuple(RawStream()(each) for each in made(*args, **kwargs))
            for text in texts:
                parse_sql(text)
        except (RecursionError, NotImplementedError, ParseError):
            return ()
        return tuple(f"{text};" for text in texts)

    return sql


@_printed
def index_concurrently(statement: Any) -> tuple[Any, ...]:
    """`CREATE INDEX` while the table stays in use."""
    made = copy.deepcopy(statement)
    made.concurrent = True
    return (made,)


@_printed
def drop_concurrently(statement: Any) -> tuple[Any, ...]:
    """`DROP INDEX CONCURRENTLY`, which takes one index at a time."""
    made: list[Any] = []
    for each in statement.objects:
        one = copy.deepcopy(statement)
        one.objects = (each,)
        one.concurrent = True
        made.append(one)
    return tuple(made)


@_printed
def reindex_concurrently(statement: Any) -> tuple[Any, ...]:
    """`REINDEX (CONCURRENTLY)`."""
    from pglast import ast, enums  # noqa: PLC0415 - heavy

    made = copy.deepcopy(statement)
    made.params = (
        *(made.params or ()),
        ast.DefElem(defname="concurrently", defaction=enums.DefElemAction.DEFELEM_UNSPEC),
    )
    return (made,)


@_printed
def refresh_concurrently(statement: Any) -> tuple[Any, ...]:
    """`REFRESH MATERIALIZED VIEW CONCURRENTLY`, which needs a unique index."""
    made = copy.deepcopy(statement)
    made.concurrent = True
    return (made,)


@_printed
def detach_concurrently(table: Any, command: Any) -> tuple[Any, ...]:
    """`DETACH PARTITION … CONCURRENTLY` (14 and newer)."""
    made = copy.deepcopy(command)
    made.def_.concurrent = True
    return (_alter(table, made),)


@_printed
def not_valid(table: Any, constraint: Any) -> tuple[Any, ...]:
    """A foreign key or a CHECK in two steps, each in a transaction of its own."""
    made = copy.deepcopy(constraint)
    made.conname = constraint.conname or _constraint_name(table, constraint)
    made.skip_validation, made.initially_valid = True, False
    return (_add(table, made), _validate(table, made.conname))


@_printed
def not_null(table: Any, column: str) -> tuple[Any, ...]:
    """SET NOT NULL by a CHECK that is validated while the table stays in use (12 and newer)."""
    return _not_null(table, column)


@_printed
def using_index(table: Any, constraint: Any) -> tuple[Any, ...]:
    """UNIQUE or PRIMARY KEY over an index that was built CONCURRENTLY."""
    from pglast import ast  # noqa: PLC0415 - heavy

    name = constraint.conname or _constraint_name(table, constraint)
    made = copy.deepcopy(constraint)
    made.conname, made.indexname = name, name
    made.keys = made.including = made.options = None
    made.nulls_not_distinct = False
    index = ast.IndexStmt(
        idxname=name,
        relation=copy.deepcopy(table),
        accessMethod="btree",
        indexParams=_columns(constraint.keys),
        indexIncludingParams=_columns(constraint.including) or None,
        unique=True,
        nulls_not_distinct=constraint.nulls_not_distinct,
        concurrent=True,
    )
    return (index, _add(table, made))


@_printed
def column_in_steps(table: Any, column: Any) -> tuple[Any, ...]:
    """ADD COLUMN without its default, then the default for new rows. Old rows: a backfill."""
    from pglast import ast, enums  # noqa: PLC0415 - heavy

    default = next(
        (c.raw_expr for c in column.constraints or () if c.contype.name == "CONSTR_DEFAULT"), None
    )
    kept = tuple(
        copy.deepcopy(each)
        for each in column.constraints or ()
        if each.contype.name not in {"CONSTR_DEFAULT", "CONSTR_NOTNULL"}
    )
    bare = copy.deepcopy(column)
    bare.constraints = kept or None
    added = ast.AlterTableCmd(subtype=enums.AlterTableType.AT_AddColumn, def_=bare)
    later = ast.AlterTableCmd(
        subtype=enums.AlterTableType.AT_ColumnDefault,
        name=column.colname,
        def_=copy.deepcopy(default),
    )
    wants = any(c.contype.name == "CONSTR_NOTNULL" for c in column.constraints or ())
    after = _not_null(table, column.colname) if wants else ()
    return (_alter(table, added), *((_alter(table, later),) if default else ()), *after)


@_printed
def shadow_column(table: Any, command: Any) -> tuple[Any, ...]:
    """The first step of a change of type: the column beside the old one."""
    from pglast import ast, enums  # noqa: PLC0415 - heavy

    added = ast.ColumnDef(
        colname=f"{command.name}_new", typeName=copy.deepcopy(command.def_.typeName), is_local=True
    )
    return (
        _alter(table, ast.AlterTableCmd(subtype=enums.AlterTableType.AT_AddColumn, def_=added)),
    )


def text_of(node: Any) -> str:
    """A part of a statement as SQL; '' where it cannot be printed."""
    from pglast.stream import RawStream  # noqa: PLC0415 - heavy

    try:
        return str(RawStream()(node))
    except (RecursionError, NotImplementedError):
        return ""


def backfill_line(statement: Any, table: str) -> str:
    """The command that does an UPDATE of one table in batches; '' where there is none."""
    if kind_of(statement) != "UpdateStmt" or statement.fromClause or statement.withClause:
        return ""
    texts = [
        f"{_quoted(target.name)} = {text_of(target.val)}" for target in statement.targetList or ()
    ]
    if any(text.endswith(" = ") for text in texts):
        return ""
    where = text_of(statement.whereClause) if statement.whereClause is not None else ""
    return command(table, ", ".join(texts), where)


def command(table: str, assignments: str, where: str = "") -> str:
    """`/db backfill …` as it is typed; the database's name is the reader's."""
    asked = f'/db backfill <database> {table} "{_escaped(assignments)}"'
    return f'{asked} "{_escaped(where)}"' if where else asked


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(name: str) -> str:
    from pglast import ast  # noqa: PLC0415 - heavy

    return text_of(ast.ColumnRef(fields=(ast.String(sval=name),)))


def _not_null(table: Any, column: str) -> tuple[Any, ...]:
    from pglast import ast, enums  # noqa: PLC0415 - heavy

    kinds = enums.AlterTableType
    name = _fitting(f"{table.relname}_{column}_not_null")
    check = ast.Constraint(
        contype=enums.ConstrType.CONSTR_CHECK,
        conname=name,
        raw_expr=ast.NullTest(
            arg=ast.ColumnRef(fields=(ast.String(sval=column),)),
            nulltesttype=enums.NullTestType.IS_NOT_NULL,
        ),
        skip_validation=True,
        is_enforced=True,
    )
    return (
        _add(table, check),
        _validate(table, name),
        _alter(table, ast.AlterTableCmd(subtype=kinds.AT_SetNotNull, name=column)),
        _alter(table, ast.AlterTableCmd(subtype=kinds.AT_DropConstraint, name=name)),
    )


def _alter(table: Any, command: Any) -> Any:
    from pglast import ast, enums  # noqa: PLC0415 - heavy

    return ast.AlterTableStmt(
        relation=copy.deepcopy(table),
        cmds=(command,),
        objtype=enums.ObjectType.OBJECT_TABLE,
        missing_ok=False,
    )


def _add(table: Any, constraint: Any) -> Any:
    from pglast import ast, enums  # noqa: PLC0415 - heavy

    kind = enums.AlterTableType.AT_AddConstraint
    return _alter(table, ast.AlterTableCmd(subtype=kind, def_=constraint))


def _validate(table: Any, name: str) -> Any:
    from pglast import ast, enums  # noqa: PLC0415 - heavy

    kind = enums.AlterTableType.AT_ValidateConstraint
    return _alter(table, ast.AlterTableCmd(subtype=kind, name=name))


def _columns(names: Any) -> tuple[Any, ...]:
    from pglast import ast, enums  # noqa: PLC0415 - heavy

    return tuple(
        ast.IndexElem(
            name=name,
            ordering=enums.SortByDir.SORTBY_DEFAULT,
            nulls_ordering=enums.SortByNulls.SORTBY_NULLS_DEFAULT,
        )
        for name in parts(names or ())
    )


_SUFFIX: Final = {
    "CONSTR_FOREIGN": "fkey",
    "CONSTR_CHECK": "check",
    "CONSTR_UNIQUE": "key",
    "CONSTR_PRIMARY": "pkey",
}


def _constraint_name(table: Any, constraint: Any) -> str:
    """As PostgreSQL names one that has no name."""
    columns = (*parts(constraint.fk_attrs or ()), *parts(constraint.keys or ()))
    if constraint.contype.name == "CONSTR_PRIMARY":
        columns = ()
    suffix = _SUFFIX.get(constraint.contype.name, "check")
    return _fitting("_".join([table.relname, *columns, suffix]))


def _fitting(name: str) -> str:
    """Cut to PostgreSQL's 63 bytes, from the left: the end tells constraints apart."""
    while len(name.encode()) > _NAME_BYTES_MAX:
        name = name[1:]
    return name
