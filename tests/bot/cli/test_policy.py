"""`twokey policy`: promises and their stories, today's groups, the past under another policy."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from approvals.compiling import PolicyError
from approvals.policy_file import parse_policy
from approvals.service import Approvals
from approvals.signing import VoteKeys
from approvals.words import Door, Verdict
from bot.cli.main import app
from bot.electorate import members
from bot.settings import Settings
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.approvals.support import ANA, BEN, CLEO, Clock, Queue, a_ballot, an_ask

EXAMPLE = Path(__file__).parents[3] / "policy.example.yml"
KEY = "k" * 32
OPEN = "rules: [{name: open, gates: []}]"
OLD: dict[str, Any] = {"rules": [{"name": "old", "gates": [{"id": "dba", "groups": ["dba"]}]}]}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWOKEY_HOME", str(tmp_path / "home"))
    return tmp_path


def test_the_example_is_fine_and_says_what_was_not_proven(here: Path) -> None:
    shown = CliRunner().invoke(app, ["policy", "check", str(EXAMPLE)])
    assert shown.exit_code == 0, shown.output
    assert "Fine, 1 not proven" in shown.output
    assert "SLACK_BOT_TOKEN is not set" in shown.output


def test_a_broken_promise_ends_with_1_and_tells_its_story(here: Path) -> None:
    (here / "bad.yml").write_text(OPEN)
    shown = CliRunner().invoke(app, ["policy", "check", "bad.yml"])
    assert shown.exit_code == 1
    assert "FAIL nobody alone" in shown.output
    assert "2. They ask (operation=restore" in shown.output
    assert "3. It runs" in shown.output


def test_a_broken_promise_is_told_to_scripts(here: Path) -> None:
    (here / "bad.yml").write_text(OPEN)
    shown = CliRunner().invoke(app, ["policy", "check", "bad.yml", "--json"])
    assert shown.exit_code == 1
    told = json.loads(shown.output)
    assert told["ok"] is False
    [broken] = [proof for proof in told["proofs"] if proof["holds"] == "broken"]
    assert broken["name"] == "nobody alone"
    assert broken["story"][-1] == "It runs"


def test_a_file_of_no_use_ends_with_2(here: Path) -> None:
    (here / "bad.yml").write_text("gates: [{id: x, approve: 0}]")
    shown = CliRunner().invoke(app, ["policy", "check", "bad.yml"])
    assert isinstance(shown.exception, PolicyError)  # `main` makes a 2 of it


async def test_members_are_asked_of_slack_and_each_person_is_one(
    slack: SlackStandIn, store: Store, here: Path
) -> None:
    settings = Settings(
        store=store.dsn,
        home=here,
        vote_key=KEY,  # type: ignore[arg-type]
        slack_bot_token=slack.bot_token,  # type: ignore[arg-type]
        slack_api_url=slack.api_url,
    )
    people, why = await members(settings, {"dba": "S0DBA", "security": "S0SECURITY"})
    assert why == ""
    assert people is not None
    groups = {person.slack_user: person.groups for person in people}
    assert groups["U0BEN"] == {"dba"}
    assert groups["U0CLEO"] == {"dba", "security"}
    assert len({person.id for person in people}) == len(people)

    missing, why = await members(settings, {"dba": "S0NOBODY"})
    assert missing is None
    assert "Slack's directory does not answer" in why


async def past(store: Store) -> None:
    """Three requests of the past: granted, denied, and one that somebody took back."""
    service = Approvals(
        store=store,
        keys=VoteKeys(current=KEY.encode()),
        queue=Queue(),
        clock=(clock := Clock()),
        policy=parse_policy(OLD),
    )
    granted = await service.ask(an_ask())
    clock.forward(minutes=10)
    await service.vote(a_ballot(granted, BEN))
    denied = await service.ask(an_ask())
    await service.vote(a_ballot(denied, CLEO, Verdict.DENY))
    taken = await service.ask(an_ask())
    assert taken.request is not None
    await service.cancel(taken.request.id, by=ANA, door=Door.SLACK, delivery="")


@pytest.fixture
def runs_on(store: Store, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TWOKEY_STORE", store.dsn.get_secret_value())
    monkeypatch.setenv("TWOKEY_VOTE_KEY", KEY)
    return here


STRICTER = "rules: [{name: new, gates: [{id: dba, groups: [dba], approve: 2}]}]"


async def test_a_backtest_says_which_requests_would_have_been_different(
    store: Store, runs_on: Path
) -> None:
    await past(store)
    (runs_on / "new.yml").write_text(STRICTER)
    shown = await run("backtest", "new.yml")
    assert shown.exit_code == 0, shown.output
    assert "1 backup orders (approved): not granted by these votes; needs 1 more of dba" in (
        shown.output
    )
    assert "[old -> new]" in shown.output
    assert "asks 2 of dba" in shown.output
    assert "3 of 3 requests would be different" in shown.output


async def test_a_backtest_of_the_same_rules_changes_nothing(store: Store, runs_on: Path) -> None:
    await past(store)
    (runs_on / "new.yml").write_text(json.dumps(OLD))
    shown = await run("backtest", "new.yml", "--fail-on-change")
    assert shown.exit_code == 0, shown.output
    assert "0 of 3 requests would be different" in shown.output
    assert "600 s before, 600 s after" in shown.output


async def test_a_backtest_can_fail_on_a_change_and_speaks_json(store: Store, runs_on: Path) -> None:
    await past(store)
    (runs_on / "new.yml").write_text(STRICTER)
    shown = await run("backtest", "new.yml", "--json", "--fail-on-change")
    assert shown.exit_code == 1
    told = json.loads(shown.output)
    assert [each["effect"] for each in told["requests"]] == [
        "not granted by these votes",
        "same, by another rule",
        "same, by another rule",
    ]
    assert told["summary"]["changed"] == 3


async def test_a_backtest_looks_only_at_what_was_asked_since(store: Store, runs_on: Path) -> None:
    await past(store)
    (runs_on / "new.yml").write_text(STRICTER)
    shown = await run("backtest", "new.yml", "--since", "2026-12-01", "--json")
    assert json.loads(shown.output)["summary"]["looked_at"] == 0


async def run(*words: str) -> Any:
    """The command in a thread, as it has a loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["policy", *words])
