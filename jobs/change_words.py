"""What a phase of a declared change means, in words: its risk, and the way back. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from jobs.change_look import Outlook
from jobs.operation import Risk
from postgres.migrate.changes.machine import Phase, State, is_reversible
from postgres.migrate.changes.objections import carried, goes_along, other_before_triggers
from postgres.migrate.changes.sides import sync_of
from postgres.migrate.changes.steps import Alone, Check, Compare, Fill, Short, Step
from postgres.migrate.changes.views import INVOKER_MAJOR
from postgres.migrate.changes.words import Change, ShadowColumn
from postgres.migrate.words import StatementKind

# Rows a second that are compared, bytes a second that a VALIDATE reads, rows a second that an
# index is built from: measured at 5 million rows and 1.3 GB on 4 cores, and taken as half.
_COMPARED: Final = 150_000
_VALIDATED: Final = 700e6
_BUILT: Final = 800_000
# Entries of table and indexes a second and range, as jobs.backfilling counts them.
_ENTRIES: Final = 60_000
_FUNCTIONS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a phase is for those who must agree."""

    risk: Risk
    kind: StatementKind
    title: str


KINDS: Final = {
    Phase.EXPAND: Kind(risk=Risk.RECOVERABLE, kind=StatementKind.ADDITIVE, title="Expand"),
    Phase.BACKFILL: Kind(risk=Risk.RECOVERABLE, kind=StatementKind.DATA, title="Backfill"),
    Phase.VALIDATE: Kind(risk=Risk.RECOVERABLE, kind=StatementKind.ONLINE, title="Validate"),
    Phase.SWITCH: Kind(risk=Risk.DISRUPTIVE, kind=StatementKind.BLOCKING, title="Switch"),
    Phase.CONTRACT: Kind(risk=Risk.DESTRUCTIVE, kind=StatementKind.DESTRUCTIVE, title="Contract"),
    Phase.BACK: Kind(risk=Risk.DISRUPTIVE, kind=StatementKind.BLOCKING, title="Go back with"),
}


def way_back(change: Change, state: State) -> str:
    """What can be taken back in a state, and how."""
    if state is State.NONE:
        return "nothing is changed yet"
    if not is_reversible(state):
        return "no: the old is gone; what was kept aside is in /db aside, else in a backup"
    if state is not State.SWITCHED:
        return "yes, at once: the new columns are dropped, and the old ones are as they always were"
    if has_reverse(change):
        return "yes, at once: the old columns lead again, with every write since"
    return "yes, but what was written to the new columns alone would not be in the old ones"


def has_reverse(change: Change) -> bool:
    """Whether the old columns follow the new ones after the switch."""
    return isinstance(change.what, ShadowColumn) or bool(change.what.reverse)


def step_words(step: Step) -> str:
    """One line of the plan."""
    match step:
        case Short():
            return f"{_capital(step.name)}: one short transaction, tried again when it must wait"
        case Alone():
            return f"{_capital(step.name)}, beside reads and writes"
        case Fill():
            return f"{_capital(step.name)}, in batches that wait for others"
        case Compare():
            return f"{_capital(step.name)}, by checksums"
        case Check():
            return f"{_capital(step.name)}: it must answer true"


def seconds_of(step: Step, *, rows: int, size_bytes: int) -> float:
    """How long a step takes, about; a backfill is estimated by its own."""
    match step:
        case Short() | Check() | Fill():
            return 1.0
        case Compare():
            return 1.0 + rows / _COMPARED
        case Alone() if " INDEX CONCURRENTLY " in step.statement:
            return 1.0 + rows / _BUILT
        case Alone():
            return 1.0 + size_bytes / _VALIDATED


def fill_seconds(*, rows: int, indexes: int, ranges: int) -> float:
    """How long a backfill of every row takes at most, without what it waits for."""
    return 1.0 + rows * (1 + indexes) / ranges / _ENTRIES


def warnings_of(outlook: Outlook, phase: Phase) -> Iterator[str]:
    """What people should know before they agree."""
    change, facts = outlook.change, outlook.facts
    match phase:
        case Phase.EXPAND:
            yield from _at_expand(outlook)
        case Phase.SWITCH:
            yield from _at_switch(outlook)
        case Phase.CONTRACT:
            along = goes_along(change, facts)
            yield "The old columns go: the way back with every write ends here."
            if along:
                yield f"With them go {', '.join(along)}."
        case Phase.BACK if outlook.state is State.SWITCHED and not has_reverse(change):
            yield "Nothing fills the old columns: what was written to the new ones stays there."
        case Phase.BACK if outlook.state is not State.SWITCHED:
            yield (
                "The new columns are dropped with whatever uses them. It is looked at first that"
                " they hold nothing that the old ones do not say."
            )
        case Phase.BACKFILL | Phase.VALIDATE | Phase.BACK:
            pass
    if phase in {Phase.EXPAND, Phase.BACKFILL, Phase.VALIDATE} and change.functions:
        named = ", ".join(sorted(change.functions)[:_FUNCTIONS_SHOWN])
        yield f"It calls functions of this database: {named}. Who owns them decides what they do."


def _at_expand(outlook: Outlook) -> Iterator[str]:
    change, facts = outlook.change, outlook.facts
    others = other_before_triggers(change, facts)
    if others:
        yield f"{', '.join(others)} may change rows before ours: ours then looks at every update."
    if change.views and facts.major < INVOKER_MAJOR:
        yield (
            "Before PostgreSQL 15 views look with their owner's rights: whoever may read the"
            " view needs no right on the table."
        )
    if change.views and not facts.grants:
        yield "Nobody but its owner has rights on the table, and so nobody on the views."
    if change.is_published_prepared:
        yield (
            f"The table is published ({', '.join(facts.publications)}): the file says that"
            " subscribers have the new columns."
        )
    what = change.what
    if isinstance(what, ShadowColumn):
        old = facts.columns[what.column]
        if old.collation and " COLLATE " not in what.type:
            yield f"{what.column} has the collation {old.collation}; the new type names none."


def _at_switch(outlook: Outlook) -> Iterator[str]:
    change, facts = outlook.change, outlook.facts
    what = change.what
    if not isinstance(what, ShadowColumn):
        if not has_reverse(change):
            yield "Nothing fills the old columns after this: older versions see no new writes."
        return
    yield (
        "A session that has prepared a statement on the column gets one error inside a transaction"
        " (cached plan must not change result type): the application must try again."
    )
    if unique := [each.name for each in carried(what, facts, what.column) if each.is_unique]:
        yield (
            f"{', '.join(unique)} stays on the old column as well: two new values must not give"
            " the same old one."
        )
    sources = sync_of(change, facts, outlook.state).sources
    if len(sources) > 1:
        yield f"It was computed from {', '.join(sources)}; after this it stands for itself."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
