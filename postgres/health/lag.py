"""How far standbys are behind, from both sides. Pure.

No side alone can be believed (tried):

- The primary's `replay_lag` is NULL while nothing is written, and it is as old as the standby's
  last reply: a paused standby looks seconds behind for ten seconds more.
- A standby's own `now() - pg_last_xact_replay_timestamp()` rises while nobody writes; guarded by
  "received = replayed" it is zero on a standby that is cut off while its primary goes on.
- A standby that is cut off has no row on the primary at all: no row, no lag, no alert. So how
  many must stream is said beforehand, and the missing are counted.

Clocks of two servers differ. What decides is the primary's own record of where its WAL stood
when (`Trail`): a standby that has replayed up to a position is as late as that position is old.
The reported time only refines it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

_POINTS_MAX: Final = 480
_NAMES: Final = (
    "replication_lag_ms", "replication_lag_bytes", "replicas_streaming", "replicas_missing",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """Where a primary's WAL stood at which time: (seconds, bytes), both rising. Of one server."""

    points: tuple[tuple[float, int], ...] = ()

    def add(self, at: float, lsn: int) -> Trail:
        """With another look; one that goes back begins a new trail, as after a failover."""
        if self.points and (at <= self.points[-1][0] or lsn < self.points[-1][1]):
            return Trail(points=((at, lsn),))
        points = (*self.points, (at, lsn))
        if len(points) > _POINTS_MAX:
            # Every other one of the older half: what is long ago needs no exact time.
            half = _POINTS_MAX // 2
            points = (*points[:half:2], *points[half:])
        return Trail(points=points)

    def bounds(self, lsn: int) -> tuple[float, float | None]:
        """How long ago the first byte after `lsn` was written: at least, at most (s; None: ?)."""
        if not self.points:
            return 0.0, None
        now = self.points[-1][0]
        after = bisect_right(self.points, lsn, key=lambda point: point[1])
        if after == len(self.points):
            return 0.0, 0.0
        at_least = now - self.points[after][0]
        return at_least, (now - self.points[after - 1][0]) if after else None


class Look(Protocol):
    """What is needed of a `Collected`."""

    @property
    def numbers(self) -> Mapping[str, float | None]:
        """Metrics."""
        ...

    @property
    def detail(self) -> Mapping[str, Any]:
        """What they are about."""
        ...

    @property
    def trail(self) -> Trail:
        """Where its WAL stood; of a primary."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """What all nodes of a cluster say together: numbers for the primary, its replicas, notes."""

    numbers: Mapping[str, float | None]
    replicas: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()


def seen_by_primary(replicas: Sequence[Mapping[str, Any]], trail: Trail) -> Replication:
    """The lag of what is connected. `replicas` are rows of `instance`; others than standbys go."""
    told = tuple(_replica(row, trail) for row in replicas if is_standby(row))
    return Replication(numbers=MappingProxyType(_worst(told)), replicas=told)


def is_standby(row: Mapping[str, Any]) -> bool:
    """Not a logical subscriber, nor an archiver such as pg_receivewal, which replays nothing."""
    if row.get("is_logical"):
        return False
    return row["replay_lsn"] is not None or row["state"] != "streaming"


def _replica(row: Mapping[str, Any], trail: Trail) -> Mapping[str, Any]:
    kept = ("name", "addr", "state", "sync", "lag_bytes", "reply_age_s")
    return {**{name: row.get(name) for name in kept}, "replay_ms": _reported_ms(row, trail)}


def _reported_ms(row: Mapping[str, Any], trail: Trail) -> float | None:
    if row["lag_bytes"] is None or row["replay_lsn"] is None:
        return None
    if row["lag_bytes"] <= 0:
        return 0.0  # NULL here means idle, not unknown
    reported = row.get("replay_ms")
    if reported is not None:
        # As of the last reply, whose time is by the standby's clock: the trail bounds the sum.
        reported += max(row.get("reply_age_s") or 0.0, 0.0) * 1000
    return _bounded_ms(reported, int(row["replay_lsn"]), trail)


def _bounded_ms(reported: float | None, lsn: int, trail: Trail) -> float | None:
    """What was reported, no less and no more than the trail allows; without it, the least."""
    at_least, at_most = trail.bounds(lsn)
    if reported is None:
        return None if at_most is None and at_least == 0.0 else at_least * 1000
    if at_most is not None:
        reported = min(reported, at_most * 1000)
    return max(reported, at_least * 1000)


def merge(
    primary: Look | None, standbys: Sequence[Look], expected: int, *, names: Sequence[str] = ()
) -> Replication:
    """What the primary and the standbys say together.

    `primary` None: it cannot be seen. `standbys` are those that answer, with `names` as the
    inventory has them; `expected` is how many must stream.
    """
    notes = _contradictions(primary, standbys, names)
    if primary is None or primary.detail.get("role") != "primary":
        missing = max(expected - sum(_receives(each) for each in standbys), 0)
        numbers = {**dict.fromkeys(_NAMES), "replicas_missing": float(missing)}
        return Replication(numbers=MappingProxyType(numbers), replicas=(), notes=tuple(notes))
    ours = [(_name(names, at), each) for at, each in enumerate(standbys) if _is_of(each, primary)]
    cut_off = [(name, each) for name, each in ours if not _receives(each)]
    notes += [_why_cut_off(each, name) for name, each in cut_off]
    replicas = (
        *(primary.detail.get("replicas") or ()),
        *(_cut_off(each, name, primary) for name, each in cut_off),
    )
    numbers = _worst(replicas)
    # A standby behind another standby has no row on the primary.
    streaming = max(numbers["replicas_streaming"] or 0.0, float(len(ours) - len(cut_off)))
    numbers |= {
        "replicas_streaming": streaming,
        "replicas_missing": max(expected - streaming, 0.0),
    }
    return Replication(numbers=MappingProxyType(numbers), replicas=replicas, notes=tuple(notes))


def _name(names: Sequence[str], at: int) -> str:
    return names[at] if at < len(names) else "A standby"


def _is_of(standby: Look, primary: Look) -> bool:
    """Whether it is a standby, and a copy of this cluster as far as both can tell."""
    systems = {each.detail.get("system") for each in (standby, primary)} - {None}
    return standby.detail.get("role") == "standby" and len(systems) <= 1


def _contradictions(
    primary: Look | None, standbys: Sequence[Look], names: Sequence[str]
) -> list[str]:
    notes = []
    for at, other in enumerate(standbys):
        if primary is None:
            continue
        if other.detail.get("role") == "primary":
            notes.append(f"{_name(names, at)} is a primary too: two of them take writes.")
        elif not _is_of(other, primary):
            notes.append(f"{_name(names, at)} is a copy of another cluster, no standby of this.")
    return notes


def _receives(standby: Look) -> bool:
    receiver = standby.detail.get("standby") or {}
    return bool(receiver.get("status") == "streaming")


def _cut_off(standby: Look, name: str, primary: Look) -> Mapping[str, Any]:
    """A standby without a connection: only it knows where it stands, only the primary how late."""
    lsn = (standby.detail.get("standby") or {}).get("replay_lsn")
    points = primary.trail.points
    behind = None if lsn is None or not points else max(points[-1][1] - int(lsn), 0)
    lag = None if lsn is None else _bounded_ms(None, int(lsn), primary.trail)
    return {
        "name": name, "addr": None, "state": "disconnected", "sync": None, "lag_bytes": behind,
        "replay_ms": lag, "reply_age_s": None,
    }  # fmt: skip


def _why_cut_off(standby: Look, name: str) -> str:
    status = (standby.detail.get("standby") or {}).get("status")
    return f"{name} does not stream: its WAL receiver is {status or 'not running'}."


def _worst(replicas: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Of all standbys; how many are missing is not known here."""
    lags = [row["replay_ms"] for row in replicas if row["replay_ms"] is not None]
    behind = [row["lag_bytes"] for row in replicas if row["lag_bytes"] is not None]
    return {
        "replication_lag_ms": max(lags, default=None),
        "replication_lag_bytes": float(max(0, *behind)) if behind else None,
        "replicas_streaming": float(sum(row["state"] == "streaming" for row in replicas)),
        "replicas_missing": None,
    }
