"""What is wrong with a file as a whole: its transaction, its comments, its characters. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from postgres.migrate.review.effects import finding
from postgres.migrate.review.split import comments
from postgres.migrate.words import Finding, Level, Lock, ReviewedStatement, Work

# Characters that show people another text than the one that runs (CVE-2021-42574), and ones
# that show nothing at all.
_HIDDEN: Final = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_SILENCER: Final = "squawk"


def is_one_transaction(statements: Sequence[ReviewedStatement], *, says: bool | None) -> bool:
    """Whether the file runs as one transaction: as it says, or as its statements allow."""
    if says is not None:
        return says
    return not any(each.must_be_alone for each in statements)


def file_findings(
    sql: str,
    statements: Sequence[ReviewedStatement],
    *,
    says: bool | None,
    is_one: bool,
) -> tuple[Finding, ...]:
    """Findings that belong to no single statement, in the order of their lines."""
    found = [*_empty(statements), *_silencers(sql), *_hidden(sql)]
    if is_one:
        found += [*_alone(statements), *_two_tables(statements), *_held(statements)]
    elif says is None and len(statements) > 1:
        found += _mixed(statements)
    return tuple(sorted(found, key=lambda each: each.line))


def _empty(statements: Sequence[ReviewedStatement]) -> Iterator[Finding]:
    if not statements:
        yield _on(1, "empty-file", Level.WARNING, "There is no statement in this file.")


def _silencers(sql: str) -> Iterator[Finding]:
    if _SILENCER not in sql.lower():
        return
    for each in comments(sql):
        if _SILENCER in each.text.lower():
            text = "A comment asks the review to be silent. It is not: what it hides is below."
            yield _on(each.line, "silenced", Level.WARNING, text)


def _hidden(sql: str) -> Iterator[Finding]:
    lines = sorted({sql.count("\n", 0, m.start()) + 1 for m in _HIDDEN.finditer(sql)})
    for line in lines[:20]:
        text = "There are characters that show people another text than the one that runs."
        yield _on(line, "hidden-characters", Level.ERROR, text, "Take them out.")


def _alone(statements: Sequence[ReviewedStatement]) -> Iterator[Finding]:
    for each in statements:
        if each.must_be_alone:
            yield _on(
                each.line,
                "concurrently-in-transaction",
                Level.ERROR,
                "PostgreSQL refuses this statement inside a transaction, and the file says that "
                "it runs in one.",
                "Put it into a file of its own that says that it runs without.",
            )


def _two_tables(statements: Sequence[ReviewedStatement]) -> Iterator[Finding]:
    """The second table waits for its lock while the first one stays locked."""
    locked: set[str] = set()
    for each in statements:
        hard = {
            touch.table
            for touch in each.touched
            if touch.lock >= Lock.SHARE and touch.size_bytes is not None
        }
        if locked and hard - locked:
            yield _on(
                each.line,
                "two-tables-locked",
                Level.WARNING,
                f"While it waits for {', '.join(sorted(hard - locked))}, nobody can use "
                f"{', '.join(sorted(locked))}: two tables are locked in one transaction.",
                "Put them into files of their own.",
            )
            return
        locked |= hard


def _held(statements: Sequence[ReviewedStatement]) -> Iterator[Finding]:
    """A lock that is taken for an instant stays until the transaction ends."""
    locked: set[str] = set()
    for each in statements:
        works = [t for t in each.touched if t.work is not Work.CATALOG]
        if locked and (works or each.low_seconds is None):
            yield _on(
                each.line,
                "lock-held-meanwhile",
                Level.WARNING,
                f"{', '.join(sorted(locked))} stays locked by the statements before it while "
                "this one works through rows.",
                "Put the work through rows into a file of its own.",
            )
            return
        locked |= {
            t.table for t in each.touched if t.lock >= Lock.SHARE and t.size_bytes is not None
        }


def _mixed(statements: Sequence[ReviewedStatement]) -> Iterator[Finding]:
    first = next(each for each in statements if each.must_be_alone)
    yield _on(
        first.line,
        "not-one-transaction",
        Level.WARNING,
        "Because of this statement the file is not one transaction: where one fails, those "
        "before it stay.",
        "Put it into a file of its own.",
    )


def _on(line: int, rule: str, level: Level, text: str, help_text: str = "") -> Finding:
    return replace(finding(rule, level, text, help_text), line=line)
