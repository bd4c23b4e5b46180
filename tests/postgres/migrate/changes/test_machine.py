"""Which phase may follow which: examples, and no history that goes wrong."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postgres.migrate.changes.machine import (
    MARKS,
    TRANSITIONS,
    Phase,
    PhaseError,
    State,
    advance,
    first_of,
    is_reversible,
    marks_gone,
    state_of,
)

WHOLE = [Phase.EXPAND, Phase.BACKFILL, Phase.VALIDATE, Phase.SWITCH, Phase.CONTRACT]


def after(history: list[Phase]) -> State:
    state = State.NONE
    for phase in history:
        state = advance(state, phase, name="x", database="orders")
    return state


@pytest.mark.parametrize(
    ("history", "state"),
    [
        ([], State.NONE),
        (WHOLE, State.CONTRACTED),
        ([*WHOLE[:4], Phase.BACK], State.BACKFILLED),
        ([*WHOLE[:3], Phase.BACKFILL], State.BACKFILLED),
        ([Phase.EXPAND, Phase.BACK], State.NONE),
        ([*WHOLE[:4], Phase.BACK, Phase.BACK, *WHOLE], State.CONTRACTED),
    ],
)
def test_where_a_history_leads(history: list[Phase], state: State) -> None:
    assert after(history) is state


@pytest.mark.parametrize(
    ("history", "refused"),
    [
        ([], Phase.BACK),
        ([], Phase.CONTRACT),
        ([Phase.EXPAND], Phase.EXPAND),
        ([Phase.EXPAND], Phase.VALIDATE),
        ([Phase.EXPAND, Phase.BACKFILL], Phase.SWITCH),
        (WHOLE[:3], Phase.CONTRACT),
        (WHOLE[:4], Phase.BACKFILL),
        ([*WHOLE[:4], Phase.BACK], Phase.SWITCH),
        (WHOLE, Phase.BACK),
    ],
)
def test_what_may_not_follow_is_refused_and_says_what_may(
    history: list[Phase], refused: Phase
) -> None:
    with pytest.raises(PhaseError, match=f"{refused} does not follow") as error:
        after([*history, refused])
    assert error.value.next_step


onward = st.sampled_from([*WHOLE, *WHOLE, Phase.BACK])


@given(history=st.lists(onward, max_size=20))
@example(history=WHOLE)
@example(history=[*WHOLE[:4], Phase.BACK, Phase.VALIDATE, Phase.SWITCH, Phase.CONTRACT])
def test_no_history_switches_unvalidated_or_drops_unswitched(history: list[Phase]) -> None:
    state, marks = State.NONE, set[str]()
    is_right = False
    for phase in history:
        try:
            then = advance(state, phase, name="x", database="orders")
        except PhaseError:
            assert phase not in TRANSITIONS[state]
            continue
        if phase is Phase.SWITCH:
            assert is_right
        if phase is Phase.CONTRACT:
            assert state is State.SWITCHED
        is_right = phase is Phase.VALIDATE
        assert state is not State.CONTRACTED
        # As the statements of a phase do it: what lies further on goes, and its own mark comes.
        marks -= set(marks_gone(then))
        marks |= {MARKS[then]} if then in MARKS else set()
        assert state_of(marks) is then
        state = then


def test_every_state_has_a_row_and_only_the_last_is_final() -> None:
    assert set(TRANSITIONS) == set(State)
    assert [state for state, row in TRANSITIONS.items() if not row] == [State.CONTRACTED]
    assert [state for state in State if not is_reversible(state)] == [
        State.NONE,
        State.CONTRACTED,
    ]
    for state in State:
        onward = first_of(state)
        assert onward in TRANSITIONS[state] if onward else state is State.CONTRACTED
