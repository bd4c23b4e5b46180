"""A digest as the message of a manager: to be understood in ten seconds. Pure.

From above: how it is in one sentence, what needs a decision, the numbers, a picture for a
slide, and a line for each database. Every status is said in words; marks only help the eye.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bot.blocks import (
    MESSAGE_TEXT_CHARS_MAX,
    Block,
    Message,
    code_blocks,
    context,
    escape,
    fields,
    header,
    section,
    shorten,
    table,
)
from bot.views.chart import chart_blocks, native
from jobs.digest import Digest
from jobs.digest_words import ROWS_MAX, decisions, rows, sentence, tiles
from jobs.health_status import Status

_MARKS: Final[Mapping[Status, str]] = {
    Status.CRITICAL: "🔴",
    Status.WARNING: "🟠",
    Status.UNKNOWN: "⚪",
    Status.HEALTHY: "🟢",
}


def digest_message(digest: Digest) -> Message:
    """A digest, whole."""
    said, needs = sentence(digest), decisions(digest)
    return Message(
        text=shorten(escape(_spoken(digest)), MESSAGE_TEXT_CHARS_MAX),
        blocks=(
            header(digest.title, mark=_MARKS[digest.status]),
            section(f"*{escape(said)}*"),
            section(_decisions(needs)),
            *fields(tiles(digest)),
            *chart_blocks(digest.charts),
            *_rows(digest),
            context(
                f"{digest.span}, compared with {digest.period.before}. At any time: "
                f"`/db digest`, `/db health`, `/db readiness`"
            ),
        ),
        charts=native(digest.charts),
    )


def _decisions(needs: tuple[str, ...]) -> str:
    if not needs:
        return "Nothing needs a decision."
    lines = [f"{number}. {escape(text)}" for number, text in enumerate(needs, start=1)]
    return "\n".join(("*Needs a decision*", *lines))


def _rows(digest: Digest) -> list[Block]:
    found = rows(digest)
    if found is None:
        return []
    rest = len(digest.databases) - ROWS_MAX
    return [
        *code_blocks(table(found.columns, found.rows)),
        *([context(f"…and {rest} more that are no worse.")] if rest > 0 else []),
    ]


def _spoken(digest: Digest) -> str:
    """All of it in words: notifications, screen readers, and where blocks are refused."""
    lines = [
        f"{digest.title}. {sentence(digest)}",
        *decisions(digest),
        *(f"{name}: {value}" for name, value in tiles(digest)),
        *(chart.alt for chart in digest.charts),
    ]
    return "\n".join(lines)
