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
# So many values stand for a kind; that there are more of them changes nothing.
_KEPT_MAX: Final = 12
_FOLDED_MAX: Final = 5_000


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
    plain = Space(parts=tuple(_kinds(part, conditions) for part in parts))
    if plain.is_whole:
        return plain
    operations, databases, *others = parts
    together = folded([operations, *others], rules)
    return Space(parts=(together, _kinds(databases, conditions))) if together else plain


def folded(parts: Sequence[Sequence[Attributes]], rules: Sequence[Rule]) -> tuple[Kind, ...] | None:
    """Several parts as one, of few kinds: what no rule tells apart any more is one.

    None: the rules tell too much apart.

    What plans say matters for some operations only, so most combinations of it mean the same.
    Part after part, two beginnings are one where they fail the same rules: what is still to
    come cannot tell them apart. A rule that has failed stays so, whatever comes.
    """
    groups: dict[tuple[bool, ...], list[Attributes]] = {(True,) * len(rules): [{}]}
    for part in parts:
        names = {name for value in part for name in value}
        mine = [[each for each in rule.when if each.name in names] for rule in rules]
        named = {condition.name for conditions in mine for condition in conditions}
        # The shortest first: what has no such attribute stands for what has one to no effect.
        met = [
            (
                {name: value[name] for name in value if name in named},
                [all(condition.holds(value) for condition in conditions) for conditions in mine],
            )
            for value in sorted(part, key=len)
        ]
        after: dict[tuple[bool, ...], list[Attributes]] = {}
        for said, values in groups.items():
            for short, holds in met:
                both = tuple(a and b for a, b in zip(said, holds, strict=True))
                _add(after.setdefault(both, []), [{**value, **short} for value in values])
        if len(after) > _FOLDED_MAX:
            return None
        groups = after
    return tuple(Kind(values=tuple(values)) for values in groups.values())


def _add(kept: list[Attributes], more: Iterable[Attributes]) -> None:
    """Keep those that are not one of the kept with something besides that does not matter."""
    for value in more:
        if len(kept) >= _KEPT_MAX:
            return
        if not any(each.items() <= value.items() for each in kept):
            kept.append(value)


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
