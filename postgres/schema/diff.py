"""DDL from one schema to another, from two catalogs. Pure.

What it gives is a draft: `postgres.schema.drafting` finds the order in which it works by trying
it on a copy, and says what still differs afterwards. A thing that was renamed is seen as one
that went and one that came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from postgres.schema.again import VIEWS, replace_view
from postgres.schema.catalog import Catalog, Function, Relation, Type, ident, literal
from postgres.schema.diff_tables import (
    changes_type,
    constraints,
    indexes,
    new_table,
    on_table,
    table_steps,
)
from postgres.schema.diff_words import Draft, Step
from postgres.schema.drift import BOOKKEEPING, Scope

_TABLES: Final = frozenset({"r", "p"})
_RIGHTS: Final = "It is made again below; rights that were given on it must be given again."
_UNDECLARED: Final = "Not declared any more."
_GOES: Final = "Not declared any more. Its {} go: see first that nobody reads it."


def diff(present: Catalog, wanted: Catalog, *, scope: Scope) -> Draft:
    """What makes `wanted` of `present`; both read by `read_everything` on one server."""
    differ = _Differ(present=present, wanted=wanted, scope=scope)
    steps = [*differ.makes(), *differ.drops()]
    return Draft(steps=tuple(steps), undone=tuple(differ.undone))


class _Differ:
    def __init__(self, *, present: Catalog, wanted: Catalog, scope: Scope) -> None:
        self.present, self.wanted, self.scope = present, wanted, scope
        self.had = {each.sql: each for each in present.relations if _counts(each)}
        self.has = {each.sql: each for each in wanted.relations if _counts(each)}
        self.undone: list[str] = []

    def makes(self) -> Iterator[Step]:
        """All but what drops something for good, in a likely order."""
        for name in sorted(set(self.wanted.schemas) - set(self.present.schemas)):
            yield Step(sql=f"CREATE SCHEMA {ident(name)}")
        for name in sorted(set(self.wanted.extensions) - set(self.present.extensions)):
            yield Step(sql=f"CREATE EXTENSION IF NOT EXISTS {ident(name)}")
        yield from self._types()
        yield from self._sequences()
        for view in self._in_the_way():
            yield Step(sql=f"DROP {VIEWS[view.kind]} {view.sql}", note=_RIGHTS)
            self.had.pop(view.sql)
        yield from self._tables()
        if self.scope is Scope.ALL:
            yield from self._routines()
            yield from self._views()
            for before, table in self._both():
                yield from on_table(before, table)

    def drops(self) -> Iterator[Step]:
        """What is not declared any more: views and routines first, then what holds data."""
        gone = [each for name, each in self.had.items() if name not in self.has]
        if self.scope is Scope.ALL:
            yield from self._dropped_code(gone)
        for before, table in self._both():
            for column in before.columns:
                if table.column(column.name) is None and not column.inherited:
                    yield Step(
                        sql=f"ALTER TABLE {table.sql} DROP COLUMN {ident(column.name)}",
                        note=_GOES.format("values"),
                        is_drop=True,
                    )
        for each in gone:
            if each.kind in _TABLES:
                yield Step(sql=f"DROP TABLE {each.sql}", note=_GOES.format("rows"), is_drop=True)
        for each in gone:
            if each.sequence is not None and not each.sequence.owner_column:
                yield Step(sql=f"DROP SEQUENCE {each.sql}", note=_UNDECLARED, is_drop=True)
        yield from self._dropped_types()

    def _in_the_way(self) -> Sequence[Relation]:
        """Views on columns that get another type, and those on such views, the outermost first."""
        if self.scope is not Scope.ALL:
            return ()
        found = [t.sql for before, t in self._both() if changes_type(before, t)]
        views = [each for each in self.had.values() if each.kind in VIEWS]
        met: list[Relation] = []
        for name in found:
            for view in views:
                if view not in met and _names(view, name):
                    met.append(view)
                    found.append(view.sql)
        # Whoever names another goes before it.
        ordered: list[Relation] = []
        while met:
            last = next(
                (v for v in met if not any(_names(w, v.sql) for w in met if w != v)), met[0]
            )
            met.remove(last)
            ordered.append(last)
        return ordered

    def _both(self) -> Iterator[tuple[Relation, Relation]]:
        """Tables that are there and declared."""
        for name, table in self.has.items():
            before = self.had.get(name)
            if before is not None and table.kind in _TABLES:
                yield before, table

    def _tables(self) -> Iterator[Step]:
        tables = [each for each in self.has.values() if each.kind in _TABLES]
        for table in tables:
            before = self.had.get(table.sql)
            if before is None:
                yield from new_table(table)
            else:
                yield from table_steps(before, table, self.undone)
        for table in tables:
            yield from constraints(self.had.get(table.sql), table)
        for before, table in self._both():
            yield from indexes(before, table)
        for each in self.has.values():
            if each.sequence and each.sequence.owner_column and each.sql not in self.had:
                owner = f"{each.sequence.owner_table}.{ident(each.sequence.owner_column)}"
                yield Step(sql=f"ALTER SEQUENCE {each.sql} OWNED BY {owner}")

    def _dropped_code(self, gone: Sequence[Relation]) -> Iterator[Step]:
        for each in gone:
            if each.kind in VIEWS:
                yield Step(
                    sql=f"DROP {VIEWS[each.kind]} {each.sql}", note=_UNDECLARED, is_drop=True
                )
        kept = {_key(each) for each in self.wanted.functions}
        for function in self.present.functions:
            if _key(function) not in kept:
                yield Step(
                    sql=f"DROP {function.word} {function.sql}", note=_UNDECLARED, is_drop=True
                )

    def _dropped_types(self) -> Iterator[Step]:
        wanted = {each.sql for each in self.wanted.types}
        for each in self.present.types:
            if each.sql not in wanted:
                word = "DOMAIN" if each.kind == "d" else "TYPE"
                yield Step(sql=f"DROP {word} {each.sql}", note=_UNDECLARED, is_drop=True)
        for name in sorted(set(self.present.schemas) - set(self.wanted.schemas) - BOOKKEEPING):
            if name != "public":
                yield Step(sql=f"DROP SCHEMA {ident(name)}", note=_UNDECLARED, is_drop=True)

    def _types(self) -> Iterator[Step]:
        had = {each.sql: each for each in self.present.types}
        for each in self.wanted.types:
            before = had.get(each.sql)
            if before is None:
                if each.definition:
                    yield Step(sql=each.definition)
                else:
                    self.undone.append(f"type {each.sql}: write its CREATE TYPE yourself")
            elif each.kind == "e":
                yield from self._labels(before, each)
            elif before.definition != each.definition:
                self.undone.append(f"type {each.sql} differs: {each.definition}")
        for composite in self.has.values():
            before_it = self.had.get(composite.sql)
            if composite.kind != "c":
                continue
            if before_it is None:
                parts = ", ".join(f"{ident(c.name)} {c.type}" for c in composite.columns)
                yield Step(sql=f"CREATE TYPE {composite.sql} AS ({parts})")
            elif before_it.columns != composite.columns:
                self.undone.append(f"type {composite.sql} has other attributes")

    def _labels(self, before: Type, wanted: Type) -> Iterator[Step]:
        if [each for each in wanted.labels if each in before.labels] != list(before.labels):
            self.undone.append(
                f"type {wanted.sql}: PostgreSQL neither removes nor reorders labels of an enum"
            )
            return
        for place, label in enumerate(wanted.labels):
            if label not in before.labels:
                where = f" AFTER {literal(wanted.labels[place - 1])}" if place else ""
                if not place and before.labels:
                    where = f" BEFORE {literal(before.labels[0])}"
                yield Step(
                    sql=f"ALTER TYPE {wanted.sql} ADD VALUE {literal(label)}{where}",
                    note="It cannot be taken back, nor be used in the transaction that adds it.",
                )

    def _sequences(self) -> Iterator[Step]:
        for each in self.has.values():
            if each.sequence is None or each.sequence.is_identity:
                continue
            before = self.had.get(each.sql)
            if before is None:
                yield Step(sql=f"CREATE SEQUENCE {each.sql} {each.sequence.clauses}")
            elif before.sequence and before.sequence.clauses != each.sequence.clauses:
                yield Step(sql=f"ALTER SEQUENCE {each.sql} {each.sequence.clauses}")

    def _routines(self) -> Iterator[Step]:
        had = {_key(each): each for each in self.present.functions}
        for each in self.wanted.functions:
            before = had.get(_key(each))
            if before is not None and before.definition == each.definition:
                continue
            if not each.definition:
                if before is None:
                    self.undone.append(f"aggregate {each.sql}: write its CREATE AGGREGATE yourself")
                continue
            yield Step(sql=each.definition.rstrip())

    def _views(self) -> Iterator[Step]:
        for each in self.has.values():
            if each.kind not in ("v", "m"):
                continue
            before = self.had.get(each.sql)
            if before is not None and _same_view(before, each):
                continue
            names = [column.name for column in each.columns]
            fits = before and names[: len(before.columns)] == [c.name for c in before.columns]
            if before is not None and not (fits and each.kind == "v"):
                yield Step(sql=f"DROP {VIEWS[before.kind]} {each.sql}")
            if each.kind == "v":
                yield Step(sql=replace_view(each))
            else:
                query = each.definition.strip().removesuffix(";")
                yield Step(sql=f"CREATE MATERIALIZED VIEW {each.sql} AS {query}")
                yield from (Step(sql=index.definition) for index in each.indexes)


def _counts(relation: Relation) -> bool:
    """Whether it is a part of a schema: no tool's bookkeeping, no identity's sequence."""
    is_book = {relation.name, relation.schema} & BOOKKEEPING
    is_inner = relation.sequence is not None and relation.sequence.is_identity
    return not is_book and not is_inner


def _names(view: Relation, name: str) -> bool:
    """Whether its definition names a table; a word too much only makes a view anew."""
    return re.search(rf"(?<![\w.\"]){re.escape(name)}(?![\w\"])", view.definition) is not None


def _key(function: Function) -> tuple[str, str, tuple[str, ...]]:
    return function.schema, function.name, function.types


def _same_view(before: Relation, view: Relation) -> bool:
    return (before.definition, before.options, before.indexes) == (
        view.definition, view.options, view.indexes,
    )  # fmt: skip
