"""Functions that a statement would run, and which of them are known to do no harm. Pure."""

from __future__ import annotations

from typing import Any, Final

from postgres.migrate.review.effects import Scene
from postgres.migrate.review.nodes import kind_of, of_kind, parts, walk

# PostgreSQL's own volatile functions that change nothing but a sequence.
_HARMLESS_VOLATILE: Final = frozenset({
    "clock_timestamp", "currval", "gen_random_uuid", "lastval", "nextval", "random",
    "random_normal", "setseed", "setval", "timeofday", "uuidv4", "uuidv7",
})  # fmt: skip
# Without facts: the functions that migrations are full of. All are PostgreSQL's own.
_HARMLESS_STABLE: Final = frozenset({
    "abs", "array_agg", "array_append", "array_length", "array_to_string", "avg", "bool_and",
    "bool_or", "btrim", "ceil", "char_length", "coalesce", "concat", "concat_ws", "count",
    "current_setting", "date_part", "date_trunc", "decode", "encode", "extract", "floor",
    "format", "generate_series", "greatest", "initcap", "json_agg", "json_build_object",
    "jsonb_agg", "jsonb_array_elements", "jsonb_build_array", "jsonb_build_object",
    "jsonb_each", "jsonb_object_agg", "jsonb_set", "jsonb_typeof", "least", "left", "length",
    "lower", "lpad", "ltrim", "make_date", "make_interval", "max", "md5", "min", "now",
    "nullif", "position", "regexp_match", "regexp_replace", "regexp_split_to_array", "repeat",
    "replace", "reverse", "right", "round", "row_number", "rpad", "rtrim", "sign",
    "split_part", "statement_timestamp", "string_agg", "string_to_array", "strpos", "substr",
    "substring", "sum", "to_char", "to_date", "to_json", "to_jsonb", "to_number",
    "to_timestamp", "to_tsvector", "transaction_timestamp", "translate", "trim", "trunc",
    "unnest", "upper",
})  # fmt: skip
# Their functions compute; dblink's, for one, do not.
_HARMLESS_EXTENSIONS: Final = frozenset({
    "btree_gin", "btree_gist", "citext", "cube", "earthdistance", "fuzzystrmatch", "hstore",
    "intarray", "isn", "ltree", "pg_trgm", "pgcrypto", "seg", "unaccent", "uuid-ossp", "vector",
})  # fmt: skip
# Stable in the catalog, and yet a way to make the server do something.
_NEVER_HARMLESS: Final = frozenset({"set_config", "pg_terminate_backend", "pg_cancel_backend"})
_CATALOG: Final = "pg_catalog"


def calls_of(node: Any) -> tuple[tuple[str, ...], ...]:
    """The names of the functions that stand in an expression or a statement."""
    return tuple(parts(each.funcname) for each in of_kind(node, "FuncCall"))


def unknown_calls(node: Any, scene: Scene) -> tuple[str, ...]:
    """What of the functions and operators in it could do anything at all, by name."""
    found = [".".join(name) for name in calls_of(node) if not is_harmless(name, scene)]
    for each in of_kind(node, "A_Expr"):
        name = parts(each.name)
        if len(name) > 1 and name[0] != _CATALOG:
            found.append(f"operator {'.'.join(name)}")
    if scene.past.has_hidden_calls and any(kind_of(each) in _COMPUTING for each in walk(node)):
        found.append("operators or casts that this file makes")
    return tuple(dict.fromkeys(found))


_COMPUTING: Final = frozenset({"A_Expr", "TypeCast", "ResTarget", "FuncCall"})


def is_harmless(name: tuple[str, ...], scene: Scene) -> bool:
    """Whether every function that the name can mean computes, and changes nothing.

    A function that people made may run anything, whatever volatility it claims.
    """
    plain = name[-1]
    if plain in _NEVER_HARMLESS or plain in scene.past.functions:
        return False
    known = scene.facts.functions.get(plain)
    schema = name[0] if len(name) > 1 else ""
    if schema == _CATALOG:
        return _of_catalog(plain, known.catalog if known else "")
    if known is None:
        # Facts that were read name every function there is: this one is not there.
        return not schema and not scene.facts.is_read and _of_catalog(plain, "")
    if known.is_made_by_people or not known.extensions <= _HARMLESS_EXTENSIONS:
        return False
    if not known.catalog:
        return bool(known.extensions)
    return not schema and _of_catalog(plain, known.catalog)


def is_volatile(node: Any, scene: Scene) -> bool:
    """Whether an expression may give another value for each row: the worst where unknown."""
    for name in calls_of(node):
        known = scene.facts.functions.get(name[-1])
        if name[-1] in _HARMLESS_VOLATILE or name[-1] in scene.past.functions:
            return True
        if known is None:
            if name[-1] not in _HARMLESS_STABLE:
                return True
        elif known.catalog in {"", "v"} or known.is_made_by_people or known.extensions:
            return True
    return any(kind_of(each) == "NextValueExpr" for each in walk(node))


def _of_catalog(plain: str, volatility: str) -> bool:
    if plain in _HARMLESS_VOLATILE or (not volatility and plain in _HARMLESS_STABLE):
        return True
    return volatility in {"i", "s"}
