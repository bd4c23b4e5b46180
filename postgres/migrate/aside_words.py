"""The words of data that is kept aside instead of dropped. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pydantic import JsonValue

from postgres.migrate.own_schema import ASIDE_SCHEMA
from postgres.migrate.words import Review
from postgres.schema.catalog import Relation, full

# What a copy under a lock is estimated by: a slow disk's pace, so that it is rather less.
COPY_BYTES_PER_SECOND: Final = 50 * 2**20


class What(StrEnum):
    """What is kept."""

    TABLE = "table"  # moved as a whole
    SEQUENCE = "sequence"  # moved as a whole
    COLUMN = "column"  # copied, with the key
    ROWS = "rows"  # copied
    VIEW = "materialized view"  # its rows copied, its definition noted
    VALUES = "values"  # copied with the key, and beside them what a backfill wrote instead


# Where only a copy is kept: it can go once everything of it is back.
COPIED: Final = frozenset({What.COLUMN, What.ROWS, What.VALUES})


@dataclass(frozen=True, slots=True, kw_only=True)
class AsideBounds:
    """What may be copied while others wait. A table that is moved has no bound."""

    rows: int = 1_000_000
    bytes: int = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Something kept aside. `before`: as the catalog had it.

    `name`: of the relation in `twokey_aside`. `renamed`: indexes and sequences, old name to new.
    `columns`: that were dropped, or written to. `statement`: index of the file's statement.
    `key`: what tells rows of a copy apart, where it is not the primary key. `ledger`: the
    backfill that wrote, which must not go on once this is put back.
    """

    what: What
    name: str
    before: Relation
    statement: int = 0
    columns: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    ledger: str = ""

    @property
    def sql(self) -> str:
        """Where it stands, quoted."""
        return full(ASIDE_SCHEMA, self.name)

    @property
    def kept(self) -> str:
        """Where it stands, for the store."""
        return f"{ASIDE_SCHEMA}.{self.name}"

    @property
    def original(self) -> str:
        """What it was, for people."""
        table = f"{self.before.schema}.{self.before.name}"
        return f"{table}.{', '.join(self.columns)}" if self.columns else table

    def to_json(self) -> dict[str, JsonValue]:
        """For the store."""
        found: dict[str, JsonValue] = _adapter().dump_python(self, mode="json")
        return found

    @classmethod
    def from_json(cls, stored: JsonValue) -> Kept:
        """What `to_json` gave."""
        found: Kept = _adapter().validate_python(stored)
        return found


@functools.cache
def _adapter() -> Any:
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(Kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsideProblem:
    """Why the data of a statement cannot be kept."""

    statement: int
    text: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AsidePlan:
    """A review whose statements keep what the file would drop; the same number, in order.

    With `problems` nothing must run: what they name would be lost.
    """

    review: Review
    kept: tuple[Kept, ...] = ()
    problems: tuple[AsideProblem, ...] = ()
