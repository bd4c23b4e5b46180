"""How fast something grows, and how the pace itself changes: candidates and how likely each is.

Pure. The pace is read from weekly means of the daily changes, so that weekdays do not matter.
Candidates are compared by BIC (Schwarz 1978); all that are likely take part in the forecast.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from jobs.forecast_clean import WEEK, Cleaned, Rhythm, Values

_WEEKS_LEAST: Final = 6  # below, only a steady pace can be told
_WEEKS_BESIDE_A_BREAK: Final = 3
_WEEKS_FOR_AN_ERROR: Final = 4
# In BIC's own unit: how much better another shape must fit to be as likely as a steady pace.
_BEND_HANDICAP: Final = 3.0
_RELATIVE_HANDICAP: Final = 2.0
_SHARE_LEAST: Final = 0.05


class Shape(StrEnum):
    """How the pace goes on."""

    STEADY = "steady"
    CHANGED = "changed"  # another pace since some day: only the newer one counts
    ACCELERATING = "accelerating"
    SLOWING = "slowing"
    RELATIVE = "relative"  # by a constant share of the size


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A candidate and how likely it is.

    Paces are per day, `bend` is per day and day, `unsure` and `bend_unsure` are standard
    errors. `weeks`: how many of the last weeks it is read from.
    """

    shape: Shape
    share: float
    pace: float
    unsure: float
    weeks: int
    bend: float = 0.0
    bend_unsure: float = 0.0
    before: float = 0.0  # CHANGED: the pace until then


def weekly_paces(smooth: Values) -> Values:
    """The mean daily change of each whole week, oldest first; the last one ends with the data."""
    increments = np.diff(smooth)
    weeks = len(increments) // WEEK
    return np.asarray(increments[-weeks * WEEK :].reshape(weeks, WEEK).mean(axis=1))


def theil_sen(values: Values) -> float:
    """The median of the slopes between all pairs of days (Theil 1950, Sen 1968)."""
    first, second = np.triu_indices(len(values), 1)
    return float(np.median((values[second] - values[first]) / (second - first)))


def candidates(clean: Cleaned) -> tuple[Pace, ...]:
    """The likely shapes, likeliest first; their shares add up to 1.

    Beside jumps that come again, a bend cannot be told from them: the pace is steady then.
    """
    smooth = clean.smooth
    paces = weekly_paces(smooth)
    steady = _steady(smooth, paces)
    if regular := [rhythm for rhythm in clean.rhythms if rhythm.is_regular]:
        longest = max(regular, key=lambda rhythm: len(rhythm.steps))
        return (replace(steady, pace=_over_whole_periods(smooth, longest)),)
    if len(paces) < _WEEKS_LEAST:
        return (steady,)
    scored = [
        (_bic(paces, np.full(len(paces), paces.mean()), 1), steady),
        _scored_change(smooth, paces),
        _scored_bend(paces),
        *_scored_relative(smooth, paces),
    ]
    best = min(score for score, _ in scored)
    weights = [float(np.exp((best - score) / 2)) for score, _ in scored]
    likely = [
        (weight, pace)
        for weight, (_, pace) in zip(weights, scored, strict=True)
        if weight >= _SHARE_LEAST * sum(weights)
    ]
    total = sum(weight for weight, _ in likely)
    return tuple(
        replace(pace, share=weight / total)
        for weight, pace in sorted(likely, key=lambda one: -one[0])
    )


def _steady(smooth: Values, paces: Values) -> Pace:
    increments = np.diff(smooth)
    # Two weekly means say nothing of how far they differ: then each day counts for itself.
    read = paces if len(paces) >= _WEEKS_FOR_AN_ERROR else increments
    return Pace(
        shape=Shape.STEADY, share=1.0, pace=theil_sen(smooth), unsure=_error(read),
        weeks=len(paces),
    )  # fmt: skip


def _over_whole_periods(smooth: Values, rhythm: Rhythm) -> float:
    """The pace between the first and the last jump.

    What stays of a month's growth after its purge is a small difference of two large numbers:
    both are taken from the same days, so that it is what was measured.
    """
    first, last = rhythm.steps[0].at, rhythm.steps[-1].at
    return float((smooth[last] - smooth[first]) / (last - first))


def _scored_change(smooth: Values, paces: Values) -> tuple[float, Pace]:
    """The best day for a change of pace, between whole weeks."""
    breaks = range(_WEEKS_BESIDE_A_BREAK, len(paces) - _WEEKS_BESIDE_A_BREAK + 1)
    fits = [(_bic(paces, _two_levels(paces, at), 3), at) for at in breaks]
    score, at = min(fits)
    newer = paces[at:]
    found = Pace(
        shape=Shape.CHANGED,
        share=0.0,
        pace=theil_sen(smooth[-len(newer) * WEEK - 1 :]),
        unsure=_error(newer),
        weeks=len(newer),
        before=float(paces[:at].mean()),
    )
    return score + _BEND_HANDICAP, found


def _scored_bend(paces: Values) -> tuple[float, Pace]:
    """A pace that changes by as much every week."""
    weeks = np.arange(len(paces)) - (len(paces) - 1) / 2
    bend = float(weeks @ paces / (weeks @ weeks))
    fitted = paces.mean() + bend * weeks
    spread = np.sum((paces - fitted) ** 2) / max(len(paces) - 2, 1)
    now = float(paces.mean() + bend * (weeks[-1] + 0.5))
    shape = Shape.ACCELERATING if bend * now > 0 else Shape.SLOWING
    found = Pace(
        shape=shape,
        share=0.0,
        pace=now,
        unsure=0.0,
        weeks=len(paces),
        bend=bend / WEEK,
        bend_unsure=float(np.sqrt(spread / (weeks @ weeks))) / WEEK,
    )
    return _bic(paces, fitted, 2) + _BEND_HANDICAP, found


def _scored_relative(smooth: Values, paces: Values) -> list[tuple[float, Pace]]:
    """Growth by a constant share of the size, where there is growth."""
    if smooth.min() <= 0 or paces.mean() <= 0:
        return []
    ends = smooth[-len(paces) * WEEK - 1 :: WEEK]
    levels = (ends[1:] + ends[:-1]) / 2
    fitted = paces.mean() * levels / levels.mean()
    found = Pace(
        shape=Shape.RELATIVE,
        share=0.0,
        pace=theil_sen(np.log(smooth)) * float(smooth[-1]),
        unsure=_error(paces - fitted),
        weeks=len(paces),
    )
    return [(_bic(paces, fitted, 1) + _RELATIVE_HANDICAP, found)]


def _two_levels(paces: Values, at: int) -> Values:
    levels = (paces[:at].mean(), paces[at:].mean())
    return np.asarray(np.where(np.arange(len(paces)) < at, *levels))


def _bic(paces: Values, fitted: Values, parameters: int) -> float:
    count = len(paces)
    # A perfect fit must not be infinitely likely: what is read is never better than this.
    least = (1e-6 * (float(np.abs(paces).max()) or 1.0)) ** 2
    error = max(float(np.mean((paces - fitted) ** 2)), least)
    return float(count * np.log(error) + parameters * np.log(count))


def _error(paces: Values) -> float:
    """The standard error of the mean pace."""
    return float(paces.std(ddof=1) / np.sqrt(len(paces)))
