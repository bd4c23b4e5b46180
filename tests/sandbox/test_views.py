"""views.*: triggers, the stack, hashes and limits."""

from __future__ import annotations

from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.server import SlackStandIn
from tests.sandbox.support import Bot, actions, ask, modal, section
from tests.sandbox.test_messages import refusal

Json = dict[str, Any]


def trigger(slack: SlackStandIn) -> str:
    """A trigger_id of Ana's, as fresh as if she had just acted."""
    return slack._platform.new_trigger("U0ANA")


async def test_a_trigger_works_once(slack: SlackStandIn, client: AsyncWebClient) -> None:
    one = trigger(slack)
    opened = await client.views_open(trigger_id=one, view=modal())
    assert slack.views("U0ANA")[0]["id"] == opened["view"]["id"]
    error = await refusal(client.views_open(trigger_id=one, view=modal()))
    assert error.response["error"] == "exchanged_trigger_id"


async def test_a_trigger_lives_three_seconds(slack: SlackStandIn, client: AsyncWebClient) -> None:
    one = trigger(slack)
    slack.advance(3.1)
    error = await refusal(client.views_open(trigger_id=one, view=modal()))
    assert error.response["error"] == "expired_trigger_id"


async def test_a_trigger_that_never_was_is_refused(client: AsyncWebClient) -> None:
    error = await refusal(client.views_open(trigger_id="1.2.3", view=modal()))
    assert error.response["error"] == "invalid_trigger_id"


async def test_a_broken_view_names_the_place_and_keeps_the_trigger(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    one = trigger(slack)
    title = {"type": "plain_text", "text": "x" * 25}
    error = await refusal(client.views_open(trigger_id=one, view=modal(title=title)))
    assert error.response["error"] == "invalid_arguments"
    (message,) = error.response["response_metadata"]["messages"]
    assert message.endswith("[json-pointer:/view/title/text]")
    await client.views_open(trigger_id=one, view=modal())


async def test_a_view_above_250_kb_is_refused(slack: SlackStandIn, client: AsyncWebClient) -> None:
    big = modal(*[section("x" * 3000)] * 90)
    error = await refusal(client.views_open(trigger_id=trigger(slack), view=big))
    assert error.response["error"] == "view_too_large"


async def test_three_modals_are_the_most(bot: Bot) -> None:
    codes: list[str] = []

    @bot.app.action("approve")
    async def deeper(ack: Any, body: Json, client: AsyncWebClient) -> None:
        await ack()
        pushing = client.views_push(trigger_id=body["trigger_id"], view=modal(actions()))
        if len(bot.slack.views("U0ANA")) < 3:
            await pushing
        else:
            codes.append((await refusal(pushing)).response["error"])

    async with bot.run():
        first = await bot.app.client.views_open(
            trigger_id=trigger(bot.slack), view=modal(actions())
        )
        for _ in range(3):
            top = bot.slack.views("U0ANA")[-1]["id"]
            await bot.slack.click_view("U0ANA", top, "approve")
    assert codes == ["push_limit_reached"]
    stack = bot.slack.views("U0ANA")
    assert [view["root_view_id"] for view in stack] == [first["view"]["id"]] * 3


async def test_nothing_is_pushed_from_outside_a_modal(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    await client.views_open(trigger_id=trigger(slack), view=modal())
    error = await refusal(client.views_push(trigger_id=trigger(slack), view=modal()))
    assert error.response["error"] == "invalid_trigger_id"


async def test_an_update_needs_the_current_hash_where_it_gives_one(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    view = (await client.views_open(trigger_id=trigger(slack), view=modal()))["view"]
    new = await client.views_update(view_id=view["id"], hash=view["hash"], view=modal())
    assert new["view"]["hash"] != view["hash"]
    error = await refusal(client.views_update(view_id=view["id"], hash=view["hash"], view=modal()))
    assert error.response["error"] == "hash_conflict"
    await client.views_update(view_id=view["id"], view=modal())


async def test_an_update_keeps_what_was_entered_in_fields_that_stay(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    view = (await client.views_open(trigger_id=trigger(slack), view=modal()))["view"]
    await slack.click_view("U0ANA", view["id"], "text", value="half a sentence")
    await client.views_update(view_id=view["id"], view=modal(ask(), ask("more")))
    values = slack.views("U0ANA")[0]["state"]["values"]
    assert values["why"]["text"]["value"] == "half a sentence"
    assert values["more"]["text"]["value"] is None


async def test_a_view_can_be_updated_by_the_apps_own_id(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    mine = modal(external_id="r7")
    await client.views_open(trigger_id=trigger(slack), view=mine)
    await client.views_update(external_id="r7", view=mine)
    one = slack._platform.new_trigger("U0BEN")
    error = await refusal(client.views_open(trigger_id=one, view=mine))
    assert error.response["error"] == "duplicate_external_id"


async def test_a_closed_view_cannot_be_updated(slack: SlackStandIn, client: AsyncWebClient) -> None:
    view = (await client.views_open(trigger_id=trigger(slack), view=modal()))["view"]
    await slack.close_view("U0ANA", view["id"])
    error = await refusal(client.views_update(view_id=view["id"], view=modal()))
    assert error.response["error"] == "not_found"


async def test_the_home_tab_checks_hash_kind_and_person(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    home = {"type": "home", "blocks": [section()]}
    first = await client.views_publish(user_id="U0ANA", view=home)
    second = await client.views_publish(user_id="U0ANA", view=home)
    assert first["view"]["id"] == second["view"]["id"]
    error = await refusal(
        client.views_publish(user_id="U0ANA", view=home, hash=first["view"]["hash"])
    )
    assert error.response["error"] == "hash_conflict"
    for arguments in ({"user_id": "U0ANA", "view": modal()}, {"user_id": "U0NO", "view": home}):
        error = await refusal(client.views_publish(**arguments))
        assert error.response["error"] == "invalid_arguments"
    assert slack.home("U0ANA") is not None
