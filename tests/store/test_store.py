"""The store keeps its promises on a real PostgreSQL, whoever writes SQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from postgres.server import Server
from store.connect import Store, connect
from store.outbox import post
from store.quick import Statement
from store.tables import metadata
from store.upgrade import schema_state, upgrade
from tests.conftest import Target

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

REQUEST: dict[str, Any] = {
    "state": "pending", "version": 1, "operation": "backup", "database": "orders",
    "asked_by": "ana@acme.example", "asked_by_slack": "", "authors": ["ana@acme.example"],
    "door": "slack", "reason": "", "params": {}, "plan": "{}", "plan_hash": "h",
    "policy_hash": "p", "attributes": {}, "rule": "r", "step": 0, "asked_at": NOW,
    "expires_at": NOW, "detail": {}, "channel": "C",
}  # fmt: skip
APPEND = "SELECT * FROM audit_append('orders', :at, 'ana', :action, NULL, 'orders', '{}')"


async def insert_request(conn: AsyncConnection, **changes: object) -> int:
    table = metadata.tables["requests"]
    made = await conn.execute(table.insert().values(**REQUEST | changes).returning(table.c.id))
    return int(made.scalar_one())


async def refusal(store: Store, statement: str) -> str:
    with pytest.raises(DBAPIError) as refused:
        async with store.begin() as conn:
            await conn.execute(sa.text(statement))
    return str(refused.value.orig)


async def test_the_migrated_schema_is_what_the_tables_say(store: Store) -> None:
    async with store.begin() as conn:
        differences = await conn.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"compare_type": True}), metadata
            )
        )
    ours = [d for d in differences if "pgqueuer" not in str(d) and "alembic" not in str(d)]
    assert ours == []


async def test_upgrading_twice_changes_nothing(server: Server, store: Store) -> None:
    assert await schema_state(store) == "current"
    await upgrade(store.dsn)
    assert await schema_state(store) == "current"


async def test_a_database_without_our_schema_is_called_empty(target: Target) -> None:
    assert await schema_state(connect(target.dsn, role="postgres")) == "empty"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'somebody else'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "INSERT INTO audit_log SELECT * FROM audit_log",
        "UPDATE audit_heads SET seq = 0",
        "DELETE FROM votes",
        "UPDATE votes SET verdict = 'approve'",
        "UPDATE policies SET body = ''",
        "DELETE FROM requests",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "DROP TABLE audit_log",
    ],
)
async def test_the_application_cannot_rewrite_the_record(store: Store, statement: str) -> None:
    assert "permission denied" in (said := await refusal(store, statement)) or "owner" in said


@pytest.mark.parametrize("table", ["audit_log", "votes", "policies"])
@pytest.mark.parametrize("change", ["DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET at = now()"])
async def test_not_even_the_owner_edits_the_record_by_mistake(
    store: Store, table: str, change: str
) -> None:
    owner = connect(store.dsn, role="postgres")
    try:
        statement = change.format(table)
        if "TRUNCATE" in statement:
            statement += " CASCADE"
        said = await refusal(owner, statement)
        assert "insert-only" in said
    finally:
        await owner.close()


@pytest.mark.parametrize(
    "final", ["done", "failed", "denied", "cancelled", "expired", "refused", "closed"]
)
async def test_a_request_never_leaves_a_final_state(store: Store, final: str) -> None:
    async with store.begin() as conn:
        await insert_request(conn, state=final)
    assert "stays so" in await refusal(store, "UPDATE requests SET state = 'approved'")
    async with store.begin() as conn:
        await conn.execute(sa.text("UPDATE requests SET version = version + 1"))


async def test_a_gate_of_no_approvals_cannot_be_stored(store: Store) -> None:
    async with store.begin() as conn:
        request = await insert_request(conn)
    said = await refusal(
        store,
        "INSERT INTO gates (request_id, position, id, approve, deny)"
        f" VALUES ({request}, 0, 'dba', 0, 1)",
    )
    assert "check constraint" in said


async def test_a_vote_without_a_signature_cannot_be_stored(store: Store) -> None:
    async with store.begin() as conn:
        request = await insert_request(conn)
    said = await refusal(
        store,
        "INSERT INTO votes (request_id, plan_hash, policy_hash, step, person, slack, groups,"
        " verdict, reason, door, at, key_id, signature)"
        f" VALUES ({request}, 'h', 'p', 0, 'ben', '', '{{}}',"
        " 'approve', '', 'slack', now(), 'k', '')",
    )
    assert "votes_signed" in said


async def test_audit_entries_of_a_chain_are_numbered_without_gaps(store: Store) -> None:
    for action in ("requested", "approved"):
        async with store.begin() as conn:
            await conn.execute(sa.text(APPEND), {"at": NOW, "action": action})
    async with store.begin() as conn:
        rows = (await conn.execute(sa.text("SELECT * FROM audit_log ORDER BY seq"))).all()
    assert [row.seq for row in rows] == [1, 2]
    assert rows[0].prev_hash == "0" * 64
    assert rows[1].prev_hash == rows[0].hash


async def test_a_rolled_back_entry_leaves_no_gap(store: Store) -> None:
    with pytest.raises(RuntimeError):
        async with store.begin() as conn:
            await conn.execute(sa.text(APPEND), {"at": NOW, "action": "lost"})
            raise RuntimeError
    async with store.begin() as conn:
        row = (await conn.execute(sa.text(APPEND), {"at": NOW, "action": "kept"})).one()
    assert row.seq == 1


async def test_what_is_posted_is_gone_when_the_transaction_is(store: Store) -> None:
    with pytest.raises(RuntimeError):
        async with store.begin() as conn:
            await post(conn, topic="card", request_id=1, channel="C", payload={}, now=NOW)
            raise RuntimeError
    async with store.begin() as conn:
        assert (await conn.execute(sa.text("SELECT count(*) FROM outbox"))).scalar_one() == 0


async def test_a_post_wakes_a_listener_when_it_commits(store: Store) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await store.direct()
    await listener.add_listener("twokey_outbox", lambda *said: heard.put_nowait(str(said[2])))
    async with store.begin() as conn:
        await post(conn, topic="card", request_id=1, channel="C", payload={}, now=NOW)
        assert heard.empty()
    assert await asyncio.wait_for(heard.get(), 30) == "twokey_outbox"
    await listener.close()


async def test_a_connection_that_the_server_closed_is_replaced_without_an_error(
    store: Store,
) -> None:
    async with store.begin() as conn:
        pid = (await conn.execute(sa.text("SELECT pg_backend_pid()"))).scalar_one()
    admin = await asyncpg.connect(store.dsn.get_secret_value())
    await admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    await admin.close()
    async with store.begin() as conn:
        assert (await conn.execute(sa.text("SELECT pg_backend_pid()"))).scalar_one() != pid


async def test_a_quick_connection_that_the_server_closed_is_replaced_without_an_error(
    store: Store,
) -> None:
    query = Statement(sa.text("SELECT pg_backend_pid() AS pid"))
    (row,) = await store.rows(query, {})
    admin = await asyncpg.connect(store.dsn.get_secret_value())
    await admin.execute("SELECT pg_terminate_backend($1, 5000)", row["pid"])
    await admin.close()
    (again,) = await store.rows(query, {})
    assert again["pid"] != row["pid"]


async def test_a_quick_statement_runs_as_the_application_and_takes_json(store: Store) -> None:
    query = Statement(
        sa.text("SELECT current_user AS who, :given ->> 'a' AS found").bindparams(
            sa.bindparam("given", type_=JSONB)
        )
    )
    (row,) = await store.rows(query, {"given": {"a": "b"}, "more": "is left out"})
    assert (row["who"], row["found"]) == ("twokey_app", "b")
