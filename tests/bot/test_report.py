"""The statistics at both doors: Slack and the command line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bot.cli.main import app
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, INVENTORY, POLICY, World, running
from tests.conftest import Target


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[World]:
    async with running(slack, store, tmp_path, target.dsn, http=True, worker=False) as made:
        yield made


async def test_a_manager_reads_the_numbers_in_slack(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    typed = await slack.command("U0DORA", CHANNEL, "/db approvals orders 7d")
    shown = typed.ephemerals[0]
    said = shown["text"] + texts(shown["blocks"])
    assert "Approvals of orders, the last 7 days" in said
    assert "1 asked for, 0 denied" in said
    assert "Waiting for dba: 1" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ordres", "Did you mean orders?"),
        ("orders billing", "not"),
        ("30x", "no duration"),
        ("9999d", "no"),
        ("0d", "no period"),
    ],
)
async def test_what_is_not_understood_gets_a_sentence(world: World, text: str, says: str) -> None:
    typed = await world.slack.command("U0DORA", CHANNEL, f"/db approvals {text}")
    assert says in typed.ephemerals[0]["text"]


def test_the_command_line_prints_them_for_people_and_scripts(
    template: str, server: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy.yml").write_text(POLICY)
    dsn = server.dsn(template)  # type: ignore[attr-defined]
    plain = dsn.get_secret_value() if hasattr(dsn, "get_secret_value") else dsn
    (tmp_path / "twokey.yml").write_text(INVENTORY % plain)
    for name, value in {
        "TWOKEY_CONFIG": str(tmp_path / "twokey.yml"),
        "TWOKEY_STORE": plain,
        "TWOKEY_HOME": str(tmp_path),
        "TWOKEY_VOTE_KEY": "k" * 32,
    }.items():
        monkeypatch.setenv(name, value)
    told = CliRunner().invoke(app, ["approvals", "report", "--since", "2w"])
    assert told.exit_code == 0, told.output
    assert "Approvals of all databases, the last 14 days" in told.output
    as_json = CliRunner().invoke(app, ["approvals", "report", "--json"])
    found = json.loads(as_json.output)
    assert (found["asked"], found["lead"], found["debt"]) == (0, [], 0)
