"""Whether a button's or a modal's value is ours, made for this, of this card, and current."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from approvals.calls import Seen
from approvals.records import RequestRecord
from approvals.refusals import Refusal, refuse
from approvals.shown import shown_hash
from approvals.words import PersonId, RefusedError, RequestId, State, Why
from bot.buttons import Purpose, Seal, Shown
from bot.cards import Cards
from store.connect import Store

CARD_AT: Final = sa.text("""
    SELECT request_id FROM posts WHERE channel = :channel AND ts = :ts AND topic = 'card'
""")
_READ_AGAIN: Final = "Its card is being drawn anew: read it again, then decide."


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Opens what was pressed. `redraw` has a request's card drawn anew."""

    seal: Seal
    cards: Cards
    store: Store
    clock: Callable[[], datetime]
    redraw: Callable[[RequestRecord], Awaitable[None]]

    async def current(
        self, value: str, purpose: Purpose, *, place: str = "", person: PersonId | None = None
    ) -> tuple[Shown, RequestRecord]:
        """What was shown, if that still stands, and its request as it is now.

        `place`: the message (`CHANNEL/TS`) that the button stood in; `person`: who sent a
        modal, which must be whom it was opened for.

        Raises:
            RefusedError: it does not stand any more, each part of it with its own reason, or
                the value is not ours. A card that is out of date is drawn anew.
        """
        shown, record = await self.of_any_age(value, purpose, place=place, person=person)
        refusal = outdated(shown, record, now=self.clock())
        if refusal is not None:
            if refusal.why is Why.EXPIRED:
                # As through every door: whoever comes too late finds the request expired.
                await self.cards.approvals.sweep()
            await self.redraw(record)
            raise refusal.error()
        return shown, record

    async def of_any_age(
        self, value: str, purpose: Purpose, *, place: str = "", person: PersonId | None = None
    ) -> tuple[Shown, RequestRecord]:
        """What was shown, however old, for what does no harm; otherwise as `current`."""
        here = await self._card_at(place)
        try:
            shown = self.seal.open(value, now=None, purpose=purpose)
        except RefusedError:
            await self._redraw_at(here)
            raise
        record = await self.cards.record(shown.request_id)
        if here is not None and here != shown.request_id:
            await self._redraw_at(here)
            raise refuse(
                Why.SIGNATURE,
                problem=f"This button belongs to request {shown.request_id}, and was pressed on "
                f"the card of request {here}.",
                next_step=_READ_AGAIN,
            ).error()
        if person is not None and shown.person != person:
            raise refuse(
                Why.SIGNATURE,
                problem=f"This window on request {record.id} was opened for somebody else.",
                next_step="Press the button on the card yourself.",
            ).error()
        return shown, record

    def sealed_for(self, shown: Shown, purpose: Purpose, person: PersonId) -> str:
        """What a modal carries that `person` has opened with such a button."""
        return self.seal.close(replace(shown, purpose=purpose, person=person))

    async def _card_at(self, place: str) -> RequestId | None:
        """The request whose card stands there; None for copies that one person sees."""
        channel, _, ts = place.partition("/")
        if not ts:
            return None
        async with self.store.single() as conn:
            found = await conn.execute(CARD_AT, {"channel": channel, "ts": ts})
            return next((RequestId(row.request_id) for row in found), None)

    async def _redraw_at(self, here: RequestId | None) -> None:
        if here is not None:
            await self.redraw(await self.cards.record(here))


def seen_in(shown: Shown) -> Seen:
    """What the voter saw, for the decision, which compares it again behind the lock."""
    return Seen(
        plan_hash=shown.plan_hash,
        policy_hash=shown.policy_hash,
        step=shown.step,
        card=shown.card_hash,
    )


def outdated(shown: Shown, record: RequestRecord, *, now: datetime) -> Refusal | None:
    """Why what was shown stands no more, or None; of what has ended a decision says it. Pure."""
    if record.state is not State.PENDING:
        return None
    if now >= shown.expires_at:
        return refuse(
            Why.EXPIRED,
            problem=f"The buttons of request {record.id} have expired.",
            next_step="Ask for the change again if it is still wanted.",
        )
    name = f"request {record.id}"
    checks = (
        (shown.plan_hash == record.plan_hash, Why.STALE_PLAN,
         f"The plan of {name} has changed since this card was drawn."),
        (shown.policy_hash == record.policy_hash, Why.STALE_PLAN,
         f"The rules for {name} have changed since this card was drawn."),
        (shown.step == record.step, Why.STALE_STEP,
         f"{name.capitalize()} has moved on to another step since this card was drawn."),
        (shown.card_hash == shown_hash(record), Why.STALE_PLAN,
         f"The card of {name} has changed since it was drawn."),
    )  # fmt: skip
    for holds, why, problem in checks:
        if not holds:
            return refuse(why, problem=problem, next_step=_READ_AGAIN)
    return None
