"""Block Kit as strict as Slack."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.blocks import BLOCKS, check_blocks, check_view, too_large, with_ids
from sandbox.slack.elements import ELEMENTS
from sandbox.slack.viewstate import complaints, values_of
from tests.sandbox.support import actions, ask, button, modal, section
from tests.sandbox.test_messages import OPS, refusal

Json = dict[str, Any]


def plain(text: str) -> Json:
    """Plain text."""
    return {"type": "plain_text", "text": text}


def option(text: str = "One", value: str = "1") -> Json:
    """An option."""
    return {"text": plain(text), "value": value}


def select(**more: Any) -> Json:
    """A static select."""
    return {"type": "static_select", "action_id": "pick", "options": [option()], **more}


def table(rows: int, columns: int = 1) -> Json:
    """A table of equal cells."""
    cell = {"type": "raw_text", "text": "x"}
    return {"type": "table", "rows": [[cell] * columns for _ in range(rows)]}


def chart(points: int = 3, lines: int = 1, **more: Any) -> Json:
    """A line chart."""
    labels = [str(n) for n in range(points)]
    series = [line(f"s{n}", labels) for n in range(lines)]
    drawn = {"type": "line", "series": series, "axis_config": {"categories": labels}, **more}
    return {"type": "data_visualization", "title": "Size", "chart": drawn}


def line(name: str, labels: list[str], value: Any = 1) -> Json:
    """A series that has the same value everywhere."""
    return {"name": name, "data": [{"label": label, "value": value} for label in labels]}


def pie(value: Any) -> Json:
    """A pie of one segment."""
    drawn = {"type": "pie", "segments": [{"label": "a", "value": value}]}
    return {"type": "data_visualization", "title": "Share", "chart": drawn}


def picture(file_id: str) -> Json:
    """An image block with a file of Slack's."""
    return {"type": "image", "slack_file": {"id": file_id}, "alt_text": "a chart"}


CONFIRM = {
    "title": plain("Sure?"),
    "text": plain("It runs at once."),
    "confirm": plain("Yes"),
    "deny": plain("No"),
}

GOOD: list[list[Json]] = [
    [],
    [section(), {"type": "divider"}, {"type": "header", "text": plain("Title")}],
    [actions(button(confirm=CONFIRM, style="primary"), button("deny", style="danger"))],
    [actions(select(), {"type": "users_select", "action_id": "who"})],
    [{**section(), "accessory": {"type": "overflow", "action_id": "o", "options": [option()]}}],
    [{"type": "context", "elements": [{"type": "mrkdwn", "text": "x"}]}],
    [{"type": "section", "fields": [plain("x")] * 10}],
    [{"type": "image", "image_url": "https://x.example/a.png", "alt_text": "a chart"}],
    [{"type": "markdown", "text": "**x**"}],
    [table(100, 20)],
    [chart(20, 6), chart()],
    [pie(0.5)],
    [picture("F0123ABCDE")],
    [section()] * 50,
]

# The block, what is wrong with it, and where.
BAD: list[tuple[list[Any], str, str]] = [
    ([section()] * 51, "no more than 50 items allowed", "/blocks"),
    ([{"type": "nonsense"}], "unsupported type: nonsense", "/blocks/0/type"),
    (["text"], "must be an object", "/blocks/0"),
    ([{"type": "section"}], "missing required field: text", "/blocks/0"),
    ([section("")], "must be more than 0 characters", "/blocks/0/text/text"),
    ([section("x" * 3001)], "must be less than 3001 characters", "/blocks/0/text/text"),
    ([{"type": "section", "fields": [plain("x" * 2001)]}], "less than 2001", "/fields/0/text"),
    ([{"type": "section", "fields": [plain("x")] * 11}], "no more than 10 items", "/fields"),
    ([{**section(), "colour": "red"}], "invalid additional property: colour", "/blocks/0"),
    ([{"type": "header", "text": plain("x" * 151)}], "less than 151", "/blocks/0/text/text"),
    (
        [{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}],
        "must be one of: plain_text",
        "/blocks/0/text/type",
    ),
    ([actions(*[button(f"b{n}") for n in range(26)])], "no more than 25", "/elements"),
    ([{"type": "actions", "elements": []}], "no less than 1", "/elements"),
    ([actions(button(), button())], "action_id `approve` already exists", "/elements"),
    (
        [{**section(), "block_id": "a"}, {**section(), "block_id": "a"}],
        "block_id `a` already exists",
        "/blocks/1/block_id",
    ),
    ([actions(button("x" * 256))], "less than 256", "/elements/0/action_id"),
    ([actions(button(value="x" * 2001))], "less than 2001", "/elements/0/value"),
    ([actions(button(text=plain("x" * 76)))], "less than 76", "/elements/0/text/text"),
    ([actions(button(style="red"))], "must be one of: primary, danger", "/elements/0/style"),
    (
        [actions(button(confirm={**CONFIRM, "text": plain("x" * 301)}))],
        "less than 301",
        "/confirm/text/text",
    ),
    ([actions(button(confirm={"title": plain("x")}))], "missing required field", "/confirm"),
    ([actions(ask()["element"])], "unsupported type: plain_text_input", "/elements/0/type"),
    ([actions(select(options=[option()] * 101))], "no more than 100", "/elements/0/options"),
    ([actions(select(options=None))], "exactly one of: options, option_groups", "/blocks/0"),
    ([actions(select(options=[option("x" * 76)]))], "less than 76", "/options/0/text/text"),
    (
        [{"type": "context", "elements": [plain("x")] * 11}],
        "no more than 10",
        "/blocks/0/elements",
    ),
    ([{"type": "image", "image_url": "https://x.example/a.png"}], "field: alt_text", "/blocks/0"),
    ([{"type": "image", "alt_text": "a"}], "missing required field: image_url", "/blocks/0"),
    ([{"type": "markdown", "text": "x" * 7000}] * 2, "less than 12001", "/blocks"),
    ([table(101)], "no more than 100", "/blocks/0/rows"),
    ([table(1, 21)], "no more than 20", "/blocks/0/rows/0"),
    ([table(1), table(1)], "only one table", "/blocks"),
    ([chart(21)], "no more than 20", "/chart/series/0/data"),
    ([chart(1, 7)], "no more than 6", "/chart/series"),
    ([chart(), chart(), chart()], "no more than 2", "/blocks"),
    ([chart(axis_config=None)], "missing required field: axis_config", "/chart"),
    ([chart(axis_config={"categories": ["0", "1"]})], "must match axis_config", "/chart"),
    ([chart(series=[line("s", ["0", "1"])])], "must match axis_config", "/chart"),
    ([chart(series=[line("s", ["0", "1", "2"])] * 2)], "names must be unique", "/chart"),
    (
        [chart(series=[line("s", ["0"] * 2)], axis_config={"categories": ["0"] * 2})],
        "categories must be unique",
        "/chart",
    ),
    ([chart(series=[line("s", ["0", "1", "2"], "7")])], "must be a number", "/data/0/value"),
    ([chart(series=[line("s", ["0", "1", "2"], True)])], "must be a number", "/data/0/value"),
    ([chart(series=[line("s", ["0", "1", "2"], None)])], "missing required field", "/data/0"),
    (
        [chart(axis_config={"categories": ["0", "1", "2"], "y_label": "x" * 51})],
        "less than 51",
        "/axis_config/y_label",
    ),
    ([pie(0)], "must be greater than 0", "/segments/0/value"),
    ([picture("file-1")], "input must match regex pattern", "/slack_file/id"),
]


@pytest.mark.parametrize("blocks", GOOD)
def test_what_slack_takes(blocks: list[Json]) -> None:
    assert check_blocks(blocks, surface="message") == []


@pytest.mark.parametrize(("blocks", "problem", "where"), BAD)
def test_what_slack_refuses_and_where(blocks: list[Any], problem: str, where: str) -> None:
    found = check_blocks(blocks, surface="message")
    assert any(problem in line and f"{where}]" in line for line in found), found


async def test_the_answer_points_to_the_problem(client: AsyncWebClient) -> None:
    blocks = [section(), {"type": "header", "text": plain("x" * 151)}]
    error = await refusal(client.chat_postMessage(channel=OPS, text="x", blocks=blocks))
    assert error.response["error"] == "invalid_blocks"
    expected = "must be less than 151 characters [json-pointer:/blocks/1/text/text]"
    assert error.response["errors"] == [expected]
    assert error.response["response_metadata"]["messages"] == [f"[ERROR] {expected}"]


async def test_blocks_can_be_validated_without_posting(client: AsyncWebClient) -> None:
    assert (await client.api_call("blocks.validate", json={"blocks": [section()]}))["ok"]
    error = await refusal(client.api_call("blocks.validate", json={"blocks": [{"type": "no"}]}))
    assert error.response["error"] == "invalid_blocks"


def test_missing_ids_are_filled_and_given_ones_kept() -> None:
    bare = {"type": "button", "text": plain("x")}
    filled = with_ids([actions(bare, button("mine")), {**section(), "block_id": "b0"}])
    assert [element["action_id"] for element in filled[0]["elements"]] == ["a0.0", "mine"]
    assert filled[1]["block_id"] == "b0"
    assert filled[0]["block_id"] not in {"", "b0"}


@pytest.mark.parametrize(
    ("view", "problem"),
    [
        (modal(title=plain("x" * 25)), "/view/title/text"),
        (modal(title=None), "missing required field: title"),
        (modal(submit=plain("x" * 25)), "/view/submit/text"),
        (modal(submit=None), "missing required field: submit"),
        (modal(private_metadata="x" * 3001), "/view/private_metadata"),
        (modal(callback_id="x" * 256), "/view/callback_id"),
        (modal(*[section()] * 101), "no more than 100 items"),
        (modal(table(1)), "unsupported type: table"),
        (modal(ask(), ask()), "block_id `why` already exists"),
        ({"type": "home", "blocks": []}, "must be a modal view"),
        ({**modal(), "blocks": {}}, "must be an array"),
        (modal(color="red"), "invalid additional property: color"),
    ],
)
def test_what_is_wrong_with_a_modal(view: Json, problem: str) -> None:
    found = check_view(view, kind="modal")
    assert any(problem in line for line in found), found


def test_a_modal_without_questions_needs_no_submit() -> None:
    assert check_view(modal(section(), submit=None), kind="modal") == []


def test_a_view_of_more_than_250_kb_is_too_large() -> None:
    assert not too_large(modal(*[section("x" * 2000)] * 100))
    assert too_large(modal(*[section("x" * 3000)] * 90))


NAMES = sorted({name for spec in (*BLOCKS.values(), *ELEMENTS.values()) for name in spec.fields})
KINDS = st.sampled_from([*BLOCKS, *ELEMENTS, "plain_text", "mrkdwn", "raw_text", "line", "bar"])
LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4) | KINDS


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Something that resembles a block, an element or a text."""
    fields = st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)
    return st.builds(lambda kind, rest: {"type": kind, **rest}, KINDS, fields)


ANYTHING = st.recursive(LEAVES, lambda inner: objects(inner) | st.lists(inner, max_size=3))


@given(blocks=st.lists(objects(ANYTHING), max_size=3))
def test_no_json_makes_the_check_stumble(blocks: list[Any]) -> None:
    check_view(modal(*blocks), kind="modal")
    if not check_blocks(blocks, surface="message"):
        filled = with_ids(blocks)
        assert check_blocks(filled, surface="message") == []
        complaints(filled, values_of(filled, {}))


SHORT = st.text(min_size=1, max_size=3)
TEXTS = st.builds(plain, SHORT)
BUTTONS = st.builds(lambda text: {"type": "button", "text": text}, TEXTS)
BLOCKISH = st.one_of(
    st.builds(section, SHORT),
    st.builds(lambda some: {"type": "actions", "elements": some}, st.lists(BUTTONS, min_size=1)),
    st.builds(ask, SHORT, action_id=SHORT, min_length=st.integers(0, 9)),
    st.builds(lambda block_id: {"type": "divider", "block_id": block_id}, SHORT | st.just("b1")),
)


@given(blocks=st.lists(BLOCKISH, max_size=4))
def test_filled_ids_never_clash(blocks: list[Any]) -> None:
    if not check_blocks(blocks, surface="modal"):
        filled = with_ids(blocks)
        assert check_blocks(filled, surface="modal") == []
        assert all(block["block_id"] for block in filled)
        complaints(filled, values_of(filled, {}))
