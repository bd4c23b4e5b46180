"""Whoever can write to our tables, and has no key, grants nothing."""

from __future__ import annotations

import asyncpg
import pytest
import sqlalchemy as sa

from approvals.calls import Decision
from approvals.cases import Case
from approvals.service import Approvals
from approvals.words import State, Why
from store.connect import Store
from tests.approvals.support import ANA, BEN, CLEO, KEYS, a_ballot, an_ask, approvals_on, policy_of


async def by_owner(store: Store, *statements: str) -> None:
    """What somebody does who owns the database, triggers or not."""
    conn = await asyncpg.connect(store.dsn.get_secret_value())
    try:
        await conn.execute("SET session_replication_role = replica")
        for statement in statements:
            await conn.execute(statement)
    finally:
        await conn.close()


async def worker_begins(store: Store, approvals: Approvals, asked: Decision) -> Decision:
    assert asked.request
    people = {person.id: person for person in (ANA, BEN, CLEO)}
    async with store.begin() as conn:
        return await approvals.begin(conn, asked.request.id, people=people)


COPY_VOTE = """
    INSERT INTO votes (request_id, plan_hash, policy_hash, step, person, slack, groups, verdict,
                       reason, door, at, key_id, signature)
    SELECT request_id, plan_hash, policy_hash, step, 'cleo@acme.example', slack,
           ARRAY['dba', '=cleo@acme.example'], verdict, reason, door, at, key_id, signature
      FROM votes
"""
APPROVED = "UPDATE requests SET state = 'approved', approved_at = now()"


@pytest.mark.parametrize(
    "forgery",
    [
        pytest.param([APPROVED], id="a state"),
        pytest.param([COPY_VOTE, APPROVED], id="a copied vote"),
        pytest.param(["UPDATE votes SET verdict = 'approve'", APPROVED], id="an edited vote"),
        pytest.param(
            ['UPDATE requests SET attributes = \'{"environment": "lab"}\'', APPROVED],
            id="attributes of a rule without gates",
        ),
        pytest.param(
            ["UPDATE requests SET asked_by = 'x', authors = '{x}'", APPROVED], id="the author"
        ),
        pytest.param(["UPDATE requests SET database = 'billing'", APPROVED], id="the database"),
        pytest.param(
            ["UPDATE requests SET detail = jsonb_set(detail, '{void_before}', '0')", APPROVED],
            id="a vote that was void",
        ),
    ],
)
async def test_forged_rows_do_not_run(store: Store, forgery: list[str]) -> None:
    gates = [{"id": "dba", "groups": ["dba"], "approve": 2}]
    rules = [{"when": {"environment": "lab"}, "gates": []}, {"gates": gates}]
    approvals = approvals_on(store, policy_of(rules=rules))
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    await by_owner(store, *forgery)

    refused = await worker_begins(store, approvals, asked)

    assert (refused.ok, refused.why) == (False, Why.SIGNATURE)
    assert refused.request
    assert refused.request.state is State.REFUSED
    assert not (await worker_begins(store, approvals, asked)).ok


@pytest.mark.parametrize(
    "forgery",
    [
        pytest.param("DELETE FROM votes WHERE person = 'ben@acme.example'", id="a deleted vote"),
        pytest.param(
            "UPDATE requests SET plan = replace(plan, 'full', 'logical')", id="plan bytes"
        ),
        pytest.param(
            "UPDATE requests SET plan = '{}',"
            " plan_hash = encode(sha256(convert_to('{}', 'UTF8')), 'hex')",
            id="plan bytes and hash",
        ),
        pytest.param("UPDATE requests SET approval_expires_at = now() + '1 y'", id="a longer life"),
        pytest.param("UPDATE requests SET policy_hash = 'x'", id="another policy"),
    ],
)
async def test_a_grant_that_was_touched_does_not_run(store: Store, forgery: str) -> None:
    approvals = approvals_on(store, policy_of(2))
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    await approvals.vote(a_ballot(asked, CLEO))
    await by_owner(store, forgery)

    assert (await worker_begins(store, approvals, asked)).why is Why.SIGNATURE


async def test_a_cancelled_grant_cannot_be_revived(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    assert asked.request
    await approvals.cancel(asked.request.id, by=ANA, door=asked.request.door, delivery="")
    await by_owner(store, "UPDATE requests SET state = 'approved'")
    assert (await worker_begins(store, approvals, asked)).why is Why.SIGNATURE


async def test_a_forged_vote_does_not_help_a_real_one(store: Store) -> None:
    approvals = approvals_on(store, policy_of(2))
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    await by_owner(store, COPY_VOTE)
    assert (await approvals.vote(a_ballot(asked, CLEO))).why is Why.SIGNATURE


async def test_forged_broken_glass_does_not_run(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    asked = await approvals.ask(an_ask())
    glass = (
        '{"by": "ole", "at": "2026-11-22T12:00:00Z", "reason": "x", "review_within_seconds": 60}'
    )
    await by_owner(
        store,
        "UPDATE requests SET state = 'executing',"
        f" detail = jsonb_set(detail, '{{glass}}', '{glass}')",
    )
    assert not (await worker_begins(store, approvals, asked)).ok


async def test_the_same_votes_grant_what_nobody_touched(store: Store) -> None:
    approvals = approvals_on(store, policy_of(2))
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    await approvals.vote(a_ballot(asked, CLEO))
    assert (await worker_begins(store, approvals, asked)).ok


ROW = sa.text("SELECT *, (SELECT jsonb_agg(v ORDER BY v.id) FROM votes v) AS votes FROM requests")


async def is_sealed(store: Store) -> bool:
    """Whether what is stored of the request vouches for itself."""
    async with store.begin() as conn:
        row = dict((await conn.execute(ROW)).mappings().one())
    return Case.of(row, row["votes"], KEYS).is_ours(KEYS)


@pytest.mark.parametrize("forgery", ["", "UPDATE requests SET reason = 'Ben wanted it'"])
async def test_the_end_of_a_run_is_kept_and_vouches_for_nothing_that_was_edited(
    store: Store, forgery: str
) -> None:
    approvals = approvals_on(store, policy_of())
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    assert (await worker_begins(store, approvals, asked)).ok
    assert await is_sealed(store)
    if forgery:
        await by_owner(store, forgery)
    assert asked.request
    async with store.begin() as conn:
        done = await approvals.finish(
            conn, asked.request.id, ok=True, summary="Backed up", numbers={}
        )
    assert done.request
    assert done.request.state is State.DONE
    assert await is_sealed(store) == (not forgery)
