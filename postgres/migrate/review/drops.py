"""What goes away or gets another name: DROP, TRUNCATE, RENAME, SET SCHEMA. Pure."""

from __future__ import annotations

from typing import Any, Final

from postgres.migrate.review import rewrites
from postgres.migrate.review.effects import Effect, Scene, Touch, finding, together
from postgres.migrate.review.facts import NO_PAST, Past
from postgres.migrate.review.nodes import parts
from postgres.migrate.words import Level, Lock, StatementKind, Work

_LOCK: Final = Lock.ACCESS_EXCLUSIVE
_WITH_ROWS: Final = {
    "OBJECT_TABLE": "table",
    "OBJECT_FOREIGN_TABLE": "foreign table",
    "OBJECT_MATVIEW": "materialized view",
    "OBJECT_SEQUENCE": "sequence",
}
# Their last part but one names the table that they belong to.
_OF_TABLES: Final = frozenset({"OBJECT_TRIGGER", "OBJECT_POLICY", "OBJECT_RULE"})
# What brings rows or columns of its own, or is the type of a column.
_CARRIES: Final = {
    "OBJECT_SCHEMA": "schema",
    "OBJECT_EXTENSION": "extension",
    "OBJECT_FOREIGN_SERVER": "server",
    "OBJECT_FDW": "foreign data wrapper",
}
_RENAMED: Final = {
    "OBJECT_TABLE": "table", "OBJECT_COLUMN": "column", "OBJECT_VIEW": "view",
    "OBJECT_MATVIEW": "materialized view", "OBJECT_FUNCTION": "function",
    "OBJECT_PROCEDURE": "procedure", "OBJECT_ROUTINE": "function", "OBJECT_TYPE": "type",
    "OBJECT_SCHEMA": "schema", "OBJECT_SEQUENCE": "sequence", "OBJECT_DOMAIN": "domain",
    "OBJECT_ATTRIBUTE": "attribute", "OBJECT_FOREIGN_TABLE": "foreign table",
    "OBJECT_ROLE": "role", "OBJECT_DATABASE": "database",
}  # fmt: skip
_RELATIONS: Final = frozenset({
    "OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE", "OBJECT_COLUMN",
    "OBJECT_TABCONSTRAINT", "OBJECT_TRIGGER", "OBJECT_POLICY", "OBJECT_RULE",
})  # fmt: skip


def drop(node: Any, scene: Scene) -> Effect:
    """`DROP …` of nearly everything."""
    kind = node.removeType.name
    is_cascade = node.behavior.name == "DROP_CASCADE"
    if kind == "OBJECT_INDEX":
        return _index(node, scene)
    names = [parts(each) for each in node.objects]
    if kind in _OF_TABLES:
        return together(Effect(touches=(scene.touch(_table_of(n), _LOCK),)) for n in names)
    effects = [_one(kind, name, scene) for name in names]
    if is_cascade:
        effects += [_cascade(kind, name, scene) for name in names]
    return together(effects)


def truncate(node: Any, scene: Scene) -> Effect:
    """TRUNCATE: every row, at once."""
    touches = [scene.touch(each, _LOCK, Work.REWRITE, "truncate") for each in node.relations]
    if node.behavior.name == "DROP_CASCADE":
        others = (name for t in touches if t.facts for name in t.facts.referenced_by)
        touches += [scene.touch(each, _LOCK, Work.REWRITE, "truncate") for each in others]
    lost = [f"all rows of {touch.table}" for touch in touches if not touch.is_new]
    return Effect(
        touches=tuple(touches),
        destroys=tuple(lost),
        findings=(
            finding(
                "truncates",
                Level.WARNING,
                f"TRUNCATE: {', '.join(lost)} would be gone.",
                "Keep the rows aside, or delete what is not needed in batches.",
            ),
        )
        if lost
        else (),
    )


def rename(node: Any, scene: Scene) -> Effect:
    """RENAME: over at once, and from then on whoever uses the old name gets an error."""
    kind = node.renameType.name
    if kind == "OBJECT_INDEX":
        full = scene.facts.full_name(parts(node.relation))
        table = scene.facts.indexes.get(full)
        touches = (scene.touch(table, Lock.SHARE_UPDATE_EXCLUSIVE),) if table else ()
        return Effect(touches=touches)
    touches = ()
    if kind in _RELATIONS and node.relation is not None:
        touches = (scene.touch(node.relation, _LOCK),)
    effect = Effect(
        touches=touches, makes=_made(node, scene, kind), past=_renamed(node, scene, kind)
    )
    if kind not in _RENAMED or (touches and touches[0].is_new):
        return effect
    old = f"{_RENAMED[kind]} {node.subname or (touches[0].table if touches else 'of old')}"
    found = finding(
        "renames",
        Level.WARNING,
        f"Whoever uses the old name of the {old} gets an error from then on: {node.newname} is "
        "another name to every version of the application that runs.",
        _RENAME_HELP.get(kind, "Make the new one beside the old, and drop the old one later."),
    )
    return together([effect, Effect(findings=(found,))])


def set_schema(node: Any, scene: Scene) -> Effect:
    """`SET SCHEMA`: a rename by another word."""
    touches: tuple[Touch, ...] = ()
    past = NO_PAST
    if node.relation is not None and node.objectType.name != "OBJECT_SEQUENCE":
        touches = (scene.touch(node.relation, _LOCK),)
        moved = f"{node.newschema}.{node.relation.relname}"
        past = _alias(moved, touches[0].table)
        if touches[0].is_new:
            return Effect(touches=touches, makes=frozenset({moved}))
    text = "It moves to another schema: whoever uses its old name gets an error from then on."
    return Effect(
        touches=touches,
        past=past,
        findings=(finding("renames", Level.WARNING, text, _RENAME_HELP["OBJECT_TABLE"]),),
    )


_RENAME_HELP: Final = {
    "OBJECT_COLUMN": "Expand and contract: add the new column, keep both in step by a trigger, "
    "fill it in batches, deploy, and drop the old one later (/db change).",
    "OBJECT_TABLE": "Rename it and leave a view with the old name in the same transaction: simple "
    "reads and writes go through it.",
}


def _renamed(node: Any, scene: Scene, kind: str) -> Past:
    """Later statements use the new name, and find the old table's rows."""
    if node.relation is None:
        return NO_PAST
    old = scene.named(node.relation)
    doubt = Past(doubted=frozenset({old}))
    if kind not in {"OBJECT_TABLE", "OBJECT_MATVIEW", "OBJECT_VIEW"} or old in scene.makes:
        return doubt
    written = scene.facts.full_name(parts(node.relation))
    return doubt.then(_alias(f"{written.rpartition('.')[0]}.{node.newname}", old))


def _alias(new: str, old: str) -> Past:
    return Past(aliases={new: old})


def _made(node: Any, scene: Scene, kind: str) -> frozenset[str]:
    """A table of this file stays one under its new name."""
    if kind not in {"OBJECT_TABLE", "OBJECT_MATVIEW", "OBJECT_VIEW"} or node.relation is None:
        return frozenset()
    old = scene.named(node.relation)
    if old not in scene.makes:
        return frozenset()
    return frozenset({f"{old.rpartition('.')[0]}.{node.newname}"})


def _index(node: Any, scene: Scene) -> Effect:
    lock = Lock.SHARE_UPDATE_EXCLUSIVE if node.concurrent else _LOCK
    touches: list[Touch] = []
    for each in node.objects:
        full = scene.facts.full_name(parts(each))
        touches.append(scene.touch(scene.facts.indexes.get(full, full), lock))
    if node.concurrent or all(touch.is_new for touch in touches):
        return Effect(touches=tuple(touches), must_be_alone=bool(node.concurrent))
    return Effect(
        touches=tuple(touches),
        findings=(
            finding(
                "drops-index-blocking",
                Level.WARNING,
                "DROP INDEX waits for everybody who uses the table, and all others wait for it.",
                "Drop it CONCURRENTLY, in a file of its own.",
                rewrites.drop_concurrently(node),
            ),
        ),
    )


def _one(kind: str, name: tuple[str, ...], scene: Scene) -> Effect:
    if kind in _WITH_ROWS:
        return _with_rows(kind, name, scene)
    if kind == "OBJECT_VIEW":
        return Effect(touches=(scene.touch(".".join(name), _LOCK),))
    if kind in _CARRIES:
        lost = f"{_CARRIES[kind]} {'.'.join(name)}"
        inside = f"{name[-1]}." if kind == "OBJECT_SCHEMA" else "\0"
        touches = [
            scene.touch(table, _LOCK) for table in scene.facts.tables if table.startswith(inside)
        ]
        gone = Effect(touches=tuple(touches))
        return together([gone, _lost(lost, "drops-" + _CARRIES[kind].replace(" ", "-"))])
    return Effect()


def _with_rows(kind: str, name: tuple[str, ...], scene: Scene) -> Effect:
    """Dropping a table takes the triggers of its foreign keys off the tables they point to."""
    touch = scene.touch(".".join(name[-2:]), _LOCK)
    if touch.is_new:
        return Effect(touches=(touch,))
    if kind == "OBJECT_SEQUENCE":
        return _lost(f"sequence {touch.table}", "drops-sequence")
    known = touch.facts
    others = (*known.references, *known.parents) if known else ()
    effect = Effect(touches=(touch, *(scene.touch(each, _LOCK) for each in others)))
    return together([effect, _lost(f"{_WITH_ROWS[kind]} {touch.table}", "drops-table")])


def _lost(what: str, rule: str) -> Effect:
    return Effect(
        destroys=(what,),
        findings=(
            finding(
                rule,
                Level.WARNING,
                f"The {what} is gone, and whoever still uses it gets an error.",
                "Deploy what no longer uses it first; then keep it aside for some days (/db aside) "
                "instead of "
                "dropping it.",
            ),
        ),
    )


def _cascade(kind: str, name: tuple[str, ...], scene: Scene) -> Effect:
    """CASCADE: nobody sees in the statement what goes along."""
    touch = scene.touch(".".join(name[-2:]), _LOCK)
    if touch.is_new and kind in _WITH_ROWS:
        return Effect()
    others = touch.facts.referenced_by if touch.facts else ()
    dotted = ".".join(name)
    return Effect(
        kind=StatementKind.DESTRUCTIVE,
        touches=tuple(scene.touch(each, _LOCK) for each in others),
        destroys=(f"whatever depends on {dotted}",),
        findings=(
            finding(
                "cascades",
                Level.WARNING,
                f"CASCADE takes along whatever depends on {dotted}: columns, defaults, views, "
                "foreign keys.",
                "Drop what depends on it by name, so that everybody sees it.",
            ),
        ),
    )


def _table_of(name: tuple[str, ...]) -> str:
    return ".".join(name[:-1][-2:])
