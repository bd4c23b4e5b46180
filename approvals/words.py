"""The words of an approval: ids, states, verdicts, reasons and errors. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

RequestId = NewType("RequestId", int)
RunId = NewType("RunId", int)
# One human being, however many accounts: the confirmed e-mail in lower case, or
# "TEAM/USER" where no e-mail is known.
PersonId = NewType("PersonId", str)
PlanHash = NewType("PlanHash", str)
PolicyHash = NewType("PolicyHash", str)
GateId = NewType("GateId", str)


class State(StrEnum):
    """Where a request stands. `approvals.machine.TRANSITIONS` says what may follow what."""

    PENDING = "pending"
    APPROVED = "approved"
    EXECUTING = "executing"
    DONE = "done"
    FAILED = "failed"
    DENIED = "denied"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUSED = "refused"
    NEEDS_REVIEW = "needs_review"
    CLOSED = "closed"


class Verdict(StrEnum):
    """What a vote says. `withdrawn` takes back the voter's earlier vote."""

    APPROVE = "approve"
    DENY = "deny"
    WITHDRAWN = "withdrawn"


class Door(StrEnum):
    """How somebody reached us. The door makes no difference to a decision."""

    SLACK = "slack"
    CLI = "cli"
    API = "api"
    WEB = "web"
    CLOCK = "clock"  # a schedule of the inventory asks; nobody votes through it


class Care(StrEnum):
    """What a voter did besides deciding. A rule can demand it of every approval."""

    READ = "read"  # opened every page of the plan
    NAMED = "named"  # typed the database's name
    STEP_UP = "step_up"  # gave a code of their second factor


class Flag(StrEnum):
    """What makes an account unfit to ask or to vote."""

    GUEST = "guest"
    EXTERNAL = "external"
    DEACTIVATED = "deactivated"
    BOT = "bot"
    UNCONFIRMED = "unconfirmed"


class Why(StrEnum):
    """Why something was not done. Part of the scenario format: never rename one."""

    SELF = "self"
    NOT_ELIGIBLE = "not_eligible"
    IDENTITY = "identity"
    IMPERSONATION = "impersonation"
    DIRECTORY = "directory"
    SIGNATURE = "signature"
    CLOSED = "closed"
    EXPIRED = "expired"
    STALE_PLAN = "stale_plan"
    STALE_STEP = "stale_step"
    DUPLICATE = "duplicate"
    REASON = "reason"
    VERDICT = "verdict"
    POLICY = "policy"
    UNSATISFIABLE = "unsatisfiable"
    FOUR_EYES = "four_eyes"
    NOT_APPROVED = "not_approved"
    NOT_YET = "not_yet"
    FROZEN = "frozen"
    LOCKED = "locked"
    NOT_REQUESTER = "not_requester"
    TTL = "ttl"
    UNREAD = "unread"
    NAME = "name"
    STEP_UP = "step_up"
    SECRET = "secret"  # noqa: S105 - a reason, and none itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person as the directory knows them right now.

    `groups` are the policy's names for groups, not Slack's ids. `slack_team` and
    `slack_user` are empty for somebody who came through another door. `aliases` are
    further names of the same human being that the policy's `users` may use, in lower
    case; `name` is only shown, as anybody may call themselves anything.
    """

    id: PersonId
    name: str
    slack_team: str = ""
    slack_user: str = ""
    flags: frozenset[Flag] = frozenset()
    groups: frozenset[str] = frozenset()
    aliases: frozenset[str] = frozenset()

    @property
    def slack(self) -> str:
        """TEAM/USER, or '' for somebody who came through another door."""
        return f"{self.slack_team}/{self.slack_user}" if self.slack_user else ""

    @property
    def identities(self) -> frozenset[str]:
        """Every name that is this person for sure, in lower case."""
        known = {self.id, *self.aliases, self.slack, self.slack_user}
        return frozenset(name.casefold() for name in known if name)


class ExplainedError(Exception):
    """Base of every error that reaches a person: what is wrong, and what to do next.

    ```
    ExplainedError
    ├── RefusedError         the rules do not allow it; nothing has changed
    │   └── DirectoryDownError  nobody can be identified at the moment
    ├── BadInputError        what somebody typed cannot be understood
    └── JobError             an operation could not do its work (jobs.operation)
    ```

    `postgres.errors.PostgresError` has the same two texts and no base in common, as
    `postgres` can be used without the rest.

    Both texts are plain sentences without markup; views draw them.
    """

    def __init__(self, problem: str, *, next_step: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.next_step = next_step


class RefusedError(ExplainedError):
    """The rules do not allow this person to do this now. Nothing has changed."""

    def __init__(self, problem: str, *, next_step: str, why: Why) -> None:
        super().__init__(problem, next_step=next_step)
        self.why = why


class DirectoryDownError(RefusedError):
    """The directory cannot be read, so nobody can be identified. Nothing has changed."""

    def __init__(self, problem: str, *, next_step: str) -> None:
        super().__init__(problem, next_step=next_step, why=Why.DIRECTORY)


class BadInputError(ExplainedError):
    """What somebody typed cannot be understood. Nothing has changed."""
