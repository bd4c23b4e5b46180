"""Block Kit as strict as Slack: shapes, limits, unique ids, what may stand where. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sandbox.slack.charts import CHARTS, chart_flaws
from sandbox.slack.elements import ACCESSORIES, ACTIONS, ELEMENTS, ID_CHARS_MAX, INPUTS
from sandbox.slack.initials import flaws
from sandbox.slack.rules import (
    Problems,
    Rule,
    Spec,
    anything,
    boolean,
    choice,
    items,
    one_of,
    plain,
    shape,
    string,
    text,
)

Json = dict[str, Any]

MESSAGE_BLOCKS_MAX: Final = 50
VIEW_BLOCKS_MAX: Final = 100
VIEW_BYTES_MAX: Final = 250_000
MARKDOWN_CHARS_MAX: Final = 12_000
CHARTS_MAX: Final = 2
_FILE_ID: Final = re.compile(r"^[F][A-Z0-9]{8,}$")
SURFACES: Final[Mapping[str, frozenset[str]]] = {
    "section": frozenset({"message", "modal", "home"}),
    "divider": frozenset({"message", "modal", "home"}),
    "image": frozenset({"message", "modal", "home"}),
    "actions": frozenset({"message", "modal", "home"}),
    "context": frozenset({"message", "modal", "home"}),
    "header": frozenset({"message", "modal", "home"}),
    "input": frozenset({"message", "modal", "home"}),
    "rich_text": frozenset({"message", "modal", "home"}),
    "markdown": frozenset({"message"}),
    "table": frozenset({"message"}),
    "file": frozenset({"message"}),
    "data_visualization": frozenset({"message", "modal", "home"}),
}

_BLOCK: Final[Mapping[str, Rule]] = {
    "type": string(100),
    "block_id": string(ID_CHARS_MAX, least=1),
}


def _file_id(problems: Problems, value: Any, at: str) -> None:
    if not isinstance(value, str) or not _FILE_ID.fullmatch(value):
        problems.add(f"input must match regex pattern: {_FILE_ID.pattern}", at)


_CONTEXT: Final[Mapping[str, Spec]] = {
    "image": ELEMENTS["image"],
    "plain_text": Spec(
        fields={"type": anything, "text": string(3000, least=1), "emoji": boolean},
        required=("text",),
    ),
    "mrkdwn": Spec(
        fields={"type": anything, "text": string(3000, least=1), "verbatim": boolean},
        required=("text",),
    ),
}
_CELLS: Final[Mapping[str, Spec]] = {
    "raw_text": Spec(fields={"type": anything, "text": string(3000, least=1)}, required=("text",)),
    "rich_text": Spec(
        fields={"type": anything, "elements": anything, "block_id": anything},
        required=("elements",),
    ),
}

BLOCKS: Final[Mapping[str, Spec]] = {
    "section": Spec(
        fields={
            **_BLOCK,
            "text": text(3000),
            "fields": items(text(2000), most=10),
            "accessory": one_of(ELEMENTS, allowed=ACCESSORIES),
            "expand": boolean,
        },
        required=("type",),
    ),
    "divider": Spec(fields=_BLOCK, required=("type",)),
    "header": Spec(fields={**_BLOCK, "text": plain(150)}, required=("type", "text")),
    "context": Spec(
        fields={**_BLOCK, "elements": items(one_of(_CONTEXT), most=10)},
        required=("type", "elements"),
    ),
    "actions": Spec(
        fields={**_BLOCK, "elements": items(one_of(ELEMENTS, allowed=ACTIONS), most=25)},
        required=("type", "elements"),
    ),
    "input": Spec(
        fields={
            **_BLOCK,
            "label": plain(2000),
            "element": one_of(ELEMENTS, allowed=INPUTS),
            "hint": plain(2000),
            "optional": boolean,
            "dispatch_action": boolean,
        },
        required=("type", "label", "element"),
    ),
    "image": Spec(
        fields={
            **_BLOCK,
            "image_url": string(3000),
            "slack_file": shape(Spec(fields={"id": _file_id, "url": string(3000)})),
            "alt_text": string(2000, least=1),
            "title": plain(2000),
        },
        required=("type", "alt_text"),
    ),
    "rich_text": Spec(fields={**_BLOCK, "elements": anything}, required=("type", "elements")),
    "markdown": Spec(
        fields={**_BLOCK, "text": string(MARKDOWN_CHARS_MAX, least=1)}, required=("type", "text")
    ),
    "table": Spec(
        fields={
            **_BLOCK,
            "rows": items(items(one_of(_CELLS), most=20), most=100),
            "column_settings": items(anything, most=20),
        },
        required=("type", "rows"),
    ),
    "file": Spec(
        fields={**_BLOCK, "external_id": string(255), "source": choice("remote")},
        required=("type", "external_id", "source"),
    ),
    "data_visualization": Spec(
        fields={**_BLOCK, "title": string(50, least=1), "chart": one_of(CHARTS)},
        required=("type", "title", "chart"),
    ),
}


def check_blocks(blocks: Sequence[Any], *, surface: str, at: str = "/blocks") -> list[str]:
    """Every reason why Slack would refuse these blocks on a message, modal or home tab."""
    problems = Problems()
    most = MESSAGE_BLOCKS_MAX if surface == "message" else VIEW_BLOCKS_MAX
    items(one_of(BLOCKS), most=most, least=0)(problems, list(blocks), at)
    if problems.found:
        return problems.found
    for index, block in enumerate(blocks):
        _check_block(problems, block, surface=surface, at=f"{at}/{index}")
    _check_unique(problems, blocks, at)
    _check_totals(problems, blocks, at)
    return problems.found


def _check_block(problems: Problems, block: Json, *, surface: str, at: str) -> None:
    if surface not in SURFACES[block["type"]]:
        problems.add(f"unsupported type: {block['type']}", f"{at}/type")
    if block["type"] == "section" and not (block.get("text") or block.get("fields")):
        problems.add("missing required field: text", at)
    for element in elements_of(block):
        _check_element(problems, element, at)
    if block["type"] == "data_visualization":
        for flaw in chart_flaws(block["chart"]):
            problems.add(flaw, f"{at}/chart")
    if block["type"] == "image" and not (block.get("image_url") or block.get("slack_file")):
        problems.add("missing required field: image_url", at)


def _check_element(problems: Problems, element: Json, at: str) -> None:
    if element["type"] in {"static_select", "multi_static_select"}:
        given = [name for name in ("options", "option_groups") if element.get(name)]
        if len(given) != 1:
            problems.add("must have exactly one of: options, option_groups", at)
    if element["type"] == "checkboxes" and element.get("initial_option"):
        problems.add("invalid additional property: initial_option", at)
    if element["type"] == "radio_buttons" and element.get("initial_options"):
        problems.add("invalid additional property: initial_options", at)
    for flaw in flaws(element):
        problems.add(flaw, at)


def _check_unique(problems: Problems, blocks: Sequence[Json], at: str) -> None:
    seen: set[str] = set()
    for index, block in enumerate(blocks):
        block_id = block.get("block_id")
        if block_id in seen:
            problems.add(f"block_id `{block_id}` already exists", f"{at}/{index}/block_id")
        if block_id:
            seen.add(block_id)
        ids = [element["action_id"] for element in elements_of(block) if element.get("action_id")]
        for action_id in sorted({one for one in ids if ids.count(one) > 1}):
            problems.add(f"action_id `{action_id}` already exists", f"{at}/{index}/elements")


def _check_totals(problems: Problems, blocks: Sequence[Json], at: str) -> None:
    kinds = [block["type"] for block in blocks]
    if kinds.count("table") > 1:
        problems.add("only one table is allowed", at)
    if kinds.count("data_visualization") > CHARTS_MAX:
        problems.add(f"no more than {CHARTS_MAX} data_visualization blocks allowed", at)
    markdown = sum(len(block["text"]) for block in blocks if block["type"] == "markdown")
    if markdown > MARKDOWN_CHARS_MAX:
        problems.add(f"markdown must be less than {MARKDOWN_CHARS_MAX + 1} characters", at)


def elements_of(block: Json) -> Iterator[Json]:
    """The elements of a block that somebody can act on."""
    if block["type"] == "actions":
        yield from block["elements"]
    elif block["type"] == "input":
        yield block["element"]
    elif (accessory := block.get("accessory")) and accessory["type"] != "image":
        yield accessory


def with_ids(blocks: Sequence[Json]) -> list[Json]:
    """The blocks with a block_id and action_ids where the app gave none, as Slack fills them."""
    filled = json.loads(json.dumps(list(blocks)))
    taken = {block.get("block_id") for block in filled}
    for index, block in enumerate(filled):
        if not block.get("block_id"):
            block["block_id"] = _free(f"b{index}", taken)
        for number, element in enumerate(elements_of(block)):
            element.setdefault("action_id", f"a{index}.{number}")
    return list(filled)


def _free(wanted: str, taken: set[Any]) -> str:
    while wanted in taken:
        wanted += "x"
    taken.add(wanted)
    return wanted


_VIEW_COMMON: Final[Mapping[str, Rule]] = {
    "type": choice("modal", "home"),
    "blocks": anything,
    "private_metadata": string(3000),
    "callback_id": string(255),
    "external_id": string(255),
}
_MODAL: Final = Spec(
    fields={
        **_VIEW_COMMON,
        "title": plain(24),
        "submit": plain(24),
        "close": plain(24),
        "clear_on_close": boolean,
        "notify_on_close": boolean,
        "submit_disabled": boolean,
    },
    required=("type", "title", "blocks"),
)
_HOME: Final = Spec(fields=_VIEW_COMMON, required=("type", "blocks"))


def check_view(view: Any, *, kind: str) -> list[str]:
    """Every reason why Slack would refuse this modal (`modal`) or home tab (`home`)."""
    problems = Problems()
    if not isinstance(view, dict) or view.get("type") != kind:
        problems.add(f"must be a {kind} view", "/view/type")
        return problems.found
    shape(_MODAL if kind == "modal" else _HOME)(problems, view, "/view")
    blocks = view.get("blocks")
    if problems.found:
        return problems.found
    if not isinstance(blocks, list):
        problems.add("must be an array", "/view/blocks")
        return problems.found
    found = check_blocks(blocks, surface=kind, at="/view/blocks")
    asks = any(isinstance(block, dict) and block.get("type") == "input" for block in blocks)
    if kind == "modal" and asks and not view.get("submit"):
        problems.add("missing required field: submit", "/view")
    return found + problems.found


def too_large(view: Json) -> bool:
    """Whether a view is above Slack's 250 kB."""
    return len(json.dumps(view, ensure_ascii=False).encode()) > VIEW_BYTES_MAX
