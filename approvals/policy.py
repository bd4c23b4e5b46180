"""Policies: reading them, choosing a rule, and looking for what is wrong with one. Pure.

The file's schema is in `approvals.policy_file`, the values are in `approvals.rules`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from approvals.compiling import PolicyError, Problem
from approvals.policy_file import LoadedPolicy, MalformedPolicyError, load_policy, parse_policy
from approvals.rules import Attributes, Compare, Condition, Gate, Policy, Rule
from approvals.words import PolicyHash

__all__ = [
    "Attributes",
    "Explanation",
    "LoadedPolicy",
    "MalformedPolicyError",
    "Policy",
    "PolicyError",
    "Problem",
    "Rule",
    "explain",
    "load_policy",
    "parse_policy",
    "pick",
    "policy_hash",
    "problems",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A rule that was looked at, and why it did not match; empty when it did."""

    rule: str
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Which rule applies to some attributes, who must agree, and why not another."""

    rule: str | None
    gates: tuple[str, ...]
    needs_all: bool
    tried: tuple[Tried, ...]

    @property
    def text(self) -> str:
        """The same in lines for people."""
        lines = [
            f"{tried.rule}: no, as {' and '.join(tried.failed)}"
            if tried.failed
            else f"{tried.rule}: yes"
            for tried in self.tried
        ]
        if self.rule is None:
            return "\n".join([*lines, "No rule applies, so it is refused."])
        if not self.gates:
            return "\n".join([*lines, "Nobody needs to agree."])
        joined = (" and " if self.needs_all else " or ").join(self.gates)
        return "\n".join([*lines, f"It needs {joined}."])


def pick(policy: Policy, attributes: Attributes) -> Rule | None:
    """The rule that applies, or None: then it is refused."""
    return policy.rule_for(attributes)


def policy_hash(policy: LoadedPolicy) -> PolicyHash:
    """The SHA-256 of the policy's canonical text."""
    return policy.hash


def explain(policy: Policy, attributes: Attributes) -> Explanation:
    """Which rule applies to `attributes`, and why the ones before it do not."""
    tried: list[Tried] = []
    for rule in policy.rules:
        failed = tuple(
            _unmet(condition, attributes)
            for condition in rule.when
            if not condition.holds(attributes)
        )
        tried.append(Tried(rule=rule.name, failed=failed))
        if not failed:
            gates = tuple(_gate(gate) for gate in rule.gates)
            needs_all = len(rule.ways) == 1
            return Explanation(rule=rule.name, gates=gates, needs_all=needs_all, tried=tuple(tried))
    return Explanation(rule=None, gates=(), needs_all=True, tried=tuple(tried))


def problems(policy: Policy, known_groups: Collection[str] | None = None) -> list[Problem]:
    """What is suspicious in a valid policy, for `policy check`.

    `known_groups` are the groups that exist; None: those that the policy itself maps.
    """
    known = set(policy.groups if known_groups is None else known_groups)
    found: list[Problem] = []
    if not policy.rules:
        found.append(
            _problem("rules", "allow nothing: every request is refused", "Write a rule or gates.")
        )
    for number, rule in enumerate(policy.rules):
        found += _dead(rule, policy.rules[:number])
        found += _contradictions(rule)
        found += _unsatisfiable(rule)
        found += _unknown_groups(rule, known)
        found += _glass(rule)
        found += _timing(rule)
    return found + list(_falls_through(policy))


def _unmet(condition: Condition, attributes: Attributes) -> str:
    actual = attributes.get(condition.name, "not known")
    return f"{condition.name} is {actual}, not {_wanted(condition)}"


def _wanted(condition: Condition) -> str:
    if condition.compare is Compare.IN:
        return " or ".join(str(value) for value in condition.values)
    return str(condition).removeprefix(f"{condition.name} ")


def _gate(gate: Gate) -> str:
    who = " or ".join((*sorted(gate.groups), *sorted(gate.users)))
    return f"{gate.approve} of {who}"


def _problem(where: str, problem: str, next_step: str) -> Problem:
    return Problem(where=where, problem=problem, next_step=next_step)


def _dead(rule: Rule, earlier: Collection[Rule]) -> Iterator[Problem]:
    """A rule after one that matches everything that it matches."""
    for other in earlier:
        if all(any(_implies(mine, theirs) for mine in rule.when) for theirs in other.when):
            text = f"is never reached: {other.name} stands before it and matches all that it does"
            yield _problem(rule.name, text, "Put the narrower rule first, or remove it.")
            return


def _implies(mine: Condition, theirs: Condition) -> bool:
    """Whether everything that meets `mine` meets `theirs`."""
    if mine.name != theirs.name:
        return False
    if mine.compare is Compare.IN:
        return all(theirs.holds({theirs.name: value}) for value in mine.values)
    if mine.compare is not theirs.compare:
        return False
    ours, bound = float(mine.values[0]), float(theirs.values[0])
    return ours >= bound if mine.compare in (Compare.GT, Compare.GTE) else ours <= bound


def _contradictions(rule: Rule) -> Iterator[Problem]:
    for name in sorted({condition.name for condition in rule.when}):
        mine = [condition for condition in rule.when if condition.name == name]
        lows = [float(c.values[0]) for c in mine if c.compare in (Compare.GT, Compare.GTE)]
        highs = [float(c.values[0]) for c in mine if c.compare in (Compare.LT, Compare.LTE)]
        if lows and highs and max(lows) >= min(highs):
            text = f"can never match: no {name} is in its bounds"
            yield _problem(rule.name, text, "Correct the bounds.")


def _unsatisfiable(rule: Rule) -> Iterator[Problem]:
    for gate in rule.gates:
        only_users = gate.users and not gate.groups and not gate.escalate_groups
        if only_users and len(gate.users) < gate.approve:
            text = f"gate {gate.id} wants {gate.approve} approvals of {len(gate.users)} people"
            yield _problem(rule.name, text, "Name more people, or ask for fewer approvals.")
        if not gate.groups and not gate.users:
            text = f"gate {gate.id} is met by nobody before it escalates"
            yield _problem(rule.name, text, "Name the groups or users who may agree at once.")
    if rule.self_approve and rule.gates:
        text = "lets people approve their own requests"
        yield _problem(rule.name, text, "Remove self_approve unless that is really wanted.")


def _unknown_groups(rule: Rule, known: Collection[str]) -> Iterator[Problem]:
    glass = rule.break_glass
    named = {
        *rule.may_always_deny,
        *(group for gate in rule.gates for group in gate.groups | gate.escalate_groups),
        *(glass.groups | glass.reviewers if glass else ()),
    }
    for group in sorted(named - set(known)):
        text = f"names the group {group}, which nobody is in"
        yield _problem(rule.name, text, "Add it to `groups` with its Slack user group id.")


def _glass(rule: Rule) -> Iterator[Problem]:
    glass = rule.break_glass
    if glass and not glass.reviewers - glass.groups:
        text = "lets only those review broken glass who may break it"
        yield _problem(rule.name, text, "Name reviewers from another group.")


def _timing(rule: Rule) -> Iterator[Problem]:
    if rule.warn_before is not None and rule.warn_before >= rule.expires_after:
        text = "warns before anybody could have decided"
        yield _problem(rule.name, text, "Make warn_before shorter than expires_after.")


def _falls_through(policy: Policy) -> Iterator[Problem]:
    """Values that some rules name and that meet no rule by themselves."""
    if any(not rule.when for rule in policy.rules):
        return
    names = {c.name for rule in policy.rules for c in rule.when if c.compare is Compare.IN}
    for name in sorted(names):
        if all(any(c.name == name for c in rule.when) for rule in policy.rules):
            text = f"match no request whose {name} is another than those named"
            step = "That is refused; add a fallback rule if it should not be."
            yield _problem("rules", text, step)
