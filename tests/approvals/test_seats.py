"""Seats: people are matched to them, whatever the order in which they came."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from approvals.seats import Bench, assign, filled

benches = st.lists(
    st.builds(
        Bench,
        seats=st.integers(1, 2),
        people=st.lists(st.sampled_from("abcde"), unique=True, max_size=4),
    ),
    max_size=3,
)


def by_trying(wanted: list[Bench[str]]) -> bool:
    """Whether the seats can be filled, found by trying everything."""
    choices = [itertools.combinations(bench.people, bench.seats) for bench in wanted]
    return any(
        len({person for row in rows for person in row}) == sum(len(row) for row in rows)
        for rows in itertools.product(*choices)
    )


@given(benches)
def test_matching_finds_a_seating_exactly_when_there_is_one(wanted: list[Bench[str]]) -> None:
    assert filled(wanted) == by_trying(wanted)


@given(benches)
def test_nobody_sits_twice_or_where_they_may_not(wanted: list[Bench[str]]) -> None:
    rows = assign(wanted)
    seated = [person for row in rows for person in row]
    assert len(seated) == len(set(seated))
    for row, bench in zip(rows, wanted, strict=True):
        assert len(row) <= bench.seats
        assert set(row) <= set(bench.people)


def test_an_early_vote_moves_over_for_a_later_one() -> None:
    rows = assign([Bench(seats=1, people=["both", "dba"]), Bench(seats=1, people=["both"])])
    assert rows == (("dba",), ("both",))
