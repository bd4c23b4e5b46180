"""What is wrong with a cluster, as sentences: the problem, and what to do next. Pure values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from postgres.cluster.words import NodeSeen


class Severity(StrEnum):
    """How soon somebody must look."""

    CRITICAL = "critical"  # data is at risk, or nobody can write
    WARNING = "warning"  # what is left would not survive the next failure as it should
    NOTE = "note"  # to know before anything is done


ORDER: Final = (Severity.CRITICAL, Severity.WARNING, Severity.NOTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing. `nodes`: those that it is about."""

    severity: Severity
    problem: str
    next_step: str = ""
    nodes: tuple[str, ...] = ()


def names(nodes: Sequence[NodeSeen]) -> str:
    """Several of them in a sentence: east, west and north."""
    said = [each.name for each in nodes]
    return f"{', '.join(said[:-1])} and {said[-1]}" if len(said) > 1 else "".join(said)
