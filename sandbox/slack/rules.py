"""Small rules from which the shape of Block Kit is put together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PROBLEMS_MAX: Final = 20


@dataclass(slots=True)
class Problems:
    """What is wrong, each with a pointer to where, in Slack's words."""

    found: list[str] = field(default_factory=list)

    def add(self, problem: str, at: str) -> None:
        """Note a problem; beyond a bound they are dropped."""
        if len(self.found) < PROBLEMS_MAX:
            self.found.append(f"[ERROR] {problem} [json-pointer:{at}]")


Rule = Callable[[Problems, Any, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The fields of a type; a field that is not named here must not be there."""

    fields: Mapping[str, Rule]
    required: tuple[str, ...] = ()


def string(most: int, *, least: int = 0) -> Rule:
    """Text with a limit in characters."""

    def rule(problems: Problems, value: Any, at: str) -> None:
        if not isinstance(value, str):
            problems.add("must be a string", at)
        elif len(value) > most:
            problems.add(f"must be less than {most + 1} characters", at)
        elif len(value) < least:
            problems.add(f"must be more than {least - 1} characters", at)

    return rule


def boolean(problems: Problems, value: Any, at: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        problems.add("must be a boolean", at)


def number(problems: Problems, value: Any, at: str) -> None:
    """A number, also as text where Slack takes it so."""
    try:
        float(value)
    except (TypeError, ValueError):
        problems.add("must be a number", at)


def whole(problems: Problems, value: Any, at: str) -> None:
    """A whole number that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        problems.add("must be an integer", at)


def anything(problems: Problems, value: Any, at: str) -> None:
    """Whatever it is."""
    del problems, value, at


def choice(*allowed: str) -> Rule:
    """One of a few words."""

    def rule(problems: Problems, value: Any, at: str) -> None:
        if value not in allowed:
            problems.add(f"must be one of: {', '.join(allowed)}", at)

    return rule


def items(rule: Rule, *, most: int, least: int = 1) -> Rule:
    """A list with a limit, each item after the same rule."""

    def check(problems: Problems, value: Any, at: str) -> None:
        if not isinstance(value, list):
            problems.add("must be an array", at)
            return
        if len(value) > most:
            problems.add(f"no more than {most} items allowed", at)
        if len(value) < least:
            problems.add(f"no less than {least} items allowed", at)
        for index, item in enumerate(value[:most]):
            rule(problems, item, f"{at}/{index}")

    return check


def shape(spec: Spec) -> Rule:
    """An object with these fields and no others."""

    def rule(problems: Problems, value: Any, at: str) -> None:
        if not isinstance(value, dict):
            problems.add("must be an object", at)
            return
        for name in spec.required:
            if value.get(name) is None:
                problems.add(f"missing required field: {name}", at)
        for name, item in value.items():
            if name not in spec.fields:
                problems.add(f"invalid additional property: {name}", at)
            elif item is not None:
                spec.fields[name](problems, item, f"{at}/{name}")

    return rule


def one_of(specs: Mapping[str, Spec], *, allowed: frozenset[str] | None = None) -> Rule:
    """An object whose `type` says which spec it must meet."""

    def rule(problems: Problems, value: Any, at: str) -> None:
        if not isinstance(value, dict):
            problems.add("must be an object", at)
            return
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in specs or (allowed and kind not in allowed):
            problems.add(f"unsupported type: {kind}", f"{at}/type")
            return
        shape(specs[kind])(problems, value, at)

    return rule


def _text(kinds: tuple[str, ...], most: int, least: int) -> Rule:
    fields: dict[str, Rule] = {
        "type": choice(*kinds),
        "text": string(most, least=least),
        "emoji": boolean,
        "verbatim": boolean,
    }
    return shape(Spec(fields=fields, required=("type", "text")))


def plain(most: int, *, least: int = 1) -> Rule:
    """A `plain_text` object."""
    return _text(("plain_text",), most, least)


def text(most: int, *, least: int = 1) -> Rule:
    """A `plain_text` or `mrkdwn` object."""
    return _text(("plain_text", "mrkdwn"), most, least)
