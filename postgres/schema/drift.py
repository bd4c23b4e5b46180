"""Two sets of definitions compared: what is declared, and what is there. Pure.

Definitions are the lines of `postgres.facts.SCHEMA_LINES`: one for each column, constraint,
index and so on, written by the server itself, so spelling makes no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

# A name as PostgreSQL quotes it, with its schema or without.
_IDENT: Final = r'(?:"(?:[^"]|"")*"|[^\s".(]+)'
_NAME: Final = rf"{_IDENT}(?:\.{_IDENT})?"
# What a line says, and how many names tell it apart from others of its kind. The definition of
# a function begins behind CREATE OR REPLACE; its arguments belong to its name.
_SHAPES: Final[Mapping[str, re.Pattern[str]]] = MappingProxyType(
    {
        "schema": re.compile(rf"(?P<on>)(?P<name>{_NAME})"),
        "extension": re.compile(rf"(?P<on>)(?P<name>{_NAME}) ?(?P<rest>.*)", re.DOTALL),
        "class": re.compile(rf"(?P<on>)(?P<name>{_NAME}) ?(?P<rest>.*)", re.DOTALL),
        "inherits": re.compile(rf"(?P<on>{_NAME}) (?P<name>{_NAME})"),
        "column": re.compile(rf"(?P<on>{_NAME}) (?P<name>{_IDENT}) ?(?P<rest>.*)", re.DOTALL),
        "constraint": re.compile(
            rf"(?P<on>(?:{_NAME}|-) (?:{_NAME}|-)) (?P<name>{_IDENT}) (?P<rest>.*)", re.DOTALL
        ),
        "index": re.compile(rf"(?P<on>)(?P<name>{_NAME}) ?(?P<rest>.*)", re.DOTALL),
        "view": re.compile(rf"(?P<on>)(?P<name>{_NAME}) ?(?P<rest>.*)", re.DOTALL),
        "rule": re.compile(
            rf"(?P<on>{_NAME}) (?P<name>CREATE RULE {_IDENT})(?P<rest>.*)", re.DOTALL
        ),
        "sequence": re.compile(rf"(?P<on>)(?P<name>{_NAME}) ?(?P<rest>.*)", re.DOTALL),
        "function": re.compile(
            rf"(?P<on>)(?:\w )?CREATE OR REPLACE \w+ (?P<name>{_NAME}\(.*?\)\n)(?P<rest>.*)",
            re.DOTALL,
        ),
        "aggregate": re.compile(r"(?P<on>)(?P<name>.*?\)) (?P<rest>.*)", re.DOTALL),
        "trigger": re.compile(
            rf"CREATE (?:CONSTRAINT )?TRIGGER (?P<name>{_IDENT}) "
            rf"(?P<rest>.*? ON (?P<on>{_NAME}) .*)",
            re.DOTALL,
        ),
        "event": re.compile(rf"(?P<on>)trigger (?P<name>{_IDENT}) ?(?P<rest>.*)", re.DOTALL),
        "type": re.compile(rf"(?P<on>)(?P<name>{_NAME}) ?(?P<rest>.*)", re.DOTALL),
        "policy": re.compile(rf"(?P<on>{_NAME}) (?P<name>{_IDENT}) ?(?P<rest>.*)", re.DOTALL),
        "foreign": re.compile(rf"(?P<on>)(?P<name>{_NAME}) ?(?P<rest>.*)", re.DOTALL),
    }
)
_TABLE_LINES: Final = frozenset(
    {"schema", "class", "column", "constraint", "index", "sequence", "type", "inherits"}
)
_TABLE_KINDS: Final = frozenset({"r", "p", "S"})
# What a tool's own bookkeeping puts there belongs to no declared schema.
BOOKKEEPING: Final = frozenset(
    {"alembic_version", "_prisma_migrations", "flyway_schema_history", "schema_migrations",
     "twokey_audit", "twokey_migrate", "twokey_aside"}
)  # fmt: skip


class DriftKind(StrEnum):
    """How what is there differs from what is declared."""

    MISSING = "missing"  # declared, and not there
    UNDECLARED = "not declared"  # there, and not declared
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One line, taken apart: what it is, of which object, its name, and the rest."""

    what: str
    on: str
    name: str
    rest: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is compared by."""
        return self.what, self.on, self.name

    @property
    def said(self) -> str:
        """Its name for people."""
        on = self.on.removesuffix(" -").removeprefix("- ")
        name = " ".join(self.name.removeprefix("CREATE RULE ").split())
        return f"{on}: {name}" if on else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One difference. '' for a side that has nothing."""

    kind: DriftKind
    what: str
    name: str
    declared: str
    actual: str


class Scope(StrEnum):
    """What a declaration can speak of; of the rest its silence says nothing."""

    ALL = "all"
    TABLES = "tables"  # with their columns, constraints, indexes, sequences and types


def compare(declared: Iterable[str], actual: Iterable[str], *, scope: Scope) -> tuple[Drift, ...]:
    """Every difference between two sets of lines, by what it is about."""
    wanted, there = _by_key(declared, scope), _by_key(actual, scope)
    gone = {each.name for each in wanted.values() if each.what == "class"} ^ {
        each.name for each in there.values() if each.what == "class"
    }
    found = [
        _drift(wanted.get(key), there.get(key))
        for key in sorted(wanted.keys() | there.keys())
        if wanted.get(key) != there.get(key)
    ]
    # Of a table or view that is missing whole, its parts go without saying.
    return tuple(each for each, on in found if each.what == "class" or not {on, each.name} & gone)


def _drift(wanted: Definition | None, there: Definition | None) -> tuple[Drift, str]:
    some = wanted or there
    if some is None:
        raise ValueError("nothing to compare")
    if wanted is None:
        kind = DriftKind.UNDECLARED
    else:
        kind = DriftKind.MISSING if there is None else DriftKind.DIFFERENT
    drift = Drift(
        kind=kind,
        what=some.what,
        name=some.said,
        declared=_whole(wanted),
        actual=_whole(there),
    )
    return drift, _table_of(some)


def _whole(definition: Definition | None) -> str:
    return " ".join(definition.rest.split()) or "as its name says" if definition else ""


def _table_of(definition: Definition) -> str:
    if definition.what == "index":
        found = re.search(rf" ON (?:ONLY )?({_NAME}) USING ", definition.rest)
        return found[1] if found else ""
    return definition.on.removesuffix(" -")


def _by_key(lines: Iterable[str], scope: Scope) -> dict[tuple[str, str, str], Definition]:
    found = [each for each in (definition_of(line) for line in lines) if not _is_bookkeeping(each)]
    if scope is Scope.TABLES:
        no_tables = {
            each.name
            for each in found
            if each.what == "class" and each.rest[:1] not in _TABLE_KINDS
        }
        found = [
            each
            for each in found
            if each.what in _TABLE_LINES and not {each.name, each.on} & no_tables
        ]
    return {each.key: each for each in found}


def _is_bookkeeping(definition: Definition) -> bool:
    runs = definition.rest if definition.what == "trigger" else ""
    text = f"{definition.on} {definition.name} {_table_of(definition)} {runs}"
    return any(re.search(rf"(?:^|[\s.\"]){re.escape(name)}", text) for name in BOOKKEEPING)


def definition_of(line: str) -> Definition:
    """A line taken apart; one of a shape that nobody knows is compared as a whole."""
    what, _, text = line.partition(" ")
    shape = _SHAPES.get(what)
    found = shape.match(text) if shape else None
    if found is None:
        return Definition(what=what, on="", name=text, rest="")
    parts = found.groupdict()
    rest = (parts.get("rest") or "").strip()
    if what == "extension":  # its version is the host's matter
        rest = rest.partition(" ")[2]
    return Definition(what=what, on=parts["on"], name=parts["name"], rest=rest)
