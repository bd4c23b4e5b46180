"""What a proof says: that something holds for every world looked at, or a story where not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

DECISIONS_MAX: Final = 150_000


class Holds(StrEnum):
    """How a proof ended. Not proven: not everything was looked at, and that is said."""

    PROVEN = "proven"
    BROKEN = "broken"
    NOT_PROVEN = "not proven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One promise about a policy. `story` shows how it is broken; `says` what else to know."""

    name: str
    claim: str
    holds: Holds
    story: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    cases: int = 0

    @property
    def is_broken(self) -> bool:
        """Whether there is a counterexample."""
        return self.holds is Holds.BROKEN

    @property
    def lines(self) -> tuple[str, ...]:
        """The proof for people."""
        marks = {Holds.PROVEN: "ok  ", Holds.BROKEN: "FAIL", Holds.NOT_PROVEN: "?   "}
        looked = f" ({self.cases} cases)" if self.cases else ""
        head = f"{marks[self.holds]} {self.name}: {self.claim}{looked}"
        told = [f"       {number}. {step}" for number, step in enumerate(self.story, 1)]
        return (head, *told, *(f"       {line}" for line in self.says))

    def as_json(self) -> Mapping[str, Any]:
        """The proof for scripts."""
        return {
            "name": self.name,
            "claim": self.claim,
            "holds": str(self.holds),
            "story": list(self.story),
            "says": list(self.says),
            "cases": self.cases,
        }


class BudgetSpentError(Exception):
    """More decisions would be needed than may be tried."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """How many decisions may still be tried, over all proofs together."""

    decisions: int = DECISIONS_MAX
    spent: int = field(default=0)

    def spend(self) -> None:
        """Count one decision.

        Raises:
            BudgetSpentError: there is none left.
        """
        if self.spent >= self.decisions:
            raise BudgetSpentError
        self.spent += 1


def unproven(name: str, claim: str, *, cases: int = 0, why: Sequence[str] = ()) -> Proof:
    """A proof that did not get to its end."""
    says = tuple(why) or ("Not proven: there are more worlds than are looked at.",)
    return Proof(name=name, claim=claim, holds=Holds.NOT_PROVEN, says=says, cases=cases)
