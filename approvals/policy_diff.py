"""What is different between two policies, rule by rule, with nothing cut. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from approvals.policy_file import LoadedPolicy

_WIDTH: Final = 100


def differences(old: LoadedPolicy, new: LoadedPolicy) -> tuple[str, ...]:
    """One text for each setting and each rule that differs, whole, as the file says it."""
    before, after = json.loads(old.body), json.loads(new.body)
    return (
        *_settings(before, after),
        *_rules(_named(before.get("rules")), _named(after.get("rules"))),
        *_order(before.get("rules"), after.get("rules")),
    )


def _settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*before, *after} - {"rules"}):
        if before.get(name) != after.get(name):
            yield _change(f"setting {name}", before, after, name)


def _rules(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield _change(f"rule {name}", before, after, name)


def _change(what: str, before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> str:
    """The whole of it before and after, one line for each line of the file."""
    word = "changed" if name in before and name in after else "added"
    word = word if name in after else "removed"
    gone = [f"- {line}" for line in _lines(before[name])] if name in before else []
    come = [f"+ {line}" for line in _lines(after[name])] if name in after else []
    same = {line[2:] for line in gone} & {line[2:] for line in come}
    # What is on both sides is said once.
    old = [line for line in gone if line[2:] not in same]
    new = [f"  {line[2:]}" if line[2:] in same else line for line in come]
    return "\n".join([f"{what}: {word}", *old, *new])


def _order(before: Sequence[Any] | None, after: Sequence[Any] | None) -> Iterator[str]:
    """The order of the rules, where those in both have moved: the first that matches counts."""
    old, new = list(_named(before)), list(_named(after))
    if [name for name in old if name in new] != [name for name in new if name in old]:
        lines = [f"{number}. {name}" for number, name in enumerate(new, 1)]
        yield "\n".join(["order of the rules: changed", *lines])


def _named(rules: Sequence[Any] | None) -> Mapping[str, Any]:
    """Rules by name; those without one by their place, doubles told apart."""
    found: dict[str, Any] = {}
    for number, rule in enumerate(rules or ()):
        name = str(rule.get("name") or f"rules[{number}]")
        found[f"{name} ({number})" if name in found else name] = rule
    return found


def _lines(value: object) -> list[str]:
    text = yaml.safe_dump(
        value, sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=None
    )
    return [line for line in text.splitlines() if line != "..."]
