"""Global shortcuts: only those of the manifest, from nowhere, with a trigger."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.slack.errors import CannotError
from sandbox.slack.manifest import check
from sandbox.slack.server import SlackStandIn
from tests.sandbox.support import Bot, ask, modal

Json = dict[str, Any]


async def test_a_shortcut_opens_a_modal_and_says_nothing_of_where_one_was(bot: Bot) -> None:
    seen: list[Json] = []

    @bot.app.shortcut("ask_for_change")
    async def chosen(ack: Any, body: Json, client: Any) -> None:
        seen.append(body)
        await client.views_open(trigger_id=body["trigger_id"], view=modal(ask()))
        await ack()

    async with bot.run():
        assert (await bot.slack.shortcut("U0ANA", "ask_for_change")).ok
    assert bot.slack.views("U0ANA")
    assert seen[0]["type"] == "shortcut"
    assert "channel" not in seen[0]
    assert "response_url" not in seen[0]


async def test_a_shortcut_that_the_manifest_does_not_name_is_not_there(slack: SlackStandIn) -> None:
    with pytest.raises(CannotError, match="no shortcut"):
        await slack.shortcut("U0ANA", "other")


async def test_a_search_asks_the_app_for_its_options(bot: Bot) -> None:
    option = {"text": {"type": "plain_text", "text": "orders"}, "value": "orders"}

    @bot.app.options("find")
    async def find(ack: Any, body: Json) -> None:
        assert body["value"] == "ord"
        await ack(options=[option])

    select = {"type": "external_select", "action_id": "find", "min_query_length": 0}
    label = {"type": "plain_text", "text": "x"}
    block = {"type": "input", "block_id": "b", "label": label, "element": select}
    async with bot.run():
        trigger = bot.slack._platform.new_trigger("U0ANA")
        view = await bot.app.client.views_open(trigger_id=trigger, view=modal(block))
        found = await bot.slack.suggest("U0ANA", view["view"]["id"], "b", "find", "ord")
    assert found == {"options": [option]}


ONE = {"name": "Ask", "type": "global", "callback_id": "ask", "description": "Ask for something"}


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([{**ONE, "name": "x" * 25}], "name must be text of 1 to 24"),
        ([{**ONE, "description": ""}], "description must be text"),
        ([{**ONE, "type": "channel"}], "type must be"),
        ([ONE, ONE], "stands twice"),
        ([{**ONE, "callback_id": str(number)} for number in range(11)], "at most 10"),
    ],
)
def test_what_slack_would_refuse_of_shortcuts(entries: list[Json], says: str) -> None:
    raw: Json = {
        "display_information": {"name": "x"},
        "features": {"shortcuts": entries, "bot_user": {"display_name": "x"}},
        "oauth_config": {"scopes": {"bot": ["commands"]}},
        "settings": {"interactivity": {"is_enabled": True, "request_url": "https://x.example/y"}},
    }
    assert any(says in problem for problem in check(raw))
    raw["oauth_config"]["scopes"]["bot"] = ["chat:write"]
    assert any("need the scope commands" in problem for problem in check(raw))
    raw["settings"] = {}
    assert any("interactivity" in problem for problem in check(raw))
