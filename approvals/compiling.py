"""From the policy file's models to frozen values, with every mistake found at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Literal

from approvals.built_in import NEVER_ALONE, policy_change_rule
from approvals.policy_models import (
    BreakGlassModel,
    GateModel,
    PolicyModel,
    RuleModel,
    SettingsModel,
)
from approvals.rules import (
    Attributes,
    BreakGlass,
    Compare,
    Condition,
    Delegation,
    Gate,
    Policy,
    Rule,
)
from approvals.times import Window, moment, window
from approvals.words import BadInputError, GateId

EXPIRES_AFTER: Final = timedelta(days=7)
REASON_CHARS_MAX: Final = 4000
GATES_MAX: Final = 12
_WAYS_MAX: Final = 256
_DEPTH_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong in a policy: where, what, and what to do."""

    where: str
    problem: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.where} {self.problem}. {self.next_step}"


class PolicyError(BadInputError):
    """Nothing may be decided under such a policy. All its problems are here."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        more = f" ({len(problems)} problems in all)" if len(problems) > 1 else ""
        super().__init__(f"{first.where} {first.problem}.{more}", next_step=first.next_step)
        self.problems = tuple(problems)


def compile_policy(model: PolicyModel, *, epoch: datetime | None) -> Policy:
    """The values that a policy file's model says.

    Raises:
        PolicyError: it says something that must not be.
    """
    work = _Work(epoch=epoch)
    found = [work.rule(model, rule, where) for rule, where in _rules(model)]
    rules = tuple(sorted(found, key=lambda rule: rule.fallback))
    policy = Policy(
        rules=rules,
        groups=MappingProxyType(dict(model.groups)),
        delegations=tuple(work.delegations(model)),
        four_eyes=model.policy_four_eyes,
        built_in=policy_change_rule(rules) if model.policy_four_eyes else None,
        never_alone=(*NEVER_ALONE, *work.never_alone(model)),
    )
    if work.problems:
        raise PolicyError(work.problems)
    return policy


def _rules(model: PolicyModel) -> Iterator[tuple[RuleModel | None, str]]:
    """The file's rules, or the one rule that a file without any is."""
    if model.rules is None:
        if model.gates is not None:
            yield None, ""
        return
    for number, rule in enumerate(model.rules):
        yield rule, f"rules[{number}]."


@dataclass(slots=True, kw_only=True)
class _Work:
    epoch: datetime | None
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, where: str, problem: str, next_step: str) -> None:
        self.problems.append(Problem(where=where, problem=problem, next_step=next_step))

    def rule(self, policy: PolicyModel, rule: RuleModel | None, where: str) -> Rule:
        def said(name: str, otherwise: Any) -> Any:
            for source in (rule, policy):
                if source is not None and getattr(source, name) is not None:
                    return getattr(source, name)
            return otherwise

        own: SettingsModel = rule if rule is not None and rule.gates is not None else policy
        refuse = rule is not None and rule.refuse
        if refuse and rule is not None and (rule.gates or rule.require):
            self.wrong(f"{where}refuse", "has gates beside it", "Remove gates and require.")
        if refuse:
            own = SettingsModel(gates=())
        if own.gates is None:
            self.wrong(f"{where}gates", "is missing", "Say who must agree; [] lets it run unasked.")
        gates = tuple(self.gates(own.gates or (), where))
        require = rule.require if rule and rule.require is not None else own.require
        return Rule(
            name=(rule.name if rule and rule.name else where.rstrip(".")) or "the policy",
            when=tuple(self.conditions(rule, where)) if rule else (),
            fallback=rule.fallback if rule else False,
            gates=gates,
            ways=() if refuse else self.ways(require, gates, where),
            ordered=said("ordered", False),
            distinct=said("distinct", True),
            self_approve=said("self_approve", False),
            self_deny=said("self_deny", True),
            may_always_deny=frozenset(said("may_always_deny", ())),
            change_vote=said("change_vote", False),
            reason_to_deny=said("reason_to_deny", False),
            recheck_voters=said("recheck_voters", True),
            check_satisfiable=said("check_satisfiable", False),
            expires_after=self.positive(where, "expires_after", said("expires_after", None))
            or EXPIRES_AFTER,
            warn_before=said("warn_before", None),
            approval_valid_for=self.positive(
                where, "approval_valid_for", said("approval_valid_for", None)
            ),
            not_before=self.not_before(said("not_before", None), where),
            windows=tuple(self.windows(said("windows", ()), f"{where}windows")),
            freeze=tuple(self.windows(said("freeze", ()), f"{where}freeze")),
            break_glass=self.glass(said("break_glass", None), where),
            max_reason=self.reason_length(said("max_reason", REASON_CHARS_MAX), where),
            max_ttl=self.positive(where, "max_ttl", said("max_ttl", None)),
            read_all=said("read_all", None),
            type_name=said("type_name", None),
            step_up=said("step_up", False),
            remind_every=self.positive(where, "remind_every", said("remind_every", None)),
            refuse=refuse,
        )

    def gates(self, models: Sequence[GateModel], where: str) -> Iterator[Gate]:
        if len(models) > GATES_MAX:
            self.wrong(f"{where}gates", f"are {len(models)}", f"Use {GATES_MAX} at most.")
            return
        for number, gate in enumerate(models):
            place = f"{where}gates[{number}]"
            if gate.approve < 1:
                self.wrong(
                    f"{place}.approve",
                    f"is {gate.approve}, which would be an open door",
                    "Say how many must agree, 1 or more; for no approval at all write gates: [].",
                )
            if gate.deny < 0:
                self.wrong(
                    f"{place}.deny", f"is {gate.deny}", "Write 0 (cannot be denied) or more."
                )
            if bool(gate.escalate_groups) != (gate.escalate_after is not None):
                self.wrong(place, "escalates by halves", "Give escalate_after and escalate_groups.")
            yield Gate(
                id=GateId(gate.id),
                groups=frozenset(gate.groups),
                users=frozenset(user.strip().casefold() for user in gate.users),
                approve=gate.approve,
                deny=gate.deny,
                escalate_after=gate.escalate_after,
                escalate_groups=frozenset(gate.escalate_groups),
            )

    def conditions(self, rule: RuleModel, where: str) -> Iterator[Condition]:
        for name, value in rule.when.items():
            match value:
                case str() | int() | float():
                    yield Condition(name=name, compare=Compare.IN, values=(value,))
                case tuple():
                    if not value:
                        self.wrong(f"{where}when.{name}", "is empty", "List the values that match.")
                    yield Condition(name=name, compare=Compare.IN, values=value)
                case _:
                    bounds = [(Compare(key), bound) for key, bound in value if bound is not None]
                    if not bounds:
                        self.wrong(f"{where}when.{name}", "compares nothing", 'Write {"gt": 1000}.')
                    for compare, bound in bounds:
                        yield Condition(name=name, compare=compare, values=(bound,))

    def ways(self, need: object, gates: Sequence[Gate], where: str) -> tuple[frozenset[int], ...]:
        if need is None:
            return (frozenset(range(len(gates))),)
        found = self._ways(need, gates, f"{where}require", depth=0)
        # A way that holds another whole way never opens anything by itself.
        return tuple(way for way in found if not any(other < way for other in found))

    def _ways(
        self, need: object, gates: Sequence[Gate], where: str, *, depth: int
    ) -> tuple[frozenset[int], ...]:
        match need:
            case str():
                places = [number for number, gate in enumerate(gates) if gate.id == need]
                if len(places) != 1:
                    self.wrong(
                        where, f"names {need!r}, of which there are {len(places)}", _ONE_GATE
                    )
                    return ()
                return (frozenset(places),)
            case Mapping() if len(need) == 1 and depth < _DEPTH_MAX:
                [(word, inner)] = need.items()
                if word in ("all", "any") and isinstance(inner, Sequence) and inner:
                    parts = [self._ways(item, gates, where, depth=depth + 1) for item in inner]
                    return self._combined(word, parts, where)
        self.wrong(
            where, "is not understood", 'Write a gate\'s id, {"all": [...]} or {"any": [...]}.'
        )
        return ()

    def _combined(
        self, word: str, parts: Sequence[tuple[frozenset[int], ...]], where: str
    ) -> tuple[frozenset[int], ...]:
        if word == "any":
            return tuple(dict.fromkeys(way for part in parts for way in part))
        ways: tuple[frozenset[int], ...] = (frozenset(),)
        for part in parts:
            ways = tuple(dict.fromkeys(left | right for left in ways for right in part))
            if len(ways) > _WAYS_MAX:
                self.wrong(where, "can be met in too many ways", "Say it with fewer alternatives.")
                return ()
        return ways

    def delegations(self, model: PolicyModel) -> Iterator[Delegation]:
        for number, line in enumerate(model.delegations):
            try:
                start = moment(line.from_t, epoch=self.epoch)
                end = moment(line.to_t, epoch=self.epoch)
            except ValueError as error:
                self.wrong(f"delegations[{number}]", "has no clear times", f"Here {error}.")
                continue
            yield Delegation(
                absent=line.absent.strip().casefold(),
                stand_in=line.stand_in.strip().casefold(),
                start=start,
                end=end,
            )

    def windows(self, values: Sequence[object], where: str) -> Iterator[Window]:
        for number, value in enumerate(values):
            try:
                yield window(value, epoch=self.epoch)
            except ValueError as error:
                self.wrong(f"{where}[{number}]", "is not understood", f"Here {error}.")

    def not_before(self, value: object, where: str) -> datetime | None:
        try:
            return None if value is None else moment(value, epoch=self.epoch)
        except ValueError as error:
            self.wrong(f"{where}not_before", "is not understood", f"Here {error}.")
            return None

    def never_alone(self, model: PolicyModel) -> Iterator[Attributes]:
        for number, attributes in enumerate(model.never_alone):
            if not attributes:
                step = "Say what must never be one person's doing, such as {operation: restore}."
                self.wrong(f"never_alone[{number}]", "is empty", step)
            yield MappingProxyType(dict(attributes))

    def glass(
        self, model: BreakGlassModel | Literal[False] | None, where: str
    ) -> BreakGlass | None:
        if not model:
            return None
        if model.open_max is not None and model.open_max < 1:
            step = "Write how many may wait for a review, 1 or more; or leave break_glass out."
            self.wrong(f"{where}break_glass.open_max", f"is {model.open_max}", step)
        return BreakGlass(
            groups=frozenset(model.groups),
            reviewers=frozenset(model.reviewers),
            review_within=model.review_within,
            open_max=model.open_max,
            alone=model.alone,
        )

    def positive(self, where: str, name: str, value: timedelta | None) -> timedelta | None:
        if value is not None and value <= timedelta(0):
            self.wrong(f"{where}{name}", "is no time at all", "Write a duration such as 4h.")
        return value

    def reason_length(self, value: int, where: str) -> int:
        if value < 1:
            self.wrong(f"{where}max_reason", f"is {value}", "Write how many characters, 1 or more.")
        return value


_ONE_GATE = "Name one gate of this rule by its id, and give each gate an id of its own."
