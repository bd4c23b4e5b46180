"""Statements that PostgreSQL wants outside of transactions: what each is about. Pure.

What is known of a statement decides how somebody who comes after a crash finds out by the catalog
whether it was done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, Final


class AloneKind(Enum):
    """How it is found out whether a statement was done."""

    CREATE_INDEX = "create index"
    DROP_INDEX = "drop index"
    REINDEX = "reindex"  # CONCURRENTLY
    ADD_VALUE = "add value"
    DETACH = "detach"  # CONCURRENTLY
    REPEATABLE = "repeatable"  # once more does no harm
    OTHER = "other"  # nobody can tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A name as it was written; `schema` '': the search path decides."""

    name: str
    schema: str = ""

    @property
    def quoted(self) -> str:
        """For to_regclass and to_regtype."""
        parts = [self.schema, self.name] if self.schema else [self.name]
        return ".".join('"' + part.replace('"', '""') + '"' for part in parts)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexShape:
    """What makes an index, as far as the server does not write it otherwise.

    `keys`: columns in order, '' for an expression.
    """

    method: str
    is_unique: bool
    keys: tuple[str, ...]
    include: tuple[str, ...]
    is_partial: bool
    nulls_not_distinct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A statement. `name`: of what is made, dropped or worked on; '' where the server chooses.

    `is_lenient`: it says IF (NOT) EXISTS. `blocks`: it takes a lock for which others wait, so
    its own waits must be short. `scope`: of REINDEX, such as `table`.
    """

    kind: AloneKind
    name: Name | None = None
    table: Name | None = None
    partition: Name | None = None
    shape: IndexShape | None = None
    label: str = ""
    scope: str = ""
    is_lenient: bool = False
    blocks: bool = False


_REPEATABLE: Final = frozenset({"CheckPointStmt", "AlterSystemStmt", "CommentStmt"})


def alone_of(sql: str) -> Alone:
    """What a statement is about. It has been parsed before."""
    from pglast import parse_sql  # noqa: PLC0415 - heavy

    node = parse_sql(sql)[0].stmt
    kind = type(node).__name__
    if kind in _REPEATABLE:
        return Alone(kind=AloneKind.REPEATABLE)
    read = _READERS.get(kind)
    return read(node) if read else Alone(kind=AloneKind.OTHER, blocks=True)


def shape_of(definition: str) -> IndexShape | None:
    """The shape of what `pg_get_indexdef` says; None: it does not parse."""
    from pglast import parse_sql  # noqa: PLC0415 - heavy
    from pglast.parser import ParseError  # noqa: PLC0415

    try:
        return _shape(parse_sql(definition)[0].stmt)
    except ParseError:
        return None


def _index(node: Any) -> Alone:
    if not node.concurrent:
        return Alone(kind=AloneKind.OTHER, blocks=True)
    table = _name(node.relation)
    name = Name(name=node.idxname) if node.idxname else None
    return Alone(
        kind=AloneKind.CREATE_INDEX, name=name, table=table, shape=_shape(node),
        is_lenient=bool(node.if_not_exists),
    )  # fmt: skip


def _shape(node: Any) -> IndexShape:
    return IndexShape(
        method=str(node.accessMethod or "btree"),
        is_unique=bool(node.unique),
        keys=tuple(str(each.name or "") for each in node.indexParams or ()),
        include=tuple(str(each.name or "") for each in node.indexIncludingParams or ()),
        is_partial=node.whereClause is not None,
        nulls_not_distinct=bool(node.nulls_not_distinct),
    )


def _drop(node: Any) -> Alone:
    if not node.concurrent or node.removeType.name != "OBJECT_INDEX" or len(node.objects) != 1:
        return Alone(kind=AloneKind.OTHER, blocks=True)
    parts = [str(each.sval) for each in node.objects[0]]
    name = Name(name=parts[-1], schema=parts[-2] if len(parts) > 1 else "")
    return Alone(kind=AloneKind.DROP_INDEX, name=name, is_lenient=bool(node.missing_ok))


def _reindex(node: Any) -> Alone:
    concurrent = any(each.defname == "concurrently" for each in node.params or ())
    if not concurrent:
        return Alone(kind=AloneKind.REPEATABLE, blocks=True)
    scope = node.kind.name.removeprefix("REINDEX_OBJECT_").lower()
    name = _name(node.relation) if node.relation is not None else None
    return Alone(kind=AloneKind.REINDEX, name=name, scope=scope)


def _enum(node: Any) -> Alone:
    if node.oldVal:
        return Alone(kind=AloneKind.OTHER, blocks=True)  # renames a label
    parts = [str(each.sval) for each in node.typeName]
    return Alone(
        kind=AloneKind.ADD_VALUE,
        name=Name(name=parts[-1], schema=parts[-2] if len(parts) > 1 else ""),
        label=str(node.newVal),
        is_lenient=bool(node.skipIfNewValExists),
    )


def _alter_table(node: Any) -> Alone:
    kinds = [command.subtype.name for command in node.cmds]
    if all(kind == "AT_ValidateConstraint" for kind in kinds):
        return Alone(kind=AloneKind.REPEATABLE)
    if kinds == ["AT_DetachPartition"] and node.cmds[0].def_.concurrent:
        partition = _name(node.cmds[0].def_.name)
        table = _name(node.relation)
        return Alone(kind=AloneKind.DETACH, table=table, partition=partition, blocks=True)
    if kinds == ["AT_DetachPartitionFinalize"]:
        partition = _name(node.cmds[0].def_.name)
        table = _name(node.relation)
        return Alone(kind=AloneKind.DETACH, table=table, partition=partition, blocks=True)
    return Alone(kind=AloneKind.OTHER, blocks=True)


def _vacuum(node: Any) -> Alone:
    full = any(each.defname == "full" for each in node.options or ())
    return Alone(kind=AloneKind.REPEATABLE, blocks=full)


def _refresh(node: Any) -> Alone:
    return Alone(kind=AloneKind.REPEATABLE, blocks=not node.concurrent)


def _name(node: Any) -> Name:
    return Name(name=str(node.relname), schema=str(node.schemaname or ""))


_READERS: Final[Mapping[str, Callable[[Any], Alone]]] = MappingProxyType(
    {
        "IndexStmt": _index,
        "DropStmt": _drop,
        "ReindexStmt": _reindex,
        "AlterEnumStmt": _enum,
        "AlterTableStmt": _alter_table,
        "VacuumStmt": _vacuum,
        "RefreshMatViewStmt": _refresh,
        "ClusterStmt": lambda _: replace(Alone(kind=AloneKind.REPEATABLE), blocks=True),
    }
)
