"""A declared change becomes the steps of each of its phases. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, assert_never

from postgres.migrate.changes import shadow, wide
from postgres.migrate.changes.facts import Facts
from postgres.migrate.changes.machine import MARKS, Phase, State
from postgres.migrate.changes.shared import not_null_steps, sync_statements, table_of
from postgres.migrate.changes.sides import (
    compare_new,
    compare_old,
    compare_only_new,
    fill_where,
    sync_of,
)
from postgres.migrate.changes.steps import (
    Check,
    Fill,
    Mark,
    Short,
    Step,
    mark_sql,
    reached_sql,
    unmark_sql,
)
from postgres.migrate.changes.sync import drop_sql, quoted
from postgres.migrate.changes.views import create_views, drop_views, schemas_created
from postgres.migrate.changes.words import Change, ShadowColumn

# Left by a way back until the old column is NOT NULL again, as it was.
OWED: Final = "owed not null"
# While rows are filled: under which name the backfill's ledger knows it.
FILLING: Final = "filling"


def phase_steps(
    change: Change, facts: Facts, phase: Phase, state: State, marks: Mapping[str, Mark]
) -> tuple[Step, ...]:
    """What a phase does to a change that stands at `state`; the machine has let it pass.

    The last short step of a phase leaves the mark that says where the change then stands.
    """
    match phase:
        case Phase.EXPAND:
            steps: tuple[Step, ...] = (_expand(change, facts),)
        case Phase.BACKFILL:
            steps = _backfill(change, facts, state)
        case Phase.VALIDATE:
            steps = (*_owed(change, marks), *_validate(change, facts, state))
        case Phase.SWITCH:
            steps = (*_owed(change, marks), _switch(change, facts))
        case Phase.CONTRACT:
            steps = (_contract(change, facts, marks),)
        case Phase.BACK if state is State.SWITCHED:
            steps = _switch_back(change, facts, marks)
        case Phase.BACK:
            steps = _give_up(change, facts, state, marks)
        case _:
            assert_never(phase)
    return steps


def added_sql(change: Change) -> tuple[str, ...]:
    """The statement that adds the new columns."""
    what = change.what
    if isinstance(what, ShadowColumn):
        return shadow.add_column(change, what)
    return wide.add_columns(change, what)


def _expand(change: Change, facts: Facts) -> Short:
    made = {"schemas": list(schemas_created(change.views, facts))}
    statements = (
        *added_sql(change),
        *sync_statements(change, facts, State.EXPANDED),
        *create_views(change, facts),
    )
    return _reached(change, "add the new and keep it together with the old", State.EXPANDED,
                    *statements, detail=made)  # fmt: skip


def _backfill(change: Change, facts: Facts, state: State) -> tuple[Step, ...]:
    sync = sync_of(change, facts, state)
    assignments = ", ".join(f"{quoted(value.column)} = {value.sql()}" for value in sync.forward)
    return (
        Fill(
            name="fill the rows that were there before",
            assignments=assignments,
            where=fill_where(change, facts, state),
        ),
        _reached(
            change,
            "note that it is filled",
            State.BACKFILLED,
            unmark_sql(change.name, (FILLING,)),
        ),
    )


def _validate(change: Change, facts: Facts, state: State) -> tuple[Step, ...]:
    what = change.what
    if isinstance(what, ShadowColumn):
        tightened = shadow.tighten(change, what, facts)
    else:
        tightened = wide.tighten(change, what)
    checks = [
        Check(name=f"check {number}", query=query)
        for number, query in enumerate(change.checks, start=1)
    ]
    done = _reached(change, "note that it is right", State.VALIDATED)
    return (compare_new(change, facts, state), *checks, *tightened, done)


def _switch(change: Change, facts: Facts) -> Short:
    what = change.what
    if isinstance(what, ShadowColumn):
        statements = shadow.switch(change, what, facts)
        detail = shadow.detail_of(what, facts)
    else:
        statements, detail = wide.switch(change, facts), {}
    return _reached(change, "let old and new change places", State.SWITCHED, *statements,
                    detail=detail)  # fmt: skip


def _switch_back(change: Change, facts: Facts, marks: Mapping[str, Mark]) -> tuple[Step, ...]:
    what, lost = change.what, compare_old(change, facts)
    found: list[Step] = [lost] if lost else []
    if not isinstance(what, ShadowColumn):
        statements = wide.switch_back(change, facts)
        return (*found, _reached(change, "let the old lead again", State.BACKFILLED, *statements))
    switched = marks.get(MARKS[State.SWITCHED])
    detail = switched.detail if switched else shadow.detail_of(what, facts)
    # NOT NULL of the shadow is taken off with the rest, and asked for anew when it is validated.
    again = [f"not null {what.shadow}", f"not null {what.shadow} asked"]
    owed = (mark_sql(change.name, change.sha256, OWED),) if detail.get("not_null") else ()
    found.append(
        _reached(
            change,
            "let old and new change places back",
            State.BACKFILLED,
            *shadow.switch_back(change, what, facts, detail),
            unmark_sql(change.name, again),
            *owed,
        )
    )
    return (*found, *(_owed_steps(change, what) if owed else ()))


def _give_up(
    change: Change, facts: Facts, state: State, marks: Mapping[str, Mark]
) -> tuple[Step, ...]:
    """Everything that the change has added goes."""
    what = change.what
    if isinstance(what, ShadowColumn):
        dropped = shadow.drop_new(change, what)
    else:
        dropped = wide.drop_new(change, what)
    return (
        compare_only_new(change, facts, state),
        *_owed(change, marks),
        Short(
            name="drop what was added",
            statements=(
                *drop_sql(change.name, table_of(change)),
                *drop_views(change, facts, _schemas(marks)),
                *dropped,
                unmark_sql(change.name, None),
            ),
        ),
    )


def dropped_sql(change: Change) -> tuple[str, ...]:
    """The statement that drops the old columns; none where none is to go."""
    what = change.what
    if isinstance(what, ShadowColumn):
        return shadow.drop_old(change, what)
    return wide.drop_old(change, what)


def _contract(change: Change, facts: Facts, marks: Mapping[str, Mark]) -> Short:
    return _reached(
        change,
        "drop the trigger, then the old",
        State.CONTRACTED,
        *drop_sql(change.name, table_of(change)),
        *drop_views(change, facts, _schemas(marks)),
        *dropped_sql(change),
    )


def _reached(
    change: Change,
    name: str,
    state: State,
    *statements: str,
    detail: Mapping[str, Any] | None = None,
) -> Short:
    # The marks first: the table's lock is taken after them, and held for less.
    left = reached_sql(change.name, change.sha256, state, detail)
    return Short(name=name, statements=(*left, *statements))


def _owed(change: Change, marks: Mapping[str, Mark]) -> tuple[Step, ...]:
    """NOT NULL of the old column, where a way back was cut short before it was there again."""
    if OWED not in marks or not isinstance(change.what, ShadowColumn):
        return ()
    return _owed_steps(change, change.what)


def _owed_steps(change: Change, what: ShadowColumn) -> tuple[Step, ...]:
    *asked, last = not_null_steps(change, what.column, prefix="owed: ")
    if not isinstance(last, Short):
        raise TypeError(last)
    settled = unmark_sql(change.name, (OWED, f"owed: not null {what.column} asked", last.mark))
    return (*asked, Short(name=last.name, statements=(*last.statements, settled)))


def _schemas(marks: Mapping[str, Mark]) -> tuple[str, ...]:
    """The schemas that were made for the views."""
    expanded = marks.get(MARKS[State.EXPANDED])
    return tuple(expanded.detail.get("schemas", ())) if expanded else ()
