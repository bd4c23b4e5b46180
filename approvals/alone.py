"""Proof: there are things that no single person can bring to run. Pure.

One person is given any of the policy's groups, several accounts, and somebody's seat to sit
in, and tries everything: asks, votes, changes plans, waits, breaks the glass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

from approvals import exploring
from approvals.events import Begun
from approvals.exploring import Act, Happened, World, always, search
from approvals.proof import Budget, BudgetSpentError, Holds, Proof, unproven
from approvals.rules import POLICY_CHANGE, Attributes, Policy, Rule
from approvals.spaces import OF_A_DATABASE, Space, example_of, told
from approvals.words import Door, Flag, Person, PersonId, State, Verdict

NAME: Final = "nobody alone"
ACTS_MAX: Final = 5
SUBSETS_MAX: Final = 64
_ABSENT: Final = Person(id=PersonId("absent"), name="somebody away", slack_user="U0AWAY")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lone:
    """One person with some of the groups, under one of the names that gates know, or none."""

    groups: frozenset[str]
    alias: str

    def account(self, user: str, *, confirmed: bool = True) -> Person:
        """An account; those with the one confirmed address are one person for us."""
        return Person(
            id=PersonId("one@person" if confirmed else f"T0/{user}"),
            name="one person",
            slack_team="T0",
            slack_user=user,
            flags=frozenset() if confirmed else frozenset({Flag.UNCONFIRMED}),
            groups=self.groups,
            aliases=frozenset({self.alias} if self.alias else ()),
        )

    def __str__(self) -> str:
        names = [*sorted(self.groups), *([self.alias] if self.alias else [])]
        return f"One person, who is in {' and '.join(names) or 'no group'}"


def nobody_alone(policy: Policy, space: Space, budget: Budget) -> list[Proof]:
    """One proof for each set of attributes that must never be one person's doing."""
    wanted = list(policy.never_alone)
    if policy.four_eyes:
        # It has no database, so no environment either.
        wanted.append({"operation": POLICY_CHANGE, "risk": "disruptive", "database": ""})
    return [_proof(policy, space, critical, budget) for critical in wanted]


def _proof(policy: Policy, space: Space, critical: Attributes, budget: Budget) -> Proof:
    claim = f"no single person brings {told(critical)} to run"
    before = budget.spent
    says: list[str] = []
    rules = _rules_of(policy, space, critical)
    is_whole = space.is_whole
    try:
        for rule, attributes in rules.values():
            worlds, whole = _worlds(policy, space, rule, attributes)
            is_whole = is_whole and whole
            for lone, world in worlds:
                if story := search(world, _is_alone(critical), budget):
                    told_story = (f"{lone}.", *story)
                    return Proof(
                        name=NAME, claim=claim, holds=Holds.BROKEN, story=told_story,
                        says=_advice(rule, story), cases=budget.spent - before,
                    )  # fmt: skip
            if rule.break_glass and rule.break_glass.alone:
                says.append(
                    f"But for breaking the glass: {rule.name} says `alone: true`, so one of"
                    f" {' or '.join(sorted(rule.break_glass.groups))} can, loudly, and owes a"
                    " review."
                )
    except BudgetSpentError:
        return unproven(NAME, claim, cases=budget.spent - before)
    if not rules:
        says.append("No rule allows it at all.")
    if not is_whole:
        return unproven(NAME, claim, cases=budget.spent - before)
    cases = budget.spent - before
    return Proof(name=NAME, claim=claim, holds=Holds.PROVEN, says=tuple(says), cases=cases)


def _rules_of(
    policy: Policy, space: Space, critical: Attributes
) -> Mapping[str, tuple[Rule, Attributes]]:
    """Every rule that such a request can meet, each with attributes that meet it."""
    found: dict[str, tuple[Rule, Attributes]] = {}
    for each in space.all():
        attributes = {**each, **critical}
        if attributes.get("database") == "":
            attributes = {n: v for n, v in attributes.items() if n not in OF_A_DATABASE}
        rule = policy.rule_for(attributes)
        if rule is not None:
            found.setdefault(f"{rule.name} {id(rule)}", (rule, attributes))
    return found


def _worlds(
    policy: Policy, space: Space, rule: Rule, attributes: Attributes
) -> tuple[Iterator[tuple[_Lone, World]], bool]:
    """A world for each kind of person, those with the fewest groups first."""
    easy = _easiest(policy, space)
    groups = sorted(_groups(rule) | (_groups(easy[0]) if easy else set()))
    names = ["", *sorted({user for gate in rule.gates for user in gate.users})]
    kinds = [
        _Lone(groups=frozenset(some), alias=name)
        for size in range(len(groups) + 1)
        for some in combinations(groups, size)
        for name in names
    ]
    whole = len(kinds) <= SUBSETS_MAX * len(names)
    if not whole:
        kinds = [*kinds[: SUBSETS_MAX * len(names)], kinds[-1]]
    plain = exploring.timeless(policy)
    return ((lone, _world(plain, rule, attributes, easy, lone)) for lone in kinds), whole


def _world(
    policy: Policy,
    rule: Rule,
    attributes: Attributes,
    easy: tuple[Rule, Attributes] | None,
    lone: _Lone,
) -> World:
    first, second = lone.account("U0ONE"), lone.account("U0TWO")
    third = lone.account("U0THREE", confirmed=False)
    everything = frozenset(group for each in policy.rules for group in _groups(each))
    absent = replace(_ABSENT, groups=everything)
    asking = [exploring.asks("They ask", first, attributes)]
    if easy:
        asking.append(exploring.asks("They ask for something else", first, easy[1]))
    glass = rule.break_glass
    acts: list[Act] = [
        Act(text="It runs", event=Begun()),
        *exploring.votes("The same person", first, doors=(Door.SLACK,)),
        *exploring.votes("Their second account", second, doors=(Door.CLI,)),
        *exploring.votes("Their unconfirmed account", third, doors=(Door.API,)),
        *exploring.votes("The same person", first, verdict=Verdict.DENY, doors=(Door.WEB,)),
        exploring.takes_back("The same person", first),
        exploring.changes_plan("The same person", first, attributes),
        exploring.changes_plan("Their second account", second, attributes),
        *exploring.waits(rule),
    ]
    if not (glass and glass.alone):
        acts.append(exploring.breaks_glass("Alone, the same person", first))
    return World(
        policy=exploring.narrowed(policy, [attributes, *([easy[1]] if easy else [])]),
        people={first.id: first, absent.id: absent},
        asks=tuple(asking),
        acts=tuple(acts),
        acts_max=ACTS_MAX,
        delegations=(always(absent, first),),
    )


def _is_alone(critical: Attributes) -> exploring.Broken:
    def broken(happened: Happened) -> bool:
        request = happened.outcome.request
        return (
            request is not None
            and request.begun
            and request.state is State.EXECUTING
            and all(request.attributes.get(name) == value for name, value in critical.items())
        )

    return broken


def _easiest(policy: Policy, space: Space) -> tuple[Rule, Attributes] | None:
    """The rule that asks for the fewest people: what one might ask for first, to change it."""
    ranked = sorted(
        (rule for rule in policy.rules if not rule.refuse),
        key=lambda rule: sum(gate.approve for gate in rule.gates),
    )
    for rule in ranked:
        if (attributes := example_of(space, policy, rule)) is not None:
            return rule, attributes
    return None


def _groups(rule: Rule) -> frozenset[str]:
    gates = {group for gate in rule.gates for group in gate.groups | gate.escalate_groups}
    return frozenset(gates | (rule.break_glass.groups if rule.break_glass else set()))


def _advice(rule: Rule, story: Sequence[str]) -> tuple[str, ...]:
    if any("glass" in step for step in story):
        text = (
            f"{rule.name} lets one person do it alone by breaking the glass: write"
            " `break_glass: false` in that rule, or `alone: true` in its break_glass if one"
            " person on call is really to be able to."
        )
        return (text,)
    return (f"{rule.name} allows it: give that rule gates that other people must meet.",)
