"""What comes into being: tables, indexes, views, triggers, functions, types. Pure."""

from __future__ import annotations

from typing import Any, Final

from postgres.migrate.review import rewrites
from postgres.migrate.review.calls import unknown_calls
from postgres.migrate.review.constraints import called, slow
from postgres.migrate.review.effects import Effect, Scene, Touch, finding, opaque, together
from postgres.migrate.review.facts import Past
from postgres.migrate.review.nodes import dml_of, is_on, kind_of, of_kind, option, parts
from postgres.migrate.words import Level, Lock, StatementKind, Work

_SHARE_UPDATE: Final = Lock.SHARE_UPDATE_EXCLUSIVE


def create_table(node: Any, scene: Scene) -> Effect:
    """CREATE TABLE: nobody waits for it, but the tables that it refers to are locked."""
    if node.partbound is not None:
        return _partition(node, scene)
    touches = [*_referenced(node, scene)]
    touches += [scene.touch(each, _SHARE_UPDATE) for each in node.inhRelations or ()]
    touches += [
        scene.touch(each.relation, Lock.ACCESS_SHARE) for each in of_kind(node, "TableLikeClause")
    ]
    return Effect(touches=tuple(touches), makes=_made(node.relation, scene))


def create_table_as(node: Any, scene: Scene) -> Effect:
    """CREATE TABLE AS, CREATE MATERIALIZED VIEW: a query whose rows are kept."""
    made = Effect(makes=_made(node.into.rel, scene))
    if node.into.skipData:
        return made
    return together([reading(node.query, scene), made])


def reading(query: Any, scene: Scene) -> Effect:
    """What a query locks and runs. Its WITH clauses may write: see `data`."""
    named = {each.ctename for each in of_kind(query, "CommonTableExpr")}
    written = {id(each.relation) for each in dml_of(query)}
    lock = Lock.ACCESS_SHARE
    touches = tuple(
        scene.touch(each, lock, Work.SCAN)
        for each in of_kind(query, "RangeVar")
        if id(each) not in written and (each.schemaname or each.relname not in named)
    )
    return together([Effect(touches=touches), called(query, scene)])


def create_index(node: Any, scene: Scene) -> Effect:
    """CREATE INDEX: nobody can write meanwhile, unless it is built CONCURRENTLY."""
    lock = _SHARE_UPDATE if node.concurrent else Lock.SHARE
    # ON ONLY a partitioned table: an entry in the catalog.
    is_only = node.relation.inh is False
    touch = scene.touch(node.relation, lock, Work.CATALOG if is_only else Work.SCAN, "index")
    runs = called([node.indexParams, node.whereClause], scene)
    built = Effect(touches=(touch,), must_be_alone=bool(node.concurrent))
    # An index on an expression is built again when a column changes its type.
    doubt = Effect(past=Past(doubted=frozenset({touch.table})))
    if node.concurrent or is_only:
        return together([built, runs, doubt])
    is_split = touch.facts is not None and touch.facts.kind == "p"
    found = slow(
        "index-blocks-writes",
        f"Nobody can write to {touch.table} until the index is built.",
        "An index of a partitioned table: make it ON ONLY the table, build one CONCURRENTLY on "
        "each partition, and attach them."
        if is_split
        else "Build it CONCURRENTLY, in a file of its own.",
        () if is_split else rewrites.index_concurrently(node),
        touch,
    )
    return together([built, runs, doubt, Effect(findings=found)])


def create_view(node: Any, scene: Scene) -> Effect:
    """CREATE [OR REPLACE] VIEW: its query does not run yet."""
    view = scene.touch(node.view, Lock.ACCESS_EXCLUSIVE)
    touches = [
        scene.touch(each, Lock.ACCESS_SHARE)
        for each in of_kind(node.query, "RangeVar")
        if each.schemaname or scene.facts.full_name((each.relname,)) in scene.facts.tables
    ]
    if not node.replace or view.facts is None:
        return Effect(touches=tuple(touches), makes=_made(node.view, scene))
    text = f"The view {view.table} is replaced: whoever reads it sees another query at once."
    return Effect(touches=(view, *touches), findings=(finding("replaces", Level.NOTE, text),))


def create_trigger(node: Any, scene: Scene) -> Effect:
    """CREATE TRIGGER: from then on writing to the table runs a function."""
    touches = [scene.touch(node.relation, Lock.SHARE_ROW_EXCLUSIVE)]
    if node.constrrel is not None:
        touches.append(scene.touch(node.constrrel, Lock.SHARE_ROW_EXCLUSIVE))
    spoiled = Past(spoiled=frozenset({touches[0].table}))
    if touches[0].is_new:
        return Effect(touches=tuple(touches), past=spoiled)
    name = ".".join(parts(node.funcname))
    text = f"Every write to {touches[0].table} runs {name}() from then on."
    return Effect(
        touches=tuple(touches),
        past=spoiled,
        findings=(
            finding(
                "adds-trigger",
                Level.WARNING,
                text,
                "Read the function: an error in it stops the application's writes.",
            ),
        ),
    )


def create_rule(node: Any, scene: Scene) -> Effect:
    """CREATE RULE: statements on the table become other statements."""
    touch = scene.touch(node.relation, Lock.ACCESS_EXCLUSIVE)
    text = f"Statements on {touch.table} are rewritten into others from then on."
    help_text = "Use a trigger: a rule surprises with volatile functions and row counts."
    return Effect(
        touches=(touch,),
        past=Past(spoiled=frozenset({touch.table})),
        findings=(finding("adds-rule", Level.WARNING, text, help_text),),
    )


def policy(node: Any, scene: Scene) -> Effect:
    """CREATE POLICY, ALTER POLICY."""
    touch = scene.touch(node.table, Lock.ACCESS_EXCLUSIVE)
    if touch.is_new:
        return Effect(touches=(touch,))
    text = f"Which rows of {touch.table} a role sees, and may write, changes at once."
    return Effect(touches=(touch,), findings=(finding("changes-who-sees", Level.WARNING, text),))


def create_function(node: Any, scene: Scene) -> Effect:
    """CREATE FUNCTION: its body does not run yet, and nobody knows it when it does."""
    name = parts(node.funcname)
    found = []
    known = scene.facts.functions.get(name[-1])
    dotted = ".".join(name)
    if node.replace and known is not None and (known.is_made_by_people or known.catalog):
        text = f"{dotted} exists: where the arguments are the same, its body is replaced at once."
        found.append(finding("replaces", Level.WARNING, text))
    definer = option(node.options, "security")
    if definer is not None and is_on(node.options, "security"):
        text = f"{dotted} runs with its owner's rights for whoever may call it."
        found.append(
            finding(
                "security-definer",
                Level.WARNING,
                text,
                "Set its search_path in the definition, and revoke EXECUTE from PUBLIC.",
            )
        )
    if name[0] == "pg_catalog":
        return opaque(
            "catalog-write", "It makes a function of PostgreSQL's own.", level=Level.ERROR
        )
    return Effect(findings=tuple(found), past=Past(functions=frozenset({name[-1]})))


def create_type(node: Any, _scene: Scene) -> Effect:
    """CREATE TYPE as an enum, a range or a row."""
    name = parts(getattr(node, "typeName", None) or getattr(node, "typevar", None))
    return Effect(past=Past(types={name[-1]: False} if name else {}))


def create_domain(node: Any, scene: Scene) -> Effect:
    """CREATE DOMAIN: with a CHECK or NOT NULL, every value of it is looked at."""
    is_checked = any(
        each.contype.name in {"CONSTR_CHECK", "CONSTR_NOTNULL"} for each in node.constraints or ()
    )
    runs = bool(unknown_calls(node, scene))
    name = parts(node.domainname)[-1]
    return Effect(past=Past(types={name: is_checked}, has_hidden_calls=runs))


def alter_domain(node: Any, _scene: Scene) -> Effect:
    """ALTER DOMAIN: a new rule is checked in every table that has such a column."""
    change, name = node.subtype, ".".join(parts(node.typeName))
    is_lazy = change == "C" and getattr(node.def_, "skip_validation", False)
    if change not in {"C", "V", "O"} or is_lazy:
        return Effect()
    return Effect(
        kind=StatementKind.BLOCKING,
        findings=(
            finding(
                "domain-scans",
                Level.WARNING,
                f"Every table with a column of {name} is read while nobody can write to it.",
                "Add the constraint NOT VALID, and validate it in a window.",
            ),
        ),
    )


def define(node: Any, _scene: Scene) -> Effect:
    """CREATE AGGREGATE, OPERATOR, TYPE (of C), COLLATION, and for text search."""
    name = parts(node.defnames)
    match node.kind.name:
        case "OBJECT_AGGREGATE":
            return Effect(past=Past(functions=frozenset({name[-1]})))
        case "OBJECT_OPERATOR":
            return Effect(past=Past(has_hidden_calls=True))
        case "OBJECT_TYPE":
            return Effect(past=Past(types={name[-1]: True}, has_hidden_calls=True))
        case _:
            return Effect()


def hidden_calls(_node: Any, _scene: Scene) -> Effect:
    """What makes plain expressions run functions: casts, operator classes, event triggers."""
    text = "From then on plain statements run functions that do not stand in them."
    return Effect(
        past=Past(has_hidden_calls=True), findings=(finding("hides-calls", Level.WARNING, text),)
    )


def create_extension(node: Any, _scene: Scene) -> Effect:
    """CREATE EXTENSION: a script of its own, put on the server by its administrator."""
    text = f"The extension {node.extname} brings a script that we do not read."
    is_cascade = is_on(node.options, "cascade")
    return Effect(
        findings=(finding("adds-extension", Level.WARNING if is_cascade else Level.NOTE, text),)
    )


def create_schema(node: Any, scene: Scene) -> Effect:
    """CREATE SCHEMA, with the statements that it may carry."""
    effects = []
    for each in node.schemaElts or ():
        match kind_of(each):
            case "CreateStmt":
                effects.append(create_table(each, scene))
            case "IndexStmt":
                effects.append(create_index(each, scene))
            case "ViewStmt":
                effects.append(create_view(each, scene))
            case "CreateTrigStmt":
                effects.append(create_trigger(each, scene))
            case "CreateSeqStmt" | "GrantStmt":
                effects.append(Effect())
            case kind:
                effects.append(opaque("unknown-statement", f"We do not know {kind} here."))
    return together(effects)


def create_statistics(node: Any, scene: Scene) -> Effect:
    """CREATE STATISTICS."""
    tables = of_kind(node.relations, "RangeVar")
    return Effect(touches=tuple(scene.touch(each, _SHARE_UPDATE) for each in tables))


def publication(node: Any, scene: Scene) -> Effect:
    """CREATE PUBLICATION, ALTER PUBLICATION."""
    tables = of_kind(node.pubobjects, "RangeVar")
    text = "What logical replicas receive changes."
    return Effect(
        touches=tuple(scene.touch(each, _SHARE_UPDATE) for each in tables),
        findings=(finding("changes-replication", Level.WARNING, text),),
    )


def _partition(node: Any, scene: Scene) -> Effect:
    """CREATE TABLE … PARTITION OF: the parent is locked, and its default partition read."""
    exclusive = Lock.ACCESS_EXCLUSIVE
    parent = scene.touch(node.inhRelations[0], exclusive)
    touches: list[Touch] = [parent, *_referenced(node, scene)]
    known = parent.facts
    if known is not None:
        touches += [scene.touch(each, Lock.SHARE_ROW_EXCLUSIVE) for each in known.references]
        if known.default_partition:
            touches.append(scene.touch(known.default_partition, exclusive, Work.SCAN))
    found = (
        finding(
            "partition-blocks",
            Level.WARNING,
            f"CREATE TABLE … PARTITION OF locks {parent.table} against reads and writes.",
            "Make the table on its own (LIKE … INCLUDING ALL), then ATTACH PARTITION.",
        ),
    )
    return Effect(
        touches=tuple(touches),
        makes=_made(node.relation, scene),
        findings=() if parent.is_new else found,
    )


def _referenced(node: Any, scene: Scene) -> list[Touch]:
    """The tables that its foreign keys point to, itself aside."""
    own = scene.facts.full_name(parts(node.relation))
    touches = [
        scene.touch(each.pktable, Lock.SHARE_ROW_EXCLUSIVE)
        for each in of_kind(node, "Constraint")
        if each.contype.name == "CONSTR_FOREIGN"
    ]
    return [touch for touch in touches if touch.table != own]


def _made(relation: Any, scene: Scene) -> frozenset[str]:
    """The name of what the statement makes, unless the target has one already."""
    full = scene.named(relation)
    return frozenset() if full in scene.facts.tables else frozenset({full})
