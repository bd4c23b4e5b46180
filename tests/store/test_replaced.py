"""What stands aside, until it is put back or removed: once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from store.connect import Store
from store.replaced import ReplacedServer, end_replaced, find_replaced, kept_aside, record_replaced

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
ADD_REQUEST = sa.text("""
    INSERT INTO requests (state, version, operation, database, asked_by, asked_by_slack, authors,
                          door, reason, params, plan, plan_hash, policy_hash, attributes, rule,
                          step, asked_at, expires_at, detail, channel)
    VALUES ('done', 1, 'restore', 'orders', 'ana@acme.example', 'T0DEMO/U0ANA', ARRAY['ana'],
            'slack', '', '{}', '', '', 'p', '{}', 'r', 0, now(), now(), '{}', 'C0ORDERS')
    RETURNING id
""")


async def test_what_was_put_aside_is_kept_until_it_is_ended_once(store: Store) -> None:
    async with store.begin() as conn:
        number = (await conn.execute(ADD_REQUEST)).scalar_one()
        server = ReplacedServer(
            request_id=number,
            database="orders",
            host="db1",
            data="/data/orders",
            aside="/data/orders.twokey-old-1",
            state="kept",
            at=NOON,
            detail={"inode": 5},
        )
        await record_replaced(conn, server)
        await record_replaced(conn, server)
        assert await kept_aside(conn, "orders") == [server]
        assert await kept_aside(conn, "users") == []
        assert await find_replaced(conn, "users", number) is None
        assert await end_replaced(conn, number, state="undone", at=LATER, detail={"by": 9})
        assert not await end_replaced(conn, number, state="confirmed", at=LATER, detail={})
        found = await find_replaced(conn, "orders", number)
        assert await kept_aside(conn, "orders") == []
    assert found is not None
    assert (found.state, found.ended_at, found.detail) == ("undone", LATER, {"inode": 5, "by": 9})
