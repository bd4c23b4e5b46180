"""Constraints: which lock adding one takes on which table, and who reads rows for it. Pure."""

from __future__ import annotations

from typing import Any, Final

from postgres.migrate.review import rewrites
from postgres.migrate.review.calls import unknown_calls
from postgres.migrate.review.effects import Effect, Scene, finding, opaque, together
from postgres.migrate.review.facts import NO_PAST, Past
from postgres.migrate.review.nodes import kind_of, parts
from postgres.migrate.words import Finding, Level, Lock, Work

_INDEXED: Final = frozenset({"CONSTR_PRIMARY", "CONSTR_UNIQUE", "CONSTR_EXCLUSION"})
# Properties of the constraint before them.
_ATTRIBUTES: Final = frozenset({
    "CONSTR_ATTR_DEFERRABLE", "CONSTR_ATTR_NOT_DEFERRABLE", "CONSTR_ATTR_DEFERRED",
    "CONSTR_ATTR_IMMEDIATE", "CONSTR_ATTR_ENFORCED", "CONSTR_ATTR_NOT_ENFORCED",
})  # fmt: skip


def add_constraint(table: Any, constraint: Any, scene: Scene) -> Effect:
    """`ALTER TABLE … ADD CONSTRAINT`. `table` is its RangeVar."""
    match constraint.contype.name:
        case "CONSTR_FOREIGN":
            return _foreign_key(table, constraint, scene)
        case "CONSTR_CHECK":
            return _check(table, constraint, scene)
        case "CONSTR_NOTNULL":
            return _not_null(table, constraint, scene)
        case kind if kind in _INDEXED:
            return _indexed(table, constraint, scene)
        case kind:
            touch = scene.touch(table, Lock.ACCESS_EXCLUSIVE, Work.UNKNOWN)
            strange = opaque("unknown-statement", f"We do not know {kind}.", level=Level.ERROR)
            return together([Effect(touches=(touch,)), strange])


def validate(table: Any, name: str, scene: Scene) -> Effect:
    """`VALIDATE CONSTRAINT`: reads everything and stops nobody."""
    found = scene.touch(table, Lock.SHARE_UPDATE_EXCLUSIVE, Work.SCAN)
    touches = [found]
    known = found.facts.constraint(name) if found.facts else None
    if known is not None and known.references:
        touches = [
            scene.touch(table, Lock.SHARE_UPDATE_EXCLUSIVE, Work.SCAN, "foreign key"),
            scene.touch(known.references, Lock.ROW_SHARE),
        ]
    column = scene.past.promises.get((found.table, name)) or (known.not_null if known else "")
    return Effect(
        touches=tuple(touches),
        past=_proven(found.table, column),
    )


def set_not_null(table: Any, column: str, scene: Scene) -> Effect:
    """`SET NOT NULL`: looks at every row, unless a valid CHECK already says so (12+)."""
    touch = scene.touch(table, Lock.ACCESS_EXCLUSIVE)
    if is_never_null(touch.table, column, scene):
        return Effect(touches=(touch,), past=_proven(touch.table, column))
    touch = scene.touch(table, Lock.ACCESS_EXCLUSIVE, Work.SCAN)
    return Effect(
        touches=(touch,),
        past=_proven(touch.table, column),
        findings=slow(
            "set-not-null-scans",
            f"SET NOT NULL reads all of {touch.table} while nobody else can.",
            "First prove it with a CHECK that is validated while the table stays in use.",
            rewrites.not_null(table, column),
            touch,
        ),
    )


def is_never_null(table: str, column: str, scene: Scene) -> bool:
    """Whether the catalog, or this file before, has proven that no row has a null there."""
    if (table, column) in scene.past.checks:
        return True
    known = None if table in scene.past.doubted else scene.facts.tables.get(table)
    return known is not None and column in known.never_null


def _proven(table: str, column: str) -> Past:
    return Past(checks=frozenset({(table, column)})) if column else NO_PAST


def slow(rule: str, text: str, help_text: str, rewrite: Any, touch: Any) -> tuple[Finding, ...]:
    """A finding about work under a lock: a note on a small table, none on a new one.

    Never an error: in a maintenance window, by those whom the policy asks, it may be right.
    """
    if touch.is_new:
        return ()
    level = Level.NOTE if touch.is_small else Level.WARNING
    return (finding(rule, level, text, help_text, rewrite),)


def _foreign_key(table: Any, constraint: Any, scene: Scene) -> Effect:
    lock = Lock.SHARE_ROW_EXCLUSIVE
    other = scene.touch(constraint.pktable, lock)
    if constraint.skip_validation:  # NOT VALID; NOT ENFORCED says so too
        return Effect(touches=(scene.touch(table, lock), other))
    touch = scene.touch(table, lock, Work.SCAN, "foreign key")
    return Effect(
        touches=(touch, other),
        findings=slow(
            "foreign-key-scans",
            f"Nobody can write to {touch.table} or {other.table} while every row is looked up.",
            "Add it NOT VALID, and validate it in a transaction of its own.",
            rewrites.not_valid(table, constraint),
            touch,
        ),
    )


def _check(table: Any, constraint: Any, scene: Scene) -> Effect:
    touch = scene.touch(table, Lock.ACCESS_EXCLUSIVE)
    column = null_test(constraint.raw_expr)
    if constraint.skip_validation:
        is_promise = bool(column and constraint.conname and constraint.is_enforced)
        promised = {(touch.table, constraint.conname): column} if is_promise else {}
        return Effect(touches=(touch,), past=Past(promises=promised))
    touch = scene.touch(table, Lock.ACCESS_EXCLUSIVE, Work.SCAN)
    proven = Effect(
        touches=(touch,),
        past=_proven(touch.table, column),
        findings=slow(
            "check-scans",
            f"The CHECK reads all of {touch.table} while nobody else can.",
            "Add it NOT VALID, and validate it in a transaction of its own.",
            rewrites.not_valid(table, constraint),
            touch,
        ),
    )
    return together([proven, called(constraint.raw_expr, scene)])


def called(expression: Any, scene: Scene) -> Effect:
    """What running an expression may do: nothing, or nobody knows."""
    if names := unknown_calls(expression, scene):
        return opaque("opaque-function", f"It runs {', '.join(names[:5])}, which may do anything.")
    return Effect()


def _not_null(table: Any, constraint: Any, scene: Scene) -> Effect:
    """`ADD CONSTRAINT … NOT NULL column`, since 18."""
    column = (parts(constraint.keys) or ("",))[0]
    if constraint.skip_validation:
        touch = scene.touch(table, Lock.ACCESS_EXCLUSIVE)
        promised = {(touch.table, constraint.conname): column} if constraint.conname else {}
        return Effect(touches=(touch,), past=Past(promises=promised))
    return set_not_null(table, column, scene)


def _indexed(table: Any, constraint: Any, scene: Scene) -> Effect:
    lock = Lock.ACCESS_EXCLUSIVE
    if constraint.indexname:
        return _by_index(table, constraint, scene)
    touch = scene.touch(table, lock, Work.SCAN, "index")
    is_exclusion = constraint.contype.name == "CONSTR_EXCLUSION"
    built = Effect(
        touches=(touch,),
        findings=slow(
            "constraint-builds-index",
            f"Its index is built from all of {touch.table} while nobody else can use it.",
            "No index of an EXCLUDE constraint can be built beforehand: it needs a window."
            if is_exclusion
            else "Build the index CONCURRENTLY first, and let the constraint use it.",
            () if is_exclusion else rewrites.using_index(table, constraint),
            touch,
        ),
    )
    return together([built, called(constraint, scene)])


def _by_index(table: Any, constraint: Any, scene: Scene) -> Effect:
    """A primary key makes its columns NOT NULL: a scan, unless they are so already."""
    touch = scene.touch(table, Lock.ACCESS_EXCLUSIVE)
    if constraint.contype.name != "CONSTR_PRIMARY":
        return Effect(touches=(touch,))
    known = scene.structure(touch)
    columns = (known.index_columns.get(constraint.indexname) or known.columns) if known else ()
    if touch.is_new or (columns and all(is_never_null(touch.table, c, scene) for c in columns)):
        return Effect(touches=(touch,))
    return Effect(
        touches=(scene.touch(table, Lock.ACCESS_EXCLUSIVE, Work.SCAN),),
        findings=slow(
            "set-not-null-scans",
            f"A primary key makes its columns NOT NULL: it may read all of {touch.table} "
            "while nobody else can.",
            "Make the columns NOT NULL first, by a CHECK that was validated.",
            (),
            touch,
        ),
    )


def null_test(expression: Any) -> str:
    """The column of `column IS NOT NULL`, where the expression says that and nothing else."""
    if kind_of(expression) != "NullTest" or expression.nulltesttype.name != "IS_NOT_NULL":
        return ""
    if kind_of(expression.arg) != "ColumnRef":
        return ""
    return parts(expression.arg.fields)[-1]
