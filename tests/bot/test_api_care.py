"""Care through the API: nothing is claimed that was not shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from approvals.calls import Decision
from approvals.words import Care, Why
from bot.api_bodies import DecisionBody
from bot.api_care import with_care

RECORD: Any = SimpleNamespace(care=frozenset(Care))
CALLER: Any = SimpleNamespace(person=SimpleNamespace(id="ben"))


def decided(why: Why | None) -> Decision:
    """An answer."""
    return Decision(
        ok=why is None, noop=False, why=why, problem=str(why), next_step="", request=None
    )


async def test_a_code_that_was_spared_is_not_claimed_when_the_decision_would_pass_after_all() -> (
    None
):
    async def given(*_: object, code: str, **__: object) -> frozenset[Care]:
        assert code == ""
        return frozenset({Care.READ})

    claimed: list[frozenset[Care]] = []

    async def deciding(care: frozenset[Care], keep: bool) -> Decision:  # noqa: FBT001
        claimed.append(care)
        if not keep:
            return decided(Why.LOCKED)
        return decided(None if care == frozenset(Care) else Why.STEP_UP)

    desk: Any = SimpleNamespace(careful=SimpleNamespace(given=given))
    answer = await with_care(desk, CALLER, RECORD, DecisionBody(code="123456"), deciding)
    assert claimed[-1] == {Care.READ}
    assert answer.why is Why.LOCKED
