"""What a series of a chart stands for, so that whoever draws it can tell them apart. Pure."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """How a series is drawn. A range has two edges, `LOW` and `HIGH`, around an `EXPECTED` one."""

    MEASURED = "measured"  # a plain line, also where nothing is said
    EXPECTED = "expected"  # dashed: nobody has measured it
    LOW = "low"
    HIGH = "high"
    LIMIT = "limit"  # a threshold or a capacity: what must not be reached
