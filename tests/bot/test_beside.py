"""What runs beside another change of its database, through Slack and the whole of Twokey."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from approvals.words import Door
from bot.command_text import parse
from bot.planning import BESIDE, attributes
from jobs.operation import Plan
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.world import CHANNEL, OPERATIONS, running
from tests.conftest import Target


@pytest.mark.parametrize("beside", ["varnish", "free"])
async def test_of_two_changes_one_beside_the_other_none_waits(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path, beside: str
) -> None:
    operations = {**OPERATIONS, beside: replace(OPERATIONS[beside], is_beside=True)}
    async with running(
        slack, store, tmp_path, target.dsn, http=True, operations=operations
    ) as world:
        await slack.command("U0ANA", CHANNEL, "/db varnish orders forever")
        await world.card("Running")
        await slack.command("U0ANA", CHANNEL, "/db free orders")
        await world.card("Done")
        assert "Running" in world.cards()[0]["text"]


def test_no_plan_says_of_itself_that_it_is_beside() -> None:
    asked = parse("free", ["orders"], OPERATIONS)
    plan = Plan(title="x", steps=("y",), attributes={BESIDE: "yes"})
    with pytest.raises(TypeError, match="its plan sets beside"):
        attributes(asked, plan, None, door=Door.SLACK)


def test_what_is_beside_is_derived_from_the_operation() -> None:
    beside = {"free": replace(OPERATIONS["free"], is_beside=True)}
    asked = parse("free", ["orders"], beside)
    assert attributes(asked, Plan(title="x", steps=("y",)), None, door=Door.SLACK)[BESIDE] == "yes"
    asked = parse("free", ["orders"], OPERATIONS)
    assert BESIDE not in attributes(asked, Plan(title="x", steps=("y",)), None, door=Door.SLACK)
