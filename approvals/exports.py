"""An exported audit: lines of JSON, or CSV for a spreadsheet, and what it says it holds. Pure.

The first line says what was asked for, so that a part is not taken for a whole that was
tampered with. A cell of CSV that a spreadsheet could take for a formula, or that begins with
an apostrophe, gets an apostrophe in front: take one away to have what was stored.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain as joined
from typing import Any, Final, Literal, TextIO

from approvals.chain import WHOLE, Entry, Scope, from_json, from_line, to_json, to_line
from approvals.plans import canonical
from approvals.words import BadInputError

Format = Literal["jsonl", "csv"]

VERSION: Final = 1
LINE_CHARS_MAX: Final = 8_000_000
COLUMNS: Final = (
    *("chain", "seq", "at", "actor", "action", "request_id", "database", "detail"),
    *("prev_hash", "hash"),
)
_META: Final = "twokey_audit_export"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which entries were asked for; None: of all.

    `since` and `until` take from each chain everything between its first and last entry of
    the time, `until` not included, so that a clock that was set back tears no hole.
    """

    chain: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    action: str | None = None
    request: int | None = None

    @property
    def scope(self) -> Scope:
        """What can be expected of entries that were chosen like this."""
        picked = (self.actor, self.action, self.request) != (None, None, None)
        return Scope(
            starts=self.since is None and not picked,
            linked=not picked,
            ends=self.until is None and not picked,
            chain=self.chain,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that is no entry, and why."""

    number: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What a file says about itself, and its lines, which can be read once."""

    filters: Filters | None  # None: it says nothing
    items: Iterator[Entry | BadLine]

    @property
    def scope(self) -> Scope:
        """What can be expected of it. One that says nothing should be whole."""
        return self.filters.scope if self.filters else WHOLE


def first_lines(filters: Filters, form: Format) -> list[str]:
    """What stands above the entries."""
    meta = canonical({_META: VERSION, "filters": _filters_json(filters)})
    return [meta] if form == "jsonl" else [_csv_line([f"# {meta}"]), _csv_line(COLUMNS)]


def entry_line(entry: Entry, form: Format) -> str:
    """An entry as a line, without its end."""
    if form == "jsonl":
        return to_line(entry)
    values = {**to_json(entry), "detail": canonical(entry.detail)}
    cells = ("" if values[name] is None else str(values[name]) for name in COLUMNS)
    return _csv_line([_guarded(cell) for cell in cells])


def read_export(lines: Iterable[str]) -> Export:
    """What is in the lines of an export of either form."""
    rest = iter(lines)
    first = next(rest, None)
    if first is None:
        return Export(filters=None, items=iter(()))
    if first.lstrip('"').startswith(("# ", "chain,")):
        return _read_csv(joined([first], rest))
    filters = _read_meta(first)
    if filters is None:
        return Export(filters=None, items=_read_lines(joined([first], rest), start=1))
    return Export(filters=filters, items=_read_lines(rest, start=2))


def text_lines(file: TextIO, *, name: str) -> Iterator[str]:
    """A file's lines with their ends; a file that is no text does not fill the memory.

    Raises:
        BadInputError: a line is longer than any entry.
    """
    while line := file.readline(LINE_CHARS_MAX):
        if len(line) >= LINE_CHARS_MAX:
            raise BadInputError(
                f"{name} has a line of more than {LINE_CHARS_MAX} characters.",
                next_step="Name a file that `twokey audit export` wrote.",
            )
        yield line


def _read_lines(lines: Iterable[str], *, start: int) -> Iterator[Entry | BadLine]:
    for number, line in enumerate(lines, start=start):
        text = line.removesuffix("\n")
        try:
            yield from_line(text)
        except BadInputError as error:
            yield BadLine(number=number, problem=error.problem)


def _read_csv(lines: Iterable[str]) -> Export:
    csv.field_size_limit(LINE_CHARS_MAX)
    rows = csv.reader(lines, strict=True)
    first = _next_row(rows)
    filters = None
    if len(first) == 1 and first[0].startswith("# "):
        filters = _read_meta(first[0].removeprefix("# "))
        first = _next_row(rows)
    if tuple(first) != COLUMNS:
        bad = BadLine(number=rows.line_num, problem="It has not the columns of an exported audit.")
        return Export(filters=filters, items=iter([bad]))
    return Export(filters=filters, items=_csv_items(rows))


def _csv_items(rows: Any) -> Iterator[Entry | BadLine]:
    while True:
        try:
            row = next(rows)
            yield _entry_of(row)
        except StopIteration:
            return
        except (ValueError, csv.Error) as error:
            yield BadLine(
                number=rows.line_num, problem=f"This is no row of an exported audit ({error})."
            )


def _entry_of(row: list[str]) -> Entry:
    if len(row) != len(COLUMNS):
        raise ValueError("it has not the columns of an entry")
    cells = [cell.removeprefix("'") for cell in row]
    values: dict[str, Any] = dict(zip(COLUMNS, cells, strict=True))
    request_id = values["request_id"]
    values["request_id"] = int(request_id) if request_id else None
    values["seq"] = int(values["seq"])
    values["detail"] = json.loads(values["detail"])
    entry = from_json(values)
    if next(csv.reader([entry_line(entry, "csv")])) != row:
        raise ValueError("it is not in the form in which it was exported")
    return entry


def _next_row(rows: Any) -> list[str]:
    try:
        found: list[str] = next(rows, [])
    except csv.Error:
        return []
    return found


def _guarded(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _csv_line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _filters_json(filters: Filters) -> dict[str, Any]:
    found: dict[str, Any] = {
        "chain": filters.chain,
        "since": _iso(filters.since),
        "until": _iso(filters.until),
        "actor": filters.actor,
        "action": filters.action,
        "request": filters.request,
    }
    return {name: value for name, value in found.items() if value is not None}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()


def _read_meta(line: str) -> Filters | None:
    """The filters in a first line, or None when it is no such line."""
    try:
        data = json.loads(line)
        if not isinstance(data, dict) or data.get(_META) != VERSION:
            return None
        return _filters(data["filters"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _filters(data: Mapping[str, Any]) -> Filters:
    times = {
        name: datetime.fromisoformat(data[name]) for name in ("since", "until") if name in data
    }
    texts = (data.get(name, "") for name in ("chain", "actor", "action"))
    if not all(isinstance(text, str) for text in texts) or type(data.get("request", 0)) is not int:
        raise ValueError("a filter is none")
    return Filters(**{**data, **times})
