"""A form for any operation, made of its `Params`; and what was entered, as `Params` again. Pure.

Nothing here knows an operation: a new one has its form by being there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from bot.blocks import (
    VIEW_BLOCKS_MAX,
    Block,
    context,
    escape,
    modal,
    neutralise,
    one_line,
    section,
    shorten,
)
from bot.command_text import REASON
from bot.elements import DatabaseName, asking, hint_of
from bot.entries import read
from bot.fields import MISSING, FormField, fields_of
from jobs.operation import Kind, Operation

CALLBACK_ID: Final = "form"
REASON_BLOCK: Final = "reason"
REASON_ACTION: Final = "text"
REASON_CHARS_MAX: Final = 1000
_PREFIX: Final = "param."
_TEXT_CHARS_MAX: Final = 2000  # a label, a hint
_ERROR_CHARS_MAX: Final = 300
_BESIDES: Final = 5  # blocks that are no fields

State = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What a form remembers in its view: of what it is, and which request it repeats."""

    operation: str
    again: int = 0
    channel: str = ""

    def text(self) -> str:
        """As private metadata."""
        return json.dumps([self.operation, self.again, self.channel], separators=(",", ":"))

    @staticmethod
    def of(text: str) -> Meta:
        """What `text` wrote."""
        operation, again, channel = json.loads(text)
        return Meta(operation=str(operation), again=int(again), channel=str(channel))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """What somebody sent. `errors` are by block; without any, `params` is there."""

    values: Mapping[str, Any]
    reason: str
    params: BaseModel | None
    errors: Mapping[str, str]


def form_view(
    operation: Operation,
    databases: Sequence[DatabaseName],
    *,
    meta: Meta,
    values: Mapping[str, Any] | None = None,
    reason: str = "",
    problem: str = "",
    note: str = "",
) -> Block:
    """The modal that asks for an operation.

    `values` stand in the fields first: texts that somebody typed, or stored parameters.
    `problem` is why what was sent last did not do; `note` is said above the fields.
    """
    fields = fields_of(operation.params)
    if len(fields) > VIEW_BLOCKS_MAX - _BESIDES:
        raise ValueError(f"{operation.name} has {len(fields)} parameters, too many for a form")
    blocks: list[Block] = [
        *([section(f"⚠️ {escape(problem)}", block_id="problem")] if problem else []),
        context(_about(operation, note)),
    ]
    left_out: list[str] = []
    for field in fields:
        asked = asking(field, (values or {}).get(field.name, field.default), databases)
        blocks.append(_input(field, asked.element))
        left_out += [asked.left_out] if asked.left_out else []
    if _asks_why(operation):
        blocks.append(_why(reason))
    if left_out:
        blocks.append(context(escape(" ".join(left_out))))
    return modal(
        f"/db {operation.name}",
        blocks,
        callback_id=CALLBACK_ID,
        submit="Ask for it" if operation.kind is Kind.CHANGE else "Look",
        close="Back",
        private_metadata=meta.text(),
    )


def entered(operation: Operation, state: State) -> Entered:
    """What was entered into a form of `form_view`, checked by the model."""
    fields = {field.name: field for field in fields_of(operation.params)}
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, field in fields.items():
        try:
            value = read(field, _only(state.get(block_of(name)) or {}))
        except (ValueError, OverflowError) as error:
            errors[block_of(name)] = _shown(str(error))
            continue
        if value is not MISSING:
            values[name] = value
    reason = _only(state.get(REASON_BLOCK) or {}).get("value") or ""
    params: BaseModel | None = None
    if not errors:
        try:
            params = operation.params.model_validate(values)
        except ValidationError as error:
            errors = _errors(error, list(fields))
    return Entered(
        values=values, reason=str(reason).strip(), params=None if errors else params, errors=errors
    )


def block_of(name: str) -> str:
    """The block in which a parameter is asked for."""
    return f"{_PREFIX}{name}"


def first_block(operation: Operation) -> str:
    """Where an error stands that belongs to no field."""
    names = list(operation.params.model_fields)
    return block_of(names[0]) if names else REASON_BLOCK


def _asks_why(operation: Operation) -> bool:
    return operation.kind is Kind.CHANGE and REASON not in operation.params.model_fields


def _about(operation: Operation, note: str) -> str:
    what = one_line(operation.summary)
    if operation.kind is Kind.CHANGE:
        what += ". Who must agree is said on its card, and nothing happens before."
    return f"{what}\n{escape(note)}" if note else what


def _input(field: FormField, element: Block) -> Block:
    hint = hint_of(field)
    block: dict[str, Any] = {
        "type": "input",
        "block_id": block_of(field.name),
        "label": _plain(shorten(neutralise(field.label), _TEXT_CHARS_MAX)),
        "element": element,
        "optional": field.may_be_left_empty,
    }
    return block | ({"hint": _plain(shorten(neutralise(hint), _TEXT_CHARS_MAX))} if hint else {})


def _why(reason: str) -> Block:
    element: dict[str, Any] = {
        "type": "plain_text_input",
        "action_id": REASON_ACTION,
        "multiline": True,
        "max_length": REASON_CHARS_MAX,
    }
    if reason:
        element["initial_value"] = reason[:REASON_CHARS_MAX]
    return {
        "type": "input",
        "block_id": REASON_BLOCK,
        "label": _plain("Why"),
        "hint": _plain("It stands on the card and is kept in the audit."),
        "optional": True,
        "element": element,
    }


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": False}


def _only(entry: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The one element's part of a block's state."""
    return next(iter(entry.values()), {})


def _errors(error: ValidationError, names: Sequence[str]) -> dict[str, str]:
    """The model's complaints by block; what belongs to no field stands at the first."""
    found: dict[str, str] = {}
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(one["loc"][0]) if one["loc"] else ""
        where = name if name in names else next(iter(names), "")
        block = block_of(where) if where else REASON_BLOCK
        inner = " ".join(f"{part}:" for part in one["loc"][1:] if isinstance(part, int))
        text = one["msg"].removeprefix("Value error, ").rstrip(".")
        said = f"{inner} {text}.".strip() if name in names or not name else f"{name}: {text}."
        found[block] = _shown(f"{found[block]} {said}" if block in found else said)
    return found


def _shown(text: str) -> str:
    return shorten(neutralise(text), _ERROR_CHARS_MAX)
