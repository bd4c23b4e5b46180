"""How long a worker waits for what, and how much it takes on at once. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a worker.

    A worker that lost its store must have stopped its steps before another worker may
    believe that it is dead, or two of them would work on one target.

    Raises:
        ValueError: `lock_grace` and `cleanup` together do not end before `stale`.
    """

    concurrency: int = 4
    # How often a run is looked at for a cancellation or another owner.
    pulse: timedelta = timedelta(seconds=0.5)
    heartbeat: timedelta = timedelta(seconds=10)
    # A run whose heartbeat is older belongs to nobody and is given to another worker.
    stale: timedelta = timedelta(seconds=60)
    reap: timedelta = timedelta(seconds=10)
    poll: timedelta = timedelta(seconds=1)
    lock_ping: timedelta = timedelta(seconds=1)
    # From the last time that the target lock was known to be ours.
    lock_grace: timedelta = timedelta(seconds=30)
    # How long a run waits for another change of its target.
    lock_wait: timedelta = timedelta(hours=2)
    # How long a cancelled body may take to clean up.
    cleanup: timedelta = timedelta(seconds=20)
    # How long running steps may go on after SIGTERM.
    stop_grace: timedelta = timedelta(seconds=30)
    # How long an outcome is kept in memory while the store is away.
    patience: timedelta = timedelta(minutes=10)
    backoff: timedelta = timedelta(seconds=1)
    backoff_max: timedelta = timedelta(minutes=2)
    report: timedelta = timedelta(seconds=1)
    # A run that was begun this often without an end kills its workers: ask a person.
    claims_max: int = 20

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError("A worker needs room for at least one run.")
        if self.lock_grace + self.cleanup >= self.stale:
            raise ValueError("lock_grace and cleanup together must be shorter than stale.")
        if self.heartbeat * 2 > self.stale:
            raise ValueError("heartbeat must be at most half of stale.")
