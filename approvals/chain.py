"""A chain of audit entries, and what is wrong with one. Pure; needs nothing but Python.

Each entry's hash covers its content and the hash of the entry before it. So an edit, a
removal in the middle, an insertion and a swap show in the entries alone. That a chain's end
was cut off, or that a chain was made anew, shows only against heads that were kept
elsewhere: see `approvals.anchors`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from approvals.plans import canonical
from approvals.words import BadInputError

GENESIS: Final = "0" * 64
# What a hash joins with line breaks. `detail` is JSON on one line.
_ON_ONE_LINE: Final = ("chain", "actor", "action", "database")
_TEXTS: Final = (*_ON_ONE_LINE, "at", "prev_hash", "hash")
_NAMES: Final = frozenset({*_TEXTS, "seq", "request_id", "detail"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the audit. `detail` is JSON; `at` is aware."""

    chain: str
    seq: int
    at: datetime
    actor: str
    action: str
    request_id: int | None
    database: str
    detail: Mapping[str, Any]
    prev_hash: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a chain ends, as the database or an anchor outside of it remembers."""

    chain: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong in a chain, at or just before the entry `seq`; 0: not of one entry."""

    chain: str
    seq: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a set of entries claims to be, and so what can be expected of it.

    `starts`: every chain begins with its first entry. `linked`: no entry of a chain is left
    out between two others. `ends`: every chain goes on to its end. `chain`: only this one.
    """

    starts: bool = True
    linked: bool = True
    ends: bool = True
    chain: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self == WHOLE


WHOLE: Final = Scope()


@dataclass(slots=True)
class _Seen:
    """What must be remembered of a chain: as much for one entry as for a million."""

    first: int
    seq: int
    hash: str
    top: int
    anchored: int = 0


@dataclass(slots=True, kw_only=True)
class Verifier:
    """Looks at entries one by one, in memory that grows with the chains, not the entries.

    `heads` were kept elsewhere. `remembered` is what stands beside the entries, where whoever
    changes them can change it too.
    """

    heads: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    remembered: Mapping[str, Head] = field(default_factory=dict)
    scope: Scope = WHOLE
    entries: int = 0
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def check(self, entry: Entry) -> Iterator[Finding]:
        """What is wrong with this entry, or between it and the one before it."""
        self.entries += 1
        seen = self._seen.get(entry.chain)
        for problem in (*self._place(entry, seen), *self._content(entry)):
            yield Finding(chain=entry.chain, seq=entry.seq, problem=problem)
        anchored = entry.seq if entry.seq in self.heads.get(entry.chain, ()) else 0
        if seen is None:
            self._seen[entry.chain] = _Seen(
                first=entry.seq, seq=entry.seq, hash=entry.hash, top=entry.seq, anchored=anchored
            )
            return
        seen.seq, seen.hash = entry.seq, entry.hash
        seen.top, seen.anchored = max(seen.top, entry.seq), max(seen.anchored, anchored)

    def end(self) -> Iterator[Finding]:
        """What is missing when no entry comes any more."""
        for chain in sorted(self.heads.keys() | self.remembered.keys()):
            if not self._expects(chain):
                continue
            seen, reaches = self._seen.get(chain), self._reaches(chain)
            if seen is None and reaches:
                problem = f"the whole chain is missing: it should reach {reaches}"
                yield Finding(chain=chain, seq=1, problem=problem)
            elif seen is not None and seen.top < reaches:
                problem = f"the chain was cut: it ends at {seen.top} and should reach {reaches}"
                yield Finding(chain=chain, seq=seen.top + 1, problem=problem)

    def unanchored(self) -> Mapping[str, tuple[int, int]]:
        """Of each chain the first and last entry that no head is known of, if there are any."""
        return {
            chain: (max(seen.anchored + 1, seen.first), seen.top)
            for chain, seen in sorted(self._seen.items())
            if seen.anchored < seen.top
        }

    def ends(self) -> list[Head]:
        """Where the chains end that were seen."""
        return [
            Head(chain=chain, seq=seen.seq, hash=seen.hash)
            for chain, seen in sorted(self._seen.items())
        ]

    def _reaches(self, chain: str) -> int:
        known = self.remembered.get(chain)
        return max(max(self.heads.get(chain, ()), default=0), known.seq if known else 0)

    def _kept(self, entry: Entry) -> str | None:
        """The hash that is known of this entry from elsewhere."""
        kept = self.heads.get(entry.chain, {}).get(entry.seq)
        known = self.remembered.get(entry.chain)
        return kept or (known.hash if known and known.seq == entry.seq else None)

    def _expects(self, chain: str) -> bool:
        scope = self.scope
        return scope.ends and scope.linked and scope.chain in (None, chain)

    def _place(self, entry: Entry, seen: _Seen | None) -> Iterator[str]:
        if self.scope.chain not in (None, entry.chain):
            yield f"the export says that it holds only the chain {self.scope.chain!r}"
        if seen is None and not (self.scope.starts and self.scope.linked):
            return
        expected = seen.seq + 1 if seen else 1
        if not self.scope.linked:
            if entry.seq < expected:
                yield _backwards(entry, expected)
            return
        if entry.seq > expected:
            is_one = entry.seq - 1 == expected
            which = (
                f"entry {expected} is" if is_one else f"entries {expected} to {entry.seq - 1} are"
            )
            yield f"{which} missing"
        elif entry.seq < expected:
            yield _backwards(entry, expected)
        elif entry.prev_hash != (seen.hash if seen else GENESIS):
            yield "it does not follow the entry before it: one of them was replaced"

    def _content(self, entry: Entry) -> Iterator[str]:
        for name in _ON_ONE_LINE:
            if "\n" in getattr(entry, name):
                yield f"its {name} has a line break, so its hash does not say where fields end"
        kept = self._kept(entry)
        if entry.hash != entry_hash(entry):
            yield "it was edited: its hash is not that of its content"
        elif kept is not None and kept != entry.hash:
            yield "the chain was rewritten: its remembered head is another one"


def _backwards(entry: Entry, expected: int) -> str:
    if entry.seq == expected - 1:
        return f"the entry {entry.seq} stands twice"
    return f"the entry {entry.seq} stands after the entry {expected - 1}: twice, or swapped"


def verify(entries: Iterable[Entry], heads: Iterable[Head]) -> list[Finding]:
    """What is wrong: edits, gaps, insertions, and chains that end too early.

    `entries` come in order of chain and seq. A rewrite of a whole chain with all its
    hashes shows only against heads that were kept outside of the database.
    """
    verifier = Verifier(heads=by_chain(heads))
    found = [finding for entry in entries for finding in verifier.check(entry)]
    return [*found, *verifier.end()]


def by_chain(heads: Iterable[Head]) -> dict[str, dict[int, str]]:
    """Heads as `Verifier` wants them. Of two of one entry the later one stays."""
    known: dict[str, dict[int, str]] = {}
    for head in heads:
        known.setdefault(head.chain, {})[head.seq] = head.hash
    return known


def entry_hash(entry: Entry) -> str:
    """The hash that an entry must have."""
    lines = (
        "v1",
        entry.prev_hash,
        entry.chain,
        str(entry.seq),
        stamp(entry.at),
        entry.actor,
        entry.action,
        "" if entry.request_id is None else str(entry.request_id),
        entry.database,
        canonical(entry.detail),
    )
    return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()


def stamp(at: datetime) -> str:
    """A moment in the one form that is hashed."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def to_line(entry: Entry) -> str:
    """An entry as a line of JSON."""
    return canonical(to_json(entry))


def to_json(entry: Entry) -> dict[str, Any]:
    """An entry as a JSON object."""
    return {
        "chain": entry.chain,
        "seq": entry.seq,
        "at": entry.at.astimezone(UTC).isoformat(),
        "actor": entry.actor,
        "action": entry.action,
        "request_id": entry.request_id,
        "database": entry.database,
        "detail": entry.detail,
        "prev_hash": entry.prev_hash,
        "hash": entry.hash,
    }


def from_line(line: str) -> Entry:
    """The entry in a line exactly as `to_line` wrote it.

    Two texts of one entry would let a reader be shown what the hash does not cover.

    Raises:
        BadInputError: it is none.
    """
    try:
        entry = from_json(json.loads(line))
        if to_line(entry) != line:
            raise ValueError("it is not in the form in which it was exported")  # noqa: TRY301
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadInputError(
            f"This is no line of an exported audit: {line[:80]!r} ({error}).",
            next_step="Export it again with `twokey audit export`.",
        ) from None
    return entry


def from_json(data: object) -> Entry:
    """The entry in an object of `to_json`'s form.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(data, dict) or data.keys() != _NAMES:
        raise ValueError("it has not the fields of an entry")
    if not all(isinstance(data[name], str) for name in _TEXTS):
        raise ValueError("a text is none")
    # bool is an int, and no number.
    if type(data["seq"]) is not int or type(data["request_id"]) not in (int, type(None)):
        raise ValueError("a number is none")
    if not isinstance(data["detail"], dict):
        raise ValueError("its detail is no object")  # noqa: TRY004 - one kind for all
    at = datetime.fromisoformat(data["at"])
    if at.tzinfo is None:
        raise ValueError("its time has no zone")
    return Entry(**{**data, "at": at})
