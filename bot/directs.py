"""Draws what goes to one person, from what is stored when it is delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from slack_sdk.web.async_client import AsyncWebClient

from approvals.delegations import TOPIC_KIND
from approvals.notices import DIRECT_KIND
from approvals.records import RequestRecord
from approvals.telling import Kind
from approvals.words import RequestId, State
from bot import outbox_rows
from bot.blocks import Message
from bot.buttons import Purpose
from bot.cards import Cards, card_of
from bot.incidents import Incidents
from bot.outbox_rows import Row
from bot.slack import SlackError, call
from bot.views.delegations import direct_message
from bot.views.notice import Direct, notice_message, over_message
from store.connect import Store

_VOTING: Final = frozenset({Kind.ASK, Kind.ESCALATED, Kind.REMIND, Kind.EXPIRING})
_REVIEWING: Final = frozenset({State.EXECUTING, State.NEEDS_REVIEW})


@dataclass(frozen=True, slots=True, kw_only=True)
class Directs:
    """Implements `bot.outbox.Draw` for every topic."""

    cards: Cards
    incidents: Incidents
    store: Store
    client: AsyncWebClient

    async def __call__(self, row: Row, payload: Mapping[str, Any]) -> Message | None:
        """What a row of the outbox shows; None when there is nothing to say any more."""
        if row.topic == "direct":
            match payload.get("kind"):
                case kind if kind == DIRECT_KIND:
                    return await self._notice(row, payload)
                case kind if kind == TOPIC_KIND:
                    return direct_message(payload)
        if row.topic == "incident":
            return await self.incidents(row, payload)
        return await self.cards(row, payload)

    async def _notice(self, row: Row, payload: Mapping[str, Any]) -> Message | None:
        record = await self.cards.approvals.load(RequestId(row.request_id or 0))
        if record is None:
            return None
        kind = Kind(payload["notice"])
        if not payload.get("is_over") and not _still_asked(kind, record, payload):
            return None
        card = card_of(record)
        direct = Direct(
            kind=kind,
            card=card,
            missing=record.what_is_missing,
            absent=str(payload.get("absent", "")),
            link=await self._link(record),
        )
        token = self.cards.token(record, Purpose.DETAILS)
        drawn = over_message if payload.get("is_over") else notice_message
        return drawn(direct, token=token)

    async def _link(self, record: RequestRecord) -> str:
        """Where the card stands; '' while it does not, or Slack does not say."""
        place = await outbox_rows.find_place(self.store, record.id, "card")
        if place is None:
            return ""
        try:
            found = await call(
                self.client.chat_getPermalink(channel=place.channel, message_ts=place.ts)
            )
        except SlackError:
            return ""
        return str(found.get("permalink", ""))


def _still_asked(kind: Kind, record: RequestRecord, payload: Mapping[str, Any]) -> bool:
    """Whether a message that was decided on a while ago is still true."""
    if kind in _VOTING:
        return record.state is State.PENDING and record.plan_hash == payload["plan_hash"]
    return record.state in _REVIEWING
