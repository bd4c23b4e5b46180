"""A policy as values: rules, gates, and what goes with them. Pure.

`approvals.policy_file` makes these from a file; nothing else should.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from approvals.times import Window
from approvals.words import Care, GateId

Attribute = str | int | float | bool
Attributes = Mapping[str, Attribute]
# `jobs.operation.Risk`: data can be lost. What a rule does not say is then demanded.
RISKIEST: Final = "destructive"
# The operation that puts another policy in force (`commands.policy_change`).
POLICY_CHANGE: Final = "policy-change"


class Compare(StrEnum):
    """How a rule compares an attribute."""

    IN = "in"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One comparison of a rule's `when`. An attribute that is not there never matches."""

    name: str
    compare: Compare
    values: tuple[Attribute, ...]

    def holds(self, attributes: Attributes) -> bool:
        """Whether `attributes` meet this. Text never equals a number, nor true 1."""
        actual = attributes.get(self.name)
        if actual is None:
            return False
        if self.compare is Compare.IN:
            # `in` compares with ==, for which 1 is True.
            return actual in self.values and any(_same(actual, value) for value in self.values)
        bound = self.values[0]
        if not _is_number(actual) or not _is_number(bound):
            return False
        return _ordered(self.compare, float(actual), float(bound))

    def __str__(self) -> str:
        if self.compare is Compare.IN:
            return f"{self.name} is {' or '.join(str(value) for value in self.values)}"
        return f"{self.name} {_SIGNS[self.compare]} {self.values[0]}"


_SIGNS = {Compare.GT: ">", Compare.GTE: ">=", Compare.LT: "<", Compare.LTE: "<="}


def _same(left: Attribute, right: Attribute) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _is_number(value: Attribute) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ordered(compare: Compare, actual: float, bound: float) -> bool:
    return {
        Compare.GT: actual > bound,
        Compare.GTE: actual >= bound,
        Compare.LT: actual < bound,
        Compare.LTE: actual <= bound,
    }[compare]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Who may agree here, and how many must. `users` are identities in lower case.

    `deny` votes against close the request; 0: this gate cannot be denied.
    """

    id: GateId
    groups: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    approve: int = 1
    deny: int = 1
    escalate_after: timedelta | None = None
    escalate_groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """`stand_in` may vote in the seat of `absent`, from `start` up to `end`."""

    absent: str
    stand_in: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlass:
    """Who may run without the votes, and who reviews it afterwards.

    `open_max`: so many may wait for their review at a time; None: any number. `alone`: the
    policy says on purpose that one person may do so what nobody else may do alone. It
    changes no decision: `approvals.proofs` asks for the word.
    """

    groups: frozenset[str]
    reviewers: frozenset[str]
    review_within: timedelta
    open_max: int | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When it applies, which gates it asks for, and how votes are taken.

    `ways` are the sets of gates (by position) of which one must be met whole: a single
    set of all gates, unless the policy says `require`. No gates: no approval needed.
    `refuse`: what it matches is refused, on purpose; there is no way then.
    `read_all` and `type_name` None: demanded where data can be lost.
    """

    name: str
    when: tuple[Condition, ...]
    fallback: bool
    gates: tuple[Gate, ...]
    ways: tuple[frozenset[int], ...]
    ordered: bool
    distinct: bool
    self_approve: bool
    self_deny: bool
    may_always_deny: frozenset[str]
    change_vote: bool
    reason_to_deny: bool
    recheck_voters: bool
    check_satisfiable: bool
    expires_after: timedelta
    warn_before: timedelta | None
    approval_valid_for: timedelta | None
    not_before: datetime | None
    windows: tuple[Window, ...]
    freeze: tuple[Window, ...]
    break_glass: BreakGlass | None
    max_reason: int
    max_ttl: timedelta | None
    read_all: bool | None
    type_name: bool | None
    step_up: bool
    remind_every: timedelta | None
    refuse: bool = False

    def care(self, attributes: Attributes) -> frozenset[Care]:
        """What an approval of such a request demands besides the decision."""
        riskiest = attributes.get("risk") == RISKIEST
        demands = {
            Care.READ: riskiest if self.read_all is None else self.read_all,
            Care.NAMED: riskiest if self.type_name is None else self.type_name,
            Care.STEP_UP: self.step_up,
        }
        return frozenset(care for care, demanded in demands.items() if demanded)

    def matches(self, attributes: Attributes) -> bool:
        """Whether every condition holds."""
        for condition in self.when:  # noqa: SIM110 - every ask tries many; a generator costs more
            if not condition.holds(attributes):
                return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All rules in the order in which they are tried, fallback rules last.

    `built_in` is ours: who must agree to a change of a policy under four eyes, before the
    fallback rules. `never_alone`: what no single person may bring to run, whatever else a
    request's attributes say.
    """

    rules: tuple[Rule, ...]
    groups: Mapping[str, str]
    delegations: tuple[Delegation, ...]
    four_eyes: bool
    built_in: Rule | None = None
    never_alone: tuple[Attributes, ...] = ()

    def rule_for(self, attributes: Attributes) -> Rule | None:
        """The first rule that matches, or None: then it is refused."""
        found = self.matching(attributes)
        return None if found is None or found.refuse else found

    def matching(self, attributes: Attributes) -> Rule | None:
        """The first rule that matches, also one that refuses; None: nothing is said of it."""
        found = next((rule for rule in self.rules if rule.matches(attributes)), None)
        ours = self.built_in
        if ours and (found is None or found.fallback) and ours.matches(attributes):
            return ours
        return found
