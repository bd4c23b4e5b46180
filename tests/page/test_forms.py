"""A form of every element on the page: drawn, filled by hand, checked, sent as Slack sends it."""

from __future__ import annotations

from typing import Any

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.server import SlackStandIn
from tests.page.conftest import Sit

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="session")]
Json = dict[str, Any]


def _plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def _options(*names: str) -> list[Json]:
    return [{"text": _plain(name), "value": name} for name in names]


def _asks(name: str, kind: str, **more: Any) -> Json:
    element = {"type": kind, "action_id": "v", **more}
    return {"type": "input", "block_id": name, "label": _plain(name.title()), "element": element}


FORM: Json = {
    "type": "modal",
    "callback_id": "form",
    "title": _plain("Ask"),
    "submit": _plain("Send"),
    "blocks": [
        _asks(
            "database", "static_select",
            option_groups=[{"label": _plain("production"), "options": _options("orders", "bills")}],
        ),
        _asks("kind", "radio_buttons", options=_options("full", "part")),
        _asks("checks", "checkboxes", options=_options("files", "rows")),
        _asks("jobs", "number_input", is_decimal_allowed=False, min_value="1", max_value="9"),
        _asks("day", "datepicker", initial_date="2026-11-23"),
        _asks("hour", "timepicker", initial_time="02:00"),
        _asks("why", "plain_text_input", multiline=True),
    ],
}  # fmt: skip


async def test_every_element_of_a_form_is_filled_and_sent(sit: Sit, slack: SlackStandIn) -> None:
    client = AsyncWebClient(base_url=slack.api_url, token=slack.bot_token)
    await client.views_open(trigger_id=slack._platform.new_trigger("U0ANA"), view=FORM)
    ana = await sit("U0ANA")
    await ana.shows("Database", within="dialog.modal")
    assert await ana.eval("document.querySelector('dialog.modal optgroup').label") == "production"
    await ana.eval(
        """(() => {
            const select = document.querySelector('dialog.modal select');
            select.value = 'orders';
            select.dispatchEvent(new Event('change'));
        })()"""
    )
    await ana.click("dialog.modal label", text="part")
    await ana.click("dialog.modal label", text="rows")
    await ana.type("12", into="dialog.modal [data-block=jobs]")
    await ana.type("soon", into="dialog.modal textarea")
    await ana.click("dialog.modal .submit")
    await ana.shows("Please enter a number of at most 9.", within="dialog.modal")
    await ana.eval("document.querySelector('dialog.modal [data-block=jobs]').value = '3'")
    # Nobody listens to this app: what was entered is kept all the same, and the page says so.
    await ana.click("dialog.modal .submit")
    await ana.shows("trouble", within="dialog.modal")
    values = slack.views("U0ANA")[-1]["state"]["values"]
    assert values["database"]["v"]["selected_option"]["value"] == "orders"
    assert values["kind"]["v"]["selected_option"]["value"] == "part"
    assert [o["value"] for o in values["checks"]["v"]["selected_options"]] == ["rows"]
    assert values["jobs"]["v"]["value"] == "3"
    assert values["day"]["v"]["selected_date"] == "2026-11-23"
    assert values["hour"]["v"]["selected_time"] == "02:00"
    assert values["why"]["v"]["value"] == "soon"


async def test_the_plus_sign_lists_the_shortcuts(sit: Sit, slack: SlackStandIn) -> None:
    ana = await sit("U0ANA")
    await ana.click(".composer .plus")
    await ana.shows("Ask for a change", within="[role=menu]")
    await ana.click("[role=menuitem]", text="Ask for a change")
    await ana.until("document.querySelector('.toast')")
    assert [e.summary for e in slack.wire if "shortcut" in e.summary]
