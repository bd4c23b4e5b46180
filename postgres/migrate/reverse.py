"""The way back of a file of SQL, where it can be proved from the catalog of the time before. Pure.

What `reverse` gives puts every definition back as it was; it runs in the order given. What a
statement may do beyond that (a function that is called, rows that are changed) has no way back
here. `read_reverse_facts` reads what must be known, before the file runs: afterwards the
catalog says something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.migrate.aside_words import Kept
from postgres.migrate.reverse_alter import alter_table, rename, set_schema
from postgres.migrate.reverse_drop import drop
from postgres.migrate.reverse_make import (
    alter_enum,
    alter_function,
    alter_sequence,
    comment,
    create_extension,
    create_function,
    create_index,
    create_policy,
    create_rule,
    create_schema,
    create_sequence,
    create_statistics,
    create_table,
    create_table_as,
    create_trigger,
    create_type,
    create_view,
    emptied,
    rows,
)
from postgres.migrate.reverse_names import names_of, parsed
from postgres.migrate.reverse_scene import NOTHING, Exactness, Scene, Undo, none, together
from postgres.schema.catalog import Catalog
from postgres.schema.reading import Reads, read_named

__all__ = ["Catalog", "Exactness", "Reverse", "read_reverse_facts", "reverse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverse:
    """The way back. `reasons`: why it is not exact. `notes`: what goes, or is asked of it.

    `exact`: all that was there before is there again; what came since (rows of a new table)
    goes. With `none` there are no statements: half a way back would be worse.
    """

    statements: tuple[str, ...]
    exactness: Exactness
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


async def read_reverse_facts(session: Reads, sql: str) -> Catalog:
    """What the catalog says now of all that `sql` names; `Catalog.to_json` stores it.

    Raises:
        PostgresError: `sql` is no SQL.
    """
    return await read_named(session, names_of(sql))


def reverse(sql: str, facts: Catalog, *, kept: Sequence[Kept] = ()) -> Reverse:
    """The way back of `sql`, from `facts` that were read before it ran.

    `kept`: what the form in which it ran (`with_aside`) has kept; that comes back as it was.
    """
    try:
        statements = parsed(sql)
    except PostgresError as error:
        return Reverse(statements=(), exactness=Exactness.NONE, reasons=(error.problem,))
    scene = Scene(catalog=facts, kept=tuple(kept))
    undo = together([_one(node, scene) for node in statements])
    return Reverse(
        statements=undo.statements,
        exactness=undo.exactness,
        reasons=undo.reasons,
        notes=undo.notes,
    )


Handler = Callable[[Any, Scene], Undo]
_HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "CreateStmt": create_table,
        "CreateTableAsStmt": create_table_as,
        "ViewStmt": create_view,
        "IndexStmt": create_index,
        "CreateSeqStmt": create_sequence,
        "AlterSeqStmt": alter_sequence,
        "CreateEnumStmt": create_type,
        "CreateRangeStmt": create_type,
        "CompositeTypeStmt": create_type,
        "CreateDomainStmt": create_type,
        "AlterEnumStmt": alter_enum,
        "CreateSchemaStmt": create_schema,
        "CreateExtensionStmt": create_extension,
        "CreateFunctionStmt": create_function,
        "AlterFunctionStmt": alter_function,
        "CreateTrigStmt": create_trigger,
        "CreatePolicyStmt": create_policy,
        "RuleStmt": create_rule,
        "CreateStatsStmt": create_statistics,
        "CommentStmt": comment,
        "AlterTableStmt": alter_table,
        "RenameStmt": rename,
        "AlterObjectSchemaStmt": set_schema,
        "DropStmt": drop,
        "InsertStmt": rows,
        "UpdateStmt": rows,
        "DeleteStmt": rows,
        "TruncateStmt": emptied,
    }
)
# They change no definition and no row.
_HARMLESS: Final = frozenset(
    {"TransactionStmt", "VacuumStmt", "ReindexStmt", "LockStmt", "ExplainStmt", "CheckPointStmt",
     "RefreshMatViewStmt", "VariableShowStmt", "DiscardStmt"}
)  # fmt: skip
_WHY_NOT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DoStmt": "what a DO block does is not known",
        "SelectStmt": "a SELECT may call functions that change something",
        "CallStmt": "what a procedure does is not known",
        "CopyStmt": "COPY changes rows",
        "MergeStmt": "MERGE changes rows",
        "GrantStmt": "rights are not taken back for certain: say it in a down file",
    }
)
# They change what the statements after them mean.
_MEANINGS: Final = frozenset({"search_path", "role", "session_authorization",
                              "session_replication_role"})  # fmt: skip


def _one(node: Any, scene: Scene) -> Undo:
    kind = type(node).__name__
    if kind in _HARMLESS:
        return NOTHING
    if kind == "VariableSetStmt":
        if node.name in _MEANINGS or node.name is None:
            return none(f"SET {node.name or 'ALL'} changes what later statements mean")
        return NOTHING
    if (handler := _HANDLERS.get(kind)) is not None:
        return handler(node, scene)
    return none(_WHY_NOT.get(kind, f"{kind.removesuffix('Stmt')} has no proven way back"))
