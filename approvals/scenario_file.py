"""Scenarios as teams write them: the models of a scenario file, and how one is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from approvals.compiling import PolicyError
from approvals.policy_file import (
    MalformedPolicyError,
    parse_policy,
    read_document,
    where_of,
)
from approvals.policy_models import PolicyModel
from approvals.words import BadInputError, Flag, State

# A Monday: scenarios count their seconds from here.
EPOCH: Final = datetime(2024, 1, 1, tzinfo=UTC)
FILE_BYTES_MAX: Final = 16 * 1024 * 1024
# Every order of what happens together is played, so this grows fast.
ORDERS_MAX: Final = 5040

Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
Seconds = Annotated[StrictInt, Field(ge=0, le=3660 * 86400)]


class ScenarioError(BadInputError):
    """A file is no valid scenario."""


class _Model(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class PersonModel(_Model):
    """A person of a scenario. The display name is never an identity."""

    groups: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    aliases: tuple[str, ...] = ()
    display_name: str = ""


class EventModel(_Model):
    """Something that happens at `t` seconds."""

    t: Seconds | None = None
    do: Literal[
        "request",
        "approve",
        "deny",
        "vote",
        "withdraw_vote",
        "cancel",
        "reopen",
        "plan_change",
        "attrs_change",
        "policy_change",
        "people_change",
        "directory",
        "restart",
        "tick",
        "execute",
        "finish",
        "break_glass",
        "review",
        "together",
    ]
    by: str | None = None
    req: str = "r1"
    # On decisions
    seen: str | None = None
    seen_step: StrictInt | None = None
    channel: Literal["slack", "web", "cli", "api"] = "slack"
    delivery: str | None = None
    method: str = "POST"
    signature: str = "valid"
    as_user: str | None = None
    set_policy: Any = None
    reason: Text = ""
    verdict: Any = None
    # On requests and runs
    plan: str | None = None
    target: str | None = None
    attrs: Mapping[str, Any] | None = None
    beneficiary: str | None = Field(default=None, alias="for")
    ttl: StrictInt | None = None
    artifact: str | None = None
    ok: StrictBool = True
    outcome: Literal["done", "failed"] | None = Field(
        default=None, validation_alias=AliasChoices("outcome", "result")
    )
    # On changes of what is around
    set: Mapping[str, Any] | None = None
    people: Mapping[str, Any] | None = None
    remove: Names = ()
    who: str | None = Field(default=None, validation_alias=AliasChoices("who", "person"))
    groups: tuple[str, ...] | None = None
    flags: tuple[Flag, ...] | None = None
    aliases: tuple[str, ...] | None = None
    display_name: str | None = None
    approved_by: Names = ()
    up: StrictBool = True
    events: tuple[EventModel, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether a run that finishes did its work."""
        return self.ok and self.outcome != "failed"

    @property
    def changed_people(self) -> Mapping[str, Any]:
        """Who changes, and what is new about them; None: they leave."""
        found = {**(self.set or {}), **(self.people or {}), **dict.fromkeys(self.remove)}
        who = self.who or self.by
        said = {
            name: getattr(self, name)
            for name in ("groups", "flags", "aliases", "display_name")
            if getattr(self, name) is not None
        }
        return {**found, who: said} if who and said else found

    @model_validator(mode="after")
    def _complete(self) -> EventModel:
        needs_person = self.do in {
            "request",
            "approve",
            "deny",
            "vote",
            "withdraw_vote",
            "cancel",
            "break_glass",
            "review",
        }
        if needs_person and self.by is None:
            raise ValueError(f"{self.do!r} needs `by`: say who does it")
        if (self.do == "together") != bool(self.events):
            raise ValueError("`together` needs `events`, and nothing else has them")
        if any(event.do == "together" for event in self.events):
            raise ValueError("`together` cannot stand inside `together`")
        return self


class ExpectedModel(_Model):
    """What must have come out."""

    state: State | Mapping[str, State] | None = None
    state_in: tuple[State, ...] | Mapping[str, tuple[State, ...]] | None = None
    results: tuple[str | tuple[str, ...], ...] | None = None
    executions_count: StrictInt | None = None
    voters: tuple[tuple[str, str], ...] | None = None
    notes: tuple[str, ...] | None = None


class ScenarioModel(_Model):
    """A policy, what happens under it, and what must come out."""

    id: str = Field(min_length=1)
    source: str = ""
    policy: Mapping[str, Any]
    events: tuple[EventModel, ...]
    expected: ExpectedModel = ExpectedModel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A scenario, checked. `policy` is as it was written, without the people."""

    id: str
    source: str
    policy: Mapping[str, Any]
    people: Mapping[str, PersonModel]
    events: tuple[EventModel, ...]
    expected: ExpectedModel

    def at(self, event: EventModel) -> datetime:
        """When an event happens."""
        return EPOCH + timedelta(seconds=event.t or 0)


def read_scenarios(path: Path) -> list[Scenario | ScenarioError]:
    """The scenarios of a file; a list entry that is none is the error that says why.

    Raises:
        ScenarioError: the file cannot be read, or is no list.
    """
    step = "A file is a JSON or YAML list of scenarios; see docs/policy-tests.md."
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ScenarioError(f"{path} is larger than {FILE_BYTES_MAX} bytes.", next_step=step)
        data = read_document(path.read_text(encoding="utf-8"), name=path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path} cannot be read ({error}).", next_step=step) from None
    except MalformedPolicyError as error:
        raise ScenarioError(f"{path}: {error.problem}", next_step=step) from None
    if not isinstance(data, list):
        raise ScenarioError(f"{path} is no list.", next_step=step)
    return _distinct([_scenario(entry, f"{path.name}[{n}]") for n, entry in enumerate(data)])


def merged(old: Mapping[str, Any], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """A policy with some of its keys replaced; null removes one."""
    both = {**old, **changes}
    return {key: value for key, value in both.items() if value is not None}


def _distinct(found: list[Scenario | ScenarioError]) -> list[Scenario | ScenarioError]:
    seen: set[str] = set()
    for number, entry in enumerate(found):
        if isinstance(entry, Scenario):
            if entry.id in seen:
                found[number] = ScenarioError(
                    f"The scenario {entry.id} stands twice.", next_step="Give each its own id."
                )
            seen.add(entry.id)
    return found


def _scenario(data: object, place: str) -> Scenario | ScenarioError:
    try:
        model = ScenarioModel.model_validate(data)
        policy = dict(model.policy)
        people = _people(policy.pop("people", {}))
        _in_language(policy)
        for event in model.events:
            if event.do == "policy_change":
                PolicyModel.model_validate(merged(policy, event.set or {}))
    except ValidationError as error:
        first = error.errors()[0]
        said = str(first["msg"]).removeprefix("Value error, ")
        return ScenarioError(f"{place}: {where_of(first['loc'])}: {said}.", next_step=_MEND)
    except (MalformedPolicyError, ValueError) as error:
        said = error.problem if isinstance(error, MalformedPolicyError) else str(error)
        return ScenarioError(f"{place}: {said}", next_step=_MEND)
    if wrong := _out_of_order(model.events):
        return ScenarioError(f"{place}: {wrong}", next_step=_MEND)
    return Scenario(
        id=model.id,
        source=model.source,
        policy=policy,
        people=people,
        events=model.events,
        expected=model.expected,
    )


_MEND: Final = "Mend that place; the words are those of the page on policy tests."


def _people(data: object) -> Mapping[str, PersonModel]:
    if not isinstance(data, Mapping):
        raise ValueError("policy.people must name people and say their groups")  # noqa: TRY004
    return {str(name): PersonModel.model_validate(entry or {}) for name, entry in data.items()}


def _in_language(policy: Mapping[str, Any]) -> None:
    """Let what the language cannot say rise; what is forbidden is part of a scenario."""
    try:
        parse_policy(policy, epoch=EPOCH)
    except MalformedPolicyError:
        raise
    except PolicyError:
        return


def _out_of_order(events: Sequence[EventModel]) -> str | None:
    latest, orders = 0, 1
    for number, event in enumerate(events):
        if event.t is None:
            return f"events[{number}] says no time `t`."
        if event.t < latest:
            return f"events[{number}] is earlier than what stands before it."
        latest = event.t
        for count in range(1, len(event.events) + 1):
            orders *= count
    if orders > ORDERS_MAX:
        return f"What happens together can happen in more than {ORDERS_MAX} orders."
    return None
