"""Values of the inventory that people write in their own way: spans, sizes, cron. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

_UNITS: Final[Mapping[str, int]] = MappingProxyType(
    {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
)
_SIZES: Final[Mapping[str, int]] = MappingProxyType(
    {"kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
)


def _span(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d{1,6}) ?([smhdw])", value.strip())
    if found is None:
        raise ValueError("write a span like 30d, 12h or 90s")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d{1,9}) ?(kB|MB|GB|TB)", value.strip())
    if found is None:
        raise ValueError("write a size like 40MB or 10GB")
    return int(found[1]) * _SIZES[found[2]]


Span = Annotated[timedelta, BeforeValidator(_span), Field(gt=timedelta(0))]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Cron = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
SlackChannel = Annotated[str, StringConstraints(pattern=r"^[CG][A-Z0-9]{2,20}$")]


class Strict(BaseModel):
    """Part of the inventory: a key that nobody knows is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")
