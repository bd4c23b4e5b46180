"""When a backfill waits, and for what: a decision over what was seen. Pure.

Each signal has a limit, and is well again only some way below it, so that work does not start
and stop at every look. Nothing is waited for that waiting cannot help: dead rows that VACUUM
cannot take, and others' load that stays as high while we stand still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from postgres.migrate.backfill.spec import BackfillLimits
from postgres.sizes import pretty_bytes

_WELL_AGAIN: Final = 0.75
_WINDOW_LOOKS: Final = 8
_LOOKS_OVER: Final = 2  # so often in a row before others count as slowed down
# Others are this fast or faster: noise, and none of our business.
_PROBE_FLOOR_MS: Final = 5.0
_AGE_FLOOR_MS: Final = 10.0
_AGES_MIN: Final = 5  # fewer statements seen at work say nothing
_AGE_MAX_MS: Final = 10_000.0  # who is that old is a report, and was not slowed down by us
_NOT_OURS_SECONDS: Final = 10.0
_SHARE_MIN: Final = 0.2
_SHARE_LESS: Final = 0.7
_SHARE_MORE: Final = 0.1
_SHARE_AGAIN_SECONDS: Final = 5.0


class Cause(StrEnum):
    """What is waited for."""

    BLIND = "signals"
    LAG = "replica lag"
    WAITERS = "lock waiters"
    WAL = "WAL rate"
    DEAD = "dead rows"
    SLOWER = "other load"
    DISK = "free disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLag:
    """How far a standby is behind; None: unknown."""

    name: str
    bytes_behind: int | None
    seconds_behind: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """One look, `at` seconds by a clock that only goes on. None: it cannot be seen.

    `ages_ms`: for how long the others' statements have been at work that are at work now.
    `probe_ms`: how long a read of one row by us took. `dead`: dead rows per live row, without
    those that the last VACUUM had to leave. `wal_bytes`: where the WAL stands.
    """

    at: float
    replicas: tuple[ReplicaLag, ...] = ()
    waiters: int | None = None
    wal_bytes: int | None = None
    dead: float | None = None
    ages_ms: tuple[float, ...] = ()
    probe_ms: float | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What is waited for, with its numbers, for people."""

    cause: Cause
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The p95 of what others' statements and our probe took within some looks, in ms."""

    age_ms: float
    probe_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """What is known so far. `share` of the time may be worked while nothing is waited for."""

    looks: tuple[Signals, ...] = ()
    baseline: Load | None = None
    over: int = 0
    wal_rate: float | None = None
    reason: Reason | None = None
    since: float = 0.0
    share: float = 1.0
    share_at: float = 0.0
    notes: tuple[str, ...] = field(default=())


def settled(looks: Sequence[Signals]) -> Throttle:
    """What is known before the first batch: how fast others are without us."""
    at = looks[-1].at if looks else 0.0
    return Throttle(baseline=load_of(looks) if looks else None, share_at=at)


def decide(before: Throttle, seen: Signals, limits: BackfillLimits) -> Throttle:
    """What is known after another look: whether to wait (`reason`), and for what."""
    now = replace(
        before,
        looks=(*before.looks, seen)[-_WINDOW_LOOKS:],
        wal_rate=_wal_rate(before, seen),
        notes=(),
    )
    now = _others(now, seen, limits)
    reason = (
        _lag(now, seen, limits)
        or _disk(seen, limits)
        or _waiters(now, seen, limits)
        or _wal(now, limits)
        or _dead(now, seen, limits)
        or _slower(now, limits)
    )
    if reason is None:
        return _more(replace(now, reason=None, since=seen.at), seen)
    is_new = before.reason is None or before.reason.cause is not reason.cause
    now = replace(now, reason=reason, since=seen.at if is_new else before.since)
    if is_new and reason.cause is Cause.SLOWER:
        return replace(now, share=max(_SHARE_MIN, now.share * _SHARE_LESS), share_at=seen.at)
    return now


def load_of(looks: Sequence[Signals]) -> Load:
    """The p95 of some looks; nobody at work counts as nothing."""
    ages = [age for look in looks for age in look.ages_ms if age <= _AGE_MAX_MS]
    ages = ages if len(ages) >= _AGES_MIN else []
    probes = [look.probe_ms for look in looks if look.probe_ms is not None]
    return Load(age_ms=_p95(ages), probe_ms=_p95(probes))


def _p95(values: Sequence[float]) -> float:
    ordered = sorted(values)
    # Of a few values never the largest: one hiccup says nothing.
    return ordered[int(0.95 * (len(ordered) - 1))] if ordered else 0.0


def _more(now: Throttle, seen: Signals) -> Throttle:
    """A little more of the time, when nobody was slowed down for a while."""
    if now.share >= 1 or seen.at - now.share_at < _SHARE_AGAIN_SECONDS:
        return now
    return replace(now, share=min(1.0, now.share + _SHARE_MORE), share_at=seen.at)


def _limit(now: Throttle, cause: Cause, most: float) -> float:
    """`most`, or less while this is what is waited for."""
    is_on = now.reason is not None and now.reason.cause is cause
    return most * _WELL_AGAIN if is_on else most


def _lag(now: Throttle, seen: Signals, limits: BackfillLimits) -> Reason | None:
    seconds_max = limits.lag_max.total_seconds()
    for replica in seen.replicas:
        behind, seconds = replica.bytes_behind, replica.seconds_behind
        if limits.lag_bytes_max and (behind or 0) > _limit(now, Cause.LAG, limits.lag_bytes_max):
            text = (
                f"{replica.name} is {pretty_bytes(behind or 0)} behind (at most"
                f" {pretty_bytes(limits.lag_bytes_max)})"
            )
            return Reason(cause=Cause.LAG, text=text)
        if seconds_max and (seconds or 0) > _limit(now, Cause.LAG, seconds_max):
            text = f"{replica.name} is {seconds:.1f} s behind (at most {seconds_max:g} s)"
            return Reason(cause=Cause.LAG, text=text)
    return None


def _disk(seen: Signals, limits: BackfillLimits) -> Reason | None:
    if seen.free_bytes is None or not limits.free_min or seen.free_bytes >= limits.free_min:
        return None
    free, least = pretty_bytes(seen.free_bytes), pretty_bytes(limits.free_min)
    return Reason(cause=Cause.DISK, text=f"{free} of the disk are free (at least {least})")


def _waiters(now: Throttle, seen: Signals, limits: BackfillLimits) -> Reason | None:
    most = limits.waiters_max
    if not most or (seen.waiters or 0) <= _limit(now, Cause.WAITERS, most):
        return None
    text = f"{seen.waiters} sessions wait for locks (at most {most})"
    return Reason(cause=Cause.WAITERS, text=text)


def _wal_rate(before: Throttle, seen: Signals) -> float | None:
    """Bytes a second over the last looks."""
    first = next((look for look in before.looks[-4:] if look.wal_bytes is not None), None)
    if first is None or seen.wal_bytes is None or seen.at <= first.at:
        return before.wal_rate if seen.wal_bytes is None else None
    return max(seen.wal_bytes - (first.wal_bytes or 0), 0) / (seen.at - first.at)


def _wal(now: Throttle, limits: BackfillLimits) -> Reason | None:
    if not limits.wal_max or (now.wal_rate or 0) <= _limit(now, Cause.WAL, limits.wal_max):
        return None
    text = (
        f"the server writes {pretty_bytes(int(now.wal_rate or 0))} of WAL a second (at most"
        f" {pretty_bytes(limits.wal_max)})"
    )
    return Reason(cause=Cause.WAL, text=text)


def _dead(now: Throttle, seen: Signals, limits: BackfillLimits) -> Reason | None:
    if not limits.dead_max or (seen.dead or 0) <= _limit(now, Cause.DEAD, limits.dead_max):
        return None
    text = f"there are {seen.dead:.2f} dead rows per live row (at most {limits.dead_max:g})"
    return Reason(cause=Cause.DEAD, text=text)


def _others(now: Throttle, seen: Signals, limits: BackfillLimits) -> Throttle:
    """How often in a row others were too slow; a load that is not ours becomes the usual one."""
    if not limits.slower_max or now.baseline is None or not now.looks:
        return now
    load = load_of(now.looks)
    waited = now.reason is not None and now.reason.cause is Cause.SLOWER
    if waited and seen.at - now.since > _NOT_OURS_SECONDS:
        told = (
            f"Others are as slow while this waits (p95 {load.age_ms:.0f} ms): that is the measure"
            " from now on."
        )
        return replace(now, baseline=load, over=0, notes=(told,), looks=(seen,))
    limit = _limit(now, Cause.SLOWER, limits.slower_max)
    return replace(now, over=now.over + 1 if _times_slower(now) > limit else 0)


def _times_slower(now: Throttle) -> float:
    """How many times slower others are than before the first batch; 0 for no difference."""
    if now.baseline is None:
        return 0.0
    load = load_of(now.looks)
    age = load.age_ms / max(now.baseline.age_ms, _AGE_FLOOR_MS)
    probe = load.probe_ms / max(now.baseline.probe_ms, _PROBE_FLOOR_MS)
    return max(age, probe)


def _slower(now: Throttle, limits: BackfillLimits) -> Reason | None:
    waited = now.reason is not None and now.reason.cause is Cause.SLOWER
    if not now.over or (now.over < _LOOKS_OVER and not waited):
        return None
    text = f"others are {_times_slower(now):.1f} times slower (at most {limits.slower_max:g})"
    return Reason(cause=Cause.SLOWER, text=text)
