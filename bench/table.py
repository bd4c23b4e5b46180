"""What a benchmark found, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line: what was measured beside its floor, and what we aim for ("" for nothing)."""

    what: str
    ours: str
    floor: str = ""
    ratio: str = ""
    aim: str = ""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie; `values` need no order."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def as_markdown(results: Sequence[Result]) -> str:
    """A table that reads well in a terminal too."""
    rows = [("measured", "ours", "floor", "ratio", "aim")]
    rows += [(r.what, r.ours, r.floor, r.ratio, r.aim) for r in results]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
             for row in rows]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
