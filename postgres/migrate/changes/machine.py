"""Which phase of a declared change may follow which. Pure.

Where a change stands is the marks that its phases have left in the target (`ledger`): each is
written in the transaction that makes it true, so that a crash or a restore cannot part the two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from postgres.errors import PostgresError


class Phase(StrEnum):
    """A part of a declared change. Each is a request of its own."""

    EXPAND = "expand"
    BACKFILL = "backfill"
    VALIDATE = "validate"
    SWITCH = "switch"
    CONTRACT = "contract"
    BACK = "back"


class State(StrEnum):
    """Where a declared change stands."""

    NONE = "not begun"
    EXPANDED = "expanded"
    BACKFILLED = "backfilled"
    VALIDATED = "validated"
    SWITCHED = "switched"
    CONTRACTED = "contracted"


# Every state has a row, and the final one's is empty. From before the switch the way back ends
# where it began; from after it the old columns are the truth again, and the new ones are looked
# at again before anybody switches again.
TRANSITIONS: Final[Mapping[State, Mapping[Phase, State]]] = MappingProxyType(
    {
        State.NONE: {Phase.EXPAND: State.EXPANDED},
        State.EXPANDED: {Phase.BACKFILL: State.BACKFILLED, Phase.BACK: State.NONE},
        State.BACKFILLED: {
            Phase.BACKFILL: State.BACKFILLED,
            Phase.VALIDATE: State.VALIDATED,
            Phase.BACK: State.NONE,
        },
        State.VALIDATED: {
            Phase.BACKFILL: State.BACKFILLED,
            Phase.VALIDATE: State.VALIDATED,
            Phase.SWITCH: State.SWITCHED,
            Phase.BACK: State.NONE,
        },
        State.SWITCHED: {Phase.CONTRACT: State.CONTRACTED, Phase.BACK: State.BACKFILLED},
        State.CONTRACTED: {},
    }
)

# What the end of a phase leaves; that of a way back is what it takes away.
MARKS: Final[Mapping[State, str]] = MappingProxyType(
    {state: str(state) for state in State if state is not State.NONE}
)


class PhaseError(PostgresError):
    """A phase cannot follow where the change stands. Nothing has changed."""


def advance(state: State, phase: Phase, *, name: str, database: str) -> State:
    """Where a change stands after `phase`.

    Raises:
        PhaseError: it may not follow; the error names what may.
    """
    try:
        return TRANSITIONS[state][phase]
    except KeyError:
        may = ", ".join(TRANSITIONS[state])
        raise PhaseError(
            f"{name} is {state}, and {phase} does not follow from there.",
            next_step=(
                f"What may follow: {may}. Ask for /db change {database} {name} {first_of(state)}"
                if may
                else "It is over; another change is another file."
            ),
        ) from None


def first_of(state: State) -> Phase | None:
    """The phase that leads on from a state; None at the end."""
    onward = {
        State.NONE: Phase.EXPAND,
        State.EXPANDED: Phase.BACKFILL,
        State.BACKFILLED: Phase.VALIDATE,
        State.VALIDATED: Phase.SWITCH,
        State.SWITCHED: Phase.CONTRACT,
    }
    return onward.get(state)


def state_of(marks: Collection[str]) -> State:
    """Where a change with these marks stands: at the furthest of them."""
    reached = [state for state, mark in MARKS.items() if mark in marks]
    return reached[-1] if reached else State.NONE


def marks_gone(state: State) -> tuple[str, ...]:
    """The marks that are taken away when a change comes back, or goes on again, to `state`."""
    order = list(State)
    return tuple(mark for each, mark in MARKS.items() if order.index(each) > order.index(state))


def is_reversible(state: State) -> bool:
    """Whether there is a way back from a state."""
    return Phase.BACK in TRANSITIONS[state]
