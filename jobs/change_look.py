"""Where a declared change stands: its file, its marks in the target, and what the catalog says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from jobs.change_files import load_change
from jobs.operation import Context, JobError
from postgres.errors import PostgresError
from postgres.migrate.changes.compile import phase_steps
from postgres.migrate.changes.facts import Facts, read_facts
from postgres.migrate.changes.ledger import lasting, read_marks
from postgres.migrate.changes.machine import Phase, State, advance, state_of
from postgres.migrate.changes.objections import (
    contract_objection,
    expand_objection,
    switch_objection,
    table_objection,
)
from postgres.migrate.changes.shared import table_of
from postgres.migrate.changes.sides import mode_of, new_column, old_column, sync_of
from postgres.migrate.changes.steps import Mark, Step, statements_of
from postgres.migrate.changes.sync import body_md5, quoted, trigger_name
from postgres.migrate.changes.words import Change, ShadowColumn
from postgres.migrate.own_schema import SCHEMA

LOOK_LIMIT: Final = timedelta(seconds=10)
# As the sync's function and the batches see it: only PostgreSQL's own names are found.
SETTINGS: Final[Mapping[str, str]] = {"search_path": "pg_catalog"}
_RELIES_ON_SYNC: Final = frozenset({Phase.BACKFILL, Phase.VALIDATE, Phase.SWITCH})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A change as it stands. `marks`: those that last."""

    change: Change
    facts: Facts
    marks: Mapping[str, Mark]

    @property
    def state(self) -> State:
        """Where it stands by its marks."""
        return state_of(self.marks)

    @property
    def pins(self) -> Mapping[str, str]:
        """What an approval of one of its phases relies on."""
        columns = "; ".join(
            f"{each.name} {each.type} {each.not_null} {each.default}"
            for each in self.facts.columns.values()
        )
        return {
            "file": self.change.sha256,
            "table": str(self.facts.oid),
            "columns": hashlib.sha256(columns.encode()).hexdigest()[:16],
            "stands": str(self.state),
        }

    def steps(self, phase: Phase) -> tuple[Step, ...]:
        """What a phase would do from here."""
        return phase_steps(self.change, self.facts, phase, self.state, self.marks)

    def statements(self, steps: tuple[Step, ...]) -> tuple[str, ...]:
        """Steps as SQL."""
        table = table_of(self.change)
        return tuple(f"{sql};" for step in steps for sql in statements_of(step, table=table))


async def look(context: Context, name: str) -> Outlook:
    """A change as it stands now.

    Raises:
        JobError: there is no such change, or no such table.
        PostgresError: its file does not say a change.
    """
    change = await load_change(context.database, name)
    schemas = [change.views.old, change.views.new] if change.views else []
    async with context.reader.session(limit=LOOK_LIMIT, settings=SETTINGS) as session:
        marks = (await read_marks(session)).get(name, {})
        facts = await read_facts(
            session,
            schema=change.schema,
            table=change.table,
            trigger=trigger_name(name),
            schemas=schemas,
            functions=sorted(change.functions),
        )
    if facts is None:
        raise JobError(
            f"There is no table {change.schema}.{change.table}.",
            next_step=f"Write it in {change.file} as the catalog has it: public.User",
        )
    return Outlook(change=change, facts=facts, marks=lasting(marks))


async def allowed(context: Context, outlook: Outlook, phase: Phase) -> State:
    """Where the change stands after `phase`.

    Raises:
        PostgresError: it may not be now, and why.
    """
    change, facts = outlook.change, outlook.facts
    after = advance(outlook.state, phase, name=change.name, database=context.database.name)
    if other := changed_file(outlook):
        raise other
    objection = table_objection(change, facts) or _missing(outlook)
    match phase:
        case Phase.EXPAND:
            objection = objection or expand_objection(change, facts)
        case Phase.SWITCH:
            objection = objection or switch_objection(change, facts)
        case Phase.CONTRACT:
            objection = objection or contract_objection(change, facts)
        case Phase.BACKFILL | Phase.VALIDATE | Phase.BACK:
            pass
    if objection is None and phase in _RELIES_ON_SYNC:
        objection = sync_trouble(outlook)
    if objection is not None:
        raise objection
    if phase is Phase.EXPAND:
        await _read_by_server(context, outlook)
    return after


def changed_file(outlook: Outlook) -> PostgresError | None:
    """The file is not the one that the change was begun with."""
    then = {mark.sha256 for mark in outlook.marks.values()}
    if outlook.state is State.NONE or then == {outlook.change.sha256}:
        return None
    known = ", ".join(sorted(sha[:12] for sha in then))
    return PostgresError(
        f"{outlook.change.file} has changed since the change was begun: it was {known} and is"
        f" {outlook.change.sha256[:12]} (SHA-256).",
        next_step="Put it back as it was. For something else: go back with the old file first.",
    )


def sync_trouble(outlook: Outlook) -> PostgresError | None:
    """The trigger that keeps both halves together is not as we have made it."""
    if outlook.state in {State.NONE, State.CONTRACTED}:
        return None
    name, facts = trigger_name(outlook.change.name), outlook.facts
    trigger = facts.trigger(name)
    sync = sync_of(outlook.change, facts, outlook.state)
    if trigger is None:
        problem = f"The trigger {name} is gone"
    elif trigger.state != "A":
        problem = f"The trigger {name} does not fire always"
    elif trigger.function_schema != SCHEMA or trigger.body_md5 != body_md5(
        sync, mode_of(outlook.change, outlook.state)
    ):
        problem = f"The function of the trigger {name} is not the one that we made"
    else:
        return None
    return PostgresError(
        f"{problem}: what was written since may be missing in one half.",
        next_step="Go back (…change … back) and expand again; or find out who changed it, put it"
        " back, and ask for the backfill again.",
    )


def troubles(outlook: Outlook) -> Iterator[str]:
    """What does not fit: the marks say one thing and the catalog another."""
    for found in (changed_file(outlook), _missing(outlook), sync_trouble(outlook)):
        if found is not None:
            yield found.problem


def _missing(outlook: Outlook) -> PostgresError | None:
    """A column that the marks speak of and the table does not have."""
    what, state = outlook.change.what, outlook.state
    if state is State.NONE:
        return None
    if isinstance(what, ShadowColumn):
        wanted = {old_column(what, state), new_column(what, state)}
        if state is State.CONTRACTED:
            wanted = {what.column}
    else:
        wanted = {column.name for column in what.columns}
        if state is not State.CONTRACTED:
            wanted |= set(what.drop)
    gone = sorted(wanted - set(outlook.facts.columns))
    if not gone:
        return None
    return PostgresError(
        f"The change is {state} by its marks, and {', '.join(gone)} is not there.",
        next_step="Find out who has changed the table. The marks are in"
        f" {SCHEMA}.change_marks; what is no longer true there is removed by hand.",
    )


async def _read_by_server(context: Context, outlook: Outlook) -> None:
    """Have PostgreSQL read each expression with its types. Preparing runs nothing.

    Raises:
        JobError: it does not take one.
    """
    change, facts = outlook.change, outlook.facts
    sync = sync_of(change, facts, State.EXPANDED)
    old = [(value.column, value.typed()) for value in sync.forward]
    async with context.reader.session(limit=LOOK_LIMIT, settings=SETTINGS) as session:
        for name, expression in old:
            await _prepare(session, f"SELECT {expression} FROM {table_of(change)}", name)  # noqa: S608
        # The new columns are not there yet: rows of their types stand for them.
        for value in sync.reverse:
            await _prepare(session, _reverse_query(outlook, value.typed()), value.column)


def _reverse_query(outlook: Outlook, expression: str) -> str:
    change, what = outlook.change, outlook.change.what
    if isinstance(what, ShadowColumn):
        new = {what.shadow: what.bare_type}
    else:
        new = {column.name: column.type for column in what.columns}
    added = ", ".join(f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in new.items())
    return f"SELECT {expression} FROM (SELECT *, {added} FROM {table_of(change)}) AS r"  # noqa: S608


async def _prepare(session: Any, query: str, name: str) -> None:
    try:
        await session.execute(f"PREPARE twokey_change AS {query}")
    except Exception as error:
        if getattr(error, "sqlstate", None) is None:
            raise
        raise JobError(
            f"PostgreSQL does not take the value of {name}: {error}.",
            next_step="Mend the expression; write types and functions of yours with their schema.",
        ) from error
    await session.execute("DEALLOCATE twokey_change")
