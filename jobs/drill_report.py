"""A drill's report for people: the verdict first, then what it cost, then when what happened. Pure.

`finished` gives a report its end, `answer_of` draws it, `last_words` say it in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from jobs.cluster_settings import DrillKind
from jobs.drill_compare import (
    Comparison,
    compared,
    figures,
    figures_text,
    sentences,
    took,
    trend,
)
from jobs.drill_verdict import differences_text, finished, missed, seconds_text
from jobs.drill_words import Cost, DrillEnd, DrillReport, Phase
from jobs.operation import Answer, Chart, ChartKind, Series, Table
from jobs.text import count_text
from postgres.sizes import pretty_bytes

__all__ = [
    "COLUMNS", "answer_of", "compared", "figures", "finished", "last_words", "missed", "trend",
]  # fmt: skip

COLUMNS: Final = ("Phase", "At (UTC)", "After the fault", "Took", "What")
_TITLES: Final = {
    DrillEnd.PASSED: "Drill passed",
    DrillEnd.FAILED: "Drill FAILED",
    DrillEnd.ABORTED: "Drill aborted",
}
_SETTINGS_MAX: Final = 12
_FACTS_MAX: Final = 20
_MISSED_MAX: Final = 12
_MOMENTS_MAX: Final = 40
_TEXT_CHARS_MAX: Final = 120


def last_words(report: DrillReport) -> str:
    """A sentence or two for a channel: how it ended, and the figures that decide."""
    name = f"{report.kind} of {report.database}"
    match report.end:
        case DrillEnd.ABORTED:
            return f"The drill {name} was aborted: {report.missed[0] if report.missed else '?'}"
        case DrillEnd.FAILED:
            more = len(report.missed) - 1
            others = f" And {count_text(more, 'more finding')}." if more > 0 else ""
            first = report.missed[0] if report.missed else ""
            return f"The drill {name} FAILED: {first}{others}"
        case DrillEnd.PASSED:
            return f"The drill {name} passed: {_outcome(report)}"


def answer_of(report: DrillReport, earlier: Sequence[DrillReport] = ()) -> Answer:
    """The card. `earlier`: reports to compare with, in any order; those unlike it do not count."""
    comparison = compared(report, earlier)
    return Answer(
        title=f"{_TITLES[report.end]}: {report.kind} of {report.database}",
        lines=(*_verdict(report), *sentences(comparison)),
        facts=(*_facts(report), *_compared(comparison)),
        charts=_timeline(report),
        table=_phases(report),
        numbers=_numbers(report),
    )


def _outcome(report: DrillReport) -> str:
    known = figures(report)
    rto, gap = known["RTO"], known["No writes"]
    lost = count_text(report.cost.lost, "row") if report.cost else "not known what was"
    return (
        f"writes were possible again after {_known(rto)}, none were for {_known(gap)},"
        f" {'nothing' if report.cost and not report.cost.lost else lost} lost."
    )


def _verdict(report: DrillReport) -> Iterator[str]:
    match report.end:
        case DrillEnd.PASSED:
            said = _outcome(report)
            yield said[:1].upper() + said[1:]
        case DrillEnd.FAILED:
            yield from report.missed[:_MISSED_MAX]
            if (rest := len(report.missed) - _MISSED_MAX) > 0:
                yield f"And {rest} more."
        case DrillEnd.ABORTED:
            yield from report.missed[:_MISSED_MAX]
            yield from _stopped_at(report)


def _stopped_at(report: DrillReport) -> Iterator[str]:
    """What had been done when it was stopped."""
    reached = [moment for moment, _ in took(report)]
    if not reached:
        yield "It was stopped before anything was done."
        return
    last = reached[-1]
    said = f" ({_cut(last.text)})" if last.text else ""
    yield f"It came as far as: {last.phase}{said}."
    if report.at(Phase.INJECTED) is None and report.kind not in _UNBROKEN:
        yield "Nothing was broken."
    if report.primary_after:
        yield f"{report.primary_after} takes writes."


# Kinds that break nothing, so that it goes without saying.
_UNBROKEN: Final = frozenset({DrillKind.SWITCHOVER, DrillKind.RESTORE})


def _facts(report: DrillReport) -> Iterator[tuple[str, str]]:
    yield "RTO", f"{_rto(report.cost)}, allowed {seconds_text(report.rto_limit_seconds)}"
    yield "RPO", f"{_rpo(report.cost)}, {_rpo_limit(report.rpo_limit_seconds)}"
    if report.cost:
        yield "Rows of the ledger", _rows(report.cost)
        yield "No writes for", _gap(report.cost)
    connected = report.connectivity or ("connected" if report.is_connected else "not proven")
    yield "Applications", connected if report.is_connected else f"NOT CONNECTED: {connected}"
    yield "Lost on purpose", report.victim or "nobody"
    yield "Primary", _primary(report)
    if report.kind is not DrillKind.RESTORE:
        yield "Redundancy", _redundancy(report)
        yield "Configuration", _configuration(report)
    if report.is_switched_back is not None or report.cost_back:
        yield "Switch back", _back(report)
    if report.lag_bytes is not None:
        yield "Behind, before", pretty_bytes(report.lag_bytes)
    yield "Where", f"{report.environment}, {report.tier}, {report.cluster}"
    if report.settings:
        yield "Settings", _settings(report)
    yield from report.facts[:_FACTS_MAX]
    yield "Report", f"/db drills {report.database} report={report.request_id}"


def _rto(cost: Cost | None) -> str:
    if cost is None or cost.rto_seconds is None:
        return "not known"
    at_most = "" if cost.is_exact else "at most "
    return f"{at_most}{seconds_text(cost.rto_seconds)}"


def _rpo(cost: Cost | None) -> str:
    if cost is None:
        return "not known"
    beat = cost.heartbeat_seconds
    said = "" if beat is None else f" (by the heartbeat {seconds_text(beat)})"
    return f"{seconds_text(cost.rpo_seconds)}{said}"


def _rpo_limit(limit: float) -> str:
    return f"allowed less than {seconds_text(limit)}" if limit > 0 else "no row may be lost"


def _rows(cost: Cost) -> str:
    return (
        f"{cost.acknowledged:,} acknowledged, {cost.lost:,} lost, {cost.ambiguous:,} there that"
        " nobody acknowledged"
    )


def _gap(cost: Cost) -> str:
    said = seconds_text(cost.write_gap_seconds)
    return said if cost.is_exact else f"at most {said}: the worker that measured was replaced"


def _primary(report: DrillReport) -> str:
    before, after = report.primary_before or "nobody", report.primary_after or "nobody"
    return before if before == after else f"{before}, then {after}"


def _redundancy(report: DrillReport) -> str:
    if not report.is_redundant:
        return "NOT BACK"
    seconds = figures(report)["Redundancy"]
    return "back" if seconds is None else f"back after {seconds_text(seconds)}"


def _configuration(report: DrillReport) -> str:
    if report.differences:
        return f"NOT as before: {differences_text(report)}"
    return "not compared" if report.at(Phase.COMPARED) is None else "as before"


def _back(report: DrillReport) -> str:
    done = "done" if report.is_switched_back else "NOT DONE"
    cost = report.cost_back
    if cost is None:
        return done
    return f"{done}: no writes for {_gap(cost)}, {count_text(cost.lost, 'row')} lost"


def _settings(report: DrillReport) -> str:
    shown = [f"{name} {value}" for name, value in sorted(report.settings.items())]
    rest = len(shown) - _SETTINGS_MAX
    return ", ".join([*shown[:_SETTINGS_MAX], *([f"and {rest} more"] if rest > 0 else [])])


def _compared(found: Comparison) -> Iterator[tuple[str, str]]:
    if found.last is None:
        yield "Compared", "the first of its kind here: there is none to compare with"
        return
    yield (
        f"Compared with {found.last.started_at:%Y-%m-%d} (request {found.last.request_id})",
        figures_text(found),
    )


def _timeline(report: DrillReport) -> tuple[Chart, ...]:
    """Seconds from the injection to each phase after it."""
    begun = report.begun_at
    after: dict[Phase, float] = {}
    for moment, _ in took(report):
        if moment.at > begun:
            after.setdefault(moment.phase, (moment.at - begun).total_seconds())
    if not after:
        return ()
    said = ", ".join(f"{phase} {seconds_text(seconds)}" for phase, seconds in after.items())
    since = "the fault" if report.at(Phase.INJECTED) else "the beginning"
    return (
        Chart(
            title=f"Seconds after {since}",
            kind=ChartKind.BAR,
            labels=tuple(map(str, after)),
            series=(Series(name="seconds", values=tuple(after.values())),),
            alt=f"After {since}: {said}.",
            unit="seconds",
        ),
    )


def _phases(report: DrillReport) -> Table | None:
    rows = [
        (
            str(moment.phase),
            _clock(moment.at),
            _signed((moment.at - report.begun_at).total_seconds()),
            seconds_text(span.total_seconds()),
            _cut(moment.text),
        )
        for moment, span in took(report)
    ][:_MOMENTS_MAX]
    return Table(columns=COLUMNS, rows=tuple(rows)) if rows else None


def _numbers(report: DrillReport) -> dict[str, int | float | str]:
    found: dict[str, int | float | str] = {"end": str(report.end)}
    if cost := report.cost:
        found |= {"lost": cost.lost, "rpo_seconds": cost.rpo_seconds}
        found["write_gap_seconds"] = cost.write_gap_seconds
        if cost.rto_seconds is not None:
            found["rto_seconds"] = cost.rto_seconds
    return found


def _known(seconds: float | None) -> str:
    return "a time that nobody knows" if seconds is None else seconds_text(seconds)


def _clock(at: datetime) -> str:
    return f"{at:%H:%M:%S}.{at.microsecond // 100_000}"


def _signed(seconds: float) -> str:
    return f"-{seconds_text(-seconds)}" if seconds < 0 else f"+{seconds_text(seconds)}"


def _cut(text: str) -> str:
    one = " ".join(text.split())
    return one if len(one) <= _TEXT_CHARS_MAX else f"{one[: _TEXT_CHARS_MAX - 1]}…"
