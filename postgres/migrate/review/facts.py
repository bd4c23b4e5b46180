"""What the catalog knows of the things that a migration names. Values; pure.

Names are the catalog's, unquoted: `schema.name`. What stands under a partitioned table (or one
that others inherit from) is counted in with it: its size, its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column. `type_name`: pg_type's (`int8`), with its schema unless that is pg_catalog."""

    name: str
    type_name: str
    typmod: int = -1
    is_not_null: bool = False
    has_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableConstraint:
    """A constraint. `kind` is pg_constraint's contype. `references`: for a foreign key.

    `not_null`: the column that it says is never null, where it says that and nothing else.
    """

    name: str
    kind: str
    columns: tuple[str, ...] = ()
    references: str = ""
    is_valid: bool = True
    not_null: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """A relation. `kind` is pg_class's relkind; sizes in bytes, indexes apart.

    `rows`: the planner's estimate, None when nobody has ever counted. `triggers` are those that
    people made. `index_columns`: of each index (its bare name) the columns, '' for an
    expression. `references`: tables that its foreign keys point to, `referenced_by`: the others.
    """

    name: str
    kind: str = "r"
    size_bytes: int = 0
    index_bytes: int = 0
    rows: int | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    constraints: tuple[TableConstraint, ...] = ()
    referenced_by: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    has_rules: bool = False
    index_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    default_partition: str = ""

    def constraint(self, name: str) -> TableConstraint | None:
        """The constraint of this name."""
        return next((each for each in self.constraints if each.name == name), None)

    @property
    def references(self) -> tuple[str, ...]:
        """The tables that its foreign keys point to."""
        found = (each.references for each in self.constraints if each.references)
        return tuple(dict.fromkeys(found))

    @property
    def never_null(self) -> frozenset[str]:
        """Columns that a valid constraint keeps from being null."""
        said = {each.not_null for each in self.constraints if each.not_null and each.is_valid}
        return frozenset(said | {c.name for c in self.columns.values() if c.is_not_null})


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionFacts:
    """All functions of one name. `catalog`: the worst volatility of PostgreSQL's own ('' none).

    `extensions`: those that bring one. `is_made_by_people`: any other exists.
    """

    name: str
    catalog: str = ""
    extensions: frozenset[str] = frozenset()
    is_made_by_people: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeFacts:
    """A type by name. `kind` is pg_type's typtype; a domain may check its values."""

    name: str
    kind: str = "b"
    is_checked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What the statements before have made of the catalog's facts.

    `functions`, `types` (True: its values are checked): made since. `checks`: (table, column)
    proven never null; `promises`: the column of a CHECK that waits to be validated, by (table,
    constraint). `doubted`: tables whose columns and constraints are others by now. `spoiled`:
    tables and views where rows run functions that nobody knows. `aliases`: names of now, with
    the catalog's. `has_hidden_calls`: operators or casts run functions since.
    """

    functions: frozenset[str] = frozenset()
    types: Mapping[str, bool] = field(default_factory=dict)
    checks: frozenset[tuple[str, str]] = frozenset()
    promises: Mapping[tuple[str, str], str] = field(default_factory=dict)
    doubted: frozenset[str] = frozenset()
    spoiled: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    has_hidden_calls: bool = False

    def then(self, later: Past) -> Past:
        """Both, one after the other: what is doubted later is no longer proven."""
        kept = frozenset(pair for pair in self.checks if pair[0] not in later.doubted)
        return Past(
            functions=self.functions | later.functions,
            types={**self.types, **later.types},
            checks=kept | later.checks,
            promises={**self.promises, **later.promises},
            doubted=self.doubted | later.doubted,
            spoiled=self.spoiled | later.spoiled,
            aliases={**self.aliases, **later.aliases},
            has_hidden_calls=self.has_hidden_calls or later.has_hidden_calls,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the target's catalog said, once.

    `indexes`: an index's name to its table's. `is_read`: False for no facts at all: then
    everything counts as the worst that it can be. `pasts`: for a file's text, what the files
    before it in the same look will have done by then.
    """

    search_path: tuple[str, ...] = ("public",)
    tables: Mapping[str, TableFacts] = field(default_factory=dict)
    indexes: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, FunctionFacts] = field(default_factory=dict)
    types: Mapping[str, TypeFacts] = field(default_factory=dict)
    is_read: bool = False
    pasts: Mapping[str, Past] = field(default_factory=dict)

    def full_name(self, name: tuple[str, ...]) -> str:
        """`schema.name` of a table or index; where it is unknown, as it would be made."""
        if len(name) > 1:
            return ".".join(name[-2:])
        plain = "".join(name)
        for schema in self.search_path:
            full = f"{schema}.{plain}"
            if full in self.tables or full in self.indexes:
                return full
        return f"{self.search_path[0] if self.search_path else 'public'}.{plain}"


NO_FACTS: Final = Facts()
NO_PAST: Final = Past()
