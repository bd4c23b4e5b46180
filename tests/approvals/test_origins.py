"""Requests that come out of earlier ones: linked at both, and never two at once."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from approvals.calls import Decision
from approvals.lineage import Former, Origin, OriginKind, latest, objection
from approvals.service import Approvals
from approvals.words import Door, RefusedError, RequestId, State, Verdict
from store.connect import Store
from tests.approvals.support import ANA, BEN, CLEO, a_ballot, an_ask, approvals_on, policy_of


async def an_ended(service: Approvals) -> Decision:
    asked = await service.ask(an_ask())
    assert asked.request is not None
    return await service.cancel(asked.request.id, by=ANA, door=Door.SLACK, delivery="")


def again(of: Decision, kind: OriginKind = OriginKind.AGAIN) -> Origin:
    assert of.request is not None
    return Origin(request_id=of.request.id, kind=kind)


async def audited(store: Store, request_id: int) -> list[tuple[str, dict[str, object]]]:
    async with store.begin() as conn:
        rows = await conn.execute(
            sa.text("SELECT action, detail FROM audit_log WHERE request_id = :id ORDER BY seq"),
            {"id": request_id},
        )
        return [(row.action, row.detail) for row in rows]


async def test_a_request_that_is_asked_again_knows_the_former_and_is_known_by_it(
    store: Store,
) -> None:
    service = approvals_on(store, policy_of())
    former = await an_ended(service)
    new = await service.ask(an_ask(BEN, origin=again(former)))
    assert new.ok
    assert former.request
    assert new.request
    stored = await service.load(new.request.id)
    assert stored is not None
    assert stored.detail.again == former.request.id
    before = await service.load(former.request.id)
    assert before is not None
    assert before.state is State.CANCELLED
    assert latest(before.detail.followers, OriginKind.AGAIN) == new.request.id
    assert (await audited(store, new.request.id))[0][1]["again"] == former.request.id
    assert (await audited(store, former.request.id))[-1] == ("asked_again", {"as": new.request.id})


async def test_the_former_card_is_drawn_anew(store: Store) -> None:
    service = approvals_on(store, policy_of())
    former = await an_ended(service)
    assert former.request
    async with store.begin() as conn:
        await conn.execute(sa.text("DELETE FROM outbox"))
    await service.ask(an_ask(BEN, origin=again(former)))
    async with store.begin() as conn:
        rows = await conn.execute(sa.text("SELECT topic, request_id FROM outbox ORDER BY id"))
        assert ("card", former.request.id) in [tuple(row) for row in rows]


async def test_what_was_asked_again_and_is_open_is_not_asked_a_third_time(store: Store) -> None:
    service = approvals_on(store, policy_of())
    former = await an_ended(service)
    new = await service.ask(an_ask(BEN, origin=again(former)))
    assert new.request
    with pytest.raises(RefusedError, match=f"as request {new.request.id} already"):
        await service.ask(an_ask(CLEO, origin=again(former)))
    assert len(await service.recent()) == 2
    await service.cancel(new.request.id, by=BEN, door=Door.SLACK, delivery="")
    assert (await service.ask(an_ask(CLEO, origin=again(former)))).ok


async def test_the_same_delivery_asks_again_once(store: Store) -> None:
    service = approvals_on(store, policy_of())
    former = await an_ended(service)
    first = await service.ask(an_ask(BEN, "d1", origin=again(former)))
    second = await service.ask(an_ask(BEN, "d1", origin=again(former)))
    assert first.request
    assert second.request
    assert second.noop
    assert second.request.id == first.request.id


async def test_of_many_who_ask_again_at_once_one_does(store: Store) -> None:
    service = approvals_on(store, policy_of())
    former = await an_ended(service)
    tried = await asyncio.gather(
        *(service.ask(an_ask(BEN, f"d{n}", origin=again(former))) for n in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Decision) for one in tried) == 1
    assert sum(isinstance(one, RefusedError) for one in tried) == 7
    assert len(await service.recent()) == 2


async def test_what_is_open_is_not_asked_again(store: Store) -> None:
    service = approvals_on(store, policy_of())
    asked = await service.ask(an_ask())
    with pytest.raises(RefusedError, match="need not be asked again"):
        await service.ask(an_ask(BEN, origin=again(asked)))
    with pytest.raises(RefusedError, match="no request 99"):
        await service.ask(
            an_ask(BEN, origin=Origin(request_id=RequestId(99), kind=OriginKind.AGAIN))
        )


async def test_a_vote_and_a_repetition_at_once_do_not_lock_each_other_out(store: Store) -> None:
    service = approvals_on(store, policy_of())
    for number in range(10):
        former = await an_ended(service)
        async with asyncio.timeout(30):
            await asyncio.gather(
                service.ask(an_ask(BEN, origin=again(former))),
                service.vote(a_ballot(former, CLEO, Verdict.APPROVE, f"v{number}")),
            )


async def test_a_policy_without_gates_links_what_it_lets_run_at_once(store: Store) -> None:
    service = approvals_on(store, policy_of())
    former = await an_ended(service)
    free = approvals_on(store, policy_of(rules=[{"when": {"operation": "backup"}, "gates": []}]))
    new = await free.ask(an_ask(BEN, origin=again(former)))
    assert new.request
    assert new.request.run_id is not None
    assert former.request
    assert new.request.detail.again == former.request.id


def former_of(state: State) -> Former:
    return Former(id=7, state=state, database="orders", channel="C", followers=())


@pytest.mark.parametrize("state", [state for state in State if state is not State.DONE])
def test_only_what_is_done_can_be_undone(state: State) -> None:
    error = objection(former_of(state), OriginKind.UNDO, {})
    assert error is not None
    assert "nothing to undo" in error.problem
    assert objection(former_of(State.DONE), OriginKind.UNDO, {}) is None


@pytest.mark.parametrize("state", State)
def test_what_is_undone_or_being_undone_is_not_undone_twice(state: State) -> None:
    came_to_nothing = {
        State.DENIED, State.CANCELLED, State.EXPIRED, State.REFUSED, State.FAILED,
    }  # fmt: skip
    found = objection(former_of(State.DONE), OriginKind.UNDO, {8: state})
    assert (found is None) is (state in came_to_nothing)
