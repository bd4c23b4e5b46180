"""What an approval through the API has shown of care, besides the decision itself."""

from __future__ import annotations

from approvals.calls import Seen
from approvals.records import RequestRecord
from approvals.words import Care
from bot.api_bodies import DecisionBody
from bot.deciding import Caller
from bot.desk import Desk


async def care_of(
    desk: Desk, caller: Caller, record: RequestRecord, body: DecisionBody, seen: Seen
) -> frozenset[Care]:
    """What the sender did: states the plan that they were given whole, types the name, a code.

    The API and the command line give out a plan only as a whole, together with its hash, so
    whoever states the hash has been shown all of it.
    """
    del desk, caller
    shown = {
        Care.READ: seen.plan_hash == record.plan_hash,
        Care.NAMED: body.typed is not None and body.typed.strip() == record.database,
    }
    return frozenset(care for care, done in shown.items() if done)
