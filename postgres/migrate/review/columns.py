"""Columns: adding, changing and dropping them. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from postgres.migrate.review import rewrites
from postgres.migrate.review.calls import is_volatile
from postgres.migrate.review.column_types import is_checked, is_serial, loses, needs_rewrite
from postgres.migrate.review.constraints import called, slow
from postgres.migrate.review.effects import Effect, Scene, finding, together
from postgres.migrate.words import Level, Lock, Work

_LOCK: Final = Lock.ACCESS_EXCLUSIVE
_INDEXED: Final = frozenset({"CONSTR_PRIMARY", "CONSTR_UNIQUE"})


def add_column(table: Any, command: Any, scene: Scene) -> Effect:
    """ADD COLUMN: the catalog alone, unless every row needs a value of its own, or a look."""
    column = command.def_
    given = {each.contype.name: each for each in column.constraints or ()}
    default = given.get("CONSTR_DEFAULT")
    why = _why_rewritten(column, given, scene)
    touch = scene.touch(table, _LOCK, Work.REWRITE if why else _work(given))
    effects = [Effect(touches=(touch,)), _references(given, scene)]
    effects += [called(each.raw_expr, scene) for each in given.values() if each.raw_expr]
    if why:
        effects.append(Effect(findings=_slow_column(why, table, column, touch)))
    elif touch.work is Work.SCAN:
        effects.append(Effect(findings=_looked_at(given, touch)))
    if "CONSTR_NOTNULL" in given and not (default or why) and not touch.is_new:
        effects.append(_without_default(column.colname, touch.table))
    return together(effects)


def alter_type(table: Any, command: Any, scene: Scene) -> Effect:
    """ALTER COLUMN … TYPE: what PostgreSQL does without touching rows, or a rewrite."""
    touch = scene.touch(table, _LOCK)
    known = scene.structure(touch)
    column = known.columns.get(command.name) if known else None
    is_rewrite = needs_rewrite(column, command.def_)
    work = Work.REWRITE if is_rewrite else _checks_again(known, command.name)
    touch = replace(touch, work=work)
    lost = not touch.is_new and loses(column, command.def_)
    name = f"{touch.table}.{command.name}"
    text = f"{touch.table} is written anew, with its indexes, while nobody else can use it."
    effect = Effect(
        touches=(touch, *_others(touch.facts, command.name, scene, is_rewrite=is_rewrite)),
        destroys=(f"what does not fit the new type of {name}",) if lost else (),
        findings=slow(
            "changes-type",
            text,
            "Declare a change of type (/db change): a column beside the old one, kept in step by "
            "a trigger, filled in batches, and switched.",
            rewrites.shadow_column(table, command),
            touch,
        )
        if is_rewrite
        else (),
    )
    using = command.def_.raw_default
    return together([effect, called(using, scene)]) if using is not None else effect


def drop_column(table: Any, command: Any, scene: Scene) -> Effect:
    """DROP COLUMN: over in milliseconds, and nothing brings the values back."""
    touch = scene.touch(table, _LOCK)
    if touch.is_new:
        return Effect(touches=(touch,))
    name = f"{touch.table}.{command.name}"
    is_cascade = command.behavior.name == "DROP_CASCADE"
    others = touch.facts.references if touch.facts else ()
    if touch.facts and is_cascade:
        others = (*others, *touch.facts.referenced_by)
    lost = (f"column {name}", *(("whatever depends on it",) if is_cascade else ()))
    return Effect(
        touches=(touch, *(scene.touch(each, _LOCK) for each in others)),
        destroys=lost,
        findings=(
            finding(
                "drops-column",
                Level.WARNING,
                f"The values of {name} are gone, and whoever still names it gets an error.",
                "Deploy what no longer reads it first; then keep the values aside for some days "
                "(/db aside).",
            ),
        ),
    )


def _why_rewritten(column: Any, given: Any, scene: Scene) -> str:
    """Why every row is written anew, or ''."""
    generated = given.get("CONSTR_GENERATED")
    default = given.get("CONSTR_DEFAULT")
    if generated is not None and generated.generated_kind != "v":
        return "a stored generated column"
    if "CONSTR_IDENTITY" in given or column.identity not in {None, "\0", ""}:
        return "a number of its own for every row"
    if is_serial(column.typeName):
        return "a number of its own for every row"
    if is_checked(column.typeName, scene):
        return "a domain that checks every row"
    if default is not None and is_volatile(default.raw_expr, scene):
        return "a default that is another for every row"
    return ""


def _work(given: Any) -> Work:
    """Whether rows are looked at although nothing is written."""
    if _INDEXED & given.keys() or "CONSTR_CHECK" in given:
        return Work.SCAN
    if "CONSTR_FOREIGN" in given and "CONSTR_DEFAULT" in given:
        return Work.SCAN
    is_required = "CONSTR_NOTNULL" in given and "CONSTR_DEFAULT" not in given
    return Work.SCAN if is_required else Work.CATALOG


def _references(given: Any, scene: Scene) -> Effect:
    if "CONSTR_FOREIGN" not in given:
        return Effect()
    other = given["CONSTR_FOREIGN"].pktable
    return Effect(touches=(scene.touch(other, Lock.SHARE_ROW_EXCLUSIVE),))


def _slow_column(why: str, table: Any, column: Any, touch: Any) -> Any:
    can_wait = why.startswith("a default")
    filled = ""
    if can_wait:
        default = next(c for c in column.constraints if c.contype.name == "CONSTR_DEFAULT")
        name = column.colname
        text = f"{name} = {rewrites.text_of(default.raw_expr)}"
        filled = f" Between: {rewrites.command(touch.table, text, f'{name} IS NULL')}"
    return slow(
        "adds-column-rewriting",
        f"{touch.table} is written anew while nobody else can use it, for {why}.",
        f"Add the column bare, then its default, and fill the old rows in batches.{filled}",
        rewrites.column_in_steps(table, column) if can_wait else (),
        touch,
    )


def _looked_at(given: Any, touch: Any) -> Any:
    kinds = _INDEXED & given.keys()
    return slow(
        "adds-column-scanning",
        f"All of {touch.table} is read while nobody else can use it"
        + (", to build an index." if kinds else "."),
        "Add the column bare first, and its constraint afterwards: an index CONCURRENTLY, "
        "a CHECK or a foreign key NOT VALID and then validated.",
        (),
        touch,
    )


def _without_default(column: str, table: str) -> Effect:
    return Effect(
        findings=(
            finding(
                "required-column",
                Level.WARNING,
                f"{table} has rows perhaps: NOT NULL without a default fails then, and whoever "
                f"inserts without {column} fails afterwards.",
                "Give it a default, or add it nullable, fill it, and make it NOT NULL last.",
            ),
        )
    )


def _checks_again(facts: Any, column: str) -> Work:
    """A CHECK on the column is checked again, and an index on an expression is built again."""
    if facts is None:
        return Work.REWRITE
    checked = any(each.kind == "c" and column in each.columns for each in facts.constraints)
    indexed = any("" in columns for columns in facts.index_columns.values())
    return Work.SCAN if checked or indexed else Work.CATALOG


def _others(facts: Any, column: str, scene: Scene, *, is_rewrite: bool) -> tuple[Any, ...]:
    """Its foreign keys are made again, and looked up again where its values change."""
    if facts is None:
        return ()
    mine = [e.references for e in facts.constraints if e.references and column in e.columns]
    keys = any(e.kind in {"p", "u"} and column in e.columns for e in facts.constraints)
    theirs = facts.referenced_by if keys else ()
    work = Work.SCAN if is_rewrite else Work.CATALOG
    names = dict.fromkeys((*mine, *theirs))
    return tuple(scene.touch(each, Lock.ACCESS_EXCLUSIVE, work, "foreign key") for each in names)
