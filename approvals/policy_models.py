"""The schema of a policy file: what may be written, before it is known to make sense. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt

from approvals.rules import Attribute
from approvals.times import duration

Duration = Annotated[timedelta, BeforeValidator(duration)]
Need = str | Mapping[str, Any]


class _Model(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class GateModel(_Model):
    """Who may agree here, and how many must."""

    id: str = Field(min_length=1)
    groups: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    approve: StrictInt = 1
    deny: StrictInt = 1
    escalate_after: Duration | None = None
    escalate_groups: tuple[str, ...] = ()


class BreakGlassModel(_Model):
    """Who may run without the votes, and who reviews it afterwards."""

    groups: tuple[str, ...]
    reviewers: tuple[str, ...]
    review_within: Duration = timedelta(days=1)
    open_max: StrictInt | None = None
    alone: StrictBool = False


class DelegationModel(_Model):
    """`to` may vote in the seat of `from`, from `from_t` up to `to_t`."""

    absent: str = Field(alias="from")
    stand_in: str = Field(alias="to")
    from_t: StrictInt | str
    to_t: StrictInt | str


class SettingsModel(_Model):
    """What the whole policy says, and each rule may say again for itself."""

    gates: tuple[GateModel, ...] | None = None
    require: Need | None = None
    ordered: StrictBool | None = None
    distinct: StrictBool | None = None
    self_approve: StrictBool | None = None
    self_deny: StrictBool | None = None
    may_always_deny: tuple[str, ...] | None = None
    change_vote: StrictBool | None = None
    reason_to_deny: StrictBool | None = None
    recheck_voters: StrictBool | None = None
    check_satisfiable: StrictBool | None = None
    expires_after: Duration | None = None
    warn_before: Duration | None = None
    approval_valid_for: Duration | None = None
    not_before: StrictInt | str | None = None
    windows: tuple[Any, ...] | None = None
    freeze: tuple[Any, ...] | None = None
    break_glass: BreakGlassModel | Literal[False] | None = None
    max_reason: StrictInt | None = None
    max_ttl: Duration | None = None
    read_all: StrictBool | None = None
    type_name: StrictBool | None = None
    step_up: StrictBool | None = None
    remind_every: Duration | None = None


Bound = Annotated[StrictInt | float, Field()]


class BoundModel(_Model):
    """A comparison of a number, such as `{"gt": 1000}`."""

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None


When = Mapping[str, StrictBool | StrictInt | float | str | tuple[Attribute, ...] | BoundModel]


class RuleModel(SettingsModel):
    """When it applies, and what it asks for."""

    name: str | None = None
    when: When = Field(default_factory=dict)
    fallback: StrictBool = False
    refuse: StrictBool = False


class PolicyModel(SettingsModel):
    """A whole policy file."""

    rules: tuple[RuleModel, ...] | None = None
    groups: Mapping[str, str] = Field(default_factory=dict)
    delegations: tuple[DelegationModel, ...] = ()
    policy_four_eyes: StrictBool = False
    never_alone: tuple[Mapping[str, Attribute], ...] = ()
