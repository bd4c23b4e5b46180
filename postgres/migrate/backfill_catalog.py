"""What the catalog says of a table and of what a backfill's expressions name.

All of it is read with an empty `search_path`, as the batches run: PostgreSQL's own functions and
operators are meant by their names, and everything else by its schema. So nobody who may create
something in a schema can have his own code called in the place of PostgreSQL's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from postgres.migrate.backfill_nodes import CATALOG, Path, TermsError
from postgres.migrate.backfill_terms import Terms

SETTINGS: Final[Mapping[str, str]] = {"search_path": "", "standard_conforming_strings": "on"}

FIND_TABLE: Final = """
    SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
           c.relpersistence::text AS persistence, pg_is_in_recovery() AS is_standby,
           has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'SELECT')
                                                            AS may_update,
           c.relrowsecurity AND row_security_active(c.oid)  AS hides_rows,
           n.nspname IN ('pg_catalog', 'information_schema') OR n.nspname ~ '^(pg_|twokey_)'
                                                            AS is_system,
           EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '2')
                                                            AS has_rules
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = $1
        OR (c.relname = $1 AND pg_table_is_visible(c.oid))
     ORDER BY n.nspname || '.' || c.relname = $1 DESC
     LIMIT 1
"""

# A table in partitions has neither rows nor pages of its own.
SIZES: Final = """
    WITH RECURSIVE tree(oid) AS (
        SELECT $1::oid
         UNION ALL
        SELECT h.inhrelid FROM pg_inherits h JOIN tree t ON t.oid = h.inhparent)
    SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint            AS heap_bytes,
           coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint   AS whole_bytes,
           coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint        AS rows,
           count(*) FILTER (WHERE c.relkind = 'r')                   AS tables
      FROM tree t JOIN pg_class c ON c.oid = t.oid
     WHERE c.relkind = 'r'
"""

COLUMNS: Final = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.atttypid AS type_oid,
           a.attnum AS number, a.attnotnull AS not_null, a.attgenerated <> '' AS is_generated,
           a.attidentity = 'a' AS is_identity,
           coalesce(coalesce(e.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace, false)
               AS is_plain
      FROM pg_attribute a
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
"""

FUNCTIONS: Final = """
    SELECT n.nspname AS schema, p.proname AS name, p.provolatile::text AS volatility,
           p.pronargs - p.pronargdefaults AS args_min, p.pronargs AS args_max,
           p.provariadic <> 0 AS is_variadic, p.prokind = 'f' AND NOT p.proretset AS is_plain,
           l.lanname AS language, p.proargtypes::oid[] AS types,
           EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
                      AND d.objid = p.oid AND d.deptype = 'e') AS is_extension
      FROM pg_proc p
      JOIN pg_namespace n ON n.oid = p.pronamespace
      JOIN pg_language l ON l.oid = p.prolang
     WHERE p.proname = ANY($1::text[])
"""

OPERATORS: Final = """
    SELECT n.nspname AS schema, o.oprname AS name, ARRAY[o.oprleft, o.oprright] AS types,
           p.provolatile::text AS volatility
      FROM pg_operator o
      JOIN pg_namespace n ON n.oid = o.oprnamespace
      JOIN pg_proc p ON p.oid = o.oprcode
     WHERE o.oprname = ANY($1::text[]) AND n.nspname <> 'pg_catalog'
"""

TYPES: Final = """
    SELECT n.nspname AS schema, t.typname AS name
      FROM pg_type t
      JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE t.typname = ANY($1::text[]) AND t.typtype <> 'p'
"""

COLLATIONS: Final = """
    SELECT DISTINCT n.nspname AS schema, c.collname AS name
      FROM pg_collation c
      JOIN pg_namespace n ON n.oid = c.collnamespace
     WHERE c.collname = ANY($1::text[])
"""

# UPDATE OF fires for the columns of the SET list; the other two kinds for every update.
TRIGGERS: Final = """
    SELECT t.tgname AS name, n.nspname || '.' || p.proname AS function,
           CASE WHEN t.tgtype & 1 = 1 THEN 'each row' ELSE 'each batch' END AS level
      FROM pg_trigger t
      JOIN pg_proc p ON p.oid = t.tgfoid
      JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgtype & 16 = 16
       AND t.tgenabled IN ('O', 'A')
       AND (cardinality(t.tgattr::int2[]) = 0 OR t.tgattr::int2[] && $2::int2[])
     ORDER BY t.tgname
"""

# An index of a constraint depends on the constraint alone, an expression's only by pg_depend.
INDEXES: Final = """
    SELECT c.relname AS name, i.indisunique AS is_unique,
           i.indkey::int2[] && $2::int2[]
           OR EXISTS (SELECT FROM pg_depend d
                       WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                         AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
                         AND d.refobjsubid = ANY($2::int2[])) AS is_touched
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
     WHERE i.indrelid = $1
     ORDER BY c.relname
"""

FOREIGN_KEYS: Final = """
    SELECT conname AS name, conrelid = $1 AS is_own
      FROM pg_constraint
     WHERE contype = 'f'
       AND ((conrelid = $1 AND conkey && $2::int2[]) OR (confrelid = $1 AND confkey && $2::int2[]))
     ORDER BY conname
"""

REPLICAS: Final = """
    SELECT coalesce(nullif(application_name, ''), client_addr::text, 'a standby') AS name
      FROM pg_stat_replication
     ORDER BY 1
"""

# Functions of PostgreSQL's own that are not immutable and only compute, of the row or the time.
_HARMLESS: Final = frozenset(
    {
        "age", "array_to_json", "array_to_string", "clock_timestamp", "concat", "concat_ws", "date",
        "date_add", "date_part", "date_subtract", "date_trunc", "extract", "format",
        "gen_random_uuid", "json_build_array", "json_build_object", "json_object",
        "json_populate_record", "jsonb_build_array", "jsonb_build_object", "jsonb_object",
        "jsonb_path_exists_tz", "jsonb_path_match_tz", "jsonb_path_query_array_tz",
        "jsonb_path_query_first_tz", "jsonb_populate_record", "jsonb_to_tsvector",
        "json_to_tsvector", "make_timestamptz", "nextval", "now", "overlaps", "pg_typeof",
        "phraseto_tsquery", "plainto_tsquery", "quote_literal", "quote_nullable", "random",
        "random_normal",
        "row_to_json", "statement_timestamp", "time", "timeofday", "timestamp", "timestamptz",
        "timetz", "timezone", "to_char", "to_date", "to_json", "to_jsonb", "to_number",
        "to_timestamp", "to_tsquery", "to_tsvector", "transaction_timestamp", "ts_headline",
        "uuidv4", "uuidv7", "websearch_to_tsquery",
    }
)  # fmt: skip
_VOLATILE: Final = "v"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """By which names to call what the terms name, and what people must know of it.

    `own`: functions of the database's own, in words; those of them that may do anything are
    `opaque`. `changing`: what gives another value each time.
    """

    functions: Mapping[Path, Path]
    types: Mapping[Path, Path]
    own: Path = ()
    opaque: Path = ()
    changing: Path = ()

    @property
    def is_ours_to_try(self) -> bool:
        """Whether planning such a statement runs no code of the database's own."""
        return not self.own and all(path[0] == CATALOG or len(path) == 1 for path in self.paths)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every name that is used."""
        return (*self.functions.values(), *self.types.values())


async def resolve(conn: Any, terms: Terms, columns: Mapping[str, Any]) -> Resolved:
    """What the names of the terms stand for. `columns`: those of the table, by name.

    Raises:
        TermsError: there is nothing of a name, it is not clear which is meant, or it does more
            than compute a value.
    """
    read = {columns[name]["type_oid"] for name in terms.columns}
    called = sorted({each.name for each in terms.functions})
    found = await conn.fetch(FUNCTIONS, called)
    functions: dict[Path, Path] = {}
    own: set[str] = set()
    opaque: set[str] = set()
    changing: set[str] = set()
    for each in sorted(terms.functions):
        fitting = [
            row for row in found
            if row["name"] == each.name and row["is_plain"] and _fits(row, each.args)
        ]  # fmt: skip
        schema = _schema(each.path, fitting, "function", read)
        functions[each.path] = (each.name,) if schema == CATALOG else (schema, each.name)
        meant = [row for row in fitting if row["schema"] == schema]
        _judge(each.name, schema, meant, own=own, opaque=opaque, changing=changing)
    await _operators(conn, terms, read)
    types = await _plain_names(conn, TYPES, terms.types, "type")
    await _plain_names(conn, COLLATIONS, terms.collations, "collation")
    return Resolved(
        functions=functions, types=types, own=tuple(sorted(own)), opaque=tuple(sorted(opaque)),
        changing=tuple(sorted(changing)),
    )  # fmt: skip


def _fits(row: Any, args: int) -> bool:
    return bool(row["args_min"] <= args and (args <= row["args_max"] or row["is_variadic"]))


def _schema(path: Path, fitting: Sequence[Any], what: str, read: set[int]) -> str:
    """The one schema that is meant.

    PostgreSQL's own comes first, unless another has one for the type of a column.
    """
    schemas = sorted({row["schema"] for row in fitting})
    *before, name = path
    if before:
        if before[0] in schemas:
            return before[0]
        schemas = []
    if not schemas:
        raise TermsError(
            f"There is no {what} {'.'.join(path)} that takes this.",
            next_step="Look at its name and its arguments; name its schema if it has another.",
        )
    others = [row for row in fitting if row["schema"] != CATALOG]
    closer = sorted({row["schema"] for row in others if read & set(row["types"])})
    if len(schemas) == 1 or (CATALOG in schemas and not closer):
        return CATALOG if CATALOG in schemas else schemas[0]
    raise TermsError(
        f"There is more than one {what} {name}: in {', '.join(schemas)}.",
        next_step=f"Write which is meant: {schemas[0]}.{name}.",
    )


def _judge(
    name: str,
    schema: str,
    meant: Sequence[Any],
    *,
    own: set[str],
    opaque: set[str],
    changing: set[str],
) -> None:
    """What people must know of a function, by the worst of those that may be meant."""
    volatility = max((row["volatility"] for row in meant), key="isv".index)
    text = name if schema == CATALOG else f"{schema}.{name}"
    if schema == CATALOG:
        if volatility != "i" and name not in _HARMLESS:
            raise TermsError(
                f"{name} does more than compute a value of its row.",
                next_step="Take functions that only compute, such as lower(x) or now().",
            )
    elif not all(row["is_extension"] for row in meant):
        languages = ", ".join(sorted({row["language"] for row in meant}))
        own.add(f"{text} ({languages})")
    if volatility == _VOLATILE:
        changing.add(text)
        if schema != CATALOG:
            opaque.add(text)


async def _operators(conn: Any, terms: Terms, read: set[int]) -> None:
    """Refuse an operator that another schema has for the type of a column, and unknown ones."""
    names = sorted({path[-1] for path in terms.operators})
    found = await conn.fetch(OPERATORS, names)
    for path in sorted(terms.operators):
        *before, name = path
        same = [row for row in found if row["name"] == name]
        if before:
            meant = [row for row in same if row["schema"] == before[0]]
            if before[0] != CATALOG and not meant:
                raise TermsError(
                    f"There is no operator {'.'.join(path)}.", next_step="Look at its schema."
                )
            if any(row["volatility"] == _VOLATILE for row in meant):
                raise TermsError(
                    f"The operator {'.'.join(path)} may do anything: its function is volatile.",
                    next_step="Call its function by its name, so that people see it.",
                )
            continue
        closer = sorted({row["schema"] for row in same if read & set(row["types"])})
        if closer:
            raise TermsError(
                f"The operator {name} of a column's type is one of the schema {closer[0]}.",
                next_step=f"Write which is meant: a OPERATOR({closer[0]}.{name}) b.",
            )


async def _plain_names(
    conn: Any, query: str, paths: frozenset[Path], what: str
) -> dict[Path, Path]:
    found = await conn.fetch(query, sorted({path[-1] for path in paths}))
    names: dict[Path, Path] = {}
    for path in sorted(paths):
        rows = [{**row, "types": ()} for row in found if row["name"] == path[-1]]
        schema = _schema(path, rows, what, set())
        names[path] = path if schema == CATALOG else (schema, path[-1])
    return names


def table_objection(table: Mapping[str, Any]) -> TermsError | None:
    """Why no backfill can be made of it, or None; by a row of `FIND_TABLE`. Pure."""
    name = f"{table['schema']}.{table['name']}"
    kinds = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
    objections = (
        (
            table["is_standby"],
            "The server is a standby, so nothing can be written there.",
            "Point the database's entry in the inventory to its primary.",
        ),
        (
            table["is_system"] or table["persistence"] == "t",
            f"{name} is PostgreSQL's own, temporary, or ours.",
            "Name a table of yours.",
        ),
        (
            table["kind"] not in {"r", "p"},
            f"{name} is {kinds.get(table['kind'], 'no table')}.",
            "Name the table that holds the rows.",
        ),
        (
            not table["may_update"],
            f"Our user may not read and update {name}.",
            f"GRANT SELECT, UPDATE ON {name} to our user.",
        ),
        (
            table["hides_rows"],
            f"Row-level security hides rows of {name} from our user: they would be left out.",
            "ALTER our role with BYPASSRLS, or let the owner's role do it.",
        ),
        (
            table["has_rules"],
            f"{name} has a rule that makes something else of an UPDATE.",
            "Write a migration instead.",
        ),
    )
    for holds, problem, next_step in objections:
        if holds:
            return TermsError(problem, next_step=next_step)
    return None


def columns_objection(
    terms: Terms, columns: Mapping[str, Any], key: Sequence[str]
) -> TermsError | None:
    """Why these columns cannot be set, or None. `key`: by which the rows are walked. Pure."""
    if unknown := sorted((terms.columns | set(terms.assigned)) - set(columns)):
        return TermsError(
            f"The table has no column {', '.join(unknown)}.",
            next_step=f"It has: {', '.join(sorted(columns)[:20])}.",
        )
    if touched := sorted(set(terms.assigned) & set(key)):
        return TermsError(
            f"{', '.join(touched)} belongs to the key by which rows are told apart.",
            next_step="Add a new column, fill that, and switch: a declared change does it.",
        )
    fixed = [
        name for name in terms.assigned if columns[name]["is_generated"]
        or columns[name]["is_identity"]
    ]  # fmt: skip
    if fixed:
        return TermsError(
            f"{', '.join(sorted(fixed))} is generated by PostgreSQL itself.",
            next_step="Set the columns that it is made of.",
        )
    return None
