"""Decisions through the API that may demand care: the name typed, a code, the plan read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from approvals.calls import Decision
from approvals.records import RequestRecord
from approvals.words import Care, Why
from bot.api_bodies import DecisionBody
from bot.deciding import Caller
from bot.desk import Desk

_CARELESS: Final = frozenset({Why.UNREAD, Why.NAME, Why.STEP_UP})
# Decides with the care that is given; without `keep` it only says what would come of it.
Deciding = Callable[[frozenset[Care], bool], Awaitable[Decision]]


async def with_care(
    desk: Desk, caller: Caller, record: RequestRecord, body: DecisionBody, deciding: Deciding
) -> Decision:
    """The decision, with the care that its sender shows.

    A code is taken once, so it is spared where the decision would be refused whatever it is.

    Raises:
        RefusedError: a code was given where one is demanded, and it does not hold.
    """
    tried = await deciding(record.care, False) if body.code else None
    spared = tried is not None and (tried.noop or not tried.ok)
    care = await desk.careful.given(
        record,
        caller.person.id,
        typed=body.typed or "",
        code="" if spared else body.code or "",
    )
    decision = await deciding(care, True)
    # Only care that was shown is ever claimed; what else is amiss is the reason to be said.
    masked = tried is not None and not tried.ok and decision.why in _CARELESS
    return tried if tried is not None and masked else decision
