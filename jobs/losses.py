"""What a recovery would lose: everything that was committed after its target. Pure.

Counted from what the server said of itself before and after the target (`Mark`), so it is a
bound, or exact where target and mark coincide, and unknown where there is no mark. Nothing
is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import assert_never

from jobs.text import span_text
from postgres.backup.facts import BackupFacts
from postgres.backup.wal_names import lsn_number
from postgres.restore.target import RecoveryTarget
from postgres.restore.window import Mark
from postgres.sizes import pretty_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """At least `low`; at most `high`, or nobody knows."""

    low: int
    high: int | None

    def words(self, say: Callable[[int], str], *, more: str = "") -> str:
        """As people say it: "between 3 and 5 rows", with " rows" for `more`."""
        match self.low, self.high:
            case 0, None:
                return f"an unknown number of{more}" if more else "an unknown amount"
            case low, None:
                return f"at least {say(low)}{more}"
            case low, high if low == high:
                return f"{say(low)}{more}"
            case 0, high:
                return f"at most {say(high)}{more}"
            case low, high:
                return f"between {say(low)} and {say(high)}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """What stands after a target: transactions by their ids, and WAL in bytes.

    `span` is from the target to now; None where the target is no moment and no mark places it.
    """

    transactions: Bounds
    wal_bytes: Bounds
    span: timedelta | None
    is_nothing: bool = False

    def words(self) -> str:
        """What it comes to, as the middle of a sentence."""
        if self.is_nothing:
            return "nothing that was archived"
        if self.transactions.high is None and self.wal_bytes.high is None and self.span is None:
            return "nobody knows how much: no mark of this database tells where the target lies"
        return ", ".join(_parts(self))


NOTHING = Losses(
    transactions=Bounds(low=0, high=0), wal_bytes=Bounds(low=0, high=0),
    span=timedelta(0), is_nothing=True,
)  # fmt: skip


def losses(
    target: RecoveryTarget,
    backup: BackupFacts,
    marks: Sequence[Mark],
    *,
    stand: Mark | None,
    now: datetime,
) -> Losses:
    """What was committed after `target`, up to where the server stands, `stand`.

    `marks` are on the way to the server's timeline, in the order of time. `stand` None: the
    server cannot be asked, and the last mark is the least that it reached.
    """
    if target.kind == "latest":
        return NOTHING
    before = list(takewhile(lambda mark: _reaches(target, backup, mark), marks))
    after = marks[len(before)] if len(before) < len(marks) else None
    low, last = before[-1] if before else None, stand or (marks[-1] if marks else None)
    return Losses(
        transactions=_transactions(target, low, after, last, is_known=stand is not None),
        wal_bytes=_wal(target, backup, low, after, last, is_known=stand is not None),
        span=_span(target, backup, now),
    )


def _parts(found: Losses) -> list[str]:
    noun = " transaction" if found.transactions.high == 1 else " transactions"
    parts = [
        found.transactions.words(lambda count: f"{count:,}", more=noun),
        f"{found.wal_bytes.words(pretty_bytes)} of WAL",
    ]
    return parts if found.span is None else [*parts, f"in {span_text(found.span)}"]


def _reaches(target: RecoveryTarget, backup: BackupFacts, mark: Mark) -> bool:
    """Whether a recovery to the target gets at least to this mark."""
    match target.kind:
        case "time":
            return target.at is not None and mark.at <= target.at
        case "lsn":
            return lsn_number(mark.lsn) <= lsn_number(target.value)
        case "xid":
            return mark.next_xid is not None and mark.next_xid <= int(target.value)
        case "end":
            return lsn_number(mark.lsn) <= lsn_number(backup.end_lsn)
        case "point":
            # Somewhere after the backup's end.
            return lsn_number(mark.lsn) <= lsn_number(backup.end_lsn)
        case "latest":
            return True
        case _:
            assert_never(target.kind)


def _transactions(
    target: RecoveryTarget, before: Mark | None, after: Mark | None, last: Mark | None,
    *, is_known: bool,
) -> Bounds:  # fmt: skip
    if last is None or last.next_xid is None:
        return Bounds(low=0, high=None)
    if target.kind == "xid":
        count = max(0, last.next_xid - 1 - int(target.value) + target.is_before)
        return Bounds(low=count, high=count if is_known else None)
    return _between(
        None if target.kind == "point" or after is None else after.next_xid,
        None if before is None else before.next_xid,
        last.next_xid,
        is_known=is_known,
    )


def _wal(
    target: RecoveryTarget, backup: BackupFacts, before: Mark | None, after: Mark | None,
    last: Mark | None, *, is_known: bool,
) -> Bounds:  # fmt: skip
    if last is None:
        return Bounds(low=0, high=None)
    exact = {"lsn": target.value, "end": backup.end_lsn}.get(target.kind)
    at = None if exact is None else lsn_number(exact)
    # No recovery ends before its backup does.
    early = at if at is not None else lsn_number(before.lsn if before else backup.end_lsn)
    late = None if target.kind == "point" or after is None else lsn_number(after.lsn)
    return _between(at if at is not None else late, early, lsn_number(last.lsn), is_known=is_known)


def _between(late: int | None, early: int | None, last: int, *, is_known: bool) -> Bounds:
    """From a place that lies between `early` and `late` to `last`, or further."""
    low = 0 if late is None else max(0, last - late)
    return Bounds(low=low, high=max(low, last - early) if early is not None and is_known else None)


def _span(target: RecoveryTarget, backup: BackupFacts, now: datetime) -> timedelta | None:
    match target.kind:
        case "time":
            return None if target.at is None else now - target.at
        case "end":
            return now - backup.ended_at
        case "latest":
            return timedelta(0)
        case "lsn" | "xid" | "point":
            return None
        case _:
            assert_never(target.kind)
