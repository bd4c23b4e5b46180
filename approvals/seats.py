"""Who sits where: people are matched to the seats of gates. Pure.

A gate of two approvals has two seats. A person fills one seat at most, and it is never
too late to move over: seats are assigned by matching, not first come, so nobody's
early vote can block a combination that exists.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
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
    wanted = _wishes(benches)
    rows: list[list[P]] = [[] for _ in benches]
    for person in wanted:
        _sit(person, benches, wanted, rows, set())
    return tuple(
        tuple(sorted(row, key=list(bench.people).index))
        for row, bench in zip(rows, benches, strict=True)
    )


def filled(benches: Sequence[Bench[P]]) -> bool:
    """Whether every seat can be taken at once by different people."""
    taken = sum(len(row) for row in assign(benches))
    return taken == sum(bench.seats for bench in benches)


def _wishes(benches: Sequence[Bench[P]]) -> dict[P, list[int]]:
    wanted: dict[P, list[int]] = {}
    for number, bench in enumerate(benches):
        for person in dict.fromkeys(bench.people):
            wanted.setdefault(person, []).append(number)
    return wanted


def _sit(
    person: P,
    benches: Sequence[Bench[P]],
    wanted: Mapping[P, Sequence[int]],
    rows: Sequence[list[P]],
    tried: set[int],
) -> bool:
    """Find `person` a seat, asking others to move over (an augmenting path)."""
    for number in wanted[person]:
        if number in tried:
            continue
        tried.add(number)
        row = rows[number]
        if len(row) < benches[number].seats:
            row.append(person)
            return True
        # Nobody comes to this row meanwhile, as it has been tried.
        for place, other in enumerate(row):
            if _sit(other, benches, wanted, rows, tried):
                row[place] = person
                return True
    return False
