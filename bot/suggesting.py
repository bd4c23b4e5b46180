"""Buttons that open another operation's form, filled in, or look at a query anew. Pure.

What they carry is sealed: nobody else puts parameters under our words. The form that opens is
like any other: it is read before it is sent, planned, and agreed to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import JsonValue

from approvals.words import RefusedError, Why
from bot.blocks import Block, actions, button, context, moment
from bot.command_text import Asked
from bot.sealing import Sealer
from jobs.operation import Answer, Suggestion

SUGGEST: Final = "suggest"
LOOK_AGAIN: Final = "look_again"
ROW: Final = "suggestions"
VALUE_CHARS_MAX: Final = 2000  # Slack's limit for a button's value
BUTTONS_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An operation with its parameters, as a button carries it."""

    operation: str
    params: Mapping[str, JsonValue]
    reason: str = ""


class Suggester:
    """Seals and opens what such buttons carry."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._sealer = Sealer(keys, use=b"twokey suggestion v1", chars_max=VALUE_CHARS_MAX)

    def close(self, call: Call) -> str:
        """The value of a button.

        Raises:
            ValueError: the parameters are too long for one.
        """
        fields = [call.operation, dict(call.params), call.reason]
        return self._sealer.close(
            json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
        )

    def open(self, value: str) -> Call:
        """What a button was drawn for.

        Raises:
            RefusedError: we did not make it.
        """
        body = self._sealer.open(value)
        if body is None:
            raise RefusedError(
                "This button was not made by Twokey, or its key has been retired.",
                next_step="Ask for what it was about with /db; /db help lists everything.",
                why=Why.SIGNATURE,
            )
        operation, params, reason = json.loads(body)
        return Call(operation=operation, params=params, reason=reason)

    def buttons(self, suggestions: Iterable[Suggestion]) -> list[Block]:
        """A button for each, as many as a row takes; `actions` puts them into one."""
        drawn: list[Block] = []
        for each in suggestions:
            call = Call(operation=each.operation, params=each.params, reason=each.reason)
            try:
                value = self.close(call)
            except ValueError:
                continue  # what it needs does not fit into a button: the text says it
            drawn.append(button(each.text, action_id=f"{SUGGEST}.{len(drawn)}", value=value))
        return drawn[:BUTTONS_MAX]

    def row(self, suggestions: Iterable[Suggestion]) -> tuple[Block, ...]:
        """A row with their buttons; nothing without any."""
        buttons = self.buttons(suggestions)
        return (actions(*buttons, block_id=ROW),) if buttons else ()

    def below(self, answer: Answer, asked: Asked) -> tuple[Block, ...]:
        """What stands below an answer: what helps, a button to look again, and its age."""
        buttons = self.buttons(answer.suggestions)
        if answer.at is not None and (again := self._again(asked)) is not None:
            buttons = [*buttons[: BUTTONS_MAX - 1], again]
        row = [actions(*buttons, block_id=ROW)] if buttons else []
        if answer.at is None:
            return tuple(row)
        kept = "; it is remembered for a while" if asked.operation.is_cached else ""
        return (*row, context(f"As of {moment(answer.at)}{kept}."))

    def _again(self, asked: Asked) -> Block | None:
        """Asks the same anew; None where it is too long for a button."""
        params: Mapping[str, Any] = asked.params.model_dump(mode="json")
        try:
            value = self.close(Call(operation=asked.operation.name, params=params))
        except ValueError:
            return None
        return button("Look again", action_id=LOOK_AGAIN, value=value)
