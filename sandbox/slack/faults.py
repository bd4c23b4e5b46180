"""Faults that one asks for: Slack having a bad day, on demand and counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

FAULTS_MAX: Final = 100


class FaultKind(StrEnum):
    """What goes wrong."""

    RATE_LIMITED = "429"
    SERVER_ERROR = "500"
    HTML = "html"  # a proxy's page instead of JSON
    ERROR = "error"  # `ok: false` with the code in `error`
    SLOW = "slow"  # waits `seconds`, then does the work
    DROP_BEFORE = "drop_before"  # connection closed, nothing done
    DROP_AFTER = "drop_after"  # the work was done, the answer is lost
    ABORT_SOCKET = "abort_socket"  # connection reset, nothing done
    NO_BLOCK = "no_block"  # this workspace does not have such blocks yet, until it is cleared


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault that waits for its next `times` victims.

    `method` is an API method, `response_url`, `upload`, `socket` (the next envelope in Socket
    Mode cuts its connection), `delivery` (the next command, click or event: `drop_after` loses
    the app's ack, every other kind the delivery itself), or `*` for every API method. `skip`
    lets that many calls through first. For `no_block` it is a type of block, and nothing is
    counted.
    """

    id: int
    method: str
    kind: FaultKind
    times: int = 1
    skip: int = 0
    status: int = 500
    retry_after_seconds: int = 1
    seconds: float = 1.0
    error: str = "fatal_error"


class Faults:
    """The faults that are still to happen, oldest first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._ids = 0

    def __iter__(self) -> Iterator[Fault]:
        return iter(list(self._faults))

    def add(self, *, method: str, kind: str, times: int = 1, **more: Any) -> Fault:
        """Ask for a fault.

        Raises:
            ValueError: the kind is unknown, a number makes no sense, or too many wait already.
        """
        if len(self._faults) >= FAULTS_MAX:
            raise ValueError(f"At most {FAULTS_MAX} faults can wait.")
        if times < 1:
            raise ValueError("A fault happens at least once.")
        self._ids += 1
        try:
            fault = Fault(id=self._ids, method=method, kind=FaultKind(kind), times=times, **more)
        except TypeError as error:
            raise ValueError(str(error)) from None
        self._faults.append(fault)
        return fault

    def missing_blocks(self) -> frozenset[str]:
        """The types of blocks that this workspace refuses."""
        return frozenset(f.method for f in self._faults if f.kind is FaultKind.NO_BLOCK)

    def take(self, method: str, *, api: bool = False) -> Fault | None:
        """The fault that happens now, or None; it is counted."""
        for index, fault in enumerate(self._faults):
            if fault.kind is FaultKind.NO_BLOCK:
                continue
            if fault.method != method and not (api and fault.method == "*"):
                continue
            if fault.skip:
                self._faults[index] = replace(fault, skip=fault.skip - 1)
                continue
            if fault.times > 1:
                self._faults[index] = replace(fault, times=fault.times - 1)
            else:
                del self._faults[index]
            return fault
        return None

    def clear(self, fault_id: int | None = None) -> None:
        """Forget one fault, or all of them."""
        self._faults = [f for f in self._faults if fault_id is not None and f.id != fault_id]

    def as_json(self) -> list[dict[str, Any]]:
        """The waiting faults."""
        return [asdict(fault) for fault in self._faults]
