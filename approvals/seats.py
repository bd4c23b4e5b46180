"""Who sits where: people are matched to the seats of gates. Pure.

A gate of two approvals has two seats. A person fills one seat at most, and it is never
too late to move over: seats are assigned by matching, not first come, so nobody's
early vote can block a combination that exists.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Generic[P]):
    """The seats of one gate, and who may take one, in the order in which they came."""

    seats: int
    people: Sequence[P]


def assign(benches: Sequence[Bench[P]]) -> tuple[tuple[P, ...], ...]:
    """Who sits on which bench in the order in which they came, with as many as can be seated."""
    seats = [number for number, bench in enumerate(benches) for _ in range(bench.seats)]
    wanted = _wishes(benches)
    holder: dict[int, P] = {}
    for person in wanted:
        _sit(person, seats, wanted, holder, set())
    return tuple(
        tuple(sorted(_on(number, seats, holder), key=list(bench.people).index))
        for number, bench in enumerate(benches)
    )


def filled(benches: Sequence[Bench[P]]) -> bool:
    """Whether every seat can be taken at once by different people."""
    taken = sum(len(row) for row in assign(benches))
    return taken == sum(bench.seats for bench in benches)


def _on(bench: int, seats: Sequence[int], holder: Mapping[int, P]) -> list[P]:
    return [person for seat, person in holder.items() if seats[seat] == bench]


def _wishes(benches: Sequence[Bench[P]]) -> dict[P, set[int]]:
    wanted: dict[P, set[int]] = {}
    for number, bench in enumerate(benches):
        for person in bench.people:
            wanted.setdefault(person, set()).add(number)
    return wanted


def _sit(
    person: P,
    seats: Sequence[int],
    wanted: Mapping[P, AbstractSet[int]],
    holder: dict[int, P],
    tried: set[int],
) -> bool:
    """Find `person` a seat, asking others to move over (an augmenting path)."""
    for seat, bench in enumerate(seats):
        if bench not in wanted[person] or seat in tried:
            continue
        tried.add(seat)
        if seat not in holder or _sit(holder[seat], seats, wanted, holder, tried):
            holder[seat] = person
            return True
    return False
