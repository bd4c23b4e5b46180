"""What a request's card shows, as values: stored state in the shape that views need. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from approvals.words import Care, State, Verdict
from bot.views.menu import Menu
from jobs.operation import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLine:
    """One gate: who must agree, how many, and who has. People are `TEAM/USER` or a name."""

    id: str
    who: str  # such as "dba" or "dba or ana@acme.example"
    need: int
    have: tuple[str, ...]
    is_open: bool  # False for a gate whose turn has not come
    can_deny: bool
    stand_ins: tuple[str, ...] = ()  # beside `have`: who voted in that seat; "" for its owner

    @property
    def is_met(self) -> bool:
        """Whether enough people agree."""
        return len(self.have) >= self.need


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteLine:
    """One vote as people see it."""

    who: str
    verdict: Verdict
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Everything that the message of a request shows."""

    request_id: int
    state: State
    operation: str
    database: str
    asked_by: str  # TEAM/USER or a name
    reason: str
    plan: Plan
    rule: str
    gates: tuple[GateLine, ...]
    votes: tuple[VoteLine, ...]
    asked_at: datetime
    expires_at: datetime
    approval_expires_at: datetime | None = None
    not_before: datetime | None = None
    ended_at: datetime | None = None
    any_gate: bool = False  # some of the gates are enough
    ways: tuple[tuple[int, ...], ...] = ()  # the sets of gates of which one must be met
    ordered: bool = False  # one gate after the other
    menu: Menu | None = None  # what can be done besides deciding
    note: str = ""  # how it ended, or why it was turned back
    glass: str = ""  # who ran it without its votes, and why
    run_state: str = ""
    is_pausable: bool = False  # its run can be asked to wait
    paused_by: str = ""  # who has asked it to: TEAM/USER or a name; "" for nobody
    paused_at: datetime | None = None
    ends_in_order: bool = False  # its run brings itself to a safe end when it is stopped
    abort_words: str = ""  # what stopping it would mean
    stopped_by: str = ""  # who has asked it to stop: TEAM/USER or a name; "" for nobody
    params: tuple[tuple[str, str], ...] = ()  # what was asked for, as the plan's hash covers it
    care: frozenset[Care] = frozenset()  # what an approval demands besides the decision
