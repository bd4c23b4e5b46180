"""What is to be told to people, stored in the transaction that decided it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from store.redact import redact_json

Topic = Literal[
    "card", "note", "progress", "result", "direct", "anchor", "incident", "digest", "drill"
]  # fmt: skip
CHANNEL: Final = "twokey_outbox"

# The notification reaches the deliverer when the transaction commits, never before.
POST: Final = sa.text("""
    WITH posted AS (
        INSERT INTO outbox (topic, request_id, channel, payload, created_at, due_at)
        VALUES (:topic, :request_id, :channel, :payload, :now, :now)
     RETURNING id
    )
    SELECT id, pg_notify('twokey_outbox', '') FROM posted
""").bindparams(sa.bindparam("payload", type_=JSONB))


async def post(
    conn: AsyncConnection,
    *,
    topic: Topic,
    request_id: int | None,
    channel: str,
    payload: Mapping[str, JsonValue],
    now: datetime,
) -> int:
    """Queue a message in the caller's transaction; the outbox row's id.

    `card` ({}): the shell draws the request's card from stored state. `note` ({"text",
    "kind"}): a message in the card's thread. `progress` ({"text", "fraction"}): one
    message in the thread, edited in place. `result`: an answer or a problem, in the
    thread. `direct` ({"text", "kind"}): `channel` is a person's id. `incident` ({"incident",
    "kind"}): `card` draws the incident from stored state, `note` ({"text", "mark"}) goes into
    its thread, `escalation` to whom the channel is of. `anchor`, `digest` and `drill` are drawn
    of their payload alone. Nothing that is or looks
    like a secret is stored of it, also nothing that we issue to a person.
    """
    row = await conn.execute(
        POST,
        {
            "topic": topic,
            "request_id": request_id,
            "channel": channel,
            "payload": redact_json(dict(payload)),
            "now": now,
        },
    )
    return int(row.scalar_one())
