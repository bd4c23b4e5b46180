"""What a phase of a declared change does, step by step. Pure.

A step that changes the catalog is one short transaction that leaves a mark of its own, so that
whoever comes after a crash sees whether it was. The others can be run again: each looks at what
is there first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from postgres.migrate.changes.machine import MARKS, State, marks_gone
from postgres.migrate.changes.sync import literal
from postgres.migrate.own_schema import SCHEMA

MARKS_TABLE: Final = f"{SCHEMA}.change_marks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Short:
    """Statements of one short transaction.

    `mark`: one that they leave and that stays; where it is already, they have been done. A step
    without one is done once in each run: see `token`.
    """

    name: str
    statements: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A statement that takes its time beside others: CONCURRENTLY, or VALIDATE.

    `unless`: with this mark its work is done, and what it names may be gone.
    """

    name: str
    statement: str
    unless: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """Rows that were there before are filled in batches."""

    name: str
    assignments: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Each row has what it should have. Texts are SQL over a row's own columns.

    `where`: which rows are looked at; '' for all. `meaning`: what it means when one differs.
    """

    name: str
    expected: tuple[str, ...]
    actual: tuple[str, ...]
    where: str
    meaning: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A query that must answer true."""

    name: str
    query: str


# Such a mark says what a run has done, not where the change stands.
TOKEN: Final = "done by "  # noqa: S105 - no secret

Step = Short | Alone | Fill | Compare | Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a step has left in the target."""

    sha256: str
    detail: Mapping[str, Any]


def mark_sql(change: str, sha256: str, mark: str, detail: Mapping[str, Any] | None = None) -> str:
    """The statement that leaves a mark. It fails where the mark is there already."""
    values = (change, mark, sha256, json.dumps(detail or {}, sort_keys=True))
    return (
        f"INSERT INTO {MARKS_TABLE} (change, mark, sha256, detail)\n"
        f"VALUES ({', '.join(map(literal, values))})"
    )


def unmark_sql(change: str, marks: Sequence[str] | None) -> str:
    """The statement that takes marks away; None: all of the change."""
    which = "" if marks is None else f" AND mark IN ({', '.join(map(literal, marks))})"
    return f"DELETE FROM {MARKS_TABLE} WHERE change = {literal(change)}{which}"  # noqa: S608


def token(run_key: str, step: str) -> str:
    """The mark that a run leaves with a short step: a second life of it does not repeat it."""
    return f"{TOKEN}{run_key}: {step}"


def forget_tokens_sql(change: str, run_key: str) -> str:
    """The statement that forgets which steps other runs have done."""
    return (
        f"DELETE FROM {MARKS_TABLE} WHERE change = {literal(change)}"  # noqa: S608
        f" AND starts_with(mark, {literal(TOKEN)})"
        f" AND NOT starts_with(mark, {literal(token(run_key, ''))})"
    )


def reached_sql(
    change: str, sha256: str, state: State, detail: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Statements after which the change stands at `state`, and no further."""
    mark = mark_sql(change, sha256, MARKS[state], detail)
    if state is State.EXPANDED:
        return (mark,)  # the first of all: where it is there already, this must fail
    return (unmark_sql(change, (MARKS[state], *marks_gone(state))), mark)


def statements_of(step: Step, *, table: str) -> tuple[str, ...]:
    """The SQL of a step as people read it. `table` is quoted."""
    match step:
        case Short():
            return ("BEGIN", *step.statements, "COMMIT")
        case Alone():
            return (step.statement,)
        case Fill():
            rows = f"(the next rows by key) AND ({step.where})"
            return (f"UPDATE {table} SET {step.assignments}\n WHERE {rows}",)  # noqa: S608
        case Compare():
            return (_comparison(step, table),)
        case Check():
            return (step.query,)


def _comparison(step: Compare, table: str) -> str:
    """What is asked of each batch of rows, for people."""
    expected, actual = (
        f"hashtextextended(ROW({', '.join(each)})::text, 0)"
        for each in (step.expected, step.actual)
    )
    where = f"\n WHERE {step.where}" if step.where else ""
    return f"SELECT {expected} AS expected,\n       {actual} AS actual\n  FROM {table}{where}"  # noqa: S608


_KINDS: Final[Mapping[str, Callable[..., Step]]] = MappingProxyType(
    {kind.__name__: kind for kind in (Short, Alone, Fill, Compare, Check)}
)


def to_json(steps: Sequence[Step]) -> list[Any]:
    """Steps as JSON: a run goes on with those that it began with, whatever the catalog says."""
    return [[type(step).__name__, {n: getattr(step, n) for n in step.__slots__}] for step in steps]


def from_json(stored: Sequence[Any]) -> tuple[Step, ...]:
    """Steps from JSON."""
    found: list[Step] = []
    for kind, fields in stored:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        found.append(_KINDS[kind](**values))
    return tuple(found)
