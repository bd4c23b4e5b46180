"""What a card's button or a modal carries: what the person saw, sealed for one use. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from approvals.words import PlanHash, PolicyHash, RefusedError, RequestId, Why
from bot.sealing import Sealer

_VALUE_CHARS_MAX: Final = 2000  # Slack's limit for a button's value


class Purpose(StrEnum):
    """What a value was made for. A button's is its action id; it does nothing elsewhere."""

    APPROVE = "approve"
    DENY = "deny"
    DETAILS = "details"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    # Modals, each of one person:
    REASON = "deny_reason"
    CARE = "approve_care"
    PAGES = "pages"
    GLASS = "break_glass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a card showed when its buttons were drawn, and what this one of them is for.

    `person` is whom a modal was opened for; a card's buttons are anybody's.
    """

    request_id: RequestId
    plan_hash: PlanHash
    policy_hash: PolicyHash
    card_hash: str
    step: int
    expires_at: datetime
    purpose: Purpose = Purpose.APPROVE
    person: str = ""


_WORDS: Final = {
    Purpose.APPROVE: "Approve",
    Purpose.DENY: "Deny",
    Purpose.DETAILS: "Details",
    Purpose.CANCEL: "Cancel",
    Purpose.PAUSE: "Pause",
    Purpose.RESUME: "Resume",
    Purpose.REASON: "the window of a deny",
    Purpose.CARE: "the window of an approval",
    Purpose.PAGES: "the pages of the details",
    Purpose.GLASS: "the window that breaks the glass",
}


class Seal:
    """Seals and opens buttons' values. The first key seals; every key opens."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        # Derived, so that a button's seal can never be passed off as a vote's signature.
        self._sealer = Sealer(keys, use=b"twokey button v2", chars_max=_VALUE_CHARS_MAX)

    def close(self, shown: Shown) -> str:
        """The value of a button. It is readable by who holds it, and only we can make it."""
        fields = [
            shown.request_id,
            shown.plan_hash,
            shown.policy_hash,
            shown.card_hash,
            shown.step,
            int(shown.expires_at.timestamp()),
            str(shown.purpose),
            shown.person,
        ]
        body = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
        return self._sealer.close(body)

    def open(self, value: str, *, now: datetime | None, purpose: Purpose | None = None) -> Shown:
        """What the button's card showed. With `now` None its age does not matter.

        Without `purpose`, whatever it was made for.

        Raises:
            RefusedError: the value was not made by us, or for something else, or its time has
                run out.
        """
        body = self._sealer.open(value)
        if body is None:
            raise RefusedError(
                "This button was not made by Twokey, or its key has been retired.",
                next_step="Use the buttons of the request's own card; /db requests finds it.",
                why=Why.SIGNATURE,
            )
        number, plan_hash, policy_hash, card_hash, step, expires, made_for, person = json.loads(
            body
        )
        shown = Shown(
            request_id=RequestId(number),
            plan_hash=PlanHash(plan_hash),
            policy_hash=PolicyHash(policy_hash),
            card_hash=card_hash,
            step=step,
            expires_at=datetime.fromtimestamp(expires, UTC),
            purpose=Purpose(made_for),
            person=person,
        )
        if purpose is not None and shown.purpose is not purpose:
            raise RefusedError(
                f"What was sent belongs to another button of request {number} "
                f"({_WORDS[shown.purpose]}), not to this one ({_WORDS[purpose]}).",
                next_step="Press the button on the request's own card.",
                why=Why.SIGNATURE,
            )
        if now is not None and now >= shown.expires_at:
            raise RefusedError(
                f"The buttons of request {number} have expired.",
                next_step="Ask for the change again if it is still wanted.",
                why=Why.EXPIRED,
            )
        return shown
