"""Whether what a button showed still stands: each part of it, and the moment, by itself.

A decision compares it all again behind the request's lock, so that only here shows that it is
compared before a modal opens, too.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from approvals.records import RequestRecord
from approvals.shown import shown_hash
from approvals.words import PlanHash, PolicyHash, RequestId, State, Why
from bot.buttons import Shown
from bot.choices import seen_of
from bot.opening import outdated
from store.connect import Store
from tests.approvals.support import NOON, an_ask, approvals_on, policy_of

END = NOON + timedelta(hours=1)
MOMENT = timedelta(microseconds=1)
EVER = frozenset(State) - {State.PENDING}


@pytest.fixture
async def record(store: Store) -> RequestRecord:
    asked = await approvals_on(store, policy_of(2)).ask(an_ask())
    assert asked.request
    return asked.request


def shown(record: RequestRecord, **change: Any) -> Shown:
    """What its card showed."""
    values: dict[str, Any] = {
        "request_id": record.id,
        "plan_hash": record.plan_hash,
        "policy_hash": record.policy_hash,
        "card_hash": shown_hash(record),
        "step": record.step,
        "expires_at": END,
        **change,
    }
    return Shown(**values)


def why(record: RequestRecord, at: datetime = NOON, **change: Any) -> tuple[Why, str] | None:
    refusal = outdated(shown(record, **change), record, now=at)
    return (refusal.why, refusal.problem) if refusal else None


def test_what_stands_stands(record: RequestRecord) -> None:
    assert why(record) is None


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        ({"plan_hash": PlanHash("0" * 64)}, Why.STALE_PLAN, "The plan of request 1 has changed"),
        ({"policy_hash": PolicyHash("0" * 64)}, Why.STALE_PLAN, "The rules for request 1 have"),
        ({"step": 1}, Why.STALE_STEP, "Request 1 has moved on to another step"),
        ({"step": -1}, Why.STALE_STEP, "Request 1 has moved on to another step"),
        ({"card_hash": "0" * 16}, Why.STALE_PLAN, "The card of request 1 has changed"),
    ],
)
def test_each_part_is_compared(
    record: RequestRecord, change: dict[str, Any], reason: Why, says: str
) -> None:
    found = why(record, **change)
    assert found
    assert found[0] is reason
    assert says in found[1]


def test_its_time_ends_at_its_moment(record: RequestRecord) -> None:
    assert why(record, END - MOMENT) is None
    for at in (END, END + MOMENT):
        found = why(record, at)
        assert found
        assert found[0] is Why.EXPIRED


@pytest.mark.parametrize("state", sorted(EVER))
def test_of_what_has_ended_the_decision_says_it(record: RequestRecord, state: State) -> None:
    ended = replace(record, state=state)
    assert outdated(shown(record, step=7), ended, now=END) is None


def test_what_a_menu_showed_is_its_request_its_plan_its_state_and_why_it_came_back(
    record: RequestRecord,
) -> None:
    ending = type(record.detail).model_validate({"ending": {"text": "The schema has changed."}})
    others = [
        replace(record, id=RequestId(record.id + 1)),
        replace(record, plan_hash=PlanHash("0" * 64)),
        replace(record, state=State.APPROVED),
        replace(record, detail=ending),
    ]
    assert len({seen_of(each) for each in (record, *others)}) == len(others) + 1
    # A vote is no reason to turn away whoever opened the menu before.
    assert seen_of(replace(record, step=1, version=record.version + 1)) == seen_of(record)
