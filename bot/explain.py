"""A policy in words: everything that its language can say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from approvals.built_in import NEVER_ALONE
from approvals.rules import BreakGlass, Delegation, Gate, Policy, Rule
from approvals.spaces import told
from approvals.times import Span, Weekly, Window

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def explain_rule(rule: Rule) -> list[str]:
    """What a rule asks for, line by line, as plain text."""
    conditions = " and ".join(str(condition) for condition in rule.when) or "always"
    last = ", when no other rule does" if rule.fallback else ""
    head = f"Rule {rule.name}: applies {_when(conditions)}{last}."
    if rule.refuse:
        return [head, "It refuses, on purpose."]
    return [head, *_asks(rule), *_denials(rule), *_cares(rule), *_limits(rule), *_times(rule)]


def explain_policy(policy: Policy) -> list[str]:
    """Every rule in the order in which they are tried, and what holds for all of them."""
    lines: list[str] = []
    ordinary = [rule for rule in policy.rules if not rule.fallback]
    ours = [policy.built_in] if policy.built_in else []
    for rule in [*ordinary, *ours, *(rule for rule in policy.rules if rule.fallback)]:
        lines += [*explain_rule(rule), ""]
    lines += [_delegation(line) for line in policy.delegations]
    lines += [
        f"Nobody alone may bring this to run: {told(critical)}."
        for critical in policy.never_alone
        if critical not in NEVER_ALONE
    ]
    lines.append(
        "Another policy is a request under this one: /db policy-change."
        if policy.four_eyes
        else "Another policy file is in force at the next start; nobody else has to agree."
    )
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
        yield f"  {position}. {gate.approve} of {who(gate)}{_escalation(gate)}{_no(gate)}"
    if len(rule.ways) > 1:
        ways = [_way(rule.gates, way) for way in rule.ways]
        yield f"One of these is enough: {'; '.join(ways)}."
    if rule.ordered:
        yield "The gates open one after the other."
    if not rule.distinct:
        yield "One vote counts in every gate that its person belongs to."
    if rule.self_approve:
        yield "Whoever asks may approve too."
    if rule.check_satisfiable:
        yield "It is refused at once when too few people could agree."
    if not rule.recheck_voters:
        yield "Who has voted is not looked up again when it starts."


def _escalation(gate: Gate) -> str:
    if gate.escalate_after is None:
        return ""
    groups = " or ".join(sorted(gate.escalate_groups))
    return f"; after {span(gate.escalate_after)} also {groups}"


def _no(gate: Gate) -> str:
    """How many denials it takes, where that is not one."""
    match gate.deny:
        case 0:
            return "; cannot deny"
        case 1:
            return ""
        case many:
            return f"; {many} denials close it"


def _way(gates: Sequence[Gate], way: frozenset[int]) -> str:
    return " and ".join(gates[place].id for place in sorted(way))


def _denials(rule: Rule) -> Iterator[str]:
    if rule.may_always_deny:
        yield f"{_either(rule.may_always_deny)} may always deny it, until it runs."
    if rule.reason_to_deny:
        yield "A denial needs a reason."
    if not rule.self_deny:
        yield "Whoever asks may not deny it."
    if rule.change_vote:
        yield "A vote can be changed."


def _cares(rule: Rule) -> Iterator[str]:
    """What an approval demands besides the decision."""
    if not rule.gates:
        return
    demands = (
        (rule.read_all, "every page of the plan was opened"),
        (rule.type_name, "the database's name was typed"),
        (rule.step_up, "a code of the second factor was given"),
    )
    always = [text for demanded, text in demands if demanded]
    riskiest = [text for demanded, text in demands if demanded is None]
    if always:
        yield f"An approval counts only when {' and '.join(always)}."
    if riskiest:
        yield f"Where data can be lost, also only when {' and '.join(riskiest)}."


def _limits(rule: Rule) -> Iterator[str]:
    yield f"It expires after {span(rule.expires_after)}."
    if rule.max_ttl is not None:
        yield f"Whoever asks may choose another time, up to {span(rule.max_ttl)}."
    if rule.warn_before is not None:
        yield f"It warns {span(rule.warn_before)} before it expires."
    if rule.remind_every is not None:
        yield f"Whoever could decide is reminded every {span(rule.remind_every)}."
    if rule.approval_valid_for is not None:
        yield f"An approval is valid for {span(rule.approval_valid_for)}."


def _times(rule: Rule) -> Iterator[str]:
    if rule.not_before is not None:
        yield f"It starts at {rule.not_before:%Y-%m-%d %H:%M} UTC or later."
    if rule.windows:
        yield f"It runs only {' or '.join(window_text(window) for window in rule.windows)}."
    if rule.freeze:
        yield f"It never runs {' or '.join(window_text(window) for window in rule.freeze)}."
    if rule.break_glass is not None:
        yield from _glass(rule.break_glass)


def _glass(glass: BreakGlass) -> Iterator[str]:
    groups, reviewers = _either(glass.groups), _either(glass.reviewers)
    yield f"{groups} may run it without votes, and owes a review."
    yield f"{reviewers} must review that within {span(glass.review_within)}, and be somebody else."
    if glass.open_max is not None:
        yield f"No more of that while {glass.open_max} wait for their review."
    if glass.alone:
        yield "One person may do that alone, on purpose."


def window_text(window: Window) -> str:
    """As people write it: `Mon-Fri 09:00-17:00 Europe/Berlin`, or `from … to … UTC (Christmas)`."""
    match window:
        case Span():
            name = f" ({window.name})" if window.name else ""
            return f"from {window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC{name}"
        case Weekly():
            hours = f"{window.start:%H:%M}-{window.end:%H:%M}"
            return f"{_days(window.days)} {hours} {window.zone.key}"


def _days(days: frozenset[int]) -> str:
    """`Mon-Fri`, `Mon,Wed`: three or more in a row are a range."""
    parts: list[str] = []
    row: list[int] = []
    for day in [*sorted(days), 99]:
        if row and day != row[-1] + 1:
            ends = [row[0], row[-1]] if len(row) > 2 else row  # noqa: PLR2004 - two need no dash
            parts.append(("-" if len(row) > 2 else ",").join(_DAYS[each] for each in ends))  # noqa: PLR2004
            row = []
        row.append(day)
    return ",".join(parts)


def _delegation(line: Delegation) -> str:
    dates = f"from {line.start:%Y-%m-%d %H:%M} to {line.end:%Y-%m-%d %H:%M} UTC"
    return f"{line.stand_in} may vote for {line.absent} {dates}."


def _either(groups: frozenset[str]) -> str:
    return " or ".join(sorted(groups))


def span(length: timedelta) -> str:
    """`90 min`, `4 h`, `2 d`: the largest unit that leaves no rest."""
    seconds = int(length.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
