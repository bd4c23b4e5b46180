"""Findings of squawk, each at the statement that it is about."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from postgres.migrate.review.split import Piece, blanked, comments
from postgres.migrate.review.squawk import SYNTAX, Remark, lint
from postgres.migrate.words import Finding, Level

# Statements that squawk cannot read are emptied, one round after the other.
ROUNDS_MAX: Final = 10
REMARKS_MAX: Final = 1_000
# squawk's rule, and ours that says the same knowing the table's size, with the safe SQL.
SAID_BETTER: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "adding-field-with-default": frozenset({"adds-column-rewriting"}),
        "adding-foreign-key-constraint": frozenset({"foreign-key-scans"}),
        "adding-not-nullable-field": frozenset({"set-not-null-scans", "required-column"}),
        "adding-required-field": frozenset({"required-column"}),
        "adding-serial-primary-key-field": frozenset({"constraint-builds-index"}),
        "ban-drop-column": frozenset({"drops-column"}),
        "ban-drop-constraint": frozenset({"drops-constraint"}),
        "ban-drop-database": frozenset({"outside-database"}),
        "ban-drop-schema": frozenset({"drops-schema"}),
        "ban-drop-sequence": frozenset({"drops-sequence"}),
        "ban-drop-table": frozenset({"drops-table"}),
        "ban-truncate-cascade": frozenset({"truncates"}),
        "changing-column-type": frozenset({"changes-type"}),
        "constraint-missing-not-valid": frozenset({"foreign-key-scans", "check-scans"}),
        "disallowed-unique-constraint": frozenset({"constraint-builds-index"}),
        "renaming-column": frozenset({"renames"}),
        "renaming-table": frozenset({"renames"}),
        "renaming-object": frozenset({"renames"}),
        "require-concurrent-index-creation": frozenset({"index-blocks-writes"}),
        "require-concurrent-index-deletion": frozenset({"drops-index-blocking"}),
        "require-concurrent-partition-detach": frozenset({"detach-blocks"}),
        "require-concurrent-reindex": frozenset({"reindex-blocks"}),
    }
)


async def remarks(
    sql: str, pieces: Sequence[Piece], *, major: int, in_transaction: bool
) -> tuple[tuple[Finding, int | None], ...]:
    """Findings of squawk with the index of their statement (None: of the file).

    Comments are emptied first, so that none of them can silence a rule.

    Raises:
        PostgresError: as `squawk.lint`.
    """
    text = await asyncio.to_thread(_without_comments, sql)
    places = _Places(sql, pieces)
    unread: dict[int, Finding] = {}
    for _ in range(ROUNDS_MAX):
        said = await lint(text, major=major, in_transaction=in_transaction)
        failed = {places.index_of(each): each for each in said if each.finding.rule == SYNTAX}
        if not failed:
            return (*_bounded(said, places), *((f, index) for index, f in unread.items()))
        known = {index: each for index, each in failed.items() if index is not None}
        if len(known) < len(failed) or known.keys() & unread.keys():
            break
        unread |= {index: _unread(each, pieces[index].line) for index, each in known.items()}
        text = blanked(text, sorted((pieces[i].start, pieces[i].stop) for i in known))
    return ((_unread(None, 1), None),)


def softened(finding: Finding, ours: Sequence[Finding]) -> Finding:
    """A note where ours says the same with the size of the table and the safe SQL. Pure."""
    better = SAID_BETTER.get(finding.rule, frozenset())
    if finding.source == "squawk" and any(each.rule in better for each in ours):
        return replace(finding, level=Level.NOTE)
    return finding


def _without_comments(sql: str) -> str:
    if "squawk" not in sql.lower():
        return sql  # no comment can be meant for it
    return blanked(sql, [(each.start, each.stop) for each in comments(sql)])


class _Places:
    """From squawk's lines and bytes to statements."""

    def __init__(self, sql: str, pieces: Sequence[Piece]) -> None:
        self._lines = sql.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._pieces = pieces
        self._begins = [each.start for each in pieces]

    def index_of(self, remark: Remark) -> int | None:
        """The statement that it is about: the one it stands in, or that ended just before."""
        if remark.line >= len(self._lines):
            return len(self._pieces) - 1 if self._pieces else None
        before = self._lines[remark.line].encode()[: remark.column]
        at = self._starts[remark.line] + len(before.decode(errors="ignore"))
        index = bisect_right(self._begins, at) - 1
        return max(index, 0) if self._pieces else None


def _bounded(said: Sequence[Remark], places: _Places) -> list[tuple[Finding, int | None]]:
    found = [(each.finding, places.index_of(each)) for each in said[:REMARKS_MAX]]
    if len(said) > REMARKS_MAX:
        text = f"squawk has {len(said) - REMARKS_MAX:,} more findings than are shown here."
        more = Finding(rule="more-findings", level=Level.WARNING, text=text, line=1)
        return [*found, (more, None)]
    return found


def _unread(remark: Remark | None, line: int) -> Finding:
    what = "this file" if remark is None else "this statement"
    text = f"squawk cannot read {what}; PostgreSQL's own parser can. The rest of the review holds."
    return Finding(rule="squawk-unread", level=Level.WARNING, text=text, line=line)
