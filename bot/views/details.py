"""The whole plan of a request, page by page, for who wants to read all of it. Pure.

The plan's pages depend on nothing but the plan, so that a page which somebody has opened
stays the page that it was. Who has voted stands behind them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pydantic import TypeAdapter

from approvals.words import Care
from bot.blocks import (
    Block,
    actions,
    button,
    code,
    code_blocks,
    context,
    divider,
    mention,
    modal,
    moment,
    one_line,
    quoted,
    section,
    sections,
)
from bot.views.card import Card
from bot.views.words import count, seconds_in_words
from jobs.operation import Plan

BLOCKS_PER_PAGE: Final = 40
# A view may have 250 kB; what is around a page needs little of that.
PAGE_BYTES_MAX: Final = 120_000
CALLBACK_ID: Final = "details"
PLAN: Final = TypeAdapter(Plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What of a plan's pages (from 0) somebody has opened, the one that is shown included."""

    opened: frozenset[int] = frozenset()
    is_asked: bool = False  # an approval counts only when every page was opened


def plan_pages(card: Card) -> Sequence[Sequence[Block]]:
    """The pages of the plan; together they hold every character of it, in order."""
    return _drawn(json.dumps([card.reason, card.params, PLAN.dump_python(card.plan)]))


@lru_cache(maxsize=8)  # whoever turns the pages of a long plan asks for the same ones
def _drawn(text: str) -> Sequence[Sequence[Block]]:
    reason, params, plan = json.loads(text)
    return _paged(_plan(reason, params, PLAN.validate_python(plan)))


def details_modal(
    card: Card, *, token: str, page: int = 0, reading: Reading | None = None
) -> Block:
    """Page `page` (from 0) of the plan and what follows it; outside, the nearest page."""
    plan, votes = plan_pages(card), _votes(card)
    all_pages = _with_votes(plan, votes)
    page = max(0, min(page, len(all_pages) - 1))
    shown = [*all_pages[page], *_read(reading, len(plan)), *_turning(page, len(plan), all_pages)]
    return modal(
        f"Request {card.request_id}", shown, callback_id=CALLBACK_ID, private_metadata=token
    )


def _with_votes(
    plan: Sequence[Sequence[Block]], votes: Sequence[Block]
) -> Sequence[Sequence[Block]]:
    """The votes on the plan's last page where they fit, else on pages of their own."""
    last = [*plan[-1], *votes]
    if len(last) <= BLOCKS_PER_PAGE and _size(last) <= PAGE_BYTES_MAX:
        return [*plan[:-1], last]
    return [*plan, *_paged(votes)]


def _read(reading: Reading | None, pages: int) -> list[Block]:
    if reading is None or not reading.is_asked:
        return []
    missing = [page + 1 for page in range(pages) if page not in reading.opened]
    if not missing:
        return [context(f"☑ You have opened every page of the plan: {pages} of {pages}.")]
    names = ", ".join(map(str, missing[:20])) + (" …" if len(missing) > 20 else "")  # noqa: PLR2004
    return [
        context(
            f"☐ You have opened {pages - len(missing)} of {count(pages, 'page')}. "
            f"An approval counts when all were: still page {names}."
        )
    ]


def _turning(page: int, plan_count: int, all_pages: Sequence[object]) -> list[Block]:
    if len(all_pages) == 1:
        return []
    back = button("Back", action_id="page_back", value=str(page - 1))
    further = button("Next", action_id="page_next", value=str(page + 1), style="primary")
    row = [*([back] if page else []), *([further] if page + 1 < len(all_pages) else [])]
    where = (
        f"Page {page + 1} of {plan_count}"
        if page < plan_count
        else f"Votes, page {page - plan_count + 1} of {len(all_pages) - plan_count}"
    )
    return [divider(), context(where), actions(*row, block_id="pages")]


def _plan(reason: str, params: Sequence[tuple[str, str]], plan: Plan) -> Iterable[Block]:
    yield from sections(f"*{one_line(plan.title)}*" if "\n" not in plan.title else "*Title*")
    if "\n" in plan.title:
        yield from sections(quoted(plan.title).removeprefix("\n"))
    yield from _titled("Asked for", _named(params))
    yield from _titled("Why", [quoted(reason).removeprefix("\n")] if reason else [])
    yield from _titled("Facts", _named(plan.facts))
    yield from _titled(
        "Steps", [f"{number}. {quoted(step)}" for number, step in enumerate(plan.steps, 1)]
    )
    if plan.statements:
        yield section("*Statements*")
        yield from code_blocks("\n".join(plan.statements))
    yield from _titled("Warnings", [f"⚠️ {quoted(warning)}" for warning in plan.warnings])
    yield from _titled(
        "Must still hold when it starts",
        [f"*{one_line(name)}*: {_value(value)}" for name, value in sorted(plan.pins.items())],
    )
    yield from _titled("Rules looked at", _named(sorted(plan.attributes.items())))
    yield from _titled(
        "Undo", [quoted(plan.undo).removeprefix("\n") if plan.undo else "There is none."]
    )
    yield from _titled("Estimate", [seconds_in_words(plan.estimate_seconds)])


def _named(facts: Iterable[tuple[str, object]]) -> list[str]:
    return [f"*{one_line(name)}*: {quoted(str(value))}" for name, value in facts]


def _value(value: str) -> str:
    return quoted(value) if "\n" in value else code(value)


def _votes(card: Card) -> list[Block]:
    gates = [
        f"{one_line(gate.who)}: {count(gate.need, 'approval')}, {len(gate.have)} so far"
        for gate in card.gates
    ] or [f"Nobody: the rule {one_line(card.rule)} says so."]
    votes = [
        f"{mention(vote.who)} · {vote.verdict} · {moment(vote.at)}"
        + (f" · {one_line(vote.reason)}" if vote.reason else "")
        for vote in card.votes
    ]
    needs = [f"• {need}" for need in care_lines(card.care)]
    return [
        *_titled("Who must agree", gates),
        *_titled("Approving needs", needs),
        *_titled("Votes", votes),
    ]


def care_lines(care: Iterable[Care]) -> list[str]:
    """What an approval demands besides the decision, in the order in which it is asked for."""
    words = {
        Care.READ: "every page of Details opened",
        Care.NAMED: "the database's name typed",
        Care.STEP_UP: "a code of your second factor (`/db mfa`)",
    }
    asked = set(care)
    return [words[each] for each in Care if each in asked]


def _titled(title: str, lines: Sequence[str]) -> list[Block]:
    return sections("\n".join([f"*{title}*", *lines])) if lines else []


def _paged(content: Iterable[Block]) -> list[list[Block]]:
    """Blocks in pages that Slack takes, by their number and by their bytes."""
    pages: list[list[Block]] = [[]]
    filled = 0
    for block in content:
        size = _size([block])
        page = pages[-1]
        if page and (len(page) >= BLOCKS_PER_PAGE or filled + size > PAGE_BYTES_MAX):
            pages.append([])
            filled = 0
        pages[-1].append(block)
        filled += size
    return pages


def _size(blocks: Sequence[Block]) -> int:
    # As ASCII, which is the longest way in which a client may write it.
    return len(json.dumps([dict(block) for block in blocks]))
