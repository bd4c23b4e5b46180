"""A declared change, as its file says it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from postgres.migrate.changes.expressions import Expression


class ChangeKind(StrEnum):
    """How a table is changed while old and new versions of the application use it."""

    EXPAND_CONTRACT = "expand_contract"  # new columns beside old ones
    SHADOW_COLUMN = "shadow_column"  # the same column, of another type


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillAsk:
    """How rows that were there before are filled. None: as the inventory says.

    `where`: fill only these rows; None: all whose values are not what they should be.
    """

    where: Expression | None = None
    ranges: int | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Schemas with the table as the old and as the new version of the application see it."""

    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewColumn:
    """A column to be added. `definition`: name, type and the rest of it, as SQL."""

    name: str
    type: str
    definition: str
    has_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A constraint to be added. `body`: what stands after its name, as SQL without NOT VALID."""

    name: str
    body: str
    columns: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIndex:
    """An index to be built. `create`: the whole statement, with CONCURRENTLY."""

    name: str
    create: str
    columns: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandContract:
    """New columns are added, kept right by a trigger, filled, proven, and then the old ones go.

    `forward`: new columns out of old ones; `reverse`: old ones out of new ones.
    """

    columns: tuple[NewColumn, ...]
    forward: Mapping[str, Expression]
    reverse: Mapping[str, Expression]
    drop: tuple[str, ...]
    not_null: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    indexes: tuple[NewIndex, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowColumn:
    """A column gets another type: a shadow of it is filled and takes its name.

    `up` computes the new value from the old column, `down` the old one from the new; both call
    it by `column`. None for `not_null` and `default`: as the old column is. `shadow` and `old`:
    the names of the new column before the switch, and of the old one after it.
    """

    column: str
    type: str
    up: Expression
    down: Expression
    shadow: str
    old: str
    not_null: bool | None = None
    default: Expression | None = None
    copies_default: bool = True
    copies_indexes: bool = True

    @property
    def bare_type(self) -> str:
        """The type without its collation, for a cast."""
        return self.type.partition(" COLLATE ")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A file of YAML, understood. `name` is the file's, without its ending.

    `compare_where`: which rows must be right when it is validated; None: all. `checks`: queries
    of which each must answer true. `is_published_prepared`: somebody says that subscribers have
    the new columns already.
    """

    name: str
    file: str
    sha256: str
    schema: str
    table: str
    what: ExpandContract | ShadowColumn
    why: str = ""
    backfill: BackfillAsk = field(default_factory=BackfillAsk)
    checks: tuple[str, ...] = ()
    compare_where: Expression | None = None
    views: Views | None = None
    is_published_prepared: bool = False

    @property
    def kind(self) -> ChangeKind:
        """What kind of change it is."""
        if isinstance(self.what, ShadowColumn):
            return ChangeKind.SHADOW_COLUMN
        return ChangeKind.EXPAND_CONTRACT

    @property
    def functions(self) -> frozenset[str]:
        """Functions of other schemas than PostgreSQL's own that the sync calls."""
        what = self.what
        if isinstance(what, ShadowColumn):
            return what.up.functions | what.down.functions
        values = (*what.forward.values(), *what.reverse.values())
        return frozenset[str]().union(*(value.functions for value in values))

    @property
    def title(self) -> str:
        """The table and what happens to it, for people."""
        match self.what:
            case ShadowColumn() as shadow:
                return f"{self.schema}.{self.table}: {shadow.column} becomes {shadow.type}"
            case ExpandContract() as wide:
                new = ", ".join(column.name for column in wide.columns)
                old = ", ".join(wide.drop) or "nothing"
                return f"{self.schema}.{self.table}: {old} becomes {new}"
