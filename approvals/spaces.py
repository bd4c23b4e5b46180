"""All attributes that a request can have, as far as a policy can tell them apart. Pure.

Two values are one where every condition of the policy says the same of both, so a space is
small and still whole: what holds for one value of a class holds for all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise, product
from math import prod
from typing import Final

from approvals.by_the_clock import SCHEDULED, YES
from approvals.rules import Attribute, Attributes, Compare, Condition, Policy, Rule

# A value that no policy names.
OTHER: Final = "(another)"
COMBINATIONS_MAX: Final = 50_000
_RISKS: Final = ("none", "recoverable", "disruptive", "destructive")
_TIERS: Final = ("critical", "important", "standard", "archive")
_SHOWN_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What there is besides the policy: operations with their risks, databases with theirs."""

    operations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    databases: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # environment, tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Values that the policy does not tell apart: the first stands for all of them."""

    values: tuple[Attributes, ...]

    @property
    def first(self) -> Attributes:
        """The one that is tried."""
        return self.values[0]

    def __str__(self) -> str:
        shown = [told(value) for value in self.values[:_SHOWN_MAX]]
        more = len(self.values) - len(shown)
        return " or ".join(shown) + (f" (and {more} more)" if more else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Independent parts of a request's attributes, each with the kinds that it can be."""

    parts: tuple[tuple[Kind, ...], ...]

    @property
    def is_whole(self) -> bool:
        """Whether `places` goes through all of it."""
        return prod(len(part) for part in self.parts) <= COMBINATIONS_MAX

    def places(self) -> Iterator[tuple[int, ...]]:
        """Every combination, by the number of its kind in each part."""
        return islice(product(*(range(len(part)) for part in self.parts)), COMBINATIONS_MAX)

    def at(self, place: Sequence[int]) -> Attributes:
        """The attributes of a combination."""
        found: dict[str, Attribute] = {}
        for part, number in zip(self.parts, place, strict=True):
            found |= part[number].first
        return found

    def all(self) -> Iterator[Attributes]:
        """The attributes of every combination."""
        return (self.at(place) for place in self.places())


def space_of(policy: Policy, known: Known) -> Space:
    """The space of what can be asked, as far as `policy` can tell it apart."""
    rules = [*policy.rules, *([policy.built_in] if policy.built_in else [])]
    conditions = [condition for rule in rules for condition in rule.when]
    names = dict.fromkeys(condition.name for condition in conditions)
    parts: list[list[Attributes]] = [_operations(conditions, known), _databases(conditions, known)]
    if SCHEDULED in names:
        # Derived by us: it is there for the clock, with one value, and nobody else's.
        parts.append([{SCHEDULED: YES}, {}])
    parts += [
        [*({name: value} for value in _values(conditions, name)), {}]
        for name in names
        if name not in _DERIVED
    ]
    return Space(parts=tuple(_kinds(part, conditions) for part in parts))


def told(attributes: Attributes) -> str:
    """Attributes as people type them."""
    shown = [f"{name}={value}" for name, value in attributes.items() if value != ""]
    return " ".join(shown) or "no database"


def example_of(space: Space, policy: Policy, rule: Rule) -> Attributes | None:
    """Attributes that meet `rule` and none before it, or None."""
    return next((each for each in space.all() if policy.matching(each) is rule), None)


OF_A_DATABASE: Final = frozenset({"environment", "tier"})
_DERIVED: Final = OF_A_DATABASE | {"operation", "risk", "database", SCHEDULED}


def _operations(conditions: Sequence[Condition], known: Known) -> list[Attributes]:
    """Operations with their risk; one that we do not know can have any."""
    risks = dict.fromkeys((*_RISKS, *_values(conditions, "risk")))
    found: list[Attributes] = [
        {"operation": name, "risk": risk}
        for name, mine in known.operations.items()
        for risk in mine
    ]
    unknown = [
        each for each in (*_values(conditions, "operation"), OTHER) if each not in known.operations
    ]
    return found + [{"operation": name, "risk": risk} for name in unknown for risk in risks]


def _databases(conditions: Sequence[Condition], known: Known) -> list[Attributes]:
    """Databases with what the inventory says of them, others, and no database at all."""
    found: list[Attributes] = [
        {"database": name, "environment": environment, "tier": tier}
        for name, (environment, tier) in known.databases.items()
    ]
    environments = [
        *_values(conditions, "environment"),
        *(environment for environment, _ in known.databases.values()),
        OTHER,
    ]
    tiers = dict.fromkeys((*_TIERS, *_values(conditions, "tier")))
    unknown = [
        each for each in (*_values(conditions, "database"), OTHER) if each not in known.databases
    ]
    found += [
        {"database": name, "environment": environment, "tier": tier}
        for name in unknown
        for environment in dict.fromkeys(environments)
        for tier in tiers
    ]
    return [*found, {"database": ""}]


def _values(conditions: Iterable[Condition], name: str) -> list[Attribute]:
    """Every value of an attribute that could matter: those named, around bounds, another."""
    mine = [condition for condition in conditions if condition.name == name]
    named = [value for each in mine if each.compare is Compare.IN for value in each.values]
    bounds = sorted({float(each.values[0]) for each in mine if each.compare is not Compare.IN})
    if any(isinstance(value, bool) for value in named):
        named += [True, False]
    between = [(low + high) / 2 for low, high in pairwise(bounds)]
    around = [bounds[0] - 1, *bounds, *between, bounds[-1] + 1] if bounds else []
    numbers = [int(value) if value.is_integer() else value for value in around]
    # True == 1, so the type belongs to the key.
    unique = {(type(value), value): value for value in (*named, *numbers, OTHER)}
    return list(unique.values()) if mine else []


def _kinds(values: Iterable[Attributes], conditions: Sequence[Condition]) -> tuple[Kind, ...]:
    """The values of one part, put together where no condition tells them apart."""
    names = {name for value in values for name in value}
    asked = [condition for condition in conditions if condition.name in names]
    named = {condition.name for condition in asked}
    groups: dict[tuple[bool, ...], dict[str, Attributes]] = {}
    for value in values:
        said = tuple(condition.holds(value) for condition in asked)
        short = {name: value[name] for name in value if name in named}
        groups.setdefault(said, {}).setdefault(repr(short), short)
    return tuple(Kind(values=tuple(group.values())) for group in groups.values())
