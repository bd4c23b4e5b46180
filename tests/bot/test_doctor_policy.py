"""The doctor says which policy is in force, and what broken glass owes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from approvals.in_force import Policies
from approvals.words import Door
from bot.doctor_policy import in_force, reviews
from store.connect import Store
from tests.approvals.support import KEYS, Clock, an_ask, approvals_on, dba, policy_of

ONE = {"gates": [{"id": "dba", "groups": ["dba"]}], "policy_four_eyes": True}


def policies(store: Store, folder: Path, **says: Any) -> Policies:
    file = folder / "policy.yml"
    file.write_text(json.dumps({**ONE, **says}))
    return Policies(store=store, keys=KEYS, clock=Clock(), file=file)


async def test_before_the_first_start_nothing_is_in_force(store: Store, tmp_path: Path) -> None:
    finding = await in_force(policies(store, tmp_path))
    assert finding.ok
    assert "none yet" in finding.says


async def test_the_files_policy_in_force_is_fine(store: Store, tmp_path: Path) -> None:
    await policies(store, tmp_path).start()
    finding = await in_force(policies(store, tmp_path))
    assert finding.ok
    assert "as the file says" in finding.says


async def test_another_file_is_to_be_proposed(store: Store, tmp_path: Path) -> None:
    await policies(store, tmp_path).start()
    finding = await in_force(policies(store, tmp_path, reason_to_deny=True))
    assert not finding.ok
    assert "/db policy-change" in finding.fix


async def test_without_four_eyes_a_start_is_enough(store: Store, tmp_path: Path) -> None:
    await policies(store, tmp_path, policy_four_eyes=False).start()
    finding = await in_force(policies(store, tmp_path, reason_to_deny=True))
    assert not finding.ok
    assert "Start the bot anew" in finding.fix


async def test_a_row_that_is_not_ours_is_said(store: Store, tmp_path: Path) -> None:
    first = await policies(store, tmp_path).start()
    async with store.begin() as conn:
        await conn.execute(
            sa.text(
                "INSERT INTO policies_in_force (policy_hash, at, by, key_id, signature)"
                " VALUES (:hash, now(), 'x', 'y', 'z')"
            ),
            {"hash": first.policy.hash},
        )
    finding = await in_force(policies(store, tmp_path))
    assert not finding.ok
    assert "not signed by us" in finding.says


async def test_overdue_reviews_are_said_by_number(store: Store) -> None:
    clock = Clock()
    glass = {"groups": ["dba"], "reviewers": ["security"], "review_within": "1d"}
    approvals = approvals_on(store, policy_of(2, break_glass=glass), clock=clock)
    asked = await approvals.ask(an_ask())
    assert asked.request is not None
    number = asked.request.id
    await approvals.break_glass(number, by=dba("ben"), reason="down", door=Door.SLACK, delivery="")
    async with store.begin() as conn:
        await approvals.begin(conn, number, people={})
        await approvals.finish(conn, number, ok=True, summary="done", numbers={})
    assert (await reviews(store, now=clock())).says == "1 owed, none overdue"
    clock.forward(hours=25)
    finding = await reviews(store, now=clock())
    assert not finding.ok
    assert f"request {number}" in finding.says
