"""What a decision is about: the request, what happens to it, and what comes out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from approvals.refusals import Refusal
from approvals.rules import Attributes, Delegation, Policy
from approvals.tally import Vote
from approvals.words import (
    Care,
    Door,
    Person,
    PersonId,
    PlanHash,
    PolicyHash,
    RequestId,
    State,
    Why,
)


class Move(StrEnum):
    """What can happen to a request's state. `approvals.machine.TRANSITIONS` says when."""

    VOTE = "vote"
    CHANGE = "change"
    GRANT = "grant"
    UNGRANT = "ungrant"
    DENY = "deny"
    CANCEL = "cancel"
    LAPSE = "lapse"
    REFUSE = "refuse"
    START = "start"
    BREAK_GLASS = "break glass"
    SEND_BACK = "send back"
    SUCCEED = "succeed"
    FAIL = "fail"
    OWE_REVIEW = "owe review"
    REVIEW = "review"
    DISTRUST = "distrust"


@dataclass(frozen=True, slots=True, kw_only=True)
class Glass:
    """Who ran a request without its votes. `review_by` is None until the run has ended.

    `reminded_at`: when people were last told that its review is overdue.
    """

    by: PersonId
    at: datetime
    reason: str
    review_within: timedelta
    review_by: datetime | None = None
    reminded_at: datetime | None = None

    def overdue(self, at: datetime) -> bool:
        """Whether it should have been reviewed before `at`."""
        return self.review_by is not None and self.review_by <= at


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as far as decisions go. `votes` are those for the current plan.

    `authors` are everybody who shaped it: who asked, for whom, who changed the plan.
    `requesters` (who asked, for whom) may cancel it.
    """

    id: RequestId
    state: State
    target: str
    requesters: frozenset[PersonId]
    authors: frozenset[PersonId]
    plan_hash: PlanHash
    policy_hash: PolicyHash
    attributes: Attributes
    asked_at: datetime
    expires_at: datetime
    votes: tuple[Vote, ...] = ()
    step: int = 0
    begun: bool = False
    approved_at: datetime | None = None
    approval_expires_at: datetime | None = None
    told: frozenset[NoteKind] = frozenset()
    glass: Glass | None = None


class Cause(StrEnum):
    """Why something stored is not believed. `approvals.trust` finds it."""

    FORGED = "forged"  # somebody else wrote it
    UNKNOWN_KEY = "unknown key"  # sealed under a key that we do not have, so anybody may have
    LAPSED_VOTES = "lapsed votes"  # ours, but for votes under a key that was taken out
    USED = "used"  # it was begun before: an older copy of it was put back


class NoteKind(StrEnum):
    """What people are told without having asked."""

    WARN = "warn"
    EXPIRED = "expired"
    ESCALATED = "escalated"
    BREAK_GLASS = "break_glass"
    REVIEW_OVERDUE = "review_overdue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a decision reached us, as its door found it. The default is a proper one.

    `signed`: the door could prove where it comes from. `reading`: a request that must not
    change anything, such as a GET by somebody's link scanner. `as_person`: whom the payload
    names, which must be the sender. `sets_policy`: it tries to change the rules with it.
    """

    signed: bool = True
    reading: bool = False
    as_person: str | None = None
    sets_policy: bool = False
    directory_up: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything else that a decision may depend on.

    `policy` None: there is no valid one. `people` have been looked up just now.
    `target_busy`: another change runs on the request's target. `debtors` owe a review of a
    broken glass for longer than they should; `unreviewed` runs behind broken glass wait for
    a review, due or not. `delegations` are in force besides those of the policy.
    `shown`: what the request's card shows (`approvals.shown`), where the vote says what it saw.
    """

    at: datetime
    policy: Policy | None
    policy_hash: PolicyHash
    people: Mapping[PersonId, Person] = field(default_factory=dict)
    manner: Manner = field(default_factory=Manner)
    target_busy: bool = False
    debtors: frozenset[PersonId] = frozenset()
    unreviewed: int = 0
    delegations: Sequence[Delegation] = ()
    shown: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Somebody asks. `electorate`: everybody who could vote, where that is known."""

    by: Person | None
    request_id: RequestId
    target: str
    plan_hash: PlanHash
    attributes: Attributes
    reason: str = ""
    ttl: timedelta | None = None
    beneficiary: Person | None = None
    electorate: Sequence[Person] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Voted:
    """Somebody decides. What they saw is None where a door shows what is current."""

    by: Person | None
    verdict: str
    reason: str = ""
    door: Door = Door.SLACK
    seen_plan: str | None = None
    seen_policy: str | None = None
    seen_step: int | None = None
    seen_card: str | None = None
    care: frozenset[Care] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteWithdrawn:
    """Somebody takes their vote back."""

    by: Person | None
    door: Door = Door.SLACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """Whoever asked no longer wants it."""

    by: Person | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopened:
    """Somebody wants an ended request back. There is no way back: they must ask again."""

    by: Person | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChanged:
    """Somebody changes what would be done."""

    by: Person | None
    plan_hash: PlanHash
    attributes: Attributes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributesChanged:
    """What we derived about the request has changed."""

    attributes: Attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChanged:
    """The policy in `Facts` is not the one that the request was looked at under before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A worker wants to run it. None: the worker does not say."""

    plan_hash: str | None = None
    artifact: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The run has ended."""

    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SentBack:
    """A worker found something that votes can mend. All votes so far no longer count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distrusted:
    """What is stored is not what we stored: nobody can have agreed to it.

    `starting`: a worker found it that was about to begin, so nothing has begun.
    """

    cause: Cause
    starting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GlassBroken:
    """Somebody on call runs it now, votes or not."""

    by: Person | None
    reason: str = ""
    seen_plan: str | None = None
    care: frozenset[Care] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """Somebody else looked at what was done behind broken glass."""

    by: Person | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """Time has passed."""


ByPerson = (
    Asked | Voted | VoteWithdrawn | Cancelled | Reopened | PlanChanged | GlassBroken | Reviewed
)
# What is decided under the rule that the request meets.
Ruled = Voted | VoteWithdrawn | Begun | GlassBroken | Reviewed | Swept
# What happens to a request that exists.
Happening = (
    Ruled
    | Cancelled
    | Reopened
    | PlanChanged
    | AttributesChanged
    | PolicyChanged
    | Finished
    | SentBack
    | Distrusted
)
Event = Asked | Happening


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A message that must be sent. `text` is a plain sentence."""

    kind: NoteKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a decision brings. `request` is to be stored even when it was refused.

    A refusal can move a request: a late vote finds it expired. `moves` are what its state
    went through.
    """

    request: Request | None
    refusal: Refusal | None = None
    noop: bool = False
    vote: Vote | None = None
    notes: tuple[Note, ...] = ()
    moves: tuple[Move, ...] = ()

    @property
    def why(self) -> Why | None:
        """Why not, or None."""
        return self.refusal.why if self.refusal else None

    def __str__(self) -> str:
        if self.refusal:
            return f"no:{self.refusal.why}"
        return "noop" if self.noop else "ok"
