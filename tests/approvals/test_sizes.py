"""Nothing is agreed to that nobody could read, and nothing is kept short in silence."""

from __future__ import annotations

from approvals.plans import PLAN_BYTES_MAX
from approvals.sentences import clipped
from approvals.words import Why
from store.connect import Store
from tests.approvals.support import ANA, an_ask, approvals_on, policy_of


async def test_a_plan_that_nobody_could_read_is_refused(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    asked = await approvals.ask(an_ask(plan={"title": "x" * PLAN_BYTES_MAX}))
    assert (asked.ok, asked.why, asked.request) == (False, Why.POLICY, None)
    assert "1,000,000" in asked.problem
    assert "smaller parts" in asked.next_step
    kept = await approvals.ask(an_ask(plan={"title": "x" * (PLAN_BYTES_MAX - 200)}))
    assert kept.ok
    assert kept.request is not None
    changed = await approvals.change_plan(
        kept.request.id, by=ANA, plan={"title": "é" * (PLAN_BYTES_MAX // 2)}, delivery="x"
    )
    assert changed.why is Why.POLICY


def test_what_is_kept_short_says_so() -> None:
    assert clipped("abc", 3) == "abc"
    assert clipped("abcdef" * 1000, 10) == "abcdefabcd… (5,990 more characters were left out)"
