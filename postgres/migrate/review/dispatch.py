"""Which function judges which statement. What is not in the table is the worst it can be. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from postgres.migrate.review import creates, data, drops, maintenance, outside, settings
from postgres.migrate.review.alter_table import alter_table
from postgres.migrate.review.calls import unknown_calls
from postgres.migrate.review.effects import Effect, Handler, Scene, finding, opaque, together
from postgres.migrate.review.facts import Past
from postgres.migrate.review.nodes import kind_of, of_kind
from postgres.migrate.words import Level, Lock, StatementKind, Work

_OURS: Final = "twokey_"
_NAMES: Final = ("schemaname", "newschema", "newname", "subname")


def judge(node: Any, scene: Scene) -> Effect:
    """What one statement does."""
    handler = HANDLERS.get(kind_of(node))
    effect = handler(node, scene) if handler is not None else _strange(node, scene)
    found = [effect, *_stored(node, effect, scene), *_woken(node, effect, scene)]
    if names := ours(node):
        found.append(_touches_ours(names))
    found += [_not_there(touch.table) for touch in effect.touches if _is_missing(touch, scene)]
    return together(found)


def ours(node: Any) -> tuple[str, ...]:
    """The schemas of our own that a statement names."""
    names = [each.schemaname or "" for each in of_kind(node, "RangeVar")]
    # Not what stands in a literal, or is a column's name.
    others = {id(each.val) for each in of_kind(node, "A_Const")}
    others |= {id(part) for each in of_kind(node, "ColumnRef") for part in each.fields}
    names += [each.sval for each in of_kind(node, "String") if id(each) not in others]
    names += [getattr(node, field, "") or "" for field in _NAMES]
    return tuple(dict.fromkeys(n for n in names if isinstance(n, str) and n.startswith(_OURS)))


def _touches_ours(names: tuple[str, ...]) -> Effect:
    return Effect(
        kind=StatementKind.OPAQUE,
        findings=(
            finding(
                "own-schemas",
                Level.ERROR,
                f"It names {', '.join(names)}: the bot keeps its books in the schemas twokey_….",
                "Take it out, or choose another name.",
            ),
        ),
    )


def _stored(node: Any, effect: Effect, scene: Scene) -> Iterator[Effect]:
    """A function that is written down now, as a default or in a view, runs with later rows."""
    if effect.judged is StatementKind.OPAQUE:
        return
    if names := unknown_calls(node, scene):
        tables = {scene.named(each) for each in of_kind(node, "RangeVar")}
        tables |= {touch.table for touch in effect.touches} | effect.makes
        text = f"From then on it runs {', '.join(names[:5])}, which may do anything."
        yield Effect(
            past=Past(spoiled=frozenset(tables)),
            findings=(finding("stores-function", Level.WARNING, text),),
        )


def _woken(node: Any, effect: Effect, scene: Scene) -> Iterator[Effect]:
    """Rows of a table that runs unknown functions since a statement before."""
    works = {touch.table for touch in effect.touches if touch.work is not Work.CATALOG}
    if kind_of(node) in _ROWS:
        works |= {scene.named(each) for each in of_kind(node, "RangeVar")}
    if names := sorted(works & scene.past.spoiled):
        text = f"Since a statement before, {', '.join(names)} runs functions that we do not know."
        yield opaque("opaque-function", text)


_ROWS: Final = frozenset({
    "SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "ExplainStmt",
    "CreateTableAsStmt", "RefreshMatViewStmt", "DeclareCursorStmt", "PrepareStmt",
})  # fmt: skip


def _is_missing(touch: Any, scene: Scene) -> bool:
    return scene.facts.is_read and touch.facts is None and not touch.is_new


def _not_there(table: str) -> Effect:
    text = f"{table} is not there yet: an earlier file makes it, or this statement fails."
    return Effect(findings=(finding("unknown-table", Level.NOTE, text),))


def _strange(node: Any, scene: Scene) -> Effect:
    lock = Lock.ACCESS_EXCLUSIVE
    touches = tuple(scene.touch(e, lock, Work.UNKNOWN) for e in of_kind(node, "RangeVar"))
    words = f"We do not know what {kind_of(node)} does."
    strange = opaque("unknown-statement", words, level=Level.ERROR)
    return together([Effect(touches=touches), strange])


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "AlterTableStmt": alter_table,
        # Rows
        "SelectStmt": data.rows,
        "InsertStmt": data.rows,
        "UpdateStmt": data.rows,
        "DeleteStmt": data.rows,
        "MergeStmt": data.rows,
        "CopyStmt": data.copy,
        "ExplainStmt": data.explain,
        "LockStmt": data.lock,
        "RefreshMatViewStmt": data.refresh,
        # What comes into being
        "CreateStmt": creates.create_table,
        "CreateForeignTableStmt": outside.nothing,
        "CreateTableAsStmt": creates.create_table_as,
        "IndexStmt": creates.create_index,
        "ViewStmt": creates.create_view,
        "CreateTrigStmt": creates.create_trigger,
        "RuleStmt": creates.create_rule,
        "CreatePolicyStmt": creates.policy,
        "AlterPolicyStmt": creates.policy,
        "CreateFunctionStmt": creates.create_function,
        "CreateEnumStmt": creates.create_type,
        "CreateRangeStmt": creates.create_type,
        "CompositeTypeStmt": creates.create_type,
        "CreateDomainStmt": creates.create_domain,
        "AlterDomainStmt": creates.alter_domain,
        "DefineStmt": creates.define,
        "CreateCastStmt": creates.hidden_calls,
        "CreateOpClassStmt": creates.hidden_calls,
        "CreateOpFamilyStmt": outside.nothing,
        "AlterOpFamilyStmt": creates.hidden_calls,
        "AlterOperatorStmt": creates.hidden_calls,
        "CreateConversionStmt": creates.hidden_calls,
        "CreateTransformStmt": creates.hidden_calls,
        "CreateEventTrigStmt": outside.unreadable("It runs a function with every DDL since."),
        "AlterEventTrigStmt": outside.unreadable("It runs a function with DDL since."),
        "CreateExtensionStmt": creates.create_extension,
        "CreateSchemaStmt": creates.create_schema,
        "CreateStatsStmt": creates.create_statistics,
        "CreatePublicationStmt": creates.publication,
        "AlterPublicationStmt": creates.publication,
        # What goes away or gets another name
        "DropStmt": drops.drop,
        "TruncateStmt": drops.truncate,
        "RenameStmt": drops.rename,
        "AlterObjectSchemaStmt": drops.set_schema,
        # Upkeep
        "VacuumStmt": maintenance.vacuum,
        "ClusterStmt": maintenance.cluster,
        "ReindexStmt": maintenance.reindex,
        "CommentStmt": maintenance.comment,
        "SecLabelStmt": maintenance.comment,
        # The session
        "VariableSetStmt": settings.set_variable,
        "TransactionStmt": settings.transaction,
        "DiscardStmt": settings.discard,
        # Beyond the database
        "AlterSystemStmt": outside.system,
        "CreatedbStmt": outside.database,
        "DropdbStmt": outside.drop_database,
        "AlterDatabaseStmt": outside.database,
        "AlterDatabaseRefreshCollStmt": outside.role,
        "AlterDatabaseSetStmt": outside.role,
        "CreateTableSpaceStmt": outside.database,
        "DropTableSpaceStmt": outside.database,
        "AlterTableSpaceOptionsStmt": outside.database,
        "AlterTableMoveAllStmt": outside.database,
        "CreateRoleStmt": outside.role,
        "AlterRoleStmt": outside.role,
        "AlterRoleSetStmt": outside.role,
        "DropRoleStmt": outside.role,
        "GrantRoleStmt": outside.role,
        "GrantStmt": outside.grant,
        "DropOwnedStmt": outside.drop_owned,
        "CreateSubscriptionStmt": outside.subscription,
        "AlterSubscriptionStmt": outside.subscription,
        "DropSubscriptionStmt": outside.subscription,
        # What nobody can read
        "DoStmt": outside.unreadable("A DO block runs code that we do not read."),
        "CallStmt": outside.unreadable("CALL runs a procedure that may do anything, and commit."),
        "ExecuteStmt": outside.unreadable("EXECUTE runs a statement that does not stand here."),
        "FetchStmt": outside.unreadable("FETCH goes on with a query that does not stand here."),
        "PrepareStmt": outside.prepare,
        "DeclareCursorStmt": outside.prepare,
        "LoadStmt": outside.unreadable("LOAD runs a library of the host.", level=Level.ERROR),
        "CreatePLangStmt": outside.unreadable("It makes a language that may do anything."),
        "CreateAmStmt": outside.unreadable("It makes an access method out of a library."),
        "CreateFdwStmt": outside.unreadable("It makes a wrapper out of a library."),
        "AlterFdwStmt": outside.unreadable("It changes the library of a wrapper."),
        "AlterExtensionStmt": outside.unreadable("A newer extension brings a script of its own."),
        "ImportForeignSchemaStmt": outside.unreadable("It makes tables that another server names."),
        "ReassignOwnedStmt": outside.unreadable("It gives away whatever a role owns."),
        # The catalog alone
        **dict.fromkeys(
            (
                "AlterCollationStmt",
                "AlterDefaultPrivilegesStmt",
                "AlterEnumStmt",
                "AlterExtensionContentsStmt",
                "AlterForeignServerStmt",
                "AlterFunctionStmt",
                "AlterObjectDependsStmt",
                "AlterOwnerStmt",
                "AlterSeqStmt",
                "AlterStatsStmt",
                "AlterTSConfigurationStmt",
                "AlterTSDictionaryStmt",
                "AlterTypeStmt",
                "AlterUserMappingStmt",
                "CheckPointStmt",
                "ClosePortalStmt",
                "ConstraintsSetStmt",
                "CreateForeignServerStmt",
                "CreateSeqStmt",
                "CreateUserMappingStmt",
                "DeallocateStmt",
                "DropUserMappingStmt",
                "ListenStmt",
                "NotifyStmt",
                "UnlistenStmt",
                "VariableShowStmt",
            ),
            outside.nothing,
        ),
    }
)
