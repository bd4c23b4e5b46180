"""What a query found or a change brought, and how far a run is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bot.blocks import (
    MESSAGE_BLOCKS_MAX,
    MESSAGE_TEXT_CHARS_MAX,
    Block,
    Message,
    code_blocks,
    context,
    escape,
    fields,
    one_line,
    section,
    sections,
    shorten,
    table,
    titled,
)
from bot.views.chart import CHART_BLOCK, chart_blocks, native
from jobs.operation import Answer

_ROWS_MAX: Final = 100
_BAR_CELLS: Final = 20
_TEXT_LINES_MAX: Final = 20


def answer_message(answer: Answer, *, below: Sequence[Block] = ()) -> Message:
    """An answer in full; a table longer than a screenful says how many rows are left out.

    `below`: what stands at its end whatever its length, such as buttons.
    """
    blocks: list[Block] = [
        *titled(answer.title),
        *(sections("\n".join(escape(line) for line in answer.lines)) if answer.lines else []),
        *(code_blocks("\n".join(answer.statements)) if answer.statements else []),
        *fields(answer.facts),
        *chart_blocks(answer.charts),
        *_table(answer),
    ]
    room = MESSAGE_BLOCKS_MAX - len(below)
    if len(blocks) > room:
        left_out = len(blocks) - room + 1
        blocks = [
            *blocks[: room - 1],
            context(f"…and {left_out} more parts. Ask for less at once."),
        ]
    drawn = sum(block["type"] == CHART_BLOCK for block in blocks)
    return Message(
        text=_spoken(answer),
        blocks=(*blocks, *below),
        charts=native(answer.charts)[:drawn],
    )


def looking_message(what: str) -> Message:
    """Said while a look takes longer than Slack waits."""
    text = f"Looking at {one_line(what)}. The answer follows here, in less than a minute."
    return Message(text=text, blocks=(section(f"⏳ {text}"),))


def planning_message(what: str) -> Message:
    """Said while a plan takes longer than Slack waits."""
    text = f"Planning it for {one_line(what)}. The card follows, in less than a minute."
    return Message(text=text, blocks=(section(f"⏳ {text}"),))


def progress_message(text: str, fraction: float | None) -> Message:
    """How far a run is: one line and a bar."""
    if fraction is None:
        return Message(
            text=shorten(escape(text), MESSAGE_TEXT_CHARS_MAX), blocks=(section(escape(text)),)
        )
    share = min(max(fraction, 0.0), 1.0)
    full = round(share * _BAR_CELLS)
    bar = f"`{'█' * full}{'░' * (_BAR_CELLS - full)}` {share:.0%}"
    return Message(
        text=f"{escape(text)} ({share:.0%})", blocks=(section(f"{escape(text)}\n{bar}"),)
    )


def note_message(text: str, kind: str) -> Message:
    """A message in a card's thread or to one person; `kind` picks the mark in front."""
    mark = {"warning": "⚠️ ", "alarm": "🚨 ", "done": "✅ ", "failed": "❌ "}.get(kind, "")
    shown = sections(f"{mark}{escape(text)}")
    if len(shown) > MESSAGE_BLOCKS_MAX:
        rest = len(shown) - MESSAGE_BLOCKS_MAX + 1
        shown = [*shown[: MESSAGE_BLOCKS_MAX - 1], context(f"…and {rest} more parts.")]
    return Message(
        text=shorten(f"{mark}{escape(text)}", MESSAGE_TEXT_CHARS_MAX), blocks=tuple(shown)
    )


def _table(answer: Answer) -> list[Block]:
    if answer.table is None:
        return []
    rows = answer.table.rows[:_ROWS_MAX]
    rest = len(answer.table.rows) - len(rows)
    return [
        *code_blocks(table(answer.table.columns, rows)),
        *([context(f"…and {rest} more rows.")] if rest else []),
    ]


def _spoken(answer: Answer) -> str:
    lines = [
        answer.title,
        *answer.lines,
        *(f"{name}: {value}" for name, value in answer.facts),
        *(f"{chart.title}: {chart.alt}" for chart in answer.charts),
    ]
    spoken = "\n".join(escape(line) for line in lines[:_TEXT_LINES_MAX])
    if (rest := len(lines) - _TEXT_LINES_MAX) > 0:
        spoken += f"\n…and {rest} more lines."
    return shorten(spoken, MESSAGE_TEXT_CHARS_MAX)
