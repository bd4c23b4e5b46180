"""Statements about rows: SELECT, INSERT, UPDATE, DELETE, MERGE, COPY, LOCK. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from postgres.migrate.review import rewrites
from postgres.migrate.review.creates import reading
from postgres.migrate.review.effects import (
    Effect,
    Scene,
    finding,
    opaque,
    refused,
    together,
)
from postgres.migrate.review.nodes import constant, dml_of, kind_of, of_kind, parts
from postgres.migrate.review.settings import set_config
from postgres.migrate.words import Finding, Level, Lock, StatementKind, Work

# research/migrations.md: DML without WHERE or over more rows than this is to be a backfill.
MANY_ROWS: Final = 100_000
_ENDS_OTHERS: Final = frozenset({"pg_terminate_backend", "pg_cancel_backend"})
_LOCKS: Final = {lock.value: lock for lock in Lock}


def rows(node: Any, scene: Scene) -> Effect:
    """SELECT, VALUES, INSERT, UPDATE, DELETE, MERGE, with whatever stands in their WITH."""
    effects = [_query(node, scene)]
    effects += [_writing(each, scene) for each in dml_of(node)]
    effects += _tricks(node)
    if kind_of(node) == "SelectStmt":
        effects.append(_select(node, scene))
    return together(effects)


def explain(node: Any, scene: Scene) -> Effect:
    """EXPLAIN ANALYZE does what it explains; EXPLAIN alone only plans."""
    return rows(node.query, scene) if dml_of(node.query) else reading(node.query, scene)


def copy(node: Any, _scene: Scene) -> Effect:
    """COPY: nothing of it has a place in a migration, but a table to a program least of all."""
    if node.is_program:
        return refused(
            "copy-program",
            "COPY … PROGRAM runs a command on the database's host.",
            "Take it out.",
        )
    if node.filename:
        return refused(
            "copy-file",
            "COPY reads or writes a file on the database's host.",
            "Load rows with psql's \\copy, outside of migrations.",
        )
    return refused(
        "copy-stdin",
        "COPY … FROM stdin needs rows that no file of statements can bring.",
        "Write INSERT statements, or load the rows outside of migrations.",
    )


def lock(node: Any, scene: Scene) -> Effect:
    """LOCK TABLE: held until the transaction ends."""
    mode = _LOCKS[node.mode]
    touches = tuple(scene.touch(each, mode) for each in node.relations)
    names = ", ".join(touch.table for touch in touches)
    return Effect(
        touches=touches,
        kind=StatementKind.BLOCKING if mode >= Lock.SHARE else StatementKind.ADDITIVE,
        findings=(
            finding(
                "explicit-lock",
                Level.WARNING,
                f"LOCK TABLE keeps {names} in {mode.words} until the transaction ends.",
                "Leave it out: each statement takes the lock that it needs.",
            ),
        ),
    )


def refresh(node: Any, scene: Scene) -> Effect:
    """REFRESH MATERIALIZED VIEW: nobody reads it meanwhile, unless CONCURRENTLY."""
    if node.concurrent:
        return Effect(touches=(scene.touch(node.relation, Lock.EXCLUSIVE, Work.SCAN),))
    touch = scene.touch(node.relation, Lock.ACCESS_EXCLUSIVE, Work.REWRITE)
    known = () if touch.is_new else rewrites.refresh_concurrently(node)
    return Effect(
        touches=(touch,),
        findings=()
        if touch.is_new
        else (
            finding(
                "refresh-blocks",
                Level.WARNING,
                f"Nobody can read {touch.table} until its query has run.",
                "Refresh it CONCURRENTLY; that needs a unique index over all of its rows.",
                known,
            ),
        ),
    )


def _query(node: Any, scene: Scene) -> Effect:
    """What is read, and the functions that run."""
    effect = reading(node, scene)
    if any(True for _ in of_kind(node, "LockingClause")):
        touches = tuple(
            replace(touch, lock=max(touch.lock, Lock.ROW_SHARE)) for touch in effect.touches
        )
        effect = replace(effect, touches=touches)
    return effect


def _select(node: Any, scene: Scene) -> Effect:
    """SELECT … INTO makes a table."""
    if node.intoClause is None:
        return Effect()
    full = scene.facts.full_name(parts(node.intoClause.rel))
    return Effect(makes=frozenset({full} - scene.facts.tables.keys()))


def _writing(node: Any, scene: Scene) -> Effect:
    touch = scene.touch(node.relation, Lock.ROW_EXCLUSIVE)
    if touch.is_new:
        return Effect(touches=(touch,))
    name = parts(node.relation)
    if name[0] == "pg_catalog" or (len(name) == 1 and name[0].startswith("pg_")):
        return opaque(
            "catalog-write",
            f"It writes to PostgreSQL's own catalog ({'.'.join(name)}).",
            level=Level.ERROR,
            help_text="Use the statement that is made for it.",
        )
    base = Effect(touches=(touch,), kind=StatementKind.DATA, findings=_fires(touch))
    match kind_of(node):
        case "UpdateStmt":
            return together([base, _update(node, scene)])
        case "DeleteStmt":
            return together([base, _delete(node, scene)])
        case "MergeStmt":
            return together([base, _merge(node, scene)])
        case _:
            return together([base, _insert(node, scene)])


def _update(node: Any, scene: Scene) -> Effect:
    touch = scene.touch(node.relation, Lock.ROW_EXCLUSIVE, Work.SCAN, "update")
    touch = replace(touch, changes_rows=True)
    known = touch.facts
    line = rewrites.backfill_line(node, touch.table)
    advice = f"Make it a backfill: {line}" if line else "Make it a backfill (/db backfill)."
    if node.whereClause is None and not node.fromClause:
        level = Level.NOTE if _is_few(known) else Level.WARNING
        text = f"UPDATE without WHERE: every row of {touch.table} is locked until it is over."
        found: tuple[Finding, ...] = (finding("update-without-where", level, text, advice),)
    elif not _is_few(known):
        text = (
            f"It may change many of the {known.rows or 0:,} rows of {touch.table}: each stays "
            "locked until the transaction ends."
            if known
            else f"Nobody knows how many rows of {touch.table} it changes."
        )
        found = (finding("large-update", Level.WARNING, text, advice),)
    else:
        found = ()
    return Effect(touches=(touch,), kind=StatementKind.DATA, findings=found)


def _delete(node: Any, scene: Scene) -> Effect:
    touch = scene.touch(node.relation, Lock.ROW_EXCLUSIVE, Work.SCAN, "update")
    others = touch.facts.referenced_by if touch.facts else ()
    touches = (
        replace(touch, changes_rows=True),
        *(scene.touch(each, Lock.ROW_EXCLUSIVE) for each in others),
    )
    if node.whereClause is None and not node.usingClause:
        text = f"DELETE without WHERE: all rows of {touch.table} would be gone."
        return Effect(
            touches=touches,
            destroys=(f"all rows of {touch.table}",),
            findings=(
                finding(
                    "delete-without-where",
                    Level.WARNING,
                    text,
                    "Say which rows, and delete them in batches by their key.",
                ),
            ),
        )
    found: tuple[Finding, ...] = ()
    if not _is_few(touch.facts):
        text = f"It looks through all of {touch.table}, and locks what it deletes until the end."
        found = (finding("large-delete", Level.WARNING, text, "Delete in batches by the key."),)
    return Effect(touches=touches, destroys=(f"rows of {touch.table} that match",), findings=found)


def _merge(node: Any, scene: Scene) -> Effect:
    touch = scene.touch(node.relation, Lock.ROW_EXCLUSIVE, Work.SCAN, "update")
    commands = {each.commandType.name for each in node.mergeWhenClauses or ()}
    lost = (f"rows of {touch.table} that match",) if "CMD_DELETE" in commands else ()
    return Effect(touches=(replace(touch, changes_rows=True),), destroys=lost)


def _insert(node: Any, scene: Scene) -> Effect:
    """Foreign keys look at the other table; ON CONFLICT DO UPDATE changes rows."""
    touch = scene.touch(node.relation, Lock.ROW_EXCLUSIVE)
    others = touch.facts.references if touch.facts else ()
    return Effect(touches=(touch, *(scene.touch(each, Lock.ROW_SHARE) for each in others)))


def _fires(touch: Any) -> tuple[Any, ...]:
    known = touch.facts
    if known is None or not (known.triggers or known.has_rules):
        return ()
    what = f"triggers {', '.join(known.triggers[:5])}" if known.triggers else "rules"
    text = f"{touch.table} has {what}: they run for these rows, and may change others."
    return (finding("fires-triggers", Level.WARNING, text),)


def _is_few(known: Any) -> bool:
    return known is not None and known.rows is not None and known.rows <= MANY_ROWS


def _tricks(node: Any) -> list[Effect]:
    """Functions that a migration must not call, by name."""
    found: list[Effect] = []
    for each in of_kind(node, "FuncCall"):
        name = parts(each.funcname)[-1]
        if name in _ENDS_OTHERS:
            found.append(
                refused(
                    "ends-sessions",
                    f"{name}() ends what others do.",
                    "Ask for it on its own: /db terminate-backend or /db cancel-backend.",
                )
            )
        elif name == "set_config":
            found.append(set_config([constant(arg) for arg in each.args or ()]))
    return found
