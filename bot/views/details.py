"""The whole plan of a request, page by page, for who wants to read all of it. Pure."""

from __future__ import annotations

from typing import Final

from bot.blocks import (
    Block,
    actions,
    button,
    code_blocks,
    context,
    divider,
    escape,
    mention,
    modal,
    moment,
    one_line,
    section,
    sections,
)
from bot.views.card import Card
from bot.views.words import count, seconds_in_words

# 40 texts of 3000 characters stay far below the 250 kB that a view may have.
BLOCKS_PER_PAGE: Final = 40
CALLBACK_ID: Final = "details"


def details_modal(card: Card, *, token: str, page: int = 0) -> Block:
    """Page `page` (from 0) of the plan; a number outside shows the nearest page."""
    content = _content(card)
    pages_count = -(-len(content) // BLOCKS_PER_PAGE)
    page = max(0, min(page, pages_count - 1))
    shown = content[page * BLOCKS_PER_PAGE : (page + 1) * BLOCKS_PER_PAGE]
    return modal(
        f"Request {card.request_id}",
        [*shown, *_turning(page, pages_count)],
        callback_id=CALLBACK_ID,
        private_metadata=token,
    )


def _turning(page: int, pages_count: int) -> list[Block]:
    if pages_count == 1:
        return []
    back = button("Back", action_id="page_back", value=str(page - 1))
    further = button("Next", action_id="page_next", value=str(page + 1))
    row = [*([back] if page else []), *([further] if page + 1 < pages_count else [])]
    return [
        divider(),
        context(f"Page {page + 1} of {pages_count}"),
        actions(*row, block_id="pages"),
    ]


def _content(card: Card) -> list[Block]:
    plan = card.plan
    facts = [f"*{one_line(name)}:* {escape(value)}" for name, value in plan.facts]
    pins = [f"*{one_line(name)}:* `{one_line(value)}`" for name, value in sorted(plan.pins.items())]
    steps = [f"{number}. {escape(step)}" for number, step in enumerate(plan.steps, 1)]
    statements = "\n".join(f"{statement.rstrip().rstrip(';')};" for statement in plan.statements)
    return [
        *sections(f"*{escape(plan.title)}*"),
        *_titled("Why", [escape(card.reason)] if card.reason else []),
        *_titled("Facts", facts),
        *_titled("Steps", steps),
        *([section("*Statements*"), *code_blocks(statements)] if statements else []),
        *_titled("Warnings", [f"⚠️ {escape(warning)}" for warning in plan.warnings]),
        *_titled("Must still hold when it starts", pins),
        *_titled("Undo", [escape(plan.undo) if plan.undo else "There is none."]),
        *_titled("Estimate", [seconds_in_words(plan.estimate_seconds)]),
        *_titled("Who must agree", _gates(card)),
        *_titled("Votes", _votes(card)),
    ]


def _titled(title: str, lines: list[str]) -> list[Block]:
    return sections("\n".join([f"*{title}*", *lines])) if lines else []


def _gates(card: Card) -> list[str]:
    return [
        f"{one_line(gate.who)}: {count(gate.need, 'approval')}, {len(gate.have)} so far"
        for gate in card.gates
    ] or [f"Nobody: the rule {one_line(card.rule)} says so."]


def _votes(card: Card) -> list[str]:
    return [
        f"{mention(vote.who)} · {vote.verdict} · {moment(vote.at)}"
        + (f" · {one_line(vote.reason)}" if vote.reason else "")
        for vote in card.votes
    ]
