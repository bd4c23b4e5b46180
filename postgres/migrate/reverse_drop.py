"""The way back of DROP: the definition that the catalog had. Pure."""

from __future__ import annotations

from typing import Any, Final

from postgres.migrate.aside_words import Kept, What
from postgres.migrate.reverse_aside import from_aside
from postgres.migrate.reverse_make import RENAMED, routine_of
from postgres.migrate.reverse_names import ON_TABLES, ROUTINES, TYPES, path_of, split_name
from postgres.migrate.reverse_scene import (
    NOTHING,
    Scene,
    Thing,
    Undo,
    back,
    none,
    schema_only,
    together,
)
from postgres.schema.again import (
    concurrently,
    function_again,
    sequence_again,
    table_again,
    trigger_again,
    type_again,
    view_again,
)
from postgres.schema.catalog import Relation, ident

_RELATIONS: Final = frozenset(
    {"OBJECT_TABLE", "OBJECT_INDEX", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_SEQUENCE"}
)


def drop(node: Any, scene: Scene) -> Undo:
    """Each of its objects made again."""
    if node.behavior.name == "DROP_CASCADE":
        return none("DROP … CASCADE may drop more than the catalog told: name each thing")
    kind = node.removeType.name
    return together([_one(node, each, kind, scene) for each in node.objects])


def _one(  # noqa: PLR0911 - a kind each
    node: Any, named: Any, kind: str, scene: Scene
) -> Undo:
    if kind in ROUTINES:
        return _routine(node, named, scene)
    if kind in TYPES:
        return _type(node, path_of(named.names), scene)
    path = (named.sval,) if type(named).__name__ == "String" else path_of(named)
    if kind == "OBJECT_SCHEMA":
        return _schema(node, path[-1], scene)
    if kind in ON_TABLES:
        return _on_table(node, path, kind, scene)
    if kind not in _RELATIONS:
        return none(f"DROP {kind.removeprefix('OBJECT_')} has no proven way back")
    thing = scene.find(*split_name(path))
    if thing is None:
        return NOTHING if node.missing_ok else none(f"{'.'.join(path)} is not known")
    scene.drop(thing)
    if thing.before is None:
        return none(f"{thing.sql} is made and dropped in one file")
    if scene.is_renamed:
        return none(f"{thing.sql}: {RENAMED}")
    if kept := _kept(thing.before, scene):
        return from_aside(kept)
    return _relation(thing, thing.before)


def _kept(before: Relation, scene: Scene) -> Kept | None:
    """A matview's rows are those of its query, so its definition is all that it needs."""
    what = {"r": What.TABLE, "S": What.SEQUENCE}.get(before.kind)
    return scene.kept_of(before, what) if what else None


def _relation(thing: Thing, before: Relation) -> Undo:  # noqa: PLR0911 - a kind each
    match before.kind:
        case "i":
            return back(concurrently(before.definition))
        case "I":
            return back(before.definition)
        case "v":
            if any(each.default for each in before.columns):
                return none(f"the defaults of {thing.sql} have no proven way back")
            return back(*view_again(before))
        case "m":
            return back(
                *view_again(before), note=f"{thing.sql} then has what its query finds by then."
            )
        case "S":
            return schema_only(*sequence_again(before), why=f"where {thing.sql} stood is not kept")
        case "r" if not before.sequences:
            return schema_only(*table_again(before), why=f"the rows of {thing.sql} are not kept")
        case "r":
            return schema_only(
                *_owned(before), *table_again(before), *_owning(before),
                why=f"the rows of {thing.sql} are not kept",
            )  # fmt: skip
        case _:
            return none(f"the partitions of {thing.sql} go with it")


def _owned(table: Relation) -> tuple[str, ...]:
    """Sequences of serial columns, which their defaults name; identity brings its own."""
    return tuple(f"CREATE SEQUENCE {ident(table.schema)}.{ident(name)}" for name in _serial(table))


def _owning(table: Relation) -> tuple[str, ...]:
    return tuple(
        f"ALTER SEQUENCE {ident(table.schema)}.{ident(name)} OWNED BY {table.sql}.{ident(column)}"
        for name, column in _serial(table).items()
    )


def _serial(table: Relation) -> dict[str, str]:
    """Sequence -> column, of those that the catalog says are owned and a default names."""
    found: dict[str, str] = {}
    for name in table.sequences:
        quoted = f"{ident(table.schema)}.{ident(name)}".replace("'", "''")
        for column in table.columns:
            if f"nextval('{quoted}'" in column.default:
                found[name] = column.name
    return found


def _routine(node: Any, named: Any, scene: Scene) -> Undo:
    path = path_of(named.objname)
    if node.missing_ok and not scene.routines(path):
        return NOTHING
    found = routine_of(named, scene)
    if isinstance(found, str):
        return none(found)
    if found.kind == "a":
        return none("an aggregate has no definition to put back")
    if scene.is_renamed:
        return none(f"function {found.name}: {RENAMED}")
    return back(*function_again(found))


def _type(node: Any, path: tuple[str, ...], scene: Scene) -> Undo:
    found = scene.type(path)
    if scene.made_type(path):
        return none(f"the type {'.'.join(path)} is made and dropped in one file")
    if found is None:
        return NOTHING if node.missing_ok else none(f"the type {'.'.join(path)} is not known")
    made = type_again(found)
    if not made or scene.is_renamed:
        return none(f"the type {found.sql} has no definition to put back for certain")
    return back(*made)


def _schema(node: Any, name: str, scene: Scene) -> Undo:
    if name in scene.made_schemas:
        return none(f"the schema {name} is made and dropped in one file")
    if name not in scene.catalog.schemas:
        return NOTHING if node.missing_ok else none(f"the schema {name} is not known")
    return none(f"who owns and may use the schema {name} is not kept: make it in a down file")


def _on_table(  # noqa: PLR0911 - a guard each
    node: Any, path: tuple[str, ...], kind: str, scene: Scene
) -> Undo:
    thing = scene.find(*split_name(path[:-1]))
    if thing is None:
        return NOTHING if node.missing_ok else none(f"{'.'.join(path[:-1])} is not known")
    if thing.before is None:
        return none(f"what stands on {thing.sql} is made and dropped in one file")
    if scene.is_renamed:
        return none(f"{path[-1]} on {thing.sql}: {RENAMED}")
    before = thing.before
    if kind == "OBJECT_TRIGGER":
        trigger = next((each for each in before.triggers if each.name == path[-1]), None)
        if trigger is not None:
            return back(*trigger_again(thing.sql, trigger))
    if kind == "OBJECT_POLICY":
        policy = next((each for each in before.policies if each.name == path[-1]), None)
        if policy is not None:
            return back(policy.definition)
    if node.missing_ok and kind != "OBJECT_RULE":
        return NOTHING
    return none(f"{path[-1]} on {thing.sql} has no definition to put back")
