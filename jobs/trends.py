"""Whether a number is another than it was: an arrow only where that is more than noise. Pure.

Load has its hours and its weekdays, so that "before" is the same time yesterday or a week ago.
What a number does anyhow within half an hour says nothing: a change counts when it is larger
than twice that spread, than a tenth of what there was, and than what anybody would care about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from types import MappingProxyType
from typing import Final

from jobs.metric_text import unit_text
from postgres.health.metrics import Better, Metric, Unit

POINTS_MIN: Final = 3
_SPREADS: Final = 2.0
_SHARE: Final = 0.1
# So little of each unit nobody would act on, whatever share of the number it is.
_FLOORS: Final[Mapping[Unit, float]] = MappingProxyType(
    {
        Unit.MILLISECONDS: 1.0,
        Unit.SECONDS: 5.0,
        Unit.PERCENT: 1.0,
        Unit.BYTES: 16.0 * 1024 * 1024,
        Unit.COUNT: 2.0,
        Unit.PER_SECOND: 1.0,
        Unit.PER_MINUTE: 2.0,
        Unit.PER_HOUR: 1.0,
        Unit.BYTES_PER_SECOND: 1024.0 * 1024,
        Unit.BYTES_PER_DAY: 16.0 * 1024 * 1024,
        Unit.DAYS: 3.0,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A number that has changed: averages in the metric's unit. `when`: such as "yesterday"."""

    metric: Metric
    now: float
    before: float
    when: str

    @property
    def is_up(self) -> bool:
        """Whether it has risen."""
        return self.now > self.before

    @property
    def judgement(self) -> str:
        """`better`, `worse`, or '' where neither way is good."""
        match self.metric.better:
            case Better.NEITHER:
                return ""
            case Better.HIGH:
                return "better" if self.is_up else "worse"
            case _:
                return "worse" if self.is_up else "better"

    @property
    def text(self) -> str:
        """Such as "↑ worse, yesterday 20 ms": an arrow alone would not say whether it is good."""
        arrow = "↑" if self.is_up else "↓"
        was = f"{self.when} {unit_text(self.metric.unit, self.before)}"
        return f"{arrow} {self.judgement}, {was}" if self.judgement else f"{arrow} {was}"


def trend_of(
    metric: Metric,
    now: Sequence[float],
    *,
    yesterday: Sequence[float] = (),
    last_week: Sequence[float] = (),
) -> Trend | None:
    """What has changed since yesterday, or else since last week; None: nothing worth an arrow.

    The sequences are averages of some minutes each, of the same time of day.
    """
    for when, before in (("yesterday", yesterday), ("a week ago", last_week)):
        if is_change(metric, now, before):
            return Trend(metric=metric, now=fmean(now), before=fmean(before), when=when)
    return None


def is_change(metric: Metric, now: Sequence[float], before: Sequence[float]) -> bool:
    """Whether two spans differ by more than their noise; too few points never do."""
    if min(len(now), len(before)) < POINTS_MIN:
        return False
    was = fmean(before)
    # A share of a share misleads: a hit ratio from 99 to 97 % is not "2 % less".
    share = 0.0 if metric.unit is Unit.PERCENT else _SHARE * abs(was)
    noise = max(_SPREADS * pstdev(now), _SPREADS * pstdev(before), share, _FLOORS[metric.unit])
    return abs(fmean(now) - was) > noise
