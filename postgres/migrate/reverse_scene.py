"""What is known at each statement of a file while its way back is worked out. Pure.

The catalog is of the time before the file. Names move while the file goes on, so each relation
is a `Thing` that keeps what it was; definitions that are texts hold only until a rename.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from postgres.migrate.aside_words import Kept, What
from postgres.migrate.reverse_names import split_name
from postgres.schema.catalog import Catalog, Function, Relation, Type, full


class Exactness(StrEnum):
    """How much of what was there before is there again afterwards."""

    EXACT = "exact"
    SCHEMA_ONLY = "schema_only"  # definitions, but not the data that was in them
    NONE = "none"

    @property
    def rank(self) -> int:
        """0 for the best."""
        return list(Exactness).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """The way back of one statement. `reasons`: why no better, `notes`: what else to know."""

    statements: tuple[str, ...] = ()
    exactness: Exactness = Exactness.EXACT
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


NOTHING: Final = Undo()


def back(*statements: str, note: str = "") -> Undo:
    """Everything is as before."""
    return Undo(statements=statements, notes=(note,) if note else ())


def schema_only(*statements: str, why: str) -> Undo:
    """Without the data."""
    return Undo(statements=statements, exactness=Exactness.SCHEMA_ONLY, reasons=(why,))


def none(why: str) -> Undo:
    """No way back that could be proved."""
    return Undo(exactness=Exactness.NONE, reasons=(why,))


def together(undos: list[Undo]) -> Undo:
    """The way back of what was done in this order."""
    worst = max((each.exactness for each in undos), key=lambda e: e.rank, default=Exactness.EXACT)
    statements = tuple(text for each in reversed(undos) for text in each.statements)
    return Undo(
        statements=() if worst is Exactness.NONE else statements,
        exactness=worst,
        reasons=tuple(dict.fromkeys(reason for each in undos for reason in each.reasons)),
        notes=tuple(dict.fromkeys(note for each in undos for note in each.notes)),
    )


@dataclass(slots=True, kw_only=True)
class Thing:
    """A relation under its name of the moment. `before`: as it was; None: this file made it."""

    schema: str
    name: str
    before: Relation | None
    made_columns: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)  # name now -> name before
    has_triggers: bool = False  # that this file made

    @property
    def sql(self) -> str:
        """Its name now, quoted."""
        return full(self.schema, self.name)

    @property
    def is_made(self) -> bool:
        """Whether the file itself made it: dropping it takes all of it back."""
        return self.before is None


@dataclass(slots=True, kw_only=True)
class Scene:
    """What the statements so far have done. `is_renamed`: texts of before may not fit any more."""

    catalog: Catalog
    things: dict[tuple[str, str], Thing | None] = field(default_factory=dict)
    made_types: set[tuple[str, str]] = field(default_factory=set)
    made_routines: set[tuple[str, str]] = field(default_factory=set)
    made_schemas: set[str] = field(default_factory=set)
    is_renamed: bool = False
    kept: tuple[Kept, ...] = ()

    def kept_of(self, before: Relation, what: What) -> Kept | None:
        """What of a relation was kept aside, where that was done once."""
        found = [each for each in self.kept if (each.before.oid, each.what) == (before.oid, what)]
        return found[0] if len(found) == 1 else None

    def find(self, schema: str | None, name: str) -> Thing | None:
        """What a name means now; None: nothing that is known."""
        for each in (schema,) if schema else self.catalog.path:
            key = (each, name)
            if key in self.things:
                if (known := self.things[key]) is not None:
                    return known
                continue
            before = self.catalog.relation(schema, name)
            if before is not None and (before.schema, before.name) == key:
                thing = Thing(schema=each, name=name, before=before)
                self.things[key] = thing
                return thing
        return None

    def at(self, range_var: Any) -> Thing | None:
        """What a RangeVar means now."""
        return self.find(range_var.schemaname, range_var.relname)

    def make(self, schema: str | None, name: str) -> Thing:
        """Something that was not there."""
        place = self.catalog.where(schema)
        thing = Thing(schema=place, name=name, before=None)
        self.things[place, name] = thing
        return thing

    def drop(self, thing: Thing) -> None:
        """It is gone."""
        self.things[thing.schema, thing.name] = None

    def move(self, thing: Thing, *, schema: str = "", name: str = "") -> None:
        """It has another name or stands in another schema."""
        self.drop(thing)
        thing.schema, thing.name = schema or thing.schema, name or thing.name
        self.things[thing.schema, thing.name] = thing
        self.is_renamed = True

    def type(self, path: tuple[str, ...]) -> Type | None:
        """The type of this name."""
        schema, name = split_name(path)
        return next(
            (
                each
                for each in self.catalog.types
                if each.name == name and (each.schema == schema if schema else each.is_visible)
            ),
            None,
        )

    def made_type(self, path: tuple[str, ...]) -> bool:
        """Whether this file made it."""
        schema, name = split_name(path)
        return (self.catalog.where(schema), name) in self.made_types

    def routines(self, path: tuple[str, ...]) -> list[Function]:
        """All of this name: in its schema, or where one without a schema is looked for."""
        schema, name = split_name(path)
        return [
            each
            for each in self.catalog.functions
            if each.name == name and (each.schema == schema if schema else each.is_visible)
        ]


def printed(node: Any) -> str:
    """A part of a statement as SQL."""
    from pglast.stream import RawStream  # noqa: PLC0415 - a heavy import

    return str(RawStream()(node))
