"""The sentences of a refusal: what is wrong, and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from approvals.words import RefusedError, RequestId, State, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why something was not done, in two sentences for the person who tried."""

    why: Why
    problem: str
    next_step: str

    def error(self) -> RefusedError:
        """The same as an exception."""
        return RefusedError(self.problem, next_step=self.next_step, why=self.why)


# What most refusals say. `{request}` is "Request 7"; a caller that knows more says more.
_TEXTS: Final[Mapping[Why, tuple[str, str]]] = MappingProxyType(
    {
        Why.SELF: (
            "{request} is your own, or you shaped its plan.",
            "Ask a colleague who may approve to decide.",
        ),
        Why.NOT_ELIGIBLE: (
            "{request} is not yours to decide.",
            "The card names the groups who may: ask one of their members.",
        ),
        Why.IDENTITY: (
            "Guests, bots, strangers, and deactivated or unconfirmed accounts cannot do this.",
            "Use a full account of this workspace with a confirmed e-mail address.",
        ),
        Why.IMPERSONATION: (
            "The name in what was sent is not the account that sent it.",
            "Decide under your own name.",
        ),
        Why.DIRECTORY: (
            "People cannot be looked up at the moment, so nothing can be decided.",
            "Try again in a minute; if it lasts, tell whoever runs the bot.",
        ),
        Why.SIGNATURE: (
            "What was sent is not signed as it must be.",
            "Press the button on the request's current card.",
        ),
        Why.CLOSED: ("{request} is {state}.", "Ask again if the work is still needed."),
        Why.EXPIRED: ("{request} has expired.", "Ask again if the work is still needed."),
        Why.STALE_PLAN: (
            "{request} is not what it was when you looked.",
            "Read the request's current card and decide again.",
        ),
        Why.STALE_STEP: (
            "{request} has moved on to another step.",
            "Read the request's current card and decide again.",
        ),
        Why.DUPLICATE: (
            "Your seat on {request} has already voted.",
            "Take the vote back first if it was a mistake.",
        ),
        Why.REASON: ("This needs a reason.", "Say why, in a few words, and send it again."),
        Why.VERDICT: ("This is neither approve nor deny.", "Approve or deny."),
        Why.POLICY: (
            "No rule of the policy allows this.",
            "Ask whoever keeps the policy to add a rule for it.",
        ),
        Why.UNSATISFIABLE: (
            "There are not enough people who could agree to this.",
            "Ask whoever keeps the policy or the groups to name more people.",
        ),
        Why.FOUR_EYES: (
            "A change of the policy needs somebody else who approves under the present one.",
            "Have a colleague who may approve agree to the change.",
        ),
        Why.NOT_APPROVED: (
            "{request} is not approved.",
            "It starts by itself when the votes that it needs are there.",
        ),
        Why.NOT_YET: ("{request} is for later.", "It starts when its time has come."),
        Why.FROZEN: (
            "Changes like {request} may not run now.",
            "It starts when the freeze ends or the next window opens.",
        ),
        Why.LOCKED: (
            "Another change is running on the same database.",
            "It starts when the other one has ended.",
        ),
        Why.NOT_REQUESTER: (
            "{request} was asked for by somebody else.",
            "Ask them to cancel it, or deny it if you may.",
        ),
        Why.TTL: (
            "The request would stay open for longer than the policy allows.",
            "Ask with a shorter time.",
        ),
        Why.UNREAD: (
            "You have not opened every page of what {request} would do.",
            "Open its details, turn to the last page, then approve.",
        ),
        Why.NAME: (
            "The name of the database was not typed, or not exactly.",
            "Type the name as the card shows it.",
        ),
        Why.STEP_UP: (
            "{request} takes a code of your second factor.",
            "Give the code that your authenticator shows now; `/db mfa enroll` sets one up.",
        ),
        Why.SECRET: (
            "What was asked, or the plan made from it, holds a password, a key or a token.",
            "Leave it out, and replace that secret: it has been sent through the chat.",
        ),
    }
)


def refuse(
    why: Why,
    request_id: RequestId | None = None,
    *,
    state: State | None = None,
    problem: str = "",
    next_step: str = "",
) -> Refusal:
    """The refusal for `why`; `problem` and `next_step` replace the usual sentences."""
    name = "This request" if not request_id else f"Request {request_id}"
    usual, step = _TEXTS[why]
    text = problem or usual.format(request=name, state=_shown(state))
    return Refusal(why=why, problem=text, next_step=next_step or step)


def _shown(state: State | None) -> str:
    return "closed" if state is None else str(state).replace("_", " ")
