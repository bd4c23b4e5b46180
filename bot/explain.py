"""A policy's rules in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from approvals.rules import Gate, Policy, Rule


def explain_rule(rule: Rule) -> list[str]:
    """What a rule asks for, line by line, as plain text."""
    conditions = " and ".join(str(condition) for condition in rule.when) or "always"
    return [f"Rule {rule.name}: applies {_when(conditions)}.", *_asks(rule), *_limits(rule)]


def explain_policy(policy: Policy) -> list[str]:
    """Every rule in the order in which they are tried."""
    lines: list[str] = []
    for rule in policy.rules:
        lines += [*explain_rule(rule), ""]
    return [*lines, "What no rule matches is refused."]


def who(gate: Gate) -> str:
    """Whose approval a gate takes: `dba or ana@acme.example`."""
    return " or ".join([*sorted(gate.groups), *sorted(gate.users)])


def _when(conditions: str) -> str:
    return conditions if conditions == "always" else f"when {conditions}"


def _asks(rule: Rule) -> Iterator[str]:
    if not rule.gates:
        yield "Nobody has to agree."
        return
    for position, gate in enumerate(rule.gates, 1):
        yield f"  {position}. {gate.approve} of {who(gate)}{_escalation(gate)}"
    if len(rule.ways) > 1:
        ways = [_way(rule.gates, way) for way in rule.ways]
        yield f"One of these is enough: {'; '.join(ways)}."
    if rule.ordered:
        yield "The gates open one after the other."
    if not rule.distinct:
        yield "One vote counts in every gate that its person belongs to."
    if rule.self_approve:
        yield "Whoever asks may approve too."


def _escalation(gate: Gate) -> str:
    if gate.escalate_after is None:
        return ""
    groups = " or ".join(sorted(gate.escalate_groups))
    return f"; after {span(gate.escalate_after)} also {groups}"


def _way(gates: Sequence[Gate], way: frozenset[int]) -> str:
    return " and ".join(gates[place].id for place in sorted(way))


def _limits(rule: Rule) -> Iterator[str]:
    yield f"It expires after {span(rule.expires_after)}."
    if rule.approval_valid_for is not None:
        yield f"An approval is valid for {span(rule.approval_valid_for)}."
    if rule.not_before is not None:
        yield f"It starts at {rule.not_before:%Y-%m-%d %H:%M} UTC or later."
    if rule.windows:
        yield f"It runs only in {len(rule.windows)} window(s)."
    if rule.freeze:
        yield f"It never runs in {len(rule.freeze)} freeze window(s)."
    if rule.reason_to_deny:
        yield "A denial needs a reason."
    if rule.break_glass is not None:
        groups = " or ".join(sorted(rule.break_glass.groups))
        yield f"{groups} may run it without votes, and owes a review."


def span(length: timedelta) -> str:
    """`90 min`, `4 h`, `2 d`: the largest unit that leaves no rest."""
    seconds = int(length.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
