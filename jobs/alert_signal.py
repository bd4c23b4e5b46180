"""One thing that may fire: its number now, the limits that it goes by, and what would be said.

Pure. Metrics and backups become signals, and the same machine and engine serve both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobs.alert_machine import Limits, Memory, Reading, Severity
from jobs.operation import Suggestion

# Name and label: what tells alerts of one database apart.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What people read of an alert that fires. `value`: None where a number says nothing."""

    problem: str
    next_step: str
    suggestions: tuple[Suggestion, ...] = ()
    runbook: str = ""
    metric: str = ""
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What is known of one alert of one database at a look.

    `node`: the server that it is about. `is_of_server`: without that server it says nothing
    new. `is_measured`: without a sample neither. `silenced_by`: names of alerts of the same
    server that make it needless. `is_found` False: what fired is not to be seen any more, and
    keeps its words and severity until it is over. `say` is asked only when it is to be told or
    stored.
    """

    name: str
    label: str
    node: str
    severity: Severity
    limits: Limits
    reading: Reading
    say: Callable[[Memory], Words]
    subject: str = ""
    silenced_by: tuple[str, ...] = ()
    is_of_server: bool = True
    is_measured: bool = True
    is_found: bool = True

    @property
    def key(self) -> Key:
        """What it is remembered by."""
        return self.name, self.label
