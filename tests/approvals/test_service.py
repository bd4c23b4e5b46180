"""The approval service on a real PostgreSQL: what is stored, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from approvals.calls import Decision
from approvals.plans import call_of, plan_of
from approvals.service import Approvals
from approvals.signing import VoteKeys
from approvals.words import Door, Flag, Person, PersonId, RequestId, State, Verdict, Why
from store.connect import Store
from store.quick import Statement
from tests.approvals.support import (
    ANA,
    BEN,
    CLEO,
    KEYS,
    Clock,
    a_ballot,
    an_ask,
    approvals_on,
    policy_of,
)


async def rows(store: Store, query: str, **values: Any) -> Sequence[Any]:
    async with store.begin() as conn:
        return (await conn.execute(sa.text(query), values)).all()


async def begun(
    store: Store, approvals: Approvals, asked: Decision, people: Sequence[Person]
) -> Decision:
    assert asked.request
    async with store.begin() as conn:
        return await approvals.begin(
            conn, asked.request.id, people={person.id: person for person in people}
        )


async def test_asking_stores_request_gates_audit_and_card_together(store: Store) -> None:
    asked = await approvals_on(store, policy_of(2)).ask(an_ask())

    assert asked.ok
    assert asked.request
    assert asked.next_step == "It needs 2 more of dba."
    assert asked.request.who_must_agree == "2 of dba"
    assert call_of(asked.request.plan)["params"] == {"kind": "full"}
    assert plan_of(asked.request.plan) == {"title": "Back up orders"}
    assert await rows(store, "SELECT topic, channel FROM outbox") == [("card", "C0ORDERS")]
    assert await rows(store, "SELECT id, approve FROM gates") == [("dba", 2)]
    audit = await rows(store, "SELECT chain, actor, action, request_id FROM audit_log")
    assert audit == [("orders", "ana@acme.example", "ask", asked.request.id)]


async def test_the_deciding_vote_queues_the_run_with_it(store: Store) -> None:
    approvals = approvals_on(store, policy_of(2))
    asked = await approvals.ask(an_ask())

    first = await approvals.vote(a_ballot(asked, BEN))
    assert first.next_step == "It needs 1 more of dba."
    assert await rows(store, "SELECT id FROM runs") == []
    second = await approvals.vote(a_ballot(asked, CLEO))

    assert second.request
    assert second.request.state is State.APPROVED
    assert second.request.run_state == "queued"
    [(run, state)] = await rows(store, "SELECT id, state FROM runs")
    assert (second.request.run_id, state) == (run, "queued")
    loaded = await approvals.load(second.request.id)
    assert loaded
    assert [vote.person for vote in loaded.votes] == [BEN.id, CLEO.id]
    assert loaded.gates[0].have == (BEN.id, CLEO.id)


async def test_a_change_that_needs_nobody_is_queued_at_once(store: Store) -> None:
    asked = await approvals_on(store, policy_of(rules=[{"gates": []}])).ask(an_ask())
    assert asked.request
    assert asked.request.state is State.APPROVED
    assert await rows(store, "SELECT state FROM runs") == [("queued",)]


async def test_what_no_rule_allows_is_stored_as_refused(store: Store) -> None:
    policy = policy_of(rules=[{"when": {"environment": "moon"}, "gates": []}])
    asked = await approvals_on(store, policy).ask(an_ask())
    assert (asked.ok, asked.why) == (False, Why.POLICY)
    assert asked.request
    assert asked.request.state is State.REFUSED
    assert asked.next_step


@pytest.mark.parametrize("flag", list(Flag))
async def test_an_unfit_person_neither_asks_nor_votes(store: Store, flag: Flag) -> None:
    approvals = approvals_on(store, policy_of())
    unfit = Person(id=BEN.id, name="Ben", groups=BEN.groups, flags=frozenset({flag}))
    assert (await approvals.ask(an_ask(by=unfit))).why is Why.IDENTITY
    asked = await approvals.ask(an_ask())
    assert (await approvals.vote(a_ballot(asked, unfit))).why is Why.IDENTITY


async def test_the_same_delivery_gets_the_first_answer_again(store: Store) -> None:
    approvals = approvals_on(store, policy_of(2))
    asked = await approvals.ask(an_ask(delivery="e1"))
    again = await approvals_on(store, policy_of(2)).ask(an_ask(delivery="e1"))
    assert asked.request
    assert again.request
    assert (again.ok, again.noop, again.request.id) == (True, True, asked.request.id)

    vote = await approvals.vote(a_ballot(asked, ANA, delivery="e2"))
    repeated = await approvals.vote(a_ballot(asked, ANA, delivery="e2"))
    assert (vote.why, repeated.why, repeated.noop) == (Why.SELF, Why.SELF, True)
    assert repeated.problem == vote.problem
    assert len(await rows(store, "SELECT id FROM requests")) == 1
    assert len(await rows(store, "SELECT seq FROM audit_log")) == 2


async def test_a_delivery_id_of_somebody_else_is_not_mine(store: Store) -> None:
    approvals = approvals_on(store, policy_of(2))
    asked = await approvals.ask(an_ask())
    assert not (await approvals.vote(a_ballot(asked, BEN, delivery="e1"))).noop
    assert not (await approvals.vote(a_ballot(asked, CLEO, delivery="e1"))).noop


async def test_a_vote_for_what_is_no_longer_shown_is_stale(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    asked = await approvals.ask(an_ask())
    assert asked.request
    await approvals.change_plan(asked.request.id, by=ANA, plan={"title": "Other"}, delivery="")
    stale = await approvals.vote(a_ballot(asked, BEN))
    assert stale.why is Why.STALE_PLAN
    assert stale.request
    assert stale.request.plan_hash != asked.request.plan_hash


async def test_another_policy_makes_cards_stale_and_counts_anew(store: Store) -> None:
    asked = await approvals_on(store, policy_of(1)).ask(an_ask())
    strict = approvals_on(store, policy_of(2))
    stale = await strict.vote(a_ballot(asked, BEN))
    assert stale.why is Why.STALE_PLAN
    assert stale.request
    assert stale.request.policy_hash == strict.policy.hash
    assert (await strict.vote(a_ballot(stale, BEN))).next_step == "It needs 1 more of dba."


async def test_begin_looks_at_the_voters_of_today(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    former = Person(id=BEN.id, name="Ben")

    refused = await begun(store, approvals, asked, [ANA, former])

    assert (refused.ok, refused.why) == (False, Why.NOT_APPROVED)
    assert refused.request
    assert refused.request.state is State.PENDING
    await approvals.vote(a_ballot(asked, CLEO))
    assert (await begun(store, approvals, asked, [ANA, former, CLEO])).ok


async def test_a_voter_whom_nobody_knows_any_more_does_not_count(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    assert (await begun(store, approvals, asked, [ANA])).why is Why.NOT_APPROVED


async def test_the_work_of_somebody_who_left_does_not_run(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    assert (await begun(store, approvals, asked, [BEN])).why is Why.IDENTITY


async def test_a_run_has_one_life(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    assert asked.request
    assert (await begun(store, approvals, asked, [ANA, BEN])).ok
    assert (await begun(store, approvals, asked, [ANA, BEN])).why is Why.NOT_APPROVED
    async with store.begin() as conn:
        done = await approvals.finish(
            conn, asked.request.id, ok=True, summary="1 GB", numbers={"size_bytes": 1}
        )
    assert done.request
    assert (done.request.state, done.request.detail.numbers) == (State.DONE, {"size_bytes": 1})
    assert done.request.ended_at


async def test_sending_back_voids_the_votes(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    assert asked.request
    async with store.begin() as conn:
        back = await approvals.send_back(conn, asked.request.id, problem="The primary has moved.")
    assert back.request
    assert (back.request.state, back.request.votes) == (State.PENDING, ())
    assert back.request.detail.ending
    assert back.request.detail.ending.text == "The primary has moved."
    assert (await begun(store, approvals, asked, [ANA, BEN])).why is Why.NOT_APPROVED
    again = await approvals.vote(a_ballot(asked, BEN))
    assert not again.noop
    assert again.request
    assert again.request.state is State.APPROVED
    assert (await begun(store, approvals, asked, [ANA, BEN])).ok


async def test_one_change_of_a_database_at_a_time(store: Store) -> None:
    approvals = approvals_on(store, policy_of(rules=[{"gates": []}]))
    first, second = await approvals.ask(an_ask()), await approvals.ask(an_ask())
    assert (await begun(store, approvals, first, [ANA])).ok
    assert (await begun(store, approvals, second, [ANA])).why is Why.LOCKED
    elsewhere = await approvals.ask(an_ask(database="billing"))
    assert (await begun(store, approvals, elsewhere, [ANA])).ok


async def test_broken_glass_runs_once_and_is_reviewed_by_somebody_else(store: Store) -> None:
    glass = {"groups": ["oncall"], "reviewers": ["security"], "review_within": "1d"}
    approvals = approvals_on(store, policy_of(break_glass=glass))
    ole = Person(id=PersonId("ole@acme.example"), name="O", groups=frozenset({"oncall"}))
    dora = Person(id=PersonId("dora@acme.example"), name="D", groups=frozenset({"security"}))
    asked = await approvals.ask(an_ask())
    assert asked.request
    number = asked.request.id
    broken = await approvals.break_glass(
        number, by=ole, reason="outage", door=Door.SLACK, delivery="d"
    )
    assert broken.request
    assert (broken.request.state, broken.request.run_state) == (State.EXECUTING, "queued")
    assert (await begun(store, approvals, asked, [])).ok
    assert (await begun(store, approvals, asked, [])).why is Why.NOT_APPROVED
    async with store.begin() as conn:
        await approvals.finish(conn, number, ok=True, summary="", numbers={})
    mine = await approvals.review(number, by=ole, reason="", door=Door.SLACK, delivery="")
    assert mine.why is Why.SELF
    closed = await approvals.review(number, by=dora, reason="ok", door=Door.CLI, delivery="")
    assert closed.request
    assert closed.request.state is State.CLOSED
    kinds = await rows(store, "SELECT payload ->> 'kind' FROM outbox WHERE topic = 'note'")
    assert kinds == [("break_glass",)]


async def test_the_sweep_warns_once_expires_and_forgets_old_deliveries(store: Store) -> None:
    clock = Clock()
    policy = policy_of(expires_after="4h", warn_before="30m")
    approvals = approvals_on(store, policy, clock=clock)
    asked = await approvals.ask(an_ask(delivery="d1"))
    assert await approvals.sweep() == 0
    clock.forward(hours=3, minutes=30)
    assert (await approvals.sweep(), await approvals.sweep()) == (1, 0)
    clock.forward(minutes=30)
    assert await approvals.sweep() == 1
    assert asked.request
    record = await approvals.load(asked.request.id)
    assert record
    assert record.state is State.EXPIRED
    clock.forward(days=3)
    await approvals.sweep()
    assert await rows(store, "SELECT id FROM deliveries") == []


async def test_expiry_needs_no_sweep(store: Store) -> None:
    clock = Clock()
    approvals = approvals_on(store, policy_of(expires_after="1h"), clock=clock)
    asked = await approvals.ask(an_ask())
    clock.forward(hours=1)
    late = await approvals.vote(a_ballot(asked, BEN))
    assert late.why is Why.EXPIRED
    assert late.request
    assert late.request.state is State.EXPIRED


async def test_recent_lists_the_newest_first(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    first = await approvals.ask(an_ask())
    await approvals.ask(an_ask(database="billing"))
    third = await approvals.ask(an_ask())
    assert first.request
    assert third.request
    await approvals.cancel(first.request.id, by=ANA, door=Door.SLACK, delivery="")
    everything = await approvals.recent()
    assert [record.database for record in everything] == ["orders", "billing", "orders"]
    of_orders = await approvals.recent(database="orders", open_only=True)
    assert [record.id for record in of_orders] == [third.request.id]
    assert len(await approvals.recent(limit=1)) == 1


async def test_votes_of_before_a_key_rotation_count(store: Store) -> None:
    asked = await approvals_on(store, policy_of(2)).ask(an_ask())
    await approvals_on(store, policy_of(2)).vote(a_ballot(asked, BEN))
    rotated = VoteKeys(current=b"the next key of the tests, 32 b.", previous=KEYS.current)
    approvals = approvals_on(store, policy_of(2), keys=rotated)
    assert (await approvals.vote(a_ballot(asked, CLEO))).ok
    assert (await begun(store, approvals, asked, [ANA, BEN, CLEO])).ok


async def test_nobody_decides_about_what_is_not_there(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    gone = await approvals.cancel(RequestId(99), by=ANA, door=Door.SLACK, delivery="d")
    assert (gone.why, gone.request) == (Why.CLOSED, None)
    assert await approvals.load(RequestId(99)) is None


async def test_a_withdrawn_vote_stays_as_a_record(store: Store) -> None:
    approvals = approvals_on(store, policy_of(2))
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    taken = await approvals.vote(a_ballot(asked, BEN, Verdict.WITHDRAWN))
    assert taken.request
    assert taken.request.votes == ()
    assert await rows(store, "SELECT verdict FROM votes ORDER BY id") == [
        ("approve",),
        ("withdrawn",),
    ]


async def test_hot_paths_take_few_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is one statement, and a vote three: more would show in every click."""
    seen: list[str] = []
    sa.event.listen(
        store.engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _k, statement, *_: seen.append(statement),
    )
    arguments = Statement.arguments

    def counted(statement: Statement, values: Mapping[str, object]) -> list[object]:
        seen.append(statement.sql)
        return arguments(statement, values)

    monkeypatch.setattr(Statement, "arguments", counted)
    approvals = approvals_on(store, policy_of(2))
    await approvals.ask(an_ask())
    seen.clear()
    asked = await approvals.ask(an_ask())
    assert len(seen) == 1
    seen.clear()
    await approvals.vote(a_ballot(asked, BEN))
    assert len(seen) == 3
