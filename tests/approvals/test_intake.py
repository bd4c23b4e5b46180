"""A secret that somebody types is not stored, and nothing that is signed breaks for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from approvals import audit
from approvals.words import Door, RequestId, State, Verdict, Why
from store import outbox
from store.connect import Store
from store.redact import MARK
from tests.approvals.support import ANA, BEN, CLEO, a_ballot, an_ask, approvals_on, policy_of

TYPED = "c4n4ry-typed"
DSN = f"postgresql://bob:{TYPED}@db1/orders"
TABLES = ("requests", "votes", "outbox", "audit_log", "deliveries", "runs")


async def everything(store: Store) -> str:
    """Every row of the tables where words are kept."""
    found: list[str] = []
    async with store.begin() as conn:
        for table in TABLES:
            # As text: the repr of SQLAlchemy's rows leaves out the middle of long ones.
            rows = await conn.execute(sa.text(f"SELECT to_jsonb(t)::text FROM {table} t"))
            found += rows.scalars()
    return "\n".join(found)


async def test_a_reason_is_kept_without_its_secret_and_the_votes_on_it_count(store: Store) -> None:
    approvals = approvals_on(store, policy_of(2))
    asked = await approvals.ask(an_ask(reason=f"as in {DSN}"))
    await approvals.vote(a_ballot(asked, BEN, reason=f"fine, PGPASSWORD={TYPED}"))
    decided = await approvals.vote(a_ballot(asked, CLEO, reason=DSN))
    assert decided.request
    assert decided.request.state is State.APPROVED
    assert decided.request.reason == f"as in postgresql://bob:{MARK}@db1/orders"
    assert all(vote.is_signed for vote in decided.request.votes)
    assert TYPED not in await everything(store)


async def test_a_denial_breaking_glass_and_an_end_keep_no_secret(store: Store) -> None:
    policy = policy_of(1, break_glass={"groups": ["dba"], "reviewers": ["dba"]})
    approvals = approvals_on(store, policy)
    denied = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(denied, BEN, Verdict.DENY, reason=f"no: {DSN}"))
    asked = await approvals.ask(an_ask())
    assert asked.request
    broken = await approvals.break_glass(
        asked.request.id, by=BEN, reason=f"down: {DSN}", door=Door.SLACK, delivery="d1"
    )
    assert broken.ok, broken.problem
    async with store.begin() as conn:
        people = {person.id: person for person in (ANA, BEN)}
        begun = await approvals.begin(conn, RequestId(asked.request.id), people=people)
        assert begun.ok, begun.problem
        ended = await approvals.finish(
            conn, RequestId(asked.request.id), ok=False, summary=f"failed at {DSN}",
            numbers={"dsn": DSN, "n": 1},
        )  # fmt: skip
        assert ended.request
        assert ended.request.detail.ending
        assert ended.request.detail.ending.text == f"failed at postgresql://bob:{MARK}@db1/orders"
    assert TYPED not in await everything(store)


@pytest.mark.parametrize(
    "more",
    [
        {"params": {"kind": DSN}},
        {"plan": {"title": "x", "statements": [f"SELECT dblink('{DSN}')"]}},
        {"plan": {"title": "x", "facts": [["Token", "xoxb-12-34-abcdef"]]}},
    ],
)
async def test_a_plan_that_holds_a_secret_is_refused_and_not_stored(
    store: Store, more: dict[str, Any]
) -> None:
    asked = await approvals_on(store, policy_of(1)).ask(an_ask(**more))
    assert not asked.ok
    assert asked.why is Why.SECRET
    assert TYPED not in asked.problem + asked.next_step + await everything(store)


async def test_sql_about_passwords_is_no_secret_and_is_kept_as_it_is(store: Store) -> None:
    sql = "UPDATE users SET password = 'x' WHERE token = 'abcdefghij'"
    plan = {"title": "x", "statements": [sql]}
    asked = await approvals_on(store, policy_of(1)).ask(an_ask(plan=plan))
    assert asked.ok
    assert asked.request
    assert sql in asked.request.plan


async def test_a_changed_plan_is_looked_at_too(store: Store) -> None:
    approvals = approvals_on(store, policy_of(1))
    asked = await approvals.ask(an_ask())
    assert asked.request
    changed = await approvals.change_plan(
        asked.request.id, by=ANA, plan={"title": DSN}, delivery="d1"
    )
    assert changed.why is Why.SECRET
    assert TYPED not in await everything(store)


async def test_messages_and_audit_entries_are_written_without_secrets(store: Store) -> None:
    now = datetime.now(UTC)
    async with store.begin() as conn:
        await outbox.post(
            conn, topic="direct", request_id=None, channel="U0ANA", now=now,
            payload={"text": f"see {DSN}", "kind": "note", "more": ["twk_abcdef_123456"]},
        )  # fmt: skip
        await audit.append(
            conn, chain="", at=now, actor="ana", action="test", detail={"said": [DSN, {"a": DSN}]}
        )
    said = await everything(store)
    assert TYPED not in said
    assert "twk_abcdef" not in said
    assert MARK in said
