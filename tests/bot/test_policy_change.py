"""Four eyes on the policy itself: proposed, read, agreed to under the old one, and followed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from commands.policy_change import OPERATION
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as worlds
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, World, running
from tests.conftest import Target

OLD = """
policy_four_eyes: true
rules:
  - name: the policy
    when: {operation: policy-change}
    gates: [{id: dba, groups: [dba]}, {id: security, groups: [security]}]
  - name: paint
    when: {operation: paint}
    gates: [{id: dba, groups: [dba], approve: 2}]
"""
NEW = OLD.replace("approve: 2", "approve: 1")


@pytest.fixture
async def world(
    slack: SlackStandIn,
    store: Store,
    target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    monkeypatch.setattr(worlds, "POLICY", OLD)
    monkeypatch.setattr(worlds, "OPERATIONS", {**worlds.OPERATIONS, "policy-change": OPERATION})
    async with running(slack, store, tmp_path, target.dsn, http=True) as made:
        (tmp_path / "policy.yml").write_text(NEW)
        yield made


async def test_a_new_policy_is_a_request_under_the_old_one(world: World) -> None:
    slack = world.slack
    before = world.twokey.approvals.policy.hash
    typed = await slack.command("U0BEN", CHANNEL, "/db policy-change reason=faster")
    assert "1 of dba and 1 of security" in typed.ephemerals[0]["text"]
    card = await world.card("Waiting for approval")
    shown = texts(card["blocks"])
    assert "rule paint: changed" in shown

    # Whoever proposes it does not agree to it, and one other person is not enough.
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await world.told("U0BEN", "your own")
    await slack.click("U0DORA", CHANNEL, card["ts"], "approve")
    card = await world.card("1 approval of")
    assert world.twokey.approvals.policy.hash == before
    await slack.click("U0CLEO", CHANNEL, card["ts"], "approve")
    await world.card("Done")

    # From now on one of dba is enough, for what is asked as for what is open.
    await world.twokey.approvals.follow()
    assert world.twokey.approvals.policy.hash != before
    typed = await slack.command("U0ANA", CHANNEL, "/db paint orders blue")
    assert "1 of dba" in typed.ephemerals[0]["text"]


async def test_what_is_open_is_looked_at_again_when_the_policy_changes(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders blue")
    card = await world.card("Waiting")
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await world.card("1 approval of dba")
    await slack.command("U0ANA", CHANNEL, "/db policy-change")
    proposal = await world.card("Request 2")
    assert "1 of 1" in texts(proposal["blocks"])
    await slack.click("U0BEN", CHANNEL, proposal["ts"], "approve")
    proposal = await world.card("1 approval")
    await slack.click("U0DORA", CHANNEL, proposal["ts"], "approve")
    await slack.wait_for(
        lambda: any("Painted blue" in m["text"] for m in slack.messages(CHANNEL)), seconds=30
    )


async def test_the_same_file_is_nothing_to_propose(world: World, tmp_path: Path) -> None:
    (tmp_path / "policy.yml").write_text(OLD)
    typed = await world.slack.command("U0ANA", CHANNEL, "/db policy-change")
    assert "is the policy that is in force" in typed.ephemerals[0]["text"]


async def test_a_file_that_is_no_policy_is_refused_with_its_place(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "policy.yml").write_text("gates: [{id: x, approve: 0}]")
    typed = await world.slack.command("U0ANA", CHANNEL, "/db policy-change")
    assert "gates[0].approve" in typed.ephemerals[0]["text"]


async def test_a_file_that_changes_while_people_read_is_not_put_in_force(
    world: World, tmp_path: Path
) -> None:
    slack = world.slack
    before = world.twokey.approvals.policy.hash
    await slack.command("U0ANA", CHANNEL, "/db policy-change")
    card = await world.card("Waiting")
    (tmp_path / "policy.yml").write_text(NEW.replace("[security]", "[dba]"))
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    card = await world.card("1 approval")
    await slack.click("U0DORA", CHANNEL, card["ts"], "approve")
    await slack.wait_for(
        lambda: any("policy file was" in str(card) for card in world.cards()), seconds=30
    )
    await world.twokey.approvals.follow()
    assert world.twokey.approvals.policy.hash == before


async def test_a_start_with_another_file_keeps_the_policy_and_says_so(
    world: World,
    slack: SlackStandIn,
    target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = world.twokey.approvals.policy.hash
    monkeypatch.setattr(worlds, "POLICY", NEW)
    with caplog.at_level(logging.WARNING):
        async with running(slack, world.store, tmp_path, target.dsn, http=True) as again:
            assert again.twokey.approvals.policy.hash == before
    assert "differs from the policy in force" in caplog.text
