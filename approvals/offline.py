"""Check an exported audit without a store, settings or network; needs nothing but Python.

`python -m approvals.offline EXPORT [ANCHORS…]` does what `twokey audit verify` does, for
whoever wants to read all of the code that judges: this file and the five that it imports.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from approvals.anchors import Anchors, read_anchors
from approvals.chain import Entry, Finding, Head, Scope, Verifier, stamp
from approvals.counting import count_text
from approvals.exports import BadLine, read_export, text_lines
from approvals.words import BadInputError

FINDINGS_MAX: Final = 1000
_ACTION: Final = "anchor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check has found. `notes` are sentences about what could not be checked.

    `problems` are of the anchors themselves. `findings_count` may exceed `findings`.
    """

    entries: int
    findings: tuple[Finding, ...]
    findings_count: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    anchors: int
    is_whole: bool
    unanchored: int | None  # entries after the newest anchor; None: there are no anchors

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, in the entries and in the anchors."""
        return not self.findings_count and not self.problems

    def to_json(self) -> dict[str, Any]:
        """The report for scripts."""
        return {
            "ok": self.ok,
            "entries": self.entries,
            "findings": [
                {"chain": found.chain, "seq": found.seq, "problem": found.problem}
                for found in self.findings
            ],
            "findings_count": self.findings_count,
            "anchor_problems": list(self.problems),
            "notes": list(self.notes),
            "anchors": self.anchors,
            "whole": self.is_whole,
            "unanchored": self.unanchored,
        }

    def sentences(self) -> Iterable[str]:
        """The report for people."""
        yield from self.problems
        for found in self.findings:
            yield f"{place(found)}{found.problem}."
        if more := self.findings_count - len(self.findings):
            yield f"And {count_text(more, 'more finding')} like these."
        yield from (f"Note: {note}" for note in self.notes)
        wrong = self.findings_count + len(self.problems)
        found_text = count_text(wrong, "finding") if wrong else "all in order"
        yield f"{count_text(self.entries, 'entry', 'entries')}: {found_text}."


def place(found: Finding) -> str:
    """Where a finding is, such as `orders, entry 3: `."""
    return f"{found.chain or '(general)'}, entry {found.seq}: " if found.seq else ""


@dataclass(slots=True, kw_only=True)
class Check:
    """One pass over entries, however they come."""

    scope: Scope
    anchors: Anchors | None
    remembered: Mapping[str, Head] = field(default_factory=dict)
    verifier: Verifier = field(init=False)
    findings: list[Finding] = field(default_factory=list)
    count: int = 0
    _unknown: list[str] = field(default_factory=list)
    _unknown_count: int = 0

    def __post_init__(self) -> None:
        heads = self.anchors.heads if self.anchors else {}
        self.verifier = Verifier(heads=heads, remembered=self.remembered, scope=self.scope)

    def take(self, item: Entry | BadLine) -> None:
        """Look at one entry, or at what stands in the place of one."""
        if isinstance(item, BadLine):
            self._found([Finding(chain="", seq=0, problem=f"Line {item.number}: {item.problem}")])
            return
        self._found(self.verifier.check(item))
        if item.action == _ACTION and not item.chain:
            self._compare(item.detail)

    def end(self) -> Report:
        """What was found in all."""
        self._found(self.verifier.end())
        unanchored = self.verifier.unanchored()
        newer = sum(last - first + 1 for first, last in unanchored.values())
        return Report(
            entries=self.verifier.entries,
            findings=tuple(self.findings),
            findings_count=self.count,
            problems=tuple(self.anchors.problems if self.anchors else ()),
            notes=tuple(self._notes(newer)),
            anchors=self.anchors.count if self.anchors else 0,
            is_whole=self.scope.is_whole,
            unanchored=newer if self.anchors else None,
        )

    def _compare(self, detail: Mapping[str, Any]) -> None:
        """The audit itself says which anchors there were."""
        if self.anchors is None or not self.anchors.roots:
            return
        if detail.get("root") not in self.anchors.roots:
            self._unknown_count += 1
            self._unknown = [str(detail.get("at", "an unknown time"))]

    def _found(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.count += 1
            if len(self.findings) < FINDINGS_MAX:
                self.findings.append(finding)

    def _notes(self, newer: int) -> Iterable[str]:
        scope = self.scope
        if not scope.linked:
            yield (
                "This export holds chosen entries only. Each was checked by its own hash; whether "
                "one was left out cannot be seen in it."
            )
        elif not scope.is_whole:
            which = f"the chain {scope.chain or '(general)'}" if scope.chain is not None else ""
            part = "" if scope.starts and scope.ends else "a part of "
            yield (
                f"This export says that it holds {part}{which or 'each chain'}. What stands "
                "outside of it was not checked."
            )
        if self.anchors is None:
            if scope.linked:
                yield (
                    "Without anchors it could not be checked whether a chain's end was cut off, "
                    "or a chain was made anew: give --anchors."
                )
            return
        yield from self.anchors.notes
        if newer:
            at = self.anchors.newest_at
            when = f", of {stamp(at)}" if at else ""
            are, these = ("is", "it") if newer == 1 else ("are", "these")
            yield (
                f"{count_text(newer, 'entry', 'entries')} {are} newer than what the anchors cover"
                f"{when}: for {these}, a cut or an end that was made anew could not be seen."
            )
        if self._unknown_count:
            one = self._unknown_count == 1
            yield (
                f"The audit tells of {count_text(self._unknown_count, 'anchor')} that "
                f"{'was' if one else 'were'} not given, {'' if one else 'the newest '}"
                f"of {self._unknown[-1]}."
            )


def check_export(lines: Iterable[str], anchors: Anchors | None, *, name: str) -> Report:
    """What is wrong in an export, line by line, in memory that grows with the chains only.

    Raises:
        BadInputError: not one of its lines is an entry.
    """
    export = read_export(lines)
    check = Check(scope=export.scope, anchors=anchors)
    for item in export.items:
        check.take(item)
    if check.count and not check.verifier.entries:
        raise BadInputError(
            f"{name} is no exported audit. {check.findings[0].problem}",
            next_step="Name a file that `twokey audit export` wrote.",
        )
    return check.end()


def check_files(path: Path, anchor_paths: Sequence[Path]) -> Report:
    """`check_export` of files.

    Raises:
        BadInputError: a file cannot be read, or is none of these.
    """
    with ExitStack() as stack:
        lines = text_lines(stack.enter_context(opened(path)), name=str(path))
        return check_export(lines, load_anchors(anchor_paths), name=str(path))


def load_anchors(paths: Sequence[Path]) -> Anchors | None:
    """The anchors in files; None when there are no files.

    Raises:
        BadInputError: a file cannot be read, or holds no anchors.
    """
    if not paths:
        return None
    anchors = Anchors()
    for path in paths:
        with opened(path) as file:
            anchors.merge(read_anchors(text_lines(file, name=str(path)), name=str(path)))
    return anchors


def opened(path: Path) -> TextIO:
    """A text file to read. Bytes that are no text are read as such, and so do not pass.

    Raises:
        BadInputError: it cannot be read.
    """
    try:
        return path.open(encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read: {error.strerror}.", next_step="Check the path."
        ) from None


def main(arguments: Sequence[str]) -> int:
    """0: in order, 1: something is wrong, 2: bad input."""
    if not arguments or arguments[0].startswith("-"):
        sys.stderr.write("python -m approvals.offline EXPORT [ANCHORS…]\n")
        return 2
    try:
        report = check_files(Path(arguments[0]), [Path(name) for name in arguments[1:]])
    except BadInputError as error:
        sys.stderr.write(f"{error.problem}\n→ {error.next_step}\n")
        return 2
    sys.stdout.writelines(f"{sentence}\n" for sentence in report.sentences())
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
