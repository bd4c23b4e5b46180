"""What stands in a database before it is changed, as values that can be stored. Pure.

`postgres.schema.reading` reads them.

Names are as the catalog has them, not quoted; definitions are the server's own text, with all
names in full.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import JsonValue

_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`identity`: `a` or `d`; `generated`: `s` or `v`; '' for none. `default`: its expression."""

    name: str
    type: str
    not_null: bool = False
    default: str = ""
    identity: str = ""
    generated: str = ""
    collation: str = ""
    comment: str = ""
    inherited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """`kind`: c, f, p, u or x. `columns`: those of its own table. `index`: what enforces it."""

    name: str
    kind: str
    definition: str
    columns: tuple[str, ...] = ()
    is_valid: bool = True
    index: str = ""
    target: str = ""  # schema.name, quoted, where a foreign key leads
    inherited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index of a table. `constraint`: the one that it enforces, or ''."""

    name: str
    definition: str
    columns: tuple[str, ...] = ()
    is_valid: bool = True
    constraint: str = ""
    inherited: bool = False  # a part of an index of the partitioned table


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """`enabled`: as pg_trigger has it: O, D, R or A."""

    name: str
    definition: str
    enabled: str = "O"
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A row security policy, as the statement that makes it."""

    name: str
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A foreign key of another table. `action`: of ON DELETE, as pg_constraint has it."""

    table: str
    name: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """`owner_table` and `owner_column`: quoted name of the table that owns it, its column."""

    type: str
    start: int
    increment: int
    minimum: int
    maximum: int
    cache: int
    cycles: bool
    owner_table: str = ""
    owner_column: str = ""
    is_identity: bool = False

    @property
    def clauses(self) -> str:
        """For CREATE SEQUENCE and ALTER SEQUENCE."""
        cycle = "CYCLE" if self.cycles else "NO CYCLE"
        return (
            f"AS {self.type} INCREMENT BY {self.increment} MINVALUE {self.minimum}"
            f" MAXVALUE {self.maximum} START WITH {self.start} CACHE {self.cache} {cycle}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A table, view, index or sequence. `kind`: relkind. `rows` -1: never counted.

    `parents` and `children` are quoted full names. `dependents`: what DROP would refuse for.
    `grants`: statements that give its rights again.
    """

    oid: int
    schema: str
    name: str
    kind: str
    owner: str
    persistence: str = "p"
    comment: str = ""
    options: tuple[str, ...] = ()
    row_security: bool = False
    force_row_security: bool = False
    partition_key: str = ""
    bound: str = ""
    parents: tuple[str, ...] = ()
    has_children: bool = False
    rows: int = -1
    bytes: int = 0
    definition: str = ""
    columns: tuple[Column, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    indexes: tuple[Index, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    policies: tuple[Policy, ...] = ()
    rules: tuple[str, ...] = ()
    incoming: tuple[Incoming, ...] = ()
    sequences: tuple[str, ...] = ()  # that its columns own, in its own schema
    sequence: Sequence | None = None
    table: str = ""  # of an index: quoted full name
    constraint: str = ""  # of an index: what it enforces
    dependents: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """Its full name, quoted."""
        return full(self.schema, self.name)

    def column(self, name: str) -> Column | None:
        """One of its columns."""
        return next((each for each in self.columns if each.name == name), None)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that tell its rows apart: of the primary key, else of nothing."""
        return next((each.columns for each in self.constraints if each.kind == "p"), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """`arguments`: for identity, in full. `kind`: f, p, a or w. `is_visible`: without schema."""

    oid: int
    schema: str
    name: str
    kind: str
    arguments: str
    types: tuple[str, ...]
    definition: str
    owner: str
    is_visible: bool = True
    comment: str = ""
    argument_names: tuple[str, ...] = ()
    defaults: int = 0
    grants: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """Name and arguments, as DROP takes them."""
        return f"{full(self.schema, self.name)}({self.arguments})"

    @property
    def word(self) -> str:
        """What it is called in statements."""
        return {"p": "PROCEDURE", "a": "AGGREGATE"}.get(self.kind, "FUNCTION")


@dataclass(frozen=True, slots=True, kw_only=True)
class Type:
    """`kind`: typtype: e, d, r or c. `definition`: the statement that makes it, or ''."""

    oid: int
    schema: str
    name: str
    kind: str
    owner: str
    labels: tuple[str, ...] = ()
    definition: str = ""
    is_visible: bool = True

    @property
    def sql(self) -> str:
        """Its full name, quoted."""
        return full(self.schema, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What there is of what was asked for; what is not here is not there.

    `path`: the schemas in which names without one are looked for; the first is where they are
    made. `written`: the oid for a relation's name as it was written ((schema or ''), name).
    """

    path: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    relations: tuple[Relation, ...] = ()
    functions: tuple[Function, ...] = ()
    types: tuple[Type, ...] = ()
    written: tuple[tuple[str, str, int], ...] = ()
    aside: tuple[str, ...] = ()  # names that are taken in `twokey_aside`
    major: int = 0
    by_oid: dict[int, Relation] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_oid", {each.oid: each for each in self.relations})

    def relation(self, schema: str | None, name: str) -> Relation | None:
        """What a name meant when the catalog was read."""
        for written_schema, written_name, oid in self.written:
            if (written_schema, written_name) == (schema or "", name):
                return self.by_oid.get(oid)
        return next(
            (each for each in self.relations if (each.schema, each.name) == (schema, name)), None
        )

    def where(self, schema: str | None) -> str:
        """The schema in which something new gets made. '' when there is none."""
        return schema or (self.path[0] if self.path else "")

    def to_json(self) -> JsonValue:
        """For the store."""
        found: JsonValue = adapter().dump_python(self, mode="json", exclude={"by_oid"})
        return found

    @classmethod
    def from_json(cls, stored: JsonValue) -> Catalog:
        """What `to_json` gave."""
        found: Catalog = adapter().validate_python(stored)
        return found


@functools.cache
def adapter() -> Any:
    """Catalogs from JSON and to it."""
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(Catalog)


@functools.cache
def _keywords() -> frozenset[str]:
    from pglast import keywords  # noqa: PLC0415 - a heavy import, for those who need it

    return frozenset(
        keywords.RESERVED_KEYWORDS | keywords.TYPE_FUNC_NAME_KEYWORDS | keywords.COL_NAME_KEYWORDS
    )


def ident(name: str) -> str:
    """A name for a statement, by the rule of the server's quote_ident."""
    if _PLAIN.fullmatch(name) and name not in _keywords():
        return name
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def full(schema: str, name: str) -> str:
    """A name with its schema."""
    return f"{ident(schema)}.{ident(name)}" if schema else ident(name)


def literal(text: str) -> str:
    """A string for a statement, whatever standard_conforming_strings says."""
    doubled = text.replace("'", "''")
    return f" E'{doubled.replace(chr(92), chr(92) * 2)}'" if "\\" in doubled else f"'{doubled}'"
