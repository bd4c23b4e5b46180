"""What a ledger wrote down, in files that outlive its process: read by the next life of a run.

Each line is written at once and whole, so a kill -9 costs at most the row that was just being
answered, which is then ambiguous. Each life of a run has pages of its own, and its own range of
row numbers. All but the newest pages are folded: neighbouring rows become one line, from which
each row's time comes back to a fraction of `FOLD_SECONDS`, and no gap worth telling is lost.

A line is one of
    [seq, sent, acked, server]       a row; `acked` null: nobody acknowledged it; a fifth member
                                     1: acknowledged, with a warning that it is local
    {"span": [first, last, sent, acked first, acked last, server]}
    {"failed": [number, newest]}     rows that nobody acknowledged, folded
    {"name": [server, node]}         which node a server is
    {"alive": at}                    somebody was writing, whether anybody answered or not
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from postgres.cluster.loss import GAP_SECONDS, Kept, Life, Span
from postgres.errors import PostgresError

ROWS_PER_LIFE: Final = 1_000_000_000
PAGE_LINES: Final = 6_000  # about a minute
PAGES_WHOLE: Final = 5
FOLD_SECONDS: Final = 0.5
_LIVES_MAX: Final = 9_000  # a bigint has room for as many
_PAGE: Final = "ledger-{life:04}-{page:06}.jsonl"
_MODE: Final = 0o600


class LedgerFile:
    """The pages of one life, open for writing. Not for two threads at once."""

    def __init__(self, folder: Path, life: int, handle: int) -> None:
        self._folder = folder
        self.life = life
        self._handle = handle
        self._page = 0
        self._lines = 0

    @classmethod
    def open(cls, folder: Path) -> LedgerFile:
        """Begin a new life in a folder, which is made where it is missing.

        Raises:
            OSError: nothing can be written there.
            PostgresError: too many have begun there already.
        """
        folder.mkdir(parents=True, exist_ok=True)
        first = max((life for life, _ in _pages(folder)), default=0) + 1
        for life in range(first, _LIVES_MAX):
            try:
                return cls(folder, life, _create(folder, life, 0))
            except FileExistsError:  # another process has just begun
                continue
        raise PostgresError(
            f"The ledger in {folder} has begun too often.", next_step="Start a new run."
        )

    @property
    def first(self) -> int:
        """The number of this life's first row: above all others' in the folder."""
        return self.life * ROWS_PER_LIFE + 1

    def row(
        self, seq: int, sent: float, acked: float | None, server: str, *, is_local: bool
    ) -> Path | None:
        """Write down what became of a row. Returns a page that is to be folded, or None.

        Raises:
            OSError: it cannot be written.
        """
        times = [round(sent, 6), None if acked is None else round(acked, 6)]
        return self._write([seq, *times, server, *([1] if is_local else [])])

    def name(self, server: str, node: str) -> None:
        """Write down which node a server is.

        Raises:
            OSError: it cannot be written.
        """
        self._write({"name": [server, node]})

    def alive(self, at: float) -> None:
        """Write down that somebody is writing.

        Raises:
            OSError: it cannot be written.
        """
        self._write({"alive": round(at, 6)})

    def close(self) -> None:
        """Write nothing more; nothing when it is closed already."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    def _write(self, line: Any) -> Path | None:
        data = _text(line).encode()
        if os.write(self._handle, data) != len(data):
            raise OSError(f"the disk of {self._folder} is full")
        self._lines += 1
        return self._turn() if self._lines >= PAGE_LINES else None

    def _turn(self) -> Path | None:
        handle = _create(self._folder, self.life, self._page + 1)
        os.close(self._handle)
        self._handle, self._page, self._lines = handle, self._page + 1, 0
        old = self._page - PAGES_WHOLE
        return self._folder / _PAGE.format(life=self.life, page=old) if old >= 0 else None


def fold(page: Path) -> None:
    """Replace a page that nobody writes by what fewer lines say, at once. For a thread.

    Raises:
        OSError: it cannot be written; the page stays as it was.
        PostgresError: it is damaged, and stays.
    """
    read = _Reading()
    read.page(page)
    folded = page.with_suffix(".folding")
    folded.write_text("".join(map(_text, read.folded())), encoding="utf-8")
    folded.chmod(_MODE)
    folded.replace(page)


def is_begun(folder: Path) -> bool:
    """Whether a ledger has been written there."""
    return next(_pages(folder), None) is not None


def read(folder: Path) -> Kept:
    """All that was written down by all lives; nothing where nobody has. For a thread.

    Raises:
        PostgresError: a page is damaged: what it says is not to be relied on.
    """
    lives: dict[int, _Reading] = {}
    for life, page in sorted(_pages(folder)):
        lives.setdefault(life, _Reading()).page(page)
    spans = tuple(span for each in lives.values() for span in each.spans)
    names: dict[str, str] = {}
    for each in lives.values():
        names |= each.names
    return Kept(
        spans=spans,
        last=max((each.last for each in lives.values()), default=0),
        failed=sum(each.failed for each in lives.values()),
        lives=tuple(Life(began=each.times[0], ended=each.times[1]) for each in lives.values()
                    if each.times[0] <= each.times[1]),
        names=names,
    )  # fmt: skip


@dataclass(slots=True)
class _Reading:
    """What the pages of a life say."""

    spans: list[Span] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    failed: int = 0
    last: int = 0
    times: tuple[float, float] = (float("inf"), float("-inf"))

    def page(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        # What follows the last line break was cut short with its writer.
        for number, line in enumerate(lines[:-1], 1):
            try:
                self._line(json.loads(line))
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise PostgresError(
                    f"Line {number} of {path} is damaged: the ledger cannot be relied on.",
                    next_step="Find out who wrote there. What was lost has to be found otherwise.",
                ) from error

    def folded(self) -> Iterator[Any]:
        """The same in fewer lines."""
        yield from ({"name": [server, node]} for server, node in self.names.items())
        yield from ({"alive": at} for at in self.times if abs(at) != float("inf"))
        if self.failed:
            yield {"failed": [self.failed, self.last]}
        for span in _folded(self.spans):
            if span.is_local:
                yield [span.first, span.sent, span.acked_last, span.server, 1]
            else:
                yield {"span": [span.first, span.last, span.sent,
                                span.acked_first, span.acked_last, span.server]}  # fmt: skip

    def _line(self, line: Any) -> None:
        match line:
            case [seq, sent, None, *_]:
                self.failed += 1
                self._saw(int(seq), float(sent))
            case [seq, sent, acked, server, *more]:
                self._keep(int(seq), int(seq), (sent, acked, acked), server, is_local=bool(more))
            case {"span": [first, last, sent, acked, latest, server]}:
                self._keep(int(first), int(last), (sent, acked, latest), server)
            case {"failed": [number, newest]}:
                self.failed += int(number)
                self.last = max(self.last, int(newest))
            case {"name": [server, node]}:
                self.names[str(server)] = str(node)
            case {"alive": at}:
                self._saw(0, float(at))
            case _:
                raise ValueError(line)

    def _keep(
        self,
        first: int,
        last: int,
        times: tuple[float, float, float],
        server: str,
        *,
        is_local: bool = False,
    ) -> None:
        sent, acked, latest = map(float, times)
        self.spans.append(
            Span(
                first=first,
                last=last,
                sent=sent,
                acked_first=acked,
                acked_last=latest,
                server=str(server),
                is_local=is_local,
            )
        )
        self._saw(first, sent)
        self._saw(last, latest)

    def _saw(self, seq: int, at: float) -> None:
        self.last = max(self.last, seq)
        self.times = (min(self.times[0], at), max(self.times[1], at))


def _folded(spans: Iterable[Span]) -> Iterator[Span]:
    before: Span | None = None
    for span in spans:
        if before and _continues(before, span):
            before = Span(
                first=before.first,
                last=span.last,
                sent=before.sent,
                acked_first=before.acked_first,
                acked_last=span.acked_last,
                server=span.server,
            )
            continue
        if before:
            yield before
        before = span
    if before:
        yield before


def _continues(before: Span, span: Span) -> bool:
    return (
        span.first == before.last + 1
        and span.server == before.server
        and not before.is_local
        and not span.is_local
        and 0 <= span.acked_first - before.acked_last < GAP_SECONDS
        and span.acked_last - before.acked_first <= FOLD_SECONDS
    )


def _pages(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.glob("ledger-*.jsonl"):
        yield int(path.name.split("-")[1]), path


def _create(folder: Path, life: int, page: int) -> int:
    path = folder / _PAGE.format(life=life, page=page)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)


def _text(line: list[Any] | Mapping[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"
