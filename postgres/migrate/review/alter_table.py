"""ALTER TABLE: each of its commands with its lock (AlterTableGetLockLevel in tablecmds.c). Pure.

A command that is not in the table below is counted as the worst that it can be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from postgres.migrate.review import rewrites
from postgres.migrate.review.columns import add_column, alter_type, drop_column
from postgres.migrate.review.constraints import add_constraint, set_not_null, slow, validate
from postgres.migrate.review.effects import Effect, Scene, finding, opaque, together
from postgres.migrate.review.facts import Past
from postgres.migrate.review.nodes import parts
from postgres.migrate.words import Level, Lock, StatementKind, Work

_Command = Callable[[Any, Any, Scene], Effect]
_TABLES: Final = frozenset({"OBJECT_TABLE", "OBJECT_FOREIGN_TABLE", "OBJECT_MATVIEW"})
_CONCURRENT_DETACH_SINCE: Final = 14


def alter_table(node: Any, scene: Scene) -> Effect:
    """`ALTER TABLE`, and what shares its grammar: indexes, views, sequences, composite types."""
    match node.objtype.name:
        case kind if kind in _TABLES:
            return _table(node, scene)
        case "OBJECT_INDEX":
            return together(_of_index(node.relation, each, scene) for each in node.cmds)
        case "OBJECT_VIEW":
            return Effect(touches=(scene.touch(node.relation, Lock.ACCESS_EXCLUSIVE),))
        case "OBJECT_SEQUENCE":
            return Effect()
        case "OBJECT_TYPE":
            return _of_type(node)
        case kind:
            return opaque("unknown-statement", f"We do not know ALTER of {kind}.")


def _table(node: Any, scene: Scene) -> Effect:
    """Several commands at once: none of them finds what another one takes away."""
    name = scene.named(node.relation)
    changes = [each for each in node.cmds if each.subtype.name not in _LEAVES_STRUCTURE]
    if len(node.cmds) > 1 and any(c.subtype.name.startswith("AT_Drop") for c in changes):
        scene = scene.doubting(name)
    effect = together(_command(node.relation, each, scene) for each in node.cmds)
    if not changes:
        return effect
    doubt = Past(doubted=frozenset({name}))
    return replace(effect, past=doubt.then(effect.past))


def _command(table: Any, command: Any, scene: Scene) -> Effect:
    subtype = command.subtype.name
    known = COMMANDS.get(subtype)
    if known is not None:
        return known(table, command, scene)
    touch = scene.touch(table, Lock.ACCESS_EXCLUSIVE, Work.UNKNOWN)
    strange = opaque("unknown-statement", f"We do not know {subtype}.", level=Level.ERROR)
    return together([Effect(touches=(touch,)), strange])


def _quick(lock: Lock) -> _Command:
    """Changes the catalog alone."""

    def handle(table: Any, _command: Any, scene: Scene) -> Effect:
        return Effect(touches=(scene.touch(table, lock),))

    return handle


def _breaking(rule: str, words: str, lock: Lock = Lock.ACCESS_EXCLUSIVE) -> _Command:
    """Changes the catalog alone, and what the application sees or may do."""

    def handle(table: Any, command: Any, scene: Scene) -> Effect:
        touch = scene.touch(table, lock)
        text = words.format(table=touch.table, name=command.name or "")
        found = () if touch.is_new else (finding(rule, Level.WARNING, text),)
        return Effect(touches=(touch,), findings=found)

    return handle


def _rewrites(table: Any, _command: Any, scene: Scene) -> Effect:
    touch = scene.touch(table, Lock.ACCESS_EXCLUSIVE, Work.REWRITE)
    return Effect(
        touches=(touch,),
        findings=slow(
            "rewrites-table",
            f"{touch.table} is written anew while nobody else can read or write it.",
            "Do it in a maintenance window, or fill a new table or column in batches.",
            (),
            touch,
        ),
    )


def _add_constraint(table: Any, command: Any, scene: Scene) -> Effect:
    return add_constraint(table, command.def_, scene)


def _validate(table: Any, command: Any, scene: Scene) -> Effect:
    return validate(table, command.name, scene)


def _set_not_null(table: Any, command: Any, scene: Scene) -> Effect:
    return set_not_null(table, command.name, scene)


def _drop_constraint(table: Any, command: Any, scene: Scene) -> Effect:
    """Dropping a foreign key takes its triggers off the other table too."""
    touch = scene.touch(table, Lock.ACCESS_EXCLUSIVE)
    known = touch.facts.constraint(command.name) if touch.facts else None
    others: tuple[str, ...] = (known.references,) if known and known.references else ()
    if touch.facts and (known is None or known.kind in {"p", "u"}):
        is_cascade = command.behavior.name == "DROP_CASCADE"
        others = (*touch.facts.referenced_by, *touch.facts.references) if is_cascade else others
    return Effect(
        touches=(touch, *(scene.touch(each, Lock.ACCESS_EXCLUSIVE) for each in others)),
        findings=()
        if touch.is_new or (command.missing_ok and touch.facts and known is None)
        else (
            finding(
                "drops-constraint",
                Level.NOTE,
                f"Nothing checks {command.name} on {touch.table} any more.",
            ),
        ),
    )


def _alter_constraint(table: Any, command: Any, scene: Scene) -> Effect:
    """DEFERRABLE is a word in the catalog; ENFORCED (18) looks at every row."""
    lock, change = Lock.ACCESS_EXCLUSIVE, command.def_
    touch = scene.touch(table, lock)
    known = touch.facts.constraint(change.conname) if touch.facts else None
    others: tuple[str, ...] = (known.references,) if known and known.references else ()
    if touch.facts and known is None:
        others = touch.facts.references
    work = Work.CATALOG
    if getattr(change, "alterEnforceability", False) and change.is_enforced:
        work = Work.SCAN
    touches = (
        scene.touch(table, lock, work),
        *(scene.touch(each, lock) for each in others),
    )
    return Effect(touches=touches)


def _attach(table: Any, command: Any, scene: Scene) -> Effect:
    """The partition is read, unless a CHECK says that its rows belong there; so is the default."""
    exclusive = Lock.ACCESS_EXCLUSIVE
    parent = scene.touch(table, Lock.SHARE_UPDATE_EXCLUSIVE)
    child = scene.touch(command.def_.name, exclusive, Work.SCAN)
    touches = [parent, child]
    if parent.facts and parent.facts.default_partition:
        touches.append(scene.touch(parent.facts.default_partition, exclusive, Work.SCAN))
    others = [*(parent.facts.references if parent.facts else ())]
    touches += [scene.touch(each, Lock.SHARE_ROW_EXCLUSIVE, Work.SCAN) for each in others]
    return Effect(
        touches=tuple(touches),
        findings=slow(
            "attach-scans",
            f"{child.table} is read whole while nobody else can, to see that its rows belong.",
            "First add a CHECK with the partition's bounds, NOT VALID, and validate it; "
            "drop it afterwards.",
            (),
            child,
        ),
    )


def _detach(table: Any, command: Any, scene: Scene) -> Effect:
    child, is_concurrent = command.def_.name, bool(command.def_.concurrent)
    lock = Lock.SHARE_UPDATE_EXCLUSIVE if is_concurrent else Lock.ACCESS_EXCLUSIVE
    parent = scene.touch(table, lock)
    touches = [parent, scene.touch(child, Lock.ACCESS_EXCLUSIVE)]
    if parent.facts and parent.facts.default_partition:
        touches.append(scene.touch(parent.facts.default_partition, lock))
    touches += [
        scene.touch(each, Lock.ACCESS_EXCLUSIVE)
        for each in (parent.facts.references if parent.facts else ())
    ]
    if is_concurrent or parent.is_new:
        return Effect(touches=tuple(touches), must_be_alone=is_concurrent)
    offered = scene.major >= _CONCURRENT_DETACH_SINCE
    return Effect(
        touches=tuple(touches),
        findings=(
            finding(
                "detach-blocks",
                Level.WARNING,
                f"DETACH PARTITION waits for everybody who uses {parent.table}, and all wait "
                "for it.",
                "Detach it CONCURRENTLY, in a file of its own." if offered else "Use a window.",
                rewrites.detach_concurrently(table, command) if offered else (),
            ),
        ),
    )


def _inherit(table: Any, command: Any, scene: Scene) -> Effect:
    parent = scene.touch(command.def_, Lock.SHARE_UPDATE_EXCLUSIVE)
    return Effect(touches=(scene.touch(table, Lock.ACCESS_EXCLUSIVE), parent))


def _no_inherit(table: Any, command: Any, scene: Scene) -> Effect:
    parent = scene.touch(command.def_, Lock.ACCESS_EXCLUSIVE)
    return Effect(touches=(scene.touch(table, Lock.ACCESS_EXCLUSIVE), parent))


def _options(table: Any, command: Any, scene: Scene) -> Effect:
    names = {each.defname for each in command.def_ or ()}
    lock = Lock.SHARE_UPDATE_EXCLUSIVE if names <= _LIGHT_OPTIONS else Lock.ACCESS_EXCLUSIVE
    return Effect(touches=(scene.touch(table, lock),))


def _of_index(index: Any, command: Any, scene: Scene) -> Effect:
    """Planning looks at every index of a table: a lock on one stops the table's readers."""
    full = scene.facts.full_name(parts(index))
    table = scene.facts.indexes.get(full, full)
    light = command.subtype.name in {"AT_SetRelOptions", "AT_ResetRelOptions", "AT_SetStatistics"}
    lock = Lock.SHARE_UPDATE_EXCLUSIVE if light else Lock.ACCESS_EXCLUSIVE
    touch = scene.touch(table, lock)
    if command.subtype.name == "AT_SetTableSpace":
        touch = replace(touch, work=Work.SCAN, pace="index")
    return Effect(touches=(touch,))


def _of_type(node: Any) -> Effect:
    """A composite type: tables made OF it change too, and we do not look for them."""
    if not any(each.behavior.name == "DROP_CASCADE" for each in node.cmds):
        return Effect()
    return Effect(
        kind=StatementKind.OPAQUE,
        findings=(
            finding(
                "cascades", Level.WARNING, "CASCADE changes every table that is made of this type."
            ),
        ),
    )


# What another command on the table may rely on afterwards as before.
_LEAVES_STRUCTURE: Final = frozenset({
    "AT_ValidateConstraint", "AT_SetNotNull", "AT_SetStatistics", "AT_SetRelOptions",
    "AT_ResetRelOptions", "AT_SetOptions", "AT_ResetOptions", "AT_ColumnDefault", "AT_SetStorage",
    "AT_ClusterOn", "AT_DropCluster", "AT_ChangeOwner", "AT_ReplicaIdentity", "AT_EnableTrig",
    "AT_EnableTrigAll", "AT_EnableTrigUser", "AT_DisableTrig", "AT_DisableTrigAll",
    "AT_DisableTrigUser", "AT_EnableRowSecurity", "AT_DisableRowSecurity",
})  # fmt: skip

# reloptions.c, for tables: those that say ShareUpdateExclusiveLock.
_LIGHT_OPTIONS: Final = frozenset({
    "fillfactor", "parallel_workers", "toast_tuple_target", "vacuum_index_cleanup",
    "vacuum_truncate", "log_autovacuum_min_duration", "vacuum_max_eager_freeze_failure_rate",
    "autovacuum_enabled", "autovacuum_vacuum_threshold", "autovacuum_vacuum_max_threshold",
    "autovacuum_vacuum_insert_threshold", "autovacuum_analyze_threshold",
    "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_insert_scale_factor",
    "autovacuum_analyze_scale_factor", "autovacuum_vacuum_cost_delay",
    "autovacuum_vacuum_cost_limit", "autovacuum_freeze_min_age", "autovacuum_freeze_max_age",
    "autovacuum_freeze_table_age", "autovacuum_multixact_freeze_min_age",
    "autovacuum_multixact_freeze_max_age", "autovacuum_multixact_freeze_table_age",
})  # fmt: skip

_RLS_TEXT: Final = "Which rows of {table} a role sees, and may write, changes at once."
_TRIGGERS_TEXT: Final = "Triggers of {table}, foreign keys among them perhaps, change their duty."

COMMANDS: Final[Mapping[str, _Command]] = MappingProxyType(
    {
        "AT_AddColumn": add_column,
        "AT_DropColumn": drop_column,
        "AT_AlterColumnType": alter_type,
        "AT_AddConstraint": _add_constraint,
        "AT_DropConstraint": _drop_constraint,
        "AT_AlterConstraint": _alter_constraint,
        "AT_ValidateConstraint": _validate,
        "AT_SetNotNull": _set_not_null,
        "AT_AttachPartition": _attach,
        "AT_DetachPartition": _detach,
        "AT_DetachPartitionFinalize": _quick(Lock.ACCESS_EXCLUSIVE),
        "AT_AddInherit": _inherit,
        "AT_DropInherit": _no_inherit,
        "AT_SetRelOptions": _options,
        "AT_ResetRelOptions": _options,
        "AT_SetStatistics": _quick(Lock.SHARE_UPDATE_EXCLUSIVE),
        "AT_SetOptions": _quick(Lock.SHARE_UPDATE_EXCLUSIVE),
        "AT_ResetOptions": _quick(Lock.SHARE_UPDATE_EXCLUSIVE),
        "AT_ClusterOn": _quick(Lock.SHARE_UPDATE_EXCLUSIVE),
        "AT_DropCluster": _quick(Lock.SHARE_UPDATE_EXCLUSIVE),
        "AT_SetLogged": _rewrites,
        "AT_SetUnLogged": _rewrites,
        "AT_SetAccessMethod": _rewrites,
        "AT_SetTableSpace": _rewrites,
        "AT_SetExpression": _rewrites,
        "AT_EnableTrig": _quick(Lock.SHARE_ROW_EXCLUSIVE),
        "AT_EnableTrigAll": _quick(Lock.SHARE_ROW_EXCLUSIVE),
        "AT_EnableTrigUser": _quick(Lock.SHARE_ROW_EXCLUSIVE),
        "AT_EnableAlwaysTrig": _quick(Lock.SHARE_ROW_EXCLUSIVE),
        "AT_EnableReplicaTrig": _breaking(
            "changes-triggers", _TRIGGERS_TEXT, Lock.SHARE_ROW_EXCLUSIVE
        ),
        "AT_DisableTrig": _breaking("changes-triggers", _TRIGGERS_TEXT, Lock.SHARE_ROW_EXCLUSIVE),
        "AT_DisableTrigAll": _breaking(
            "changes-triggers", _TRIGGERS_TEXT, Lock.SHARE_ROW_EXCLUSIVE
        ),
        "AT_DisableTrigUser": _breaking(
            "changes-triggers", _TRIGGERS_TEXT, Lock.SHARE_ROW_EXCLUSIVE
        ),
        "AT_EnableRowSecurity": _breaking("changes-who-sees", _RLS_TEXT),
        "AT_DisableRowSecurity": _breaking("changes-who-sees", _RLS_TEXT),
        "AT_ForceRowSecurity": _breaking("changes-who-sees", _RLS_TEXT),
        "AT_NoForceRowSecurity": _breaking("changes-who-sees", _RLS_TEXT),
        "AT_ChangeOwner": _breaking("changes-owner", "{table} gets another owner."),
        **{
            name: _quick(Lock.ACCESS_EXCLUSIVE)
            for name in (
                "AT_ColumnDefault",
                "AT_DropNotNull",
                "AT_DropExpression",
                "AT_SetStorage",
                "AT_SetCompression",
                "AT_AlterColumnGenericOptions",
                "AT_DropOids",
                "AT_EnableRule",
                "AT_EnableAlwaysRule",
                "AT_EnableReplicaRule",
                "AT_DisableRule",
                "AT_AddOf",
                "AT_DropOf",
                "AT_ReplicaIdentity",
                "AT_GenericOptions",
                "AT_AddIdentity",
                "AT_SetIdentity",
                "AT_DropIdentity",
            )
        },
    }
)
