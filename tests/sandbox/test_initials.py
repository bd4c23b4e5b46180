"""What an element proposes must be something that somebody could enter, as Slack has it."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.slack.blocks import check_blocks, check_view
from sandbox.slack.viewstate import complaints
from tests.sandbox.support import actions, modal

Json = dict[str, Any]


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def option(value: str, **more: Any) -> Json:
    return {"text": plain(value), "value": value, **more}


def asks(kind: str, **more: Any) -> Json:
    element = {"type": kind, "action_id": "v", **more}
    return {"type": "input", "block_id": "b", "label": plain("x"), "element": element}


A, B = option("a"), option("b")
GROUPS = [{"label": plain("g"), "options": [A, B]}]
GOOD = [
    asks("static_select", options=[A, B], initial_option=B),
    asks("static_select", option_groups=GROUPS, initial_option=A),
    asks("external_select", initial_option=option("z"), min_query_length=0),
    asks("radio_buttons", options=[A, B], initial_option=A),
    asks("checkboxes", options=[A, B], initial_options=[A, B]),
    asks("datepicker", initial_date="2026-11-23"),
    asks("timepicker", initial_time="02:00"),
    asks("datetimepicker", initial_date_time=1_790_000_000),
    asks("number_input", is_decimal_allowed=False, min_value="1", max_value="1"),
    asks("plain_text_input", min_length=1, max_length=3000),
]
BAD = [
    (asks("static_select", options=[A], initial_option=B), "exactly match"),
    (asks("static_select", options=[A], initial_option={**A, "text": plain("z")}), "exactly match"),
    (asks("radio_buttons", options=[A], initial_option=B), "exactly match"),
    (asks("radio_buttons", options=[A], initial_options=[A]), "additional property"),
    (asks("checkboxes", options=[A], initial_options=[B]), "exactly match"),
    (
        asks("static_select", options=[{"text": {"type": "mrkdwn", "text": "*a*"}, "value": "a"}]),
        "plain_text",
    ),
    (asks("radio_buttons", options=[option("a", url="https://x.example")]), "may have a url"),
    (asks("datepicker", initial_date="23.11.2026"), "YYYY-MM-DD"),
    (asks("datepicker", initial_date="2026-13-01"), "YYYY-MM-DD"),
    (asks("timepicker", initial_time="24:00"), "HH:mm"),
    (asks("timepicker", initial_time="02:00:01"), "HH:mm"),
    (asks("datetimepicker", initial_date_time=99), "ten digits"),
    (asks("datetimepicker", initial_date_time="soon"), "ten digits"),
    (
        asks("number_input", is_decimal_allowed=True, min_value="2", max_value="1"),
        "must not be greater",
    ),
    (asks("plain_text_input", min_length=9, max_length=3), "must not be greater"),
    (asks("plain_text_input", max_length=3001), "at most 3000"),
]


@pytest.mark.parametrize("block", GOOD, ids=lambda block: str(block["element"]["type"]))
def test_what_slack_takes(block: Json) -> None:
    assert check_view(modal(block), kind="modal") == []


@pytest.mark.parametrize(("block", "problem"), BAD)
def test_what_slack_refuses(block: Json, problem: str) -> None:
    found = check_view(modal(block), kind="modal")
    assert any(problem in line for line in found), found


def test_a_picker_of_a_moment_stands_in_no_section() -> None:
    picker = {"type": "datetimepicker", "action_id": "v"}
    beside = {"type": "section", "text": plain("x"), "accessory": picker}
    assert any("unsupported type" in line for line in check_blocks([beside], surface="message"))
    assert check_blocks([actions(picker)], surface="message") == []


@pytest.mark.parametrize(
    ("value", "decimals", "says"),
    [
        ("5", False, None),
        ("1.5", True, None),
        ("1.5", False, "whole"),
        ("x", True, "a number"),
        ("nan", True, "a number"),
        ("0", False, "at least 1"),
        ("10", False, "at most 9"),
    ],
)
def test_slacks_client_checks_numbers_itself(
    value: str, *, decimals: bool, says: str | None
) -> None:
    block = asks("number_input", is_decimal_allowed=decimals, min_value="1", max_value="9")
    entered = {"b": {"v": {"type": "number_input", "value": value}}}
    found = complaints([block], entered).get("b")
    assert found is None if says is None else says in str(found)
