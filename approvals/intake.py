"""What people type and runs report, without secrets: before it is hashed, signed or stored.

Words are kept without them. A plan is refused instead: changed, it would be another plan.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from approvals.by_the_clock import pretence
from approvals.calls import Ask
from approvals.detail import Ending
from approvals.events import GlassBroken, Happening, Reviewed, Voted
from approvals.refusals import Refusal, refuse
from approvals.words import Why
from store.redact import holds_secret, redact

_Said = TypeVar("_Said", bound="Ask | Voted | GlassBroken | Reviewed")


def clean_ask(ask: Ask) -> Ask:
    """The same with a reason that can be kept."""
    return _clean(ask)


def clean_event(event: Happening) -> Happening:
    """The same with a reason that can be kept."""
    return _clean(event) if isinstance(event, Voted | GlassBroken | Reviewed) else event


def clean_ending(ending: Ending | None) -> Ending | None:
    """The same with words that can be kept."""
    if ending is None:
        return None
    words = {"text": redact(ending.text), "next_step": redact(ending.next_step)}
    return ending.model_copy(update=words)


def pretence_in(ask: Ask) -> Refusal | None:
    """Why what is asked for is not asked for by who it says, or None."""
    return pretence(ask.by.id, ask.door, ask.attributes)


def secret_in_plan(body: str) -> Refusal | None:
    """Why this plan cannot be stored for people to read, or None when it can."""
    return refuse(Why.SECRET) if holds_secret(body) else None


def _clean(said: _Said) -> _Said:
    reason = redact(said.reason)
    return said if reason == said.reason else replace(said, reason=reason)
