"""A file of YAML becomes a `Change`; what is wrong is said with file, key and an example. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, ParamSpec, TypeVar

from pydantic import ValidationError

from postgres.errors import PostgresError
from postgres.migrate.changes.expressions import Expression, read_expression
from postgres.migrate.changes.said import SaidExpandContract, SaidShadow, SaidViews
from postgres.migrate.changes.statements import (
    check_name,
    read_check,
    read_columns,
    read_constraint,
    read_index,
    read_type,
)
from postgres.migrate.changes.words import (
    BackfillAsk,
    Change,
    Constraint,
    ExpandContract,
    NewColumn,
    NewIndex,
    ShadowColumn,
    Views,
)

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "version": "version: 1",
        "kind": "kind: expand_contract   # or shadow_column",
        "table": "table: public.orders",
        "expand": 'expand: [ALTER TABLE "User" ADD COLUMN "firstName" text]',
        "sync": "sync: {set: {email_norm: lower(email)}, reverse: {email: email_norm}}",
        "set": "set: {email_norm: lower(email)}",
        "reverse": "reverse: {name: \"concat(first, ' ', last)\"}   # {} where there is none",
        "backfill": "backfill: {ranges: 2, rows: 10000}",
        "where": "where: email_norm IS NULL",
        "ranges": "ranges: 2",
        "rows": "rows: 10000",
        "validate": "validate: {not_null: [email_norm]}",
        "not_null": "not_null: [email_norm]   # of a shadow column: true, false or copy",
        "constraints": "constraints: {norm_short: CHECK (length(email_norm) < 255)}",
        "indexes": "indexes: [CREATE INDEX orders_norm ON orders (email_norm)]   # shadow: copy",
        "checks": "checks: [SELECT count(*) = 0 FROM orders WHERE email_norm IS NULL]",
        "views": "views: {old: app_v1, new: app_v2}",
        "contract": "contract: {drop: [name]}",
        "drop": "drop: [name]",
        "column": "column: tenant_id",
        "type": "type: bigint",
        "up": "up: tenant_id::bigint",
        "down": "down: CASE WHEN tenant_id < 2147483648 THEN tenant_id::int END",
        "default": "default: copy   # or none, or an expression such as 7",
        "shadow": "shadow: email_new",
        "old": "old: email_old",
        "published": "published: prepared",
    }
)
_T = TypeVar("_T")
_P = ParamSpec("_P")


class ChangeError(PostgresError):
    """A file does not say a change: which file, which key, and an example."""


def read_change(data: object, *, name: str, file: str, sha256: str) -> Change:
    """The change that a file's YAML says. `data`: as the YAML was read.

    Raises:
        ChangeError: it says none; the error names file and key and shows an example.
    """
    if not NAME.fullmatch(name):
        raise ChangeError(
            f"{file}: a change is called by small letters, digits, - and _, 40 at most.",
            next_step="Rename the file: tenant_bigint.yml",
        )
    raw = dict(data) if isinstance(data, Mapping) else {}
    kinds: Mapping[str, type[SaidExpandContract | SaidShadow]] = {
        "expand_contract": SaidExpandContract,
        "shadow_column": SaidShadow,
    }
    kind = raw.get("kind")
    model = kinds.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise _wrong(file, "kind", "there is no such kind of change")
    try:
        said = model.model_validate(raw)
    except ValidationError as error:
        raise _first(file, error) from error
    except PostgresError as error:  # a list of assignments that is none
        raise _wrong(file, "sync", error.problem) from error
    return _Reading(file).change(said, name=name, sha256=sha256)


class _Reading:
    """Reads one file's parts; each problem is said with its key."""

    def __init__(self, file: str) -> None:
        self._file = file

    def change(self, said: SaidExpandContract | SaidShadow, *, name: str, sha256: str) -> Change:
        schema, table = self._table(said.table)
        if isinstance(said, SaidShadow):
            what: ExpandContract | ShadowColumn = self._shadow(said)
            checks, where = said.checks, said.where
        else:
            what = self._wide(said, schema, table)
            checks, where = said.validate_.checks, said.validate_.where
        views = self._views(said.views, what)
        return Change(
            name=name,
            file=self._file,
            sha256=sha256,
            schema=schema,
            table=table,
            what=what,
            why=said.why,
            backfill=BackfillAsk(
                where=self._optional("backfill.where", said.backfill.where),
                ranges=said.backfill.ranges,
                rows=said.backfill.rows,
            ),
            checks=tuple(self._read("checks", read_check, text) for text in checks),
            compare_where=self._optional("validate.where", where),
            views=views,
            is_published_prepared=said.published is not None,
        )

    def _wide(self, said: SaidExpandContract, schema: str, table: str) -> ExpandContract:
        columns: list[NewColumn] = []
        for text in said.expand:
            columns += self._read("expand", read_columns, text, schema=schema, table=table)
        forward = self._assignments("sync.set", said.sync.set)
        reverse = self._assignments("sync.reverse", said.sync.reverse)
        self._fits(columns, forward, reverse, said.contract.drop, said.validate_.not_null)
        checked = said.validate_
        new = {column.name for column in columns}
        for name in (*checked.not_null, *said.contract.drop):
            self._read("not_null", check_name, name)
        constraints = tuple(
            self._read("validate.constraints", read_constraint, name, text)
            for name, text in checked.constraints.items()
        )
        indexes = tuple(
            self._read("validate.indexes", read_index, text, schema=schema, table=table)
            for text in checked.indexes
        )
        made: tuple[Constraint | NewIndex, ...] = (*constraints, *indexes)
        for each in made:
            if not each.columns & new:
                raise _wrong(
                    self._file, "validate", f"{each.name} is about no new column: it belongs into"
                    " a migration of its own"
                )  # fmt: skip
        return ExpandContract(
            columns=tuple(columns),
            forward=forward,
            reverse=reverse,
            drop=said.contract.drop,
            not_null=checked.not_null,
            constraints=constraints,
            indexes=indexes,
        )

    def _fits(
        self,
        columns: list[NewColumn],
        forward: Mapping[str, Expression],
        reverse: Mapping[str, Expression],
        drop: tuple[str, ...],
        not_null: tuple[str, ...],
    ) -> None:
        """Old and new columns are two sets, and each direction computes one from the other."""
        new = {column.name: column for column in columns}
        if len(new) != len(columns):
            raise _wrong(self._file, "expand", "a column is added twice")
        for name, value in forward.items():
            self._follows(name, value, new)
        for name, value in reverse.items():
            if name in new:
                raise _wrong(self._file, "sync.reverse", f"{name} is a new column")
            if name in value.columns:
                raise _wrong(self._file, "sync.reverse", f"{name} is computed from itself")
        if unknown := sorted(set(not_null) - set(new)):
            raise _wrong(self._file, "validate.not_null", f"expand adds no column {unknown[0]}")
        if both := sorted(set(drop) & set(new)):
            raise _wrong(self._file, "contract.drop", f"{both[0]} is a new column")

    def _follows(self, name: str, value: Expression, new: Mapping[str, NewColumn]) -> None:
        """A new column that the file adds, computed from old ones, and NULL until it is."""
        if name not in new:
            raise _wrong(self._file, "sync.set", f"expand adds no column {name}")
        if new[name].has_default:
            raise _wrong(
                self._file,
                "expand",
                f"{name} has a default, and so nobody can tell whether a version of the"
                " application has written it: leave the default out",
            )
        if both := sorted(value.columns & set(new)):
            raise _wrong(self._file, "sync.set", f"{name} is computed from {both[0]}, a new column")
        if not value.columns:
            raise _wrong(self._file, "sync.set", f"{name} is computed from no column")

    def _shadow(self, said: SaidShadow) -> ShadowColumn:
        shadow, old = said.shadow or f"{said.column}__new", said.old or f"{said.column}__old"
        for key, name in (("column", said.column), ("shadow", shadow), ("old", old)):
            self._read(key, check_name, name)
        if len({said.column, shadow, old}) != 3:  # noqa: PLR2004
            raise _wrong(self._file, "shadow", "column, shadow and old have three names")
        kind = self._read("type", read_type, said.type)
        quoted = '"' + said.column.replace('"', '""') + '"'
        bare = kind.partition(" COLLATE ")[0]
        up = said.up or f"CAST({quoted} AS {bare})"
        default = None if said.default in {"copy", "none"} else said.default
        down = self._read("down", read_expression, said.down)
        made_up = self._read("up", read_expression, up)
        for key, value in (("up", made_up), ("down", down)):
            if said.column not in value.columns or {shadow, old} & value.columns:
                raise _wrong(self._file, key, f"it is to be computed from {said.column}")
        return ShadowColumn(
            column=said.column,
            type=kind,
            up=made_up,
            down=down,
            shadow=shadow,
            old=old,
            not_null=None if said.not_null == "copy" else said.not_null,
            default=self._default(default),
            copies_default=said.default == "copy",
            copies_indexes=said.indexes == "copy",
        )

    def _default(self, text: str | None) -> Expression | None:
        found = self._optional("default", text)
        if found is not None and found.columns:
            raise _wrong(self._file, "default", "a default names no column")
        return found

    def _views(self, said: SaidViews | None, what: ExpandContract | ShadowColumn) -> Views | None:
        if said is None:
            return None
        for name in (said.old, said.new):
            self._read("views", check_name, name)
        if said.old == said.new:
            raise _wrong(self._file, "views", "old and new have two names")
        if isinstance(what, ExpandContract) and not what.reverse:
            raise _wrong(
                self._file, "sync.reverse", "what is written through the new view must reach the"
                " old columns"
            )  # fmt: skip
        return Views(old=said.old, new=said.new)

    def _table(self, text: str) -> tuple[str, str]:
        """`public.User`, as the catalog has it; quotes around a part are taken off."""
        parts = [part.strip() for part in text.split(".")]
        names = [
            part[1:-1].replace('""', '"')
            if part[:1] == part[-1:] == '"' and len(part) > 1
            else part
            for part in parts
        ]
        if len(names) not in {1, 2} or not all(names):
            raise _wrong(self._file, "table", f"{text[:80]!r} is no table with its schema")
        schema, table = ("public", names[0]) if len(names) == 1 else (names[0], names[1])
        for name in (schema, table):
            self._read("table", check_name, name)
        if schema in {"pg_catalog", "information_schema"} or schema.startswith("pg_"):
            raise _wrong(self._file, "table", f"{schema} is PostgreSQL's own")
        return schema, table

    def _assignments(self, key: str, said: Mapping[str, str]) -> Mapping[str, Expression]:
        found: dict[str, Expression] = {}
        for name, text in said.items():
            self._read(key, check_name, name)
            found[name] = self._read(key, read_expression, text)
        return MappingProxyType(found)

    def _optional(self, key: str, text: str | None) -> Expression | None:
        return None if text is None else self._read(key, read_expression, text)

    def _read(self, key: str, read: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return read(*args, **kwargs)
        except ChangeError:
            raise
        except PostgresError as error:
            raise _wrong(
                self._file, key, error.problem.rstrip("."), also=error.next_step
            ) from error


def _wrong(file: str, key: str, problem: str, *, also: str = "") -> ChangeError:
    example = EXAMPLES.get(key, EXAMPLES.get(key.rpartition(".")[2], EXAMPLES["kind"]))
    said = problem[:1].lower() + problem[1:]
    return ChangeError(
        f"{file}, {key}: {said}.", next_step=f"{also} For example: {example}".strip()
    )


def _first(file: str, error: ValidationError) -> ChangeError:
    """The first thing that is wrong, with the key as a person would look for it."""
    found = error.errors(include_url=False, include_input=False)[0]
    path = [str(part) for part in found["loc"] if isinstance(part, str) and part != "[key]"]
    key = ".".join(path) or "kind"
    match found["type"]:
        case "missing":
            problem = "it is not there"
        case "extra_forbidden":
            problem = "there is no such key"
        case _:
            problem = str(found["msg"])
    example = next((part for part in reversed(path) if part in EXAMPLES), "kind")
    return ChangeError(f"{file}, {key}: {problem}.", next_step=f"For example: {EXAMPLES[example]}")
