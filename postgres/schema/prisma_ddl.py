"""The DDL that Prisma makes of a schema for PostgreSQL, with the names that it gives. Pure.

After Prisma's documentation of its types, defaults and naming of constraints, as of version 6.
What the client alone does (`uuid()`, `@updatedAt`) leaves no trace in the database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from postgres.schema.prisma import (
    Attribute,
    Enum,
    Field,
    Model,
    PrismaSchema,
    list_of,
    names_of,
    parse_prisma,
    text_of,
    wrong,
)

_SCALARS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "String": "TEXT",
        "Boolean": "BOOLEAN",
        "Int": "INTEGER",
        "BigInt": "BIGINT",
        "Float": "DOUBLE PRECISION",
        "Decimal": "DECIMAL(65,30)",
        "DateTime": "TIMESTAMP(3)",
        "Json": "JSONB",
        "Bytes": "BYTEA",
    }
)
_NATIVE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Text": "TEXT", "VarChar": "VARCHAR", "Char": "CHAR", "Uuid": "UUID", "Citext": "CITEXT",
        "Inet": "INET", "Xml": "XML", "Bit": "BIT", "VarBit": "VARBIT", "Boolean": "BOOLEAN",
        "Integer": "INTEGER", "SmallInt": "SMALLINT", "BigInt": "BIGINT", "Oid": "OID",
        "Real": "REAL", "DoublePrecision": "DOUBLE PRECISION", "Decimal": "DECIMAL",
        "Money": "MONEY", "Timestamp": "TIMESTAMP", "Timestamptz": "TIMESTAMPTZ", "Date": "DATE",
        "Time": "TIME", "Timetz": "TIMETZ", "Json": "JSON", "JsonB": "JSONB", "ByteA": "BYTEA",
    }
)  # fmt: skip
_SERIAL: Final[Mapping[str, str]] = MappingProxyType(
    {"INTEGER": "SERIAL", "BIGINT": "BIGSERIAL", "SMALLINT": "SMALLSERIAL"}
)
_ACTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Cascade": "CASCADE",
        "Restrict": "RESTRICT",
        "NoAction": "NO ACTION",
        "SetNull": "SET NULL",
        "SetDefault": "SET DEFAULT",
    }
)
# Made by Prisma's client before it inserts.
_BY_THE_CLIENT: Final = ("uuid(", "cuid(", "nanoid(", "ulid(", "auto(")
_NAME_BYTES_MAX: Final = 63


def prisma_ddl(text: str) -> str:
    """The statements that make what a `schema.prisma` says, in an empty database.

    Raises:
        PostgresError: something in it is not understood; says the line.
    """
    return "\n".join(_Writer(parse_prisma(text)).statements())


class _Writer:
    def __init__(self, schema: PrismaSchema) -> None:
        self._schema = schema
        self._models = {model.name: model for model in schema.models}
        self._enums = {enum.name: enum for enum in schema.enums}

    def statements(self) -> Iterator[str]:
        spaces = {model.schema for model in self._schema.models}
        spaces |= {enum.schema for enum in self._schema.enums}
        for space in sorted(spaces - {"", "public"}):
            yield f"CREATE SCHEMA {_quoted(space)};"
        for enum in self._schema.enums:
            labels = ", ".join(_literal(label) for label in enum.labels.values())
            yield f"CREATE TYPE {_qualified(enum.schema, enum.type_name)} AS ENUM ({labels});"
        kept = [model for model in self._schema.models if not model.attribute("ignore")]
        for model in self._schema.models:
            yield self._table(model)
        for model in self._schema.models:
            yield from self._indexes(model)
        for model in kept:
            for field in model.fields:
                yield from self._foreign_key(model, field)
        yield from self._join_tables()

    def _table(self, model: Model) -> str:
        lines = [self._column(model, field) for field in model.fields if self._is_column(field)]
        if key := self._primary_key(model):
            lines.append(key)
        return f"CREATE TABLE {_table(model)} (\n    {_join(lines)}\n);"

    def _is_column(self, field: Field) -> bool:
        return field.type not in self._models

    def _column(self, model: Model, field: Field) -> str:
        type_ = self._type(field)
        default = field.attribute("default")
        given = default.get("value") if default else None
        if given == "autoincrement()":
            if type_ not in _SERIAL:
                raise wrong(field.line, f"autoincrement() on {type_}")
            type_, given = _SERIAL[type_], None
        parts = [_quoted(field.column), type_ + ("[]" if field.is_list else "")]
        is_id = field.attribute("id") or field.name in self._id_fields(model)
        if is_id or not (field.is_optional or field.is_list):
            parts.append("NOT NULL")
        if said := self._default(field, given):
            parts.append(f"DEFAULT {said}")
        return " ".join(parts)

    def _type(self, field: Field) -> str:
        if field.type.startswith("Unsupported("):
            return text_of(field.type.removeprefix("Unsupported(").removesuffix(")"))
        if enum := self._enums.get(field.type):
            return _qualified(enum.schema, enum.type_name)
        native = next((each for each in field.attributes if each.name.startswith("db.")), None)
        if native is not None:
            name = native.name.removeprefix("db.")
            if name not in _NATIVE:
                raise wrong(field.line, f"the type @db.{name} is not known")
            return _NATIVE[name] + (f"({','.join(native.args)})" if native.args else "")
        if field.type not in _SCALARS:
            raise wrong(field.line, f"the type {field.type} is not known")
        return _SCALARS[field.type]

    def _default(self, field: Field, given: str | None) -> str | None:
        if given is None or given.startswith(_BY_THE_CLIENT):
            return None
        if given == "now()":
            return "CURRENT_TIMESTAMP"
        if given.startswith("dbgenerated("):
            return text_of(given.removeprefix("dbgenerated(").removesuffix(")")) or None
        if field.is_list:
            values = ", ".join(self._value(field, part) for part in list_of(given))
            return f"ARRAY[{values}]::{self._type(field)}[]"
        return self._value(field, given)

    def _value(self, field: Field, given: str) -> str:
        if enum := self._enums.get(field.type):
            return _literal(_label(enum, given, field))
        if given.startswith('"'):
            return _literal(text_of(given))
        if re.fullmatch(r"-?[0-9.]+|true|false", given):
            return given
        raise wrong(field.line, f"the default {given} is not understood")

    def _id_fields(self, model: Model) -> tuple[str, ...]:
        whole = model.attribute("id")
        return names_of(whole.get("fields")) if whole else ()

    def _primary_key(self, model: Model) -> str | None:
        single = next((field for field in model.fields if field.attribute("id")), None)
        whole = model.attribute("id")
        attribute = single.attribute("id") if single else whole
        if attribute is None:
            return None
        names = (single.name,) if single else names_of(attribute.get("fields"))
        name = text_of(attribute.named["map"]) if "map" in attribute.named else ""
        columns = ", ".join(self._columns(model, names))
        return f"CONSTRAINT {_quoted(name or _cut(model.table, 'pkey'))} PRIMARY KEY ({columns})"

    def _columns(self, model: Model, names: Sequence[str]) -> list[str]:
        found: list[str] = []
        for name in names:
            field = model.field(name)
            if field is None:
                raise wrong(model.line, f"{model.name} has no field {name}")
            found.append(_quoted(field.column))
        return found

    def _indexes(self, model: Model) -> Iterator[str]:
        for field in model.fields:
            if unique := field.attribute("unique"):
                yield self._index(model, unique, (field.name,), kind="key")
        for attribute in model.attributes:
            if attribute.name in {"unique", "index"}:
                parts = list_of(attribute.get("fields"))
                kind = "key" if attribute.name == "unique" else "idx"
                yield self._index(model, attribute, parts, kind=kind)
            elif attribute.name not in {"id", "map", "schema", "ignore"}:
                raise wrong(model.line, f"@@{attribute.name} is not understood")

    def _index(self, model: Model, attribute: Attribute, parts: Sequence[str], *, kind: str) -> str:
        names = [re.match(r"\w*", part).group() for part in parts]  # type: ignore[union-attr]
        columns = self._columns(model, names)
        keys = [column + _suffix(part, model) for column, part in zip(columns, parts, strict=True)]
        stems = [column.strip('"') for column in columns]
        name = text_of(attribute.named.get("map", "")) or _cut(
            f"{model.table}_{'_'.join(stems)}", kind
        )
        using = attribute.named.get("type")
        method = f" USING {using.upper()}" if using and using != "BTree" else ""
        unique = "UNIQUE " if kind == "key" else ""
        return (
            f"CREATE {unique}INDEX {_quoted(name)} ON {_table(model)}{method}({', '.join(keys)});"
        )

    def _foreign_key(self, model: Model, field: Field) -> Iterator[str]:
        relation = field.attribute("relation")
        if relation is None or "fields" not in relation.named:
            return
        other = self._models[field.type]
        mine = names_of(relation.named["fields"])
        columns = self._columns(model, mine)
        stem = "_".join(column.strip('"') for column in columns)
        name = text_of(relation.named.get("map", "")) or _cut(f"{model.table}_{stem}", "fkey")
        theirs = self._columns(other, names_of(relation.named.get("references")))
        usual = "SetNull" if self._is_optional(model, mine) else "Restrict"
        on_delete = _action(relation, "onDelete", usual, field)
        on_update = _action(relation, "onUpdate", "Cascade", field)
        yield (
            f"ALTER TABLE {_table(model)} ADD CONSTRAINT {_quoted(name)} FOREIGN KEY"
            f" ({', '.join(columns)}) REFERENCES {_table(other)}({', '.join(theirs)})"
            f" ON DELETE {on_delete} ON UPDATE {on_update};"
        )

    def _is_optional(self, model: Model, names: Sequence[str]) -> bool:
        fields = [model.field(name) for name in names]
        return any(field is not None and field.is_optional for field in fields)

    def _join_tables(self) -> Iterator[str]:
        """Two models with lists of each other and no columns for it: a table between them."""
        seen: set[tuple[str, str, str]] = set()
        for model in self._schema.models:
            for field in model.fields:
                pair = self._pair(model, field)
                if pair is None or pair in seen:
                    continue
                seen.add(pair)
                yield from self._join_table(*pair)

    def _pair(self, model: Model, field: Field) -> tuple[str, str, str] | None:
        if not field.is_list or field.type not in self._models:
            return None
        name = _relation_name(field)
        back = [
            each
            for each in self._models[field.type].fields
            if each.type == model.name and each is not field and _relation_name(each) == name
        ]
        if not back or not back[0].is_list:
            return None
        first, second = sorted((model.name, field.type))
        return name or f"{first}To{second}", first, second

    def _join_table(self, name: str, first: str, second: str) -> Iterator[str]:
        sides = [self._models[first], self._models[second]]
        types = [self._key_type(model) for model in sides]
        table = _qualified(sides[0].schema, f"_{name}")
        yield (
            f'CREATE TABLE {table} (\n    "A" {types[0]} NOT NULL,\n    "B" {types[1]} NOT NULL,\n'
            f'    CONSTRAINT {_quoted(f"_{name}_AB_pkey")} PRIMARY KEY ("A", "B")\n);'
        )
        yield f'CREATE INDEX {_quoted(f"_{name}_B_index")} ON {table}("B");'
        for column, model in zip("AB", sides, strict=True):
            [key] = [field.column for field in model.fields if field.attribute("id")]
            yield (
                f"ALTER TABLE {table} ADD CONSTRAINT {_quoted(f'_{name}_{column}_fkey')} FOREIGN"
                f' KEY ("{column}") REFERENCES {_table(model)}({_quoted(key)})'
                " ON DELETE CASCADE ON UPDATE CASCADE;"
            )

    def _key_type(self, model: Model) -> str:
        keys = [field for field in model.fields if field.attribute("id")]
        if len(keys) != 1:
            raise wrong(model.line, f"{model.name} has no single key that a table between can use")
        return self._type(keys[0])


def _relation_name(field: Field) -> str:
    relation = field.attribute("relation")
    given = relation.get("name") if relation else None
    return text_of(given) if given and given.startswith('"') else ""


def _action(relation: Attribute, name: str, usual: str, field: Field) -> str:
    given = relation.named.get(name, usual)
    if given not in _ACTIONS:
        raise wrong(field.line, f"{name}: {given} is not understood")
    return _ACTIONS[given]


def _suffix(part: str, model: Model) -> str:
    """What an index says of one of its columns."""
    inside = part.partition("(")[2].removesuffix(")")
    if not inside:
        return ""
    if re.fullmatch(r"sort:\s*Asc", inside):
        return ""
    if re.fullmatch(r"sort:\s*Desc", inside):
        return " DESC"
    if found := re.fullmatch(r"ops:\s*raw\(\"(\w+)\"\)", inside):
        return f" {found[1]}"
    raise wrong(model.line, f"{part} in an index is not understood")


def _label(enum: Enum, given: str, field: Field) -> str:
    if given not in enum.labels:
        raise wrong(field.line, f"{enum.name} has no value {given}")
    return enum.labels[given]


def _cut(stem: str, ending: str) -> str:
    """A name that PostgreSQL takes whole: its stem is cut, its ending stays."""
    room = _NAME_BYTES_MAX - len(ending) - 1
    return f"{stem.encode()[:room].decode(errors='ignore')}_{ending}"


def _join(lines: Sequence[str]) -> str:
    return ",\n    ".join(lines)


def _table(model: Model) -> str:
    return _qualified(model.schema, model.table)


def _qualified(schema: str, name: str) -> str:
    return f"{_quoted(schema)}.{_quoted(name)}" if schema else _quoted(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
