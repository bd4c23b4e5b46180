"""What is shown of a request is under the policy that it was asked under, or under none."""

from __future__ import annotations

import json

import pytest

from approvals.calls import Decision
from approvals.policy_file import LoadedPolicy
from approvals.records import RequestRecord
from approvals.shelf import Shelf
from store.connect import Store
from tests.approvals.support import KEYS, an_ask, approvals_on, policy_of
from tests.approvals.test_forgery import by_owner

OLD, NEW, LAX = policy_of(3), policy_of(2), policy_of(1)


@pytest.fixture
async def asked(store: Store) -> Decision:
    """A request that was asked under OLD."""
    return await approvals_on(store, OLD).ask(an_ask())


async def read(store: Store, asked: Decision, policy: LoadedPolicy) -> RequestRecord:
    """By a process that has just begun, under `policy`."""
    assert asked.request
    async with store.begin() as conn:
        [record] = await Shelf(keys=KEYS, policy=policy).read(conn, [asked.request.id])
    return record


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.parametrize("policy", [OLD, NEW])
async def test_a_request_is_shown_under_the_policy_that_it_was_asked_under(
    store: Store, asked: Decision, policy: LoadedPolicy
) -> None:
    record = await read(store, asked, policy)
    assert record.policy_hash == OLD.hash
    assert record.what_is_missing == "3 more of dba"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(LAX.body, id="another policy"),
        pytest.param(json.dumps({"rules": [{"gates": []}]}), id="one without gates"),
        pytest.param("{}", id="nothing"),
        pytest.param("no policy", id="no JSON"),
        pytest.param('{"gates": [{"id": "x", "approve": 0}]}', id="no policy"),
    ],
)
async def test_a_body_that_somebody_swapped_is_not_shown_as_the_policy_of_its_hash(
    store: Store, asked: Decision, body: str
) -> None:
    before = await read(store, asked, NEW)
    await by_owner(store, f"UPDATE policies SET body = {quoted(body)} WHERE hash = '{OLD.hash}'")
    record = await read(store, asked, NEW)
    assert before.gates
    assert (record.gates, record.what_is_missing) == ((), "")
    assert record.care == frozenset()
    # Who has the policy already does not ask the store for it.
    assert (await read(store, asked, OLD)).gates == before.gates


async def test_a_swapped_body_is_not_remembered(store: Store, asked: Decision) -> None:
    assert asked.request
    shelf = Shelf(keys=KEYS, policy=NEW)
    name = f"hash = '{OLD.hash}'"
    await by_owner(store, f"UPDATE policies SET body = {quoted(LAX.body)} WHERE {name}")
    for body, missing in ((None, ""), (OLD.body, "3 more of dba")):
        if body is not None:
            await by_owner(store, f"UPDATE policies SET body = {quoted(body)} WHERE {name}")
        async with store.begin() as conn:
            [record] = await shelf.read(conn, [asked.request.id])
        assert record.what_is_missing == missing
