"""The policy file: its schema, and the way from text to `approvals.rules` values.

Two kinds of mistakes: a file that is not in the policy's language at all
(`MalformedPolicyError`), and one that says something that must not be, such as a gate of
0 approvals (`PolicyError`). Neither ever becomes a policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from approvals.compiling import PolicyError, Problem, compile_policy
from approvals.plans import canonical, sha256
from approvals.policy_models import (
    BreakGlassModel,
    DelegationModel,
    GateModel,
    PolicyModel,
    RuleModel,
)
from approvals.rules import Policy
from approvals.words import PolicyHash
from approvals.yaml_text import read_yaml


class MalformedPolicyError(PolicyError):
    """It is not written in the policy's language: an unknown key, a text for a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicy:
    """A policy with the text that says it. `hash` is the SHA-256 of `body`."""

    hash: PolicyHash
    body: str
    values: Policy


def parse_policy(data: object, *, epoch: datetime | None = None) -> LoadedPolicy:
    """The policy that `data` (as read from JSON or YAML) says.

    Seconds may stand for a moment only where there is an `epoch` to count from.

    Raises:
        MalformedPolicyError: it is not in the policy's language.
        PolicyError: it is, and says something that must not be.
    """
    try:
        model = PolicyModel.model_validate(data)
    except ValidationError as error:
        raise MalformedPolicyError([_problem(line) for line in error.errors()]) from None
    values = compile_policy(model, epoch=epoch)
    body = canonical(_plain(data))
    return LoadedPolicy(hash=PolicyHash(sha256(body)), body=body, values=values)


def load_policy(path: Path) -> LoadedPolicy:
    """The policy in a JSON or YAML file.

    Raises:
        MalformedPolicyError: there is no such file, or it is not in the policy's language.
        PolicyError: it says something that must not be.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(where=str(path), problem=f"cannot be read ({error})", next_step=_FILE)
        raise MalformedPolicyError([problem]) from None
    return parse_policy(read_document(text, name=path.name))


_FILE = "Give the path of a policy file, such as policy.yml."


def read_document(text: str, *, name: str) -> object:
    """What a JSON or YAML text says; moments that YAML understood are text again.

    Raises:
        MalformedPolicyError: it is neither, or says a key twice.
    """
    try:
        data = read_yaml(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        line = " ".join(str(error).split())
        step = "Mend the place that it names; JSON and YAML are understood."
        raise MalformedPolicyError([Problem(where=name, problem=line, next_step=step)]) from None
    return _plain(data)


def _plain(value: object) -> object:
    match value:
        case datetime() | date():
            return value.isoformat()
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case str():
            return value
        case Sequence():
            return [_plain(item) for item in value]
        case _:
            return value


def _problem(line: Mapping[str, Any]) -> Problem:
    where = where_of(line["loc"])
    match line["type"]:
        case "extra_forbidden":
            return Problem(
                where=where,
                problem="is not a word of the policy language",
                next_step=f"Correct its spelling or remove it; known here: {_known(line['loc'])}.",
            )
        case "missing":
            return Problem(where=where, problem="is missing", next_step="Add it.")
        case _:
            said = str(line["msg"]).removeprefix("Value error, ")
            given = json.dumps(line.get("input"), default=str)[:80]
            return Problem(
                where=where,
                problem=f"cannot be {given}",
                next_step=f"{said[:1].upper()}{said[1:]}.",
            )


def where_of(location: Sequence[str | int]) -> str:
    """`rules[2].gates[0].approve` for a location of pydantic's."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or "the policy"


def _known(location: Sequence[str | int]) -> str:
    names = [part for part in location if isinstance(part, str)][:-1]
    models: Mapping[str, type[BaseModel]] = {
        "rules": RuleModel,
        "gates": GateModel,
        "break_glass": BreakGlassModel,
        "delegations": DelegationModel,
    }
    model = models.get(names[-1], PolicyModel) if names else PolicyModel
    return ", ".join(sorted(field.alias or name for name, field in model.model_fields.items()))
