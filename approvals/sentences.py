"""What people are told about a decision that was taken. Pure."""

from __future__ import annotations

from typing import Final

from approvals.events import (
    Asked,
    AttributesChanged,
    Begun,
    Cancelled,
    Distrusted,
    Event,
    Finished,
    GlassBroken,
    PlanChanged,
    PolicyChanged,
    Reopened,
    Reviewed,
    SentBack,
    Swept,
    Voted,
    VoteWithdrawn,
)
from approvals.records import RequestRecord
from approvals.words import State

# Of what a run says at its end the card keeps this much; its log has all of it.
ENDING_CHARS_MAX: Final = 2000
ACTIONS = {
    Asked: "ask",
    Voted: "vote",
    VoteWithdrawn: "withdraw_vote",
    Cancelled: "cancel",
    Reopened: "reopen",
    PlanChanged: "change_plan",
    AttributesChanged: "change_attributes",
    PolicyChanged: "change_policy",
    Begun: "begin",
    Finished: "finish",
    SentBack: "send_back",
    Distrusted: "distrust",
    GlassBroken: "break_glass",
    Reviewed: "review",
    Swept: "sweep",
}


def said(event: Event, record: RequestRecord, *, noop: bool) -> tuple[str, str]:
    """What was done, and what comes next, in two sentences."""
    name = f"request {record.id}"
    if noop:
        return f"Nothing has changed: {name} is {shown(record.state)}.", waiting(record)
    match event:
        case Voted(verdict=verdict):
            done = f"Your {verdict} of {name} is stored."
        case VoteWithdrawn():
            done = f"Your vote on {name} is taken back."
        case Asked():
            done = f"{name.capitalize()} is stored."
        case GlassBroken():
            done = f"{name.capitalize()} runs without its votes, and everybody can see that."
        case Cancelled():
            done = f"{name.capitalize()} is cancelled."
        case Reviewed():
            done = f"{name.capitalize()} is reviewed and closed."
        case _:
            done = f"{name.capitalize()} is {shown(record.state)}."
    return done, waiting(record)


def waiting(record: RequestRecord) -> str:
    """What a request waits for, in a sentence."""
    match record.state:
        case State.PENDING:
            missing = record.what_is_missing
            return f"It needs {missing}." if missing else "It waits for a decision."
        case State.APPROVED:
            return "It starts as soon as it may."
        case State.EXECUTING:
            return "Its progress is told in the card's thread."
        case State.NEEDS_REVIEW:
            return "Somebody else must review what was done."
        case State.EXPIRED | State.CANCELLED | State.DENIED | State.REFUSED | State.FAILED:
            return "Ask again if the work is still needed."
        case State.DONE | State.CLOSED:
            return "There is nothing left to do."


def shown(state: State) -> str:
    """A state as people read it."""
    return str(state).replace("_", " ")


def clipped(text: str, chars_max: int) -> str:
    """`text`, or its beginning and how much of it is not kept here."""
    if len(text) <= chars_max:
        return text
    return f"{text[:chars_max]}… ({len(text) - chars_max:,} more characters were left out)"
