"""Who asks when nobody does: the schedule, as a person who can do nothing else. Pure.

What a schedule asks for goes the way of every request. Its asker is of no directory, so
nobody's account can become it, and it is a bot to every rule: it never votes, breaks a glass,
reviews or cancels. Whoever writes a policy lets it act by the attribute `scheduled`, which is
derived from the door here and believed from nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from approvals.refusals import Refusal, refuse
from approvals.words import Door, Flag, Person, PersonId, Why

# No e-mail address and no TEAM/USER: `bot.people` can make no such id of any account.
CLOCK: Final = Person(id=PersonId("twokey:clock"), name="the schedule", flags=frozenset({Flag.BOT}))
SCHEDULED: Final = "scheduled"
YES: Final = "yes"


def scheduled_by(door: Door) -> Mapping[str, str]:
    """What rules may match on about how it was asked for: nothing, but for the clock."""
    return {SCHEDULED: YES} if door is Door.CLOCK else {}


def pretence(by: PersonId, door: Door, attributes: Mapping[str, object]) -> Refusal | None:
    """Why this is no request of who it says, or None: the three only come together."""
    claims = {by == CLOCK.id, door is Door.CLOCK, attributes.get(SCHEDULED) == YES}
    if claims == {True} or (claims == {False} and SCHEDULED not in attributes):
        return None
    return refuse(
        Why.IMPERSONATION,
        problem="Only the bot's own schedules ask as the schedule.",
        next_step="Ask for it under your own name.",
    )
