"""The way back of ALTER TABLE, of renames and of moves to another schema. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from postgres.migrate.aside_words import What
from postgres.migrate.reverse_aside import from_aside
from postgres.migrate.reverse_make import RENAMED, routine_of
from postgres.migrate.reverse_names import ROUTINES, TYPES, path_of
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
from postgres.schema.again import column_and_its_own, constraint_again, index_again
from postgres.schema.catalog import Column, Relation, full, ident

_LEVELS: Final = {"AT_EnableRowSecurity": ("row_security", True, "DISABLE ROW LEVEL SECURITY"),
                  "AT_DisableRowSecurity": ("row_security", False, "ENABLE ROW LEVEL SECURITY"),
                  "AT_ForceRowSecurity": ("force_row_security", True,
                                          "NO FORCE ROW LEVEL SECURITY"),
                  "AT_NoForceRowSecurity": ("force_row_security", False,
                                            "FORCE ROW LEVEL SECURITY")}  # fmt: skip
_TRIGGERS: Final = {"O": "ENABLE", "D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
# They change how rows are stored or planned, and no definition that anybody relies on.
_STORAGE: Final = frozenset({"AT_SetStatistics", "AT_ClusterOn", "AT_DropCluster"})


def alter_table(node: Any, scene: Scene) -> Undo:
    """Its commands, each with its way back, in reverse order."""
    if node.objtype.name not in ("OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_SEQUENCE"):
        return none(f"ALTER {node.objtype.name.removeprefix('OBJECT_')} has no proven way back")
    thing = scene.at(node.relation)
    if thing is None:
        return NOTHING if node.missing_ok else none(f"{node.relation.relname} is not known")
    return together([_command(each, thing, scene) for each in node.cmds])


def _command(command: Any, thing: Thing, scene: Scene) -> Undo:
    kind = command.subtype.name
    if kind in ("AT_AttachPartition", "AT_DetachPartition"):
        return _partition(command, thing, scene)
    if kind in _STORAGE:
        return NOTHING
    if thing.before is None:
        return NOTHING  # it goes with the table
    if kind in _LEVELS:
        name, wanted, undo = _LEVELS[kind]
        is_so = getattr(thing.before, name) is wanted
        return NOTHING if is_so else back(f"ALTER TABLE {thing.sql} {undo}")
    if (handler := _COMMANDS.get(kind)) is not None:
        return handler(command, thing, thing.before, scene)
    return none(f"ALTER TABLE … {kind.removeprefix('AT_')} has no proven way back")


def _add_column(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    del scene
    name = command.def_.colname
    if _column(thing, before, name) is not None:
        exists = f"the column {name} of {thing.sql} exists already"
        return NOTHING if command.missing_ok else none(exists)
    thing.made_columns.add(name)
    return back(
        f"ALTER TABLE {thing.sql} DROP COLUMN {ident(name)}",
        note=f"What {thing.sql}.{name} holds by then goes with it.",
    )


def _drop_column(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    column = _column(thing, before, command.name)
    if command.name in thing.made_columns:
        return none(f"the column {command.name} is made and dropped in one file")
    if column is None:
        return NOTHING if command.missing_ok else none(f"{command.name} is not known")
    if command.behavior.name == "DROP_CASCADE":
        return none(f"DROP COLUMN {column.name} CASCADE may drop more than the catalog told")
    if scene.is_renamed:
        return none(f"column {column.name}: {RENAMED}")
    if (kept := scene.kept_of(before, What.COLUMN)) and column.name in kept.columns:
        # One copy has all columns of the statement: they come back together.
        return from_aside(kept) if column.name == kept.columns[0] else NOTHING
    return schema_only(
        *column_and_its_own(before, column),
        why=f"what {before.sql}.{column.name} held is not kept",
    )


def _default(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    column = _column(thing, before, command.name)
    if column is None:
        return _of_new(command, thing)
    if column.default and scene.is_renamed and "nextval" in column.default:
        return none(f"default of {column.name}: {RENAMED}")
    does = f"SET DEFAULT {column.default}" if column.default else "DROP DEFAULT"
    return _alter(thing, command.name, does)


def _set_not_null(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    del scene
    column = _column(thing, before, command.name)
    if column is None:
        return _of_new(command, thing)
    return NOTHING if column.not_null else _alter(thing, command.name, "DROP NOT NULL")


def _drop_not_null(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    del scene
    column = _column(thing, before, command.name)
    if column is None:
        return _of_new(command, thing)
    if not column.not_null:
        return NOTHING
    undo = _alter(thing, command.name, "SET NOT NULL")
    return back(*undo.statements, note=f"It is refused while {command.name} has NULL in a row.")


def _identity(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    del scene
    column = _column(thing, before, command.name)
    if column is None:
        return _of_new(command, thing)
    if column.identity:
        return none(f"{command.name} is an identity column already")
    undo = _alter(thing, command.name, "DROP IDENTITY")
    return undo if column.not_null else none(f"{command.name} becomes NOT NULL as well")


def _type(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    del scene
    column = _column(thing, before, command.name)
    if column is None:
        return _of_new(command, thing)
    return none(
        f"{before.sql}.{command.name} was {column.type}: whether every value fits into that"
        " again cannot be proved"
    )


def _add_constraint(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    definition = command.def_
    if not definition.conname:
        return none("a constraint without a name: give it one, so that it can be dropped")
    gone = f"ALTER TABLE {thing.sql} DROP CONSTRAINT {ident(definition.conname)}"
    is_primary = definition.contype.name == "CONSTR_PRIMARY"
    if not definition.indexname:
        return back(gone, *_nullable(path_of(definition.keys) if is_primary else (), thing, before))
    index = next((each for each in before.indexes if each.name == definition.indexname), None)
    if index is None:
        # The constraint takes the index along: the file's own CREATE INDEX has no way back then.
        return none(f"the index {definition.indexname} is made and taken in one file")
    if scene.is_renamed:
        return none(f"index {index.name}: {RENAMED}")
    columns = index.columns if is_primary else ()
    return back(gone, index_again(index), *_nullable(columns, thing, before))


def _nullable(columns: tuple[str, ...], thing: Thing, before: Relation) -> list[str]:
    """A primary key makes its columns NOT NULL, and they stay so without it."""
    found = [_column(thing, before, name) for name in columns]
    return [
        f"ALTER TABLE {thing.sql} ALTER COLUMN {ident(name)} DROP NOT NULL"
        for name, column in zip(columns, found, strict=True)
        if column is not None and not column.not_null
    ]


def _drop_constraint(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    found = next((each for each in before.constraints if each.name == command.name), None)
    if found is None:
        return NOTHING if command.missing_ok else none(f"{command.name} is not known")
    if command.behavior.name == "DROP_CASCADE":
        return none(f"DROP CONSTRAINT {command.name} CASCADE may drop keys of other tables")
    if scene.is_renamed:
        return none(f"constraint {command.name}: {RENAMED}")
    index = next((each for each in before.indexes if each.name == found.index), None)
    is_partitioned = before.kind == "p" or before.has_children
    added = constraint_again(thing.sql, found, index, is_partitioned=is_partitioned)
    return back(*added, note="It is refused while a row does not fit.")


def _validate(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    found = next((each for each in before.constraints if each.name == command.name), None)
    if found is None or found.is_valid:
        return NOTHING  # of this file, or valid as it was
    if scene.is_renamed:
        return none(f"constraint {command.name}: {RENAMED}")
    return back(
        f"ALTER TABLE {thing.sql} DROP CONSTRAINT {ident(found.name)}",
        f"ALTER TABLE {thing.sql} ADD CONSTRAINT {ident(found.name)} {found.definition}",
    )


def _owner(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    del command, scene
    return back(f"ALTER TABLE {thing.sql} OWNER TO {ident(before.owner)}")


def _logged(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    del command, scene
    word = "SET UNLOGGED" if before.persistence == "u" else "SET LOGGED"
    return back(f"ALTER TABLE {thing.sql} {word}")


def _trigger(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    del scene
    found = next((each for each in before.triggers if each.name == command.name), None)
    if found is None:
        return none(f"the trigger {command.name} is not known")
    word = _TRIGGERS[found.enabled]
    return back(f"ALTER TABLE {thing.sql} {word} TRIGGER {ident(found.name)}")


def _options(command: Any, thing: Thing, before: Relation, scene: Scene) -> Undo:
    del scene
    names = {each.defname for each in command.def_ or ()}
    had = {text.partition("=")[0]: text for text in before.options}
    unset = sorted(names - had.keys())
    again = [had[name] for name in sorted(names & had.keys())]
    return back(
        *((f"ALTER TABLE {thing.sql} RESET ({', '.join(unset)})",) if unset else ()),
        *((f"ALTER TABLE {thing.sql} SET ({', '.join(again)})",) if again else ()),
    )


def _partition(command: Any, thing: Thing, scene: Scene) -> Undo:
    child = scene.at(command.def_.name)
    if child is None:
        return none(f"the partition {command.def_.name.relname} is not known")
    if command.subtype.name == "AT_AttachPartition":
        # Its own way back drops a partition that this file made, attached or not.
        return back(f"ALTER TABLE {thing.sql} DETACH PARTITION {child.sql}")
    if child.before is None or scene.is_renamed or not child.before.bound:
        return none(f"where {child.sql} was attached is not known")
    return back(f"ALTER TABLE {thing.sql} ATTACH PARTITION {child.sql} {child.before.bound}")


Command = Callable[[Any, Thing, Relation, Scene], Undo]
_COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "AT_AddColumn": _add_column,
        "AT_DropColumn": _drop_column,
        "AT_ColumnDefault": _default,
        "AT_SetNotNull": _set_not_null,
        "AT_DropNotNull": _drop_not_null,
        "AT_AddIdentity": _identity,
        "AT_AlterColumnType": _type,
        "AT_AddConstraint": _add_constraint,
        "AT_DropConstraint": _drop_constraint,
        "AT_ValidateConstraint": _validate,
        "AT_ChangeOwner": _owner,
        "AT_SetLogged": _logged,
        "AT_SetUnLogged": _logged,
        "AT_EnableTrig": _trigger,
        "AT_DisableTrig": _trigger,
        "AT_EnableAlwaysTrig": _trigger,
        "AT_EnableReplicaTrig": _trigger,
        "AT_SetRelOptions": _options,
        "AT_ResetRelOptions": _options,
    }
)


def rename(node: Any, scene: Scene) -> Undo:  # noqa: PLR0911 - a guard each
    """The old name again."""
    kind = node.renameType.name
    if kind in ("OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_INDEX", "OBJECT_SEQUENCE"):
        return _rename_relation(node, scene, kind)
    if kind in ("OBJECT_COLUMN", "OBJECT_TABCONSTRAINT", "OBJECT_TRIGGER", "OBJECT_POLICY"):
        return _rename_part(node, scene, kind)
    new = ident(node.newname)
    if kind == "OBJECT_SCHEMA":
        scene.is_renamed = True
        return back(f"ALTER SCHEMA {new} RENAME TO {ident(node.subname)}")
    if kind in TYPES:
        found = scene.type(path_of(node.object))
        if found is None:
            return none(f"the type {'.'.join(path_of(node.object))} is not known")
        scene.is_renamed = True
        word = "DOMAIN" if found.kind == "d" else "TYPE"
        return back(
            f"ALTER {word} {full(found.schema, node.newname)} RENAME TO {ident(found.name)}"
        )
    if kind in ROUTINES:
        routine = routine_of(node.object, scene)
        if isinstance(routine, str):
            return none(routine)
        scene.is_renamed = True
        called = f"{full(routine.schema, node.newname)}({routine.arguments})"
        return back(f"ALTER {routine.word} {called} RENAME TO {ident(routine.name)}")
    return none(f"RENAME of a {kind.removeprefix('OBJECT_').lower()} has no proven way back")


def _rename_relation(node: Any, scene: Scene, kind: str) -> Undo:
    thing = scene.at(node.relation)
    if thing is None:
        return NOTHING if node.missing_ok else none(f"{node.relation.relname} is not known")
    old, is_made = thing.name, thing.is_made
    scene.move(thing, name=node.newname)
    word = kind.removeprefix("OBJECT_").replace("MATVIEW", "MATERIALIZED VIEW")
    if is_made and kind == "OBJECT_INDEX":
        return back(f"ALTER INDEX {thing.sql} RENAME TO {ident(old)}")
    return back(f"ALTER {word} {thing.sql} RENAME TO {ident(old)}")


def _rename_part(node: Any, scene: Scene, kind: str) -> Undo:
    thing = scene.at(node.relation)
    if thing is None:
        return NOTHING if node.missing_ok else none(f"{node.relation.relname} is not known")
    scene.is_renamed = True
    old, new = ident(node.subname), ident(node.newname)
    if kind == "OBJECT_COLUMN":
        thing.renamed[node.newname] = thing.renamed.pop(node.subname, node.subname)
        if node.subname in thing.made_columns:
            thing.made_columns.discard(node.subname)
            thing.made_columns.add(node.newname)
        word = "VIEW" if node.relationType.name == "OBJECT_VIEW" else "TABLE"
        return back(f"ALTER {word} {thing.sql} RENAME COLUMN {new} TO {old}")
    if kind == "OBJECT_TABCONSTRAINT":
        return back(f"ALTER TABLE {thing.sql} RENAME CONSTRAINT {new} TO {old}")
    word = kind.removeprefix("OBJECT_")
    return back(f"ALTER {word} {new} ON {thing.sql} RENAME TO {old}")


def set_schema(node: Any, scene: Scene) -> Undo:
    """The schema that it was in."""
    kind = node.objectType.name
    words = {"OBJECT_TABLE": "TABLE", "OBJECT_VIEW": "VIEW", "OBJECT_SEQUENCE": "SEQUENCE",
             "OBJECT_MATVIEW": "MATERIALIZED VIEW"}  # fmt: skip
    if kind in words:
        thing = scene.at(node.relation)
        if thing is None:
            return NOTHING if node.missing_ok else none(f"{node.relation.relname} is not known")
        old = thing.schema
        scene.move(thing, schema=node.newschema)
        return back(f"ALTER {words[kind]} {thing.sql} SET SCHEMA {ident(old)}")
    if kind in TYPES:
        found = scene.type(path_of(node.object))
        if found is not None:
            scene.is_renamed = True
            moved = full(node.newschema, found.name)
            return back(f"ALTER TYPE {moved} SET SCHEMA {ident(found.schema)}")
    return none(f"SET SCHEMA of a {kind.removeprefix('OBJECT_').lower()} has no proven way back")


def _column(thing: Thing, before: Relation, name: str) -> Column | None:
    """A column that was there before, by its name of now."""
    if name in thing.made_columns:
        return None
    return before.column(thing.renamed.get(name, name))


def _of_new(command: Any, thing: Thing) -> Undo:
    """Of a column that this file made: it goes whole."""
    if command.name in thing.made_columns:
        return NOTHING
    return none(f"the column {command.name} of {thing.sql} is not known")


def _alter(thing: Thing, column: str, does: str) -> Undo:
    return back(f"ALTER TABLE {thing.sql} ALTER COLUMN {ident(column)} {does}")
