"""Anchors: where the audit's chains ended at a moment, to be kept where we cannot write.

Whoever owns the store can cut a chain or make it anew, hashes and all. They cannot change
what stands in a channel's history, or in a file that only grows. Pure; needs nothing but
Python.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from approvals.chain import GENESIS, Head, stamp
from approvals.plans import canonical, sha256
from approvals.words import BadInputError

VERSION: Final = 1
_HEAD_NAMES: Final = frozenset({"chain", "seq", "hash"})
_NAMES: Final = frozenset({"v", "at", "heads", "root", "page", "pages", "prev", "hash"})
_HASH_CHARS: Final = 64
_FINDINGS_MAX: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Heads at a moment, or a page of them. `root` is the one hash of all pages' heads.

    `prev` is the hash of the anchor before it in the same file or channel.
    """

    at: datetime
    heads: tuple[Head, ...]
    root: str
    page: int
    pages: int
    prev: str
    hash: str


def root_of(heads: Iterable[Head]) -> str:
    """One hash that covers all heads: the root of a Merkle tree over them, by chain.

    A head shown with the hashes beside its way up proves that it was among them.
    """
    level = [
        hashlib.sha256(b"\x00" + f"{head.chain}\n{head.seq}\n{head.hash}".encode()).digest()
        for head in sorted(heads, key=lambda head: head.chain)
    ]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        pairs = [
            hashlib.sha256(b"\x01" + level[number] + level[number + 1]).digest()
            for number in range(0, len(level) - 1, 2)
        ]
        level = [*pairs, *([level[-1]] if len(level) % 2 else [])]
    return level[0].hex()


def make_anchors(
    heads: Sequence[Head], *, at: datetime, prev: str, heads_max: int | None = None
) -> list[Anchor]:
    """The anchor of all heads, or as many pages as it takes at `heads_max` each; one at least."""
    ordered = sorted(heads, key=lambda head: head.chain)
    size = heads_max or max(len(ordered), 1)
    parts = [ordered[start : start + size] for start in range(0, max(len(ordered), 1), size)]
    root, made = root_of(ordered), []
    for number, part in enumerate(parts, start=1):
        anchor = Anchor(
            at=at, heads=tuple(part), root=root, page=number, pages=len(parts), prev=prev, hash=""
        )
        prev = _hash_of(anchor)
        made.append(_with_hash(anchor, prev))
    return made


def to_line(anchor: Anchor) -> str:
    """An anchor as a line of JSON."""
    return canonical({**_unhashed(anchor), "hash": anchor.hash})


def from_line(line: str) -> Anchor:
    """The anchor in a line exactly as `to_line` wrote it, with the hash that it must have.

    Raises:
        ValueError: it is none; says why.
    """
    data = _object(line)
    if data.keys() != _NAMES or data["v"] != VERSION:
        raise ValueError("it has not the fields of an anchor")
    texts = [data[name] for name in ("at", "root", "prev", "hash")]
    if not all(isinstance(text, str) for text in texts) or not isinstance(data["heads"], list):
        raise ValueError("it has not the fields of an anchor")
    anchor = Anchor(
        at=_moment(data["at"]),
        heads=tuple(_head(item) for item in data["heads"]),
        root=data["root"],
        page=_number(data["page"]),
        pages=_number(data["pages"]),
        prev=data["prev"],
        hash=data["hash"],
    )
    if to_line(anchor) != line or anchor.hash != _hash_of(anchor):
        raise ValueError("it was edited: its hash is not that of its content")
    if anchor.pages == 1 and anchor.root != root_of(anchor.heads):
        raise ValueError("its combined hash is not that of its heads")
    return anchor


def _hash_of(anchor: Anchor) -> str:
    return sha256(canonical(_unhashed(anchor)))


def _with_hash(anchor: Anchor, value: str) -> Anchor:
    return Anchor(
        at=anchor.at, heads=anchor.heads, root=anchor.root, page=anchor.page,
        pages=anchor.pages, prev=anchor.prev, hash=value,
    )  # fmt: skip


def _unhashed(anchor: Anchor) -> dict[str, Any]:
    return {
        "v": VERSION,
        "at": stamp(anchor.at),
        "heads": [heads_json(head) for head in anchor.heads],
        "root": anchor.root,
        "page": anchor.page,
        "pages": anchor.pages,
        "prev": anchor.prev,
    }


def heads_json(head: Head) -> dict[str, Any]:
    """A head as a JSON object."""
    return {"chain": head.chain, "seq": head.seq, "hash": head.hash}


def _object(line: str) -> Mapping[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(data, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - one kind for all
    return data


def _head(data: Any) -> Head:
    if not isinstance(data, dict) or data.keys() != _HEAD_NAMES:
        raise ValueError("a head has not the fields of one")
    if not (isinstance(data["chain"], str) and isinstance(data["hash"], str)):
        raise ValueError("a head has not the fields of one")  # noqa: TRY004 - one kind for all
    if len(data["hash"]) != _HASH_CHARS:
        raise ValueError("a head's hash is none")
    return Head(chain=data["chain"], seq=_number(data["seq"]), hash=data["hash"])


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a number is none")
    return value


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("its time is none") from None


@dataclass(slots=True, kw_only=True)
class Anchors:
    """What was read from where anchors are kept. `problems` and `notes` are sentences.

    `count` anchors, or pages of them, were good; only what they say of heads is kept.
    """

    heads: dict[str, dict[int, str]] = field(default_factory=dict)
    count: int = 0
    newest_at: datetime | None = None
    newest_hash: str = GENESIS
    roots: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _ends: dict[str, tuple[int, datetime]] = field(default_factory=dict)

    def take(self, anchor: Anchor) -> Iterator[str]:
        """Keep what an anchor says; yields where it contradicts what others said."""
        for head in anchor.heads:
            known = self.heads.setdefault(head.chain, {}).setdefault(head.seq, head.hash)
            where = f"{head.chain or 'the general chain'}, entry {head.seq}"
            if known != head.hash:
                yield f"the anchor of {stamp(anchor.at)} and another one disagree about {where}"
            top, at = self._ends.get(head.chain, (0, anchor.at))
            if anchor.at >= at and head.seq < top:
                yield f"the anchor of {stamp(anchor.at)} ends at {where}, an earlier one at {top}"
            if head.seq >= top:
                self._ends[head.chain] = (head.seq, anchor.at)
        self.count += 1
        self.roots.add(anchor.root)
        self.newest_at = max(anchor.at, self.newest_at or anchor.at)
        self.newest_hash = anchor.hash

    def merge(self, other: Anchors) -> None:
        """Take what was read elsewhere, too."""
        for chain, kept in other.heads.items():
            mine = self.heads.setdefault(chain, {})
            for seq, value in kept.items():
                if mine.setdefault(seq, value) != value:
                    where = f"{chain or 'the general chain'}, entry {seq}"
                    self.problems.append(f"Two files of anchors disagree about {where}.")
        self.count += other.count
        self.roots |= other.roots
        self.problems += other.problems
        self.notes += other.notes
        if other.newest_at is not None:
            self.newest_at = max(other.newest_at, self.newest_at or other.newest_at)


def read_anchors(lines: Iterable[str], *, name: str) -> Anchors:
    """What a file of anchors says, or a text in which anchors stand among other lines.

    A file of nothing but anchors must be whole: each names the one before it, from the first
    on. A copy from a channel need not be, and then what is missing is a note.

    Raises:
        BadInputError: there is no anchor in it.
    """
    reading = _Reading(name=name)
    for number, line in enumerate(lines, start=1):
        reading.line(number, line.strip().strip("`").strip())
    return reading.end()


@dataclass(slots=True, kw_only=True)
class _Reading:
    name: str
    anchors: Anchors = field(default_factory=Anchors)
    gaps: list[str] = field(default_factory=list)
    others: int = 0
    before: Anchor | None = None
    pages: list[Anchor] = field(default_factory=list)
    bare: int = 0
    suppressed: int = 0

    def line(self, number: int, text: str) -> None:
        """Look at one line."""
        if not text:
            return
        if not text.startswith("{") and '"heads"' not in text:
            self.others += 1
            return
        try:
            anchor = from_line(text)
        except ValueError as error:
            if (head := _bare_head(text)) is not None:
                self._bare(head)
                return
            self._problem(
                f"Line {number} of {self.name} looks like an anchor and is none: {error}."
            )
            return
        if self.before is not None and anchor == self.before:
            self.gaps.append(f"{self.name}: the anchor of {stamp(anchor.at)} stands twice.")
            return
        self._follow(anchor)
        for problem in self.anchors.take(anchor):
            self._problem(f"{self.name}: {problem}.")

    def end(self) -> Anchors:
        """What was read."""
        anchors = self.anchors
        self._end_pages()
        if not anchors.count and not self.bare and not anchors.problems:
            raise BadInputError(
                f"{self.name} holds no anchors.",
                next_step="Name the file that `anchors.file` in the inventory names, or one with "
                "the lines in code blocks that Twokey posted to the anchors' channel.",
            )
        if self.others:
            anchors.notes.append(
                f"{self.name}: {self.others} lines of other text were passed over."
            )
            anchors.notes += self.gaps[:_FINDINGS_MAX]
        else:
            for gap in self.gaps:
                self._problem(gap)
        if self.bare:
            anchors.notes.append(
                f"{self.name} holds bare heads, which say nothing about themselves: whoever could "
                "write that file could change them."
            )
        if self.suppressed:
            anchors.problems.append(f"{self.name}: {self.suppressed} more problems like these.")
        return anchors

    def _follow(self, anchor: Anchor) -> None:
        before, at = self.before, stamp(anchor.at)
        if before is None and anchor.prev != GENESIS:
            self.gaps.append(f"{self.name}: anchors before that of {at} are missing.")
        elif before is not None and anchor.prev != before.hash:
            self.gaps.append(
                f"{self.name}: the anchor of {at} does not follow that of {stamp(before.at)}: "
                "one between them is missing, or they were swapped or replaced."
            )
        if self.pages and (anchor.root, anchor.at) != (self.pages[0].root, self.pages[0].at):
            self._end_pages()
        if anchor.pages > 1:
            self.pages.append(anchor)
        self.before = anchor

    def _end_pages(self) -> None:
        pages, self.pages = self.pages, []
        if not pages:
            return
        at = stamp(pages[0].at)
        if {page.page for page in pages} != set(range(1, pages[0].pages + 1)):
            self.gaps.append(f"{self.name}: not all pages of the anchor of {at} are there.")
        elif pages[0].root != root_of([head for page in pages for head in page.heads]):
            self._problem(f"{self.name}: the combined hash of {at} is not that of its heads.")

    def _bare(self, head: Head) -> None:
        self.bare += 1
        known = self.anchors.heads.setdefault(head.chain, {}).setdefault(head.seq, head.hash)
        if known != head.hash:
            self._problem(f"{self.name} disagrees with itself about {head.chain} {head.seq}.")

    def _problem(self, text: str) -> None:
        if len(self.anchors.problems) < _FINDINGS_MAX:
            self.anchors.problems.append(text)
        else:
            self.suppressed += 1


def _bare_head(text: str) -> Head | None:
    try:
        return _head(_object(text))
    except ValueError:
        return None
