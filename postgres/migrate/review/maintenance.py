"""VACUUM, ANALYZE, CLUSTER, REINDEX and their like. Pure."""

from __future__ import annotations

from typing import Any, Final

from postgres.migrate.review import rewrites
from postgres.migrate.review.constraints import slow
from postgres.migrate.review.effects import Effect, Scene, finding
from postgres.migrate.review.nodes import is_on, parts
from postgres.migrate.words import Level, Lock, StatementKind, Work

_EVERYTHING: Final = "every table of the database"


def vacuum(node: Any, scene: Scene) -> Effect:
    """VACUUM (never in a transaction), ANALYZE (anywhere)."""
    is_full = bool(node.is_vacuumcmd) and is_on(node.options, "full")
    lock = Lock.ACCESS_EXCLUSIVE if is_full else Lock.SHARE_UPDATE_EXCLUSIVE
    work = Work.REWRITE if is_full else Work.SCAN
    pace = "" if node.is_vacuumcmd else "analyze"
    touches = [scene.touch(each.relation, lock, work, pace) for each in node.rels or ()]
    found = [
        each
        for touch in touches
        if is_full
        for each in slow(
            "rewrites-table",
            f"VACUUM FULL writes {touch.table} anew while nobody else can use it.",
            "Plain VACUUM frees the space for new rows; do this in a maintenance window.",
            (),
            touch,
        )
    ]
    if not touches:
        found.append(finding("whole-database", Level.WARNING, f"It goes through {_EVERYTHING}."))
    blind = StatementKind.BLOCKING if is_full else StatementKind.ONLINE
    return Effect(
        touches=tuple(touches),
        kind=StatementKind.ADDITIVE if touches else blind,
        must_be_alone=bool(node.is_vacuumcmd),
        findings=tuple(found),
    )


def cluster(node: Any, scene: Scene) -> Effect:
    """CLUSTER: a table in the order of an index, written anew."""
    if node.relation is None:
        text = f"It writes anew {_EVERYTHING} that was clustered before."
        return Effect(
            kind=StatementKind.BLOCKING,
            must_be_alone=True,
            findings=(finding("whole-database", Level.WARNING, text),),
        )
    touch = scene.touch(node.relation, Lock.ACCESS_EXCLUSIVE, Work.REWRITE)
    return Effect(
        touches=(touch,),
        findings=slow(
            "rewrites-table",
            f"CLUSTER writes {touch.table} anew while nobody else can use it.",
            "Do this in a maintenance window.",
            (),
            touch,
        ),
    )


def reindex(node: Any, scene: Scene) -> Effect:
    """REINDEX: whoever plans a query looks at each index, so readers wait as well."""
    is_concurrent = is_on(node.params, "concurrently")
    lock = Lock.SHARE_UPDATE_EXCLUSIVE if is_concurrent else Lock.ACCESS_EXCLUSIVE
    if node.relation is None:
        return Effect(
            kind=StatementKind.ONLINE if is_concurrent else StatementKind.BLOCKING,
            must_be_alone=True,
            findings=(
                finding("whole-database", Level.WARNING, "It builds every index of a schema anew."),
            ),
        )
    full = scene.facts.full_name(parts(node.relation))
    touch = scene.touch(scene.facts.indexes.get(full, full), lock, Work.SCAN, "index")
    is_split = touch.facts is not None and touch.facts.kind == "p"
    found = slow(
        "reindex-blocks",
        f"Nobody can use {touch.table} until the index is built: its queries look at it.",
        "Do it CONCURRENTLY, in a file of its own.",
        rewrites.reindex_concurrently(node),
        touch,
    )
    return Effect(
        touches=(touch,),
        must_be_alone=is_concurrent or is_split,
        findings=() if is_concurrent else found,
    )


def comment(node: Any, scene: Scene) -> Effect:
    """COMMENT ON, SECURITY LABEL: what is named is locked against other DDL."""
    kind, name = node.objtype.name, parts(node.object)
    shares = Lock.SHARE_UPDATE_EXCLUSIVE
    if kind in {"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE"}:
        return Effect(touches=(scene.touch(".".join(name[-2:]), shares),))
    if kind == "OBJECT_INDEX":
        table = scene.facts.indexes.get(scene.facts.full_name(name))
        return Effect(touches=(scene.touch(table, shares),) if table else ())
    if kind in {"OBJECT_COLUMN", "OBJECT_TABCONSTRAINT", "OBJECT_TRIGGER", "OBJECT_POLICY",
                "OBJECT_RULE"}:  # fmt: skip
        return Effect(touches=(scene.touch(".".join(name[:-1][-2:]), shares),))
    return Effect()
