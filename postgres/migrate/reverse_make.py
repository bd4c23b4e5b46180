"""The way back of statements that make or replace something. Pure."""

from __future__ import annotations

from typing import Any, Final

from postgres.migrate.aside_words import What
from postgres.migrate.reverse_aside import from_aside
from postgres.migrate.reverse_names import every, path_of, split_name
from postgres.migrate.reverse_scene import (
    NOTHING,
    Scene,
    Thing,
    Undo,
    back,
    none,
    printed,
    together,
)
from postgres.schema.again import replace_view, trigger_again, view_again
from postgres.schema.catalog import Function, full, ident, literal

# Calling them changes nothing but what they give back.
_CALM: Final = frozenset(
    {"now", "lower", "upper", "btrim", "ltrim", "rtrim", "trim", "concat", "concat_ws",
     "split_part", "replace", "length", "char_length", "substring", "left", "right", "round",
     "floor", "ceil", "abs", "md5", "gen_random_uuid", "date_trunc", "to_char", "to_date",
     "to_timestamp", "jsonb_build_object", "to_jsonb", "count", "sum", "min", "max", "avg",
     "array_agg", "string_agg", "row_number", "generate_series", "format", "initcap",
     "clock_timestamp", "random", "strpos", "position", "greatest", "least", "extract"}
)  # fmt: skip
RENAMED: Final = "its definition of before names what this file has renamed since"


def create_table(node: Any, scene: Scene) -> Undo:
    """DROP TABLE."""
    if node.relation.relpersistence == "t":
        return NOTHING
    if scene.at(node.relation) is not None:
        return NOTHING if node.if_not_exists else none(f"{node.relation.relname} exists already")
    thing = scene.make(node.relation.schemaname, node.relation.relname)
    return _gone("TABLE", thing)


def create_table_as(node: Any, scene: Scene) -> Undo:
    """DROP TABLE or DROP MATERIALIZED VIEW."""
    target = node.into.rel
    if target.relpersistence == "t":
        return NOTHING
    if scene.at(target) is not None:
        return NOTHING if node.if_not_exists else none(f"{target.relname} exists already")
    if why := _calls(node.query):
        return none(why)
    thing = scene.make(target.schemaname, target.relname)
    is_view = node.objtype.name == "OBJECT_MATVIEW"
    return _gone("MATERIALIZED VIEW" if is_view else "TABLE", thing)


def create_view(node: Any, scene: Scene) -> Undo:
    """DROP VIEW, or the view that it was."""
    found = scene.at(node.view)
    if found is None:
        thing = scene.make(node.view.schemaname, node.view.relname)
        return back(f"DROP VIEW {thing.sql}")
    if found.before is None:
        return none(f"the view {found.sql} is made and replaced in one file")
    if scene.is_renamed:
        return none(f"view {found.sql}: {RENAMED}")
    before = found.before
    targets = getattr(node.query, "targetList", None) or ()
    has_star = any(type(each).__name__ == "A_Star" for each in every(targets))
    if not has_star and len(targets) == len(before.columns):
        return back(replace_view(before))
    if before.dependents:
        return none(f"{', '.join(before.dependents[:3])} would keep {found.sql} from being remade")
    return back(f"DROP VIEW {found.sql}", *view_again(before))


def create_index(node: Any, scene: Scene) -> Undo:
    """DROP INDEX, as it was made: concurrently or not."""
    table = scene.at(node.relation)
    if table is None:
        return none(f"the table {node.relation.relname} is not known")
    if table.is_made:
        if node.idxname:
            scene.make(table.schema, node.idxname)
        return NOTHING
    if not node.idxname:
        return none("an index without a name: give it one, so that it can be dropped")
    was_there = (table.schema, node.idxname) not in scene.things and _has_index(table, node.idxname)
    if was_there or scene.find(table.schema, node.idxname) is not None:
        exists = f"the index {node.idxname} exists already"
        return NOTHING if node.if_not_exists else none(exists)
    scene.make(table.schema, node.idxname)
    online = "CONCURRENTLY " if node.concurrent else ""
    return back(f"DROP INDEX {online}{full(table.schema, node.idxname)}")


def create_sequence(node: Any, scene: Scene) -> Undo:
    """DROP SEQUENCE."""
    if scene.at(node.sequence) is not None:
        exists = f"{node.sequence.relname} exists already"
        return NOTHING if node.if_not_exists else none(exists)
    return _gone("SEQUENCE", scene.make(node.sequence.schemaname, node.sequence.relname))


def alter_sequence(node: Any, scene: Scene) -> Undo:
    """ALTER SEQUENCE back; not where it counts from."""
    found = scene.at(node.sequence)
    if found is None:
        return NOTHING if node.missing_ok else none(f"{node.sequence.relname} is not known")
    if found.before is None:
        return NOTHING
    if any(each.defname == "restart" for each in node.options or ()):
        return none("where a sequence stood before RESTART is not kept")
    sequence = found.before.sequence
    if sequence is None or sequence.is_identity:
        return none(f"{found.sql} is the sequence of an identity column")
    owner = "NONE"
    if sequence.owner_column:
        owner = f"{sequence.owner_table}.{ident(sequence.owner_column)}"
    owned = any(each.defname == "owned_by" for each in node.options or ())
    if owned and scene.is_renamed:
        return none(f"sequence {found.sql}: {RENAMED}")
    by = f" OWNED BY {owner}" if owned else ""
    return back(f"ALTER SEQUENCE {found.sql} {sequence.clauses}{by}")


def create_type(node: Any, scene: Scene) -> Undo:
    """DROP TYPE or DROP DOMAIN."""
    match type(node).__name__:
        case "CompositeTypeStmt":
            schema, name = node.typevar.schemaname or "", node.typevar.relname
        case "CreateDomainStmt":
            schema, name = split_name(path_of(node.domainname))
        case _:
            schema, name = split_name(path_of(node.typeName))
    place = scene.catalog.where(schema)
    scene.made_types.add((place, name))
    word = "DOMAIN" if type(node).__name__ == "CreateDomainStmt" else "TYPE"
    return back(f"DROP {word} {full(place, name)}")


def alter_enum(node: Any, scene: Scene) -> Undo:
    """A label gets its old name again; a new label stays for ever."""
    path = path_of(node.typeName)
    if scene.made_type(path):
        return NOTHING
    known = scene.type(path)
    if known is None:
        return none(f"the type {'.'.join(path)} is not known")
    if node.oldVal is not None:
        scene.is_renamed = True
        old, new = literal(node.oldVal), literal(node.newVal)
        return back(f"ALTER TYPE {known.sql} RENAME VALUE {new} TO {old}")
    if node.newVal in known.labels and node.skipIfNewValExists:
        return NOTHING
    return none(f"PostgreSQL cannot take the label {node.newVal} out of {known.sql} again")


def create_schema(node: Any, scene: Scene) -> Undo:
    """DROP SCHEMA, which must be empty then."""
    if not node.schemaname or node.schemaElts:
        return none("CREATE SCHEMA with more in it: make what it holds by statements of their own")
    if node.schemaname in scene.catalog.schemas:
        exists = f"the schema {node.schemaname} exists already"
        return NOTHING if node.if_not_exists else none(exists)
    scene.made_schemas.add(node.schemaname)
    return back(f"DROP SCHEMA {ident(node.schemaname)}")


def create_extension(node: Any, scene: Scene) -> Undo:
    """DROP EXTENSION."""
    if node.extname in scene.catalog.extensions:
        return NOTHING if node.if_not_exists else none(f"{node.extname} is installed already")
    return back(f"DROP EXTENSION {ident(node.extname)}")


def create_function(node: Any, scene: Scene) -> Undo:
    """DROP FUNCTION, or the definition that it had."""
    path = path_of(node.funcname)
    schema, name = split_name(path)
    place = scene.catalog.where(schema)
    inputs = [each for each in node.parameters or () if each.mode.name not in _OUT]
    word = "PROCEDURE" if node.is_procedure else "FUNCTION"
    types = [printed(each.argType) for each in inputs]
    others = [
        each
        for each in scene.catalog.functions
        if (each.schema, each.name) == (place, name) and len(each.types) == len(types)
    ]
    same = [each for each in others if list(each.types) == types]
    if node.replace and same:
        return _definition_back(node, same[0], scene)
    if node.replace and others:
        return none(f"which {name} it replaces is not certain: its types are written otherwise")
    scene.made_routines.add((place, name))
    return back(f"DROP {word} {full(place, name)}({', '.join(types)})")


_OUT: Final = frozenset({"FUNC_PARAM_OUT", "FUNC_PARAM_TABLE"})


def _definition_back(node: Any, before: Function, scene: Scene) -> Undo:
    if (before.schema, before.name) in scene.made_routines:
        return none(f"{before.name} is made and replaced in one file")
    if scene.is_renamed:
        return none(f"function {before.name}: {RENAMED}")
    defaults = sum(each.defexpr is not None for each in node.parameters or ())
    names = tuple(each.name or "" for each in node.parameters or ())
    if defaults > before.defaults or names != (before.argument_names or ("",) * len(names)):
        return none(f"{before.name} gets names or defaults of arguments that cannot be taken away")
    return back(before.definition.rstrip())


def alter_function(node: Any, scene: Scene) -> Undo:
    """The definition that it had, which says all that ALTER FUNCTION can change."""
    found = routine_of(node.func, scene)
    if isinstance(found, str):
        return none(found)
    if scene.is_renamed:
        return none(f"function {found.name}: {RENAMED}")
    if found.kind == "a":
        return none("an aggregate has no definition to put back")
    return back(found.definition.rstrip())


def routine_of(reference: Any, scene: Scene) -> Function | str:
    """The one function that is meant, or why it is not certain."""
    path = path_of(reference.objname)
    schema, name = split_name(path)
    if (scene.catalog.where(schema), name) in scene.made_routines:
        return f"{name} is made and changed in one file"
    found = scene.routines(path)
    if not reference.args_unspecified:
        types = [printed(each) for each in reference.objargs or ()]
        found = [each for each in found if list(each.types) == types]
    if len(found) != 1:
        return f"which function {name} is meant is not certain"
    return found[0]


def create_trigger(node: Any, scene: Scene) -> Undo:
    """DROP TRIGGER, or the trigger that it was."""
    table = scene.at(node.relation)
    if table is None:
        return none(f"the table {node.relation.relname} is not known")
    table.has_triggers = True
    if table.before is None:
        return NOTHING
    before = next((each for each in table.before.triggers if each.name == node.trigname), None)
    gone = f"DROP TRIGGER {ident(node.trigname)} ON {table.sql}"
    if before is None:
        return back(gone)
    if scene.is_renamed:
        return none(f"trigger {node.trigname}: {RENAMED}")
    return back(gone, *trigger_again(table.sql, before))


def create_policy(node: Any, scene: Scene) -> Undo:
    """DROP POLICY."""
    table = scene.at(node.table)
    if table is None:
        return none(f"the table {node.table.relname} is not known")
    if table.is_made:
        return NOTHING
    return back(f"DROP POLICY {ident(node.policy_name)} ON {table.sql}")


def create_rule(node: Any, scene: Scene) -> Undo:
    """DROP RULE."""
    table = scene.at(node.relation)
    if table is None or node.replace:
        return none(f"the rule {node.rulename} may replace another")
    if table.is_made:
        return NOTHING
    return back(f"DROP RULE {ident(node.rulename)} ON {table.sql}")


def create_statistics(node: Any, scene: Scene) -> Undo:
    """DROP STATISTICS."""
    if not node.defnames or node.if_not_exists:
        return none("statistics without a name, or that may be there already")
    schema, name = split_name(path_of(node.defnames))
    return back(f"DROP STATISTICS {full(scene.catalog.where(schema), name)}")


def comment(node: Any, scene: Scene) -> Undo:  # noqa: PLR0911 - a guard each
    """The comment that it had; of other things than tables and columns the new one stays."""
    kind = node.objtype.name
    if kind not in ("OBJECT_TABLE", "OBJECT_COLUMN", "OBJECT_VIEW"):
        return Undo(notes=(f"The comment on a {_word(kind)} stays as the file wrote it.",))
    path = path_of(node.object)
    thing = scene.find(*_parts(path[:-1] if kind == "OBJECT_COLUMN" else path))
    if thing is None:
        return none(f"{'.'.join(path)} is not known")
    if thing.before is None:
        return NOTHING
    if kind != "OBJECT_COLUMN":
        said = literal(thing.before.comment) if thing.before.comment else "NULL"
        return back(f"COMMENT ON {_word(kind).upper()} {thing.sql} IS {said}")
    if path[-1] in thing.made_columns:
        return NOTHING
    column = thing.before.column(thing.renamed.get(path[-1], path[-1]))
    if column is None:
        return none(f"the column {path[-1]} is not known")
    said = literal(column.comment) if column.comment else "NULL"
    return back(f"COMMENT ON COLUMN {thing.sql}.{ident(path[-1])} IS {said}")


def rows(node: Any, scene: Scene) -> Undo:  # noqa: PLR0911 - a guard each
    """Nothing to do where the rows or the columns go anyway with what this file made."""
    table = scene.at(node.relation)
    kind = type(node).__name__.removesuffix("Stmt").upper()
    if table is None:
        return none(f"{kind} changes rows of a table that is not known")
    if why := _calls(node):
        return none(why)
    if kind == "DELETE" and node.whereClause is None and not table.is_made:
        return emptied_one(table, scene, kind)
    if table.has_triggers:
        return none(f"the trigger on {table.sql} that this file makes may change other rows")
    if table.is_made and kind != "DELETE":
        return NOTHING
    if (
        kind == "UPDATE"
        and not (table.before and (table.before.triggers or table.before.rules))
        and {each.name for each in node.targetList} <= table.made_columns
    ):
        return NOTHING
    return none(f"{kind} changes rows of {table.sql}, and what they were is not kept")


def emptied(node: Any, scene: Scene) -> Undo:
    """The rows that were kept aside; else nothing can bring them back."""
    tables = [scene.at(each) for each in node.relations]
    if node.behavior.name == "DROP_CASCADE" or not all(tables):
        return none("TRUNCATE removes rows of more tables than are known")
    ordered = _parents_first([each for each in tables if each])
    return together([emptied_one(each, scene, "TRUNCATE") for each in reversed(ordered)])


def _parents_first(tables: list[Thing]) -> list[Thing]:
    """In the order in which rows can come back: what a foreign key leads to, before it."""
    ordered: list[Thing] = []
    while tables:
        names = {each.sql for each in tables}
        free = [each for each in tables if not _leads_to(each) & (names - {each.sql})]
        ordered.append((free or tables)[0])
        tables = [each for each in tables if each is not ordered[-1]]
    return ordered


def _leads_to(table: Thing) -> set[str]:
    return {each.target for each in table.before.constraints} if table.before else set()


def emptied_one(table: Thing, scene: Scene, word: str) -> Undo:
    """One table that lost all of its rows."""
    kept = scene.kept_of(table.before, What.ROWS) if table.before else None
    if kept is None or scene.is_renamed or table.made_columns or not kept.before.key:
        return none(f"{word} removes rows of {table.sql}, and they are not kept")
    return from_aside(kept)


def _calls(node: Any) -> str:
    """Why a part of a statement may do more than it says, or ''."""
    for each in every(node):
        match type(each).__name__:
            case "FuncCall" if path_of(each.funcname)[-1] not in _CALM:
                return f"it calls {'.'.join(path_of(each.funcname))}, which may change something"
            case "InsertStmt" | "UpdateStmt" | "DeleteStmt" if each is not node:
                return "it changes rows in a part of another statement"
            case _:
                pass
    return ""


def _gone(word: str, thing: Thing) -> Undo:
    return back(f"DROP {word} {thing.sql}", note=f"What {thing.sql} holds by then goes with it.")


def _has_index(table: Thing, name: str) -> bool:
    return table.before is not None and any(each.name == name for each in table.before.indexes)


def _parts(path: tuple[str, ...]) -> tuple[str, str]:
    return split_name(path)


def _word(kind: str) -> str:
    return kind.removeprefix("OBJECT_").lower()
