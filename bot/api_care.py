"""Decisions through the API that may demand care: the name typed, a code, the plan read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from approvals.calls import Decision
from approvals.records import RequestRecord
from approvals.words import Care
from bot.api_bodies import DecisionBody
from bot.deciding import Caller
from bot.desk import Desk

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
    if tried is not None and spared and not tried.ok:
        care = record.care  # it is refused for another reason, which is to be the one said
    return await deciding(care, True)
