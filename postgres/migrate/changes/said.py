"""The keys of a change's file, as they are written. Pure.

Texts of SQL are only taken in here; `postgres.migrate.changes.model` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from postgres.migrate.changes.expressions import read_assignments


def _as_map(value: Any) -> Any:
    """`a = 1, b = 2` as a mapping; anything else as it is."""
    return read_assignments(value) if isinstance(value, str) and value.strip() else value


def _as_text(value: Any) -> Any:
    """A number of YAML where an expression is expected: `default: 7`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else value


_Text = Annotated[str, Field(min_length=1, max_length=4000)]
_Name = Annotated[str, Field(min_length=1, max_length=63)]
_Assignments = Annotated[
    Mapping[_Name, Annotated[_Text, BeforeValidator(_as_text)]], BeforeValidator(_as_map)
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class _Sync(_Strict):
    set: Annotated[_Assignments, Field(min_length=1, max_length=20)]
    reverse: Annotated[_Assignments, Field(max_length=20)]


class _Backfill(_Strict):
    where: _Text | None = None
    ranges: Annotated[int, Field(ge=1, le=32)] | None = None
    rows: Annotated[int, Field(ge=100, le=1_000_000)] | None = None


class _Validate(_Strict):
    not_null: Annotated[tuple[_Name, ...], Field(max_length=20)] = ()
    constraints: Annotated[Mapping[_Name, _Text], Field(max_length=20)] = {}
    indexes: Annotated[tuple[_Text, ...], Field(max_length=20)] = ()
    checks: Annotated[tuple[_Text, ...], Field(max_length=20)] = ()
    where: _Text | None = None


class SaidViews(_Strict):
    """The schemas of the old and the new version."""

    old: _Name
    new: _Name


class _Contract(_Strict):
    drop: Annotated[tuple[_Name, ...], Field(max_length=20)]


class _Common(_Strict):
    version: Literal[1]
    table: _Text
    why: Annotated[str, Field(max_length=1000)] = ""
    backfill: _Backfill = _Backfill()
    views: SaidViews | None = None
    published: Literal["prepared"] | None = None


class SaidExpandContract(_Common):
    """New columns beside old ones."""

    kind: Literal["expand_contract"]
    expand: Annotated[tuple[_Text, ...], Field(min_length=1, max_length=20)]
    sync: _Sync
    validate_: _Validate = Field(default=_Validate(), alias="validate")
    contract: _Contract


class SaidShadow(_Common):
    """One column of another type."""

    kind: Literal["shadow_column"]
    column: _Name
    type: _Text
    up: _Text | None = None
    down: _Text
    shadow: _Name | None = None
    old: _Name | None = None
    not_null: Literal["copy"] | bool = "copy"
    default: Annotated[_Text, BeforeValidator(_as_text)] = "copy"
    indexes: Literal["copy", "none"] = "copy"
    checks: Annotated[tuple[_Text, ...], Field(max_length=20)] = ()
    where: _Text | None = None
