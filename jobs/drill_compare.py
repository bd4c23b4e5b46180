"""A drill beside earlier ones of the same database and kind. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Final

from jobs.drill_verdict import seconds_text
from jobs.drill_words import DrillEnd, DrillReport, Moment, Phase
from jobs.operation import Chart, ChartKind, Series
from jobs.text import count_text

# As many as a year has.
MEDIAN_OF: Final = 4
POINTS_MAX: Final = 20
# By less a step is not slower: a look at a cluster takes as long.
_SLOWER_SECONDS: Final = 1.0
_SLOWER_SHARE: Final = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A span in seconds: now, in the last drill, and the median of the last four before it.

    None: not known.
    """

    name: str
    now: float | None
    last: float | None
    median: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slower:
    """A phase that was reached later after the one before it than in the last drill."""

    phase: Phase
    seconds: float
    before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`last` None: there was none to compare with. `slower`: the worst first."""

    last: DrillReport | None
    counted: int
    figures: tuple[Figure, ...] = ()
    slower: tuple[Slower, ...] = ()


def compared(report: DrillReport, earlier: Sequence[DrillReport]) -> Comparison:
    """What has changed since. `earlier`: in any order; others than those like it are left out."""
    like = comparable(report, earlier)[:MEDIAN_OF]
    if not like:
        return Comparison(last=None, counted=0)
    both = [figures(each) for each in (report, *like)]
    return Comparison(
        last=like[0],
        counted=len(like),
        figures=tuple(
            Figure(name=name, now=now, last=both[1][name], median=_median(both[1:], name))
            for name, now in both[0].items()
        ),
        slower=_slower(report, like[0]),
    )


def comparable(report: DrillReport, earlier: Sequence[DrillReport]) -> list[DrillReport]:
    """Those that began before it, went to their end, and did the same; newest first."""
    like = [
        each
        for each in earlier
        if (each.database, each.kind) == (report.database, report.kind)
        and each.request_id != report.request_id
        and each.started_at < report.started_at
        and each.end is not DrillEnd.ABORTED
    ]
    return sorted(like, key=lambda each: (each.started_at, each.request_id), reverse=True)


def figures(report: DrillReport) -> dict[str, float | None]:
    """What is compared, in seconds; None: not known, or not reached."""
    cost, redundant = report.cost, report.at(Phase.REDUNDANT)
    return {
        "RTO": cost.rto_seconds if cost else None,
        "No writes": cost.write_gap_seconds if cost else None,
        "RPO": cost.rpo_seconds if cost else None,
        "Redundancy": (redundant - report.begun_at).total_seconds() if redundant else None,
    }


def took(report: DrillReport) -> list[tuple[Moment, timedelta]]:
    """What was reached, in the order of time, and how long after the one before it."""
    reached = sorted(report.moments, key=lambda each: each.at)
    before: list[datetime] = [report.started_at, *(each.at for each in reached)]
    return [
        (each, max(each.at - earlier, timedelta(0)))
        for each, earlier in zip(reached, before, strict=False)
    ]


def sentences(found: Comparison) -> Iterator[str]:
    """Which steps became slower, a sentence each."""
    for each in found.slower:
        yield (
            f"Slower than last time: until {each.phase} it took {seconds_text(each.seconds)},"
            f" and {seconds_text(each.before)} then."
        )


def figures_text(found: Comparison) -> str:
    """Each figure with the last one and the median, a line each."""
    return "\n".join(
        f"{each.name} {_known(each.now)}, was {_known(each.last)}{_of(each, found.counted)}"
        for each in found.figures
    )


def trend(reports: Sequence[DrillReport]) -> Chart | None:
    """RTO and the time without writes of drills of one database and kind; None: too few known."""
    known = [
        each for each in sorted(reports, key=lambda each: each.started_at)
        if each.cost is not None and each.end is not DrillEnd.ABORTED
    ][-POINTS_MAX:]  # fmt: skip
    if len(known) < 2:  # noqa: PLR2004 - one point is no line
        return None
    found = [figures(each) for each in known]
    names = ("RTO", "No writes")
    first, last = known[0], known[-1]
    said = "; ".join(
        f"{name} from {_known(found[0][name])} to {_known(found[-1][name])}" for name in names
    )
    return Chart(
        title=f"{last.kind} drills of {last.database}",
        kind=ChartKind.LINE,
        labels=tuple(f"{each.started_at:%Y-%m-%d}" for each in known),
        series=tuple(
            Series(name=name, values=tuple(each[name] for each in found)) for name in names
        ),
        alt=f"{count_text(len(known), 'drill')} from {first.started_at:%Y-%m-%d} to"
        f" {last.started_at:%Y-%m-%d}: {said}.",
        unit="seconds",
    )


def _slower(report: DrillReport, last: DrillReport) -> tuple[Slower, ...]:
    before = _steps(last)
    found = [
        Slower(phase=phase, seconds=now, before=before[phase])
        for phase, now in _steps(report).items()
        if phase in before
        and now - before[phase] > _SLOWER_SECONDS
        and now > before[phase] * _SLOWER_SHARE
    ]
    return tuple(sorted(found, key=lambda each: each.before - each.seconds))


def _steps(report: DrillReport) -> dict[Phase, float]:
    """How long each phase after the injection took, in seconds; the first time it was reached."""
    found: dict[Phase, float] = {}
    for moment, span in took(report):
        if moment.at > report.begun_at:
            found.setdefault(moment.phase, span.total_seconds())
    return found


def _median(earlier: Sequence[dict[str, float | None]], name: str) -> float | None:
    known = [value for each in earlier if (value := each[name]) is not None]
    return median(known) if known else None


def _known(seconds: float | None) -> str:
    return "not known" if seconds is None else seconds_text(seconds)


def _of(figure: Figure, counted: int) -> str:
    if counted < 2 or figure.median is None:  # noqa: PLR2004 - the median of one is that one
        return ""
    return f" (median of {counted}: {seconds_text(figure.median)})"
