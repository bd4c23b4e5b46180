"""What the audit keeps of an entry comes back as it was, or is refused at the door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from approvals import audit
from approvals.plans import lasting
from approvals.store import audit_entry
from store.connect import Store

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
# Everything that Python writes as JSON, and more than ever stood in an audit.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(TEXTS | st.integers(-3, 12) | st.booleans(), inner, max_size=4)
    ),
    max_leaves=12,
)
DETAILS = st.dictionaries(TEXTS | st.integers(-3, 12), VALUES, max_size=4)


@given(detail=DETAILS)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(detail={"number": 10**40, "least": -(10**18)})
@example(detail={"number": 1e16})
@example(detail={"number": -0.0})
@example(detail={2: "b", 10: "a"})
@example(detail={"": "", "a": {"é": [], "e\u0301": {}}})
async def test_every_detail_that_is_accepted_verifies_when_it_is_read(
    store: Store, detail: Mapping[Any, Any]
) -> None:
    async with store.begin() as conn:
        try:
            await audit.append(
                conn, chain="orders", at=NOON, actor="ana", action="test", detail=detail
            )
        except TypeError:
            return
    async with store.begin() as conn:
        report = await audit.check_store(conn)
    assert report.entries
    assert not report.findings


@pytest.mark.parametrize(
    "detail",
    [
        {"number": 1e16},
        {"number": -0.0},
        {"number": 0.5},
        {"number": math.inf},
        {"deep": [{"er": (1, 2.0)}]},
        {1: "a", "1": "b"},
        {"deep": {2: "b", 10: "a"}},
    ],
    ids=str,
)
async def test_what_might_come_back_changed_is_refused_at_every_door(
    store: Store, detail: Mapping[Any, Any]
) -> None:
    with pytest.raises(TypeError):
        audit_entry("ana", "test", detail)
    async with store.begin() as conn:
        with pytest.raises(TypeError):
            await audit.append(
                conn, chain="orders", at=NOON, actor="ana", action="test", detail=detail
            )
        assert await conn.scalar(sa.text("SELECT count(*) FROM audit_log")) == 0


def test_what_lasts_is_written_in_its_one_form() -> None:
    detail = {"ü": [1, None, True, "x"], "a": {"b": ()}}
    assert lasting(detail) == '{"a":{"b":[]},"ü":[1,null,true,"x"]}'
