"""How the numbers of what is measured are said to people, the same on every screen. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from jobs.text import span_text
from postgres.health.metrics import METRICS, Unit
from postgres.sizes import pretty_bytes

NOT_KNOWN: Final = "not known"
_SECOND_MS: Final = 1000.0
_DAYS_SAID_MAX: Final = 3650


def metric_text(name: str, value: float | None) -> str:
    """A metric's value with its unit; None is "not known".

    Raises:
        KeyError: there is no metric of this name.
    """
    return NOT_KNOWN if value is None else unit_text(METRICS[name].unit, value)


def unit_text(unit: Unit, value: float) -> str:
    """A value with its unit: 1536 bytes are "1.5 kB", 61,000 ms are "1 min 1 s"."""
    return _TEXTS[unit](value)


def bytes_text(value: float, *, signed: bool = False) -> str:
    """A size that may be negative; `signed`: a plus stands before what grows."""
    size = pretty_bytes(round(abs(value)))
    if value < 0:
        return f"-{size}"
    return f"+{size}" if signed and value else size


def number_text(value: float) -> str:
    """A number in three figures at most behind its comma: 0.5, 12.3, 1,234."""
    if value == 0 or abs(value) >= 100:  # noqa: PLR2004 - three figures are enough
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _milliseconds(value: float) -> str:
    if value < _SECOND_MS:
        return f"{number_text(value)} ms"
    return span_text(timedelta(milliseconds=value))


def _percent(value: float) -> str:
    return f"{f'{value:.1f}'.removesuffix('.0')} %"


def _days(value: float) -> str:
    return f"{value:,.0f} days" if value < _DAYS_SAID_MAX else "more than 10 years"


_TEXTS: Final[Mapping[Unit, Callable[[float], str]]] = MappingProxyType(
    {
        Unit.MILLISECONDS: _milliseconds,
        Unit.SECONDS: lambda value: span_text(timedelta(seconds=value)),
        Unit.PERCENT: _percent,
        Unit.BYTES: bytes_text,
        Unit.COUNT: number_text,
        Unit.PER_SECOND: lambda value: f"{number_text(value)}/s",
        Unit.PER_MINUTE: lambda value: f"{number_text(value)}/min",
        Unit.PER_HOUR: lambda value: f"{number_text(value)}/h",
        Unit.BYTES_PER_SECOND: lambda value: f"{bytes_text(value)}/s",
        Unit.BYTES_PER_DAY: lambda value: f"{bytes_text(value, signed=True)} a day",
        Unit.DAYS: _days,
    }
)
