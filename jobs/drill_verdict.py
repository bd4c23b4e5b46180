"""Whether a drill has proven what it should. Pure.

Fails closed: what nobody could tell counts as missed, never as zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Final

from jobs.cluster_settings import DrillKind
from jobs.drill_words import Cost, DrillEnd, DrillReport, Phase
from jobs.text import count_text, span_text

DIFFERENCES_MAX: Final = 5
_MINUTE: Final = 60
# Those that break something: without that they have proven nothing.
_BREAKS: Final = frozenset(
    {
        DrillKind.PRIMARY_CRASH,
        DrillKind.HOST_LOSS,
        DrillKind.REPLICA_LOSS,
        DrillKind.NETWORK_SPLIT,
    }
)


def finished(draft: DrillReport, *, stopped: str = "") -> DrillReport:
    """The report with its end: whatever `draft` says of `end` and `missed` is replaced.

    `stopped`: why it did not go to its end, a sentence; '': it did.
    """
    found = missed(draft)
    if stopped:
        return replace(draft, end=DrillEnd.ABORTED, missed=(stopped,))
    return replace(draft, end=DrillEnd.FAILED if found else DrillEnd.PASSED, missed=found)


def missed(report: DrillReport) -> tuple[str, ...]:
    """What it should have proven and did not, each a sentence; () when it has proven all."""
    return tuple(_missed(report))


def seconds_text(seconds: float) -> str:
    """Seconds to three digits, longer than a minute in minutes: 12.3 s, 0.084 s, 2 min 5 s."""
    if seconds >= _MINUTE:
        return span_text(timedelta(seconds=seconds))
    return f"{seconds:.3g} s" if seconds else "0 s"


def _missed(report: DrillReport) -> Iterator[str]:
    if report.kind in _BREAKS and report.at(Phase.INJECTED) is None:
        yield "Nothing was broken, so nothing is proven."
    if not report.is_connected:
        said = f": {report.connectivity.rstrip('.')}" if report.connectivity else ""
        yield f"Applications do not connect{said}."
    yield from _loss(report, report.cost, "")
    yield from _rto(report)
    if report.kind is not DrillKind.RESTORE:
        yield from _as_before(report)
    yield from _switched_back(report)


def _loss(report: DrillReport, cost: Cost | None, where: str) -> Iterator[str]:
    """`where`: of which change of primaries, such as " in the switch back"."""
    if cost is None or cost.acknowledged <= 0:
        yield f"How much was lost{where} is not known: no acknowledged row was counted."
        return
    rows, limit = count_text(cost.lost, "acknowledged row"), report.rpo_limit_seconds
    if not 0 <= cost.lost <= cost.acknowledged:
        yield f"How much was lost{where} is not known: the ledger contradicts itself."
    elif limit <= 0:
        if cost.lost or cost.rpo_seconds:
            yield f"{rows} lost{where}, where none may be."
    elif not 0 <= cost.rpo_seconds < limit:
        yield (
            f"{rows} lost{where}, of {seconds_text(cost.rpo_seconds)}: it must be less than"
            f" {seconds_text(limit)}."
        )


def _rto(report: DrillReport) -> Iterator[str]:
    limit, seconds = report.rto_limit_seconds, report.cost.rto_seconds if report.cost else None
    if seconds is None or math.isnan(seconds):
        yield "After how long writes were possible again is not known."
    elif not 0 <= seconds <= limit:
        yield (
            f"Writes were possible again after {seconds_text(seconds)}, and"
            f" {seconds_text(limit)} are allowed."
        )


def _as_before(report: DrillReport) -> Iterator[str]:
    if not report.is_redundant:
        yield "Redundancy is not back: not every server streams again."
    if report.at(Phase.COMPARED) is None:
        yield "Whether the configuration is as before is not known: it was not compared."
    elif report.differences:
        yield f"The configuration is not as before: {differences_text(report)}."


def differences_text(report: DrillReport) -> str:
    """Every setting that is not as it was, at most `DIFFERENCES_MAX` of them."""
    shown = [
        f"{each.name} was {each.before or 'not set'}, is {each.after or 'not set'}"
        for each in report.differences[:DIFFERENCES_MAX]
    ]
    rest = len(report.differences) - len(shown)
    return "; ".join([*shown, *([f"and {rest} more"] if rest > 0 else [])])


def _switched_back(report: DrillReport) -> Iterator[str]:
    if report.is_switched_back is False:
        yield (
            f"{report.primary_before} was to be the primary again, and"
            f" {report.primary_after or 'nobody'} is."
        )
    if report.is_switched_back or report.cost_back is not None:
        yield from _loss(report, report.cost_back, " in the switch back")
