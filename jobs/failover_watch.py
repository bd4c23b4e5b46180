"""Which server of a cluster took over from which, and since when: over what two looks saw. Pure.

Every promotion begins a timeline, and no timeline begins without one: it is told by its number,
whoever did it and however short it was. Times are ours, from look to look; what the cluster's
history says narrows them where it lies between them, as clocks differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import JsonValue, TypeAdapter, ValidationError

from jobs.cluster_settings import DrillKind
from postgres.cluster.words import NodeSeen, Promotion
from store.cluster_events import ClusterEvent, ClusterRun

# A run's times are its worker's clock, a look's another's.
CLOCKS_DIFFER: Final = timedelta(seconds=5)
# Drills that leave the primary alone excuse nobody's promotion.
_PRIMARY_MOVES: Final = frozenset(DrillKind) - {DrillKind.REPLICA_LOSS, DrillKind.RESTORE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Primary:
    """Who took writes last. `silent_at`: the first look since then that saw nobody do so."""

    name: str
    system: str
    timeline: int
    at: datetime
    silent_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A timeline as the cluster's history has it. `node`: who began it, '' where nobody says."""

    timeline: int
    at: datetime | None = None
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a look saw. `primary`: of those that take writes, the one that was promoted last."""

    at: datetime
    primary: Primary | None
    history: tuple[Begun, ...] = ()


_PRIMARY: Final = TypeAdapter(Primary)
_HISTORY: Final = TypeAdapter(tuple[Begun, ...])


def newest_primary(nodes: Iterable[NodeSeen]) -> NodeSeen | None:
    """Of the servers that take writes, the one on the newest timeline."""
    writers = [each for each in nodes if each.is_writable and each.timeline is not None]
    return max(writers, key=lambda each: each.timeline or 0, default=None)


def begun(history: Sequence[Promotion], current: int) -> tuple[Begun, ...]:
    """The timelines that began, by a history that tells which ended. `current`: the newest."""
    ended = sorted((each for each in history if each.timeline < current), key=_ended)
    if not ended:
        return ()  # who was just promoted may not have written its history yet
    following = [*(each.timeline for each in ended[1:]), current]
    return tuple(
        Begun(timeline=began, at=each.at, node=each.leader)
        for each, began in zip(ended, following, strict=True)
    )


def history_json(history: Iterable[Begun]) -> JsonValue:
    """What is kept in the detail of a look's row."""
    return [
        {
            "timeline": each.timeline,
            "at": each.at.isoformat() if each.at else None,
            "node": each.node,
        }
        for each in history
    ]


def picture_of(detail: Mapping[str, Any], at: datetime) -> Picture:
    """A look's row as a picture; what cannot be read was not seen."""
    listed = [each for each in detail.get("nodes") or () if isinstance(each, Mapping)]
    writers = [
        each for each in listed if each.get("is_writable") and isinstance(each.get("timeline"), int)
    ]
    newest = max(writers, key=lambda each: each["timeline"], default=None)
    primary = newest if newest is None else _primary(newest, at)
    try:
        history = _HISTORY.validate_python(detail.get("history") or ())
    except ValidationError:
        history = ()
    return Picture(at=at, primary=primary, history=history)


def _primary(told: Mapping[str, Any], at: datetime) -> Primary:
    return Primary(
        name=str(told.get("name", "")),
        system=str(told.get("system") or ""),
        timeline=told["timeline"],
        at=at,
    )


def remembered(detail: Mapping[str, Any]) -> Primary | None:
    """Who took writes last, as a stored row says."""
    try:
        return _PRIMARY.validate_python(detail["last_primary"])
    except (KeyError, ValidationError):
        return None


def primary_json(primary: Primary | None) -> JsonValue:
    """What is remembered in a row."""
    return None if primary is None else _PRIMARY.dump_python(primary, mode="json")


def follow(
    before: Primary | None, seen: Picture, *, database: str
) -> tuple[Primary | None, tuple[ClusterEvent, ...]]:
    """Who took writes last, after this look, and the promotions that it found, oldest first.

    A primary on an older timeline than what was seen is an old one that came back, unless it is
    the same server: then it was restored. One of another cluster took over from nobody.
    """
    now = seen.primary
    if before is None:
        return now, ()
    if seen.at <= before.at:
        return before, ()
    if now is None:
        return replace(before, silent_at=before.silent_at or seen.at), ()
    is_same = before.system in {"", now.system} or not now.system
    if is_same and now.timeline > before.timeline:
        return now, tuple(_promotions(before, now, seen, database))
    is_old = is_same and now.timeline < before.timeline and now.name != before.name
    return (before if is_old else now), ()


def _promotions(
    before: Primary, now: Primary, seen: Picture, database: str
) -> Iterator[ClusterEvent]:
    """One for each timeline that the history knows, and for the newest whether or not it does."""
    known = {each.timeline: each for each in seen.history}
    between = sorted(line for line in known if before.timeline < line < now.timeline)
    old = before.name
    for line in (*between, now.timeline):
        told = known.get(line, Begun(timeline=line))
        new = now.name if line == now.timeline else told.node
        is_within = told.at is not None and before.at <= told.at <= seen.at
        yield ClusterEvent(
            database=database,
            system=now.system,
            timeline=line,
            old_node=old,
            new_node=new,
            old_at=before.at,
            silent_at=before.silent_at,
            promoted_at=told.at if is_within else None,
            at=seen.at,
        )
        old = new


def lost_time(event: ClusterEvent) -> tuple[timedelta, timedelta]:
    """For how long nobody took writes: at least, and at most."""
    end = event.promoted_at or event.at
    since = event.silent_at or end
    return max(end - since, timedelta(0)), max(end - event.old_at, timedelta(0))


def with_causes(
    events: Sequence[ClusterEvent], runs: Sequence[ClusterRun]
) -> tuple[ClusterEvent, ...]:
    """Whether our own runs did it. A run has done what it was to do, and no more than that.

    A failover has one promotion, of its candidate; a restore has the same server for a primary
    before and after; a drill has as many as it likes.
    """
    left = list(runs)
    found: list[ClusterEvent] = []
    for event in sorted(events, key=lambda each: -each.timeline):
        run = next((each for each in reversed(left) if _may_have_done(each, event)), None)
        found.append(replace(event, request_id=run.request_id) if run else event)
        if run is not None and run.operation == "failover":
            left.remove(run)
    return tuple(reversed(found))


def _may_have_done(run: ClusterRun, event: ClusterEvent) -> bool:
    if run.started_at > event.at + CLOCKS_DIFFER:
        return False
    if run.ended_at is not None and run.ended_at < event.old_at - CLOCKS_DIFFER:
        return False
    match run.operation:
        case "failover":
            return event.new_node in {"", candidate_of(run)}
        case "restore":
            return run.params.get("into") == "place" and event.old_node == event.new_node
        case "drill":
            return _pinned(run, "kind") in _PRIMARY_MOVES
        case _:
            return False


def candidate_of(run: ClusterRun) -> str:
    """Who a failover's run was to promote, as its plan was agreed to."""
    return _pinned(run, "candidate")


def _pinned(run: ClusterRun, name: str) -> str:
    """What the plan pinned of this name; '' where nobody can tell."""
    try:
        plan = json.loads(run.plan)
    except ValueError:
        return ""
    pins = plan.get("pins") if isinstance(plan, dict) else None
    return str(pins.get(name, "")) if isinstance(pins, dict) else ""


def _ended(promotion: Promotion) -> int:
    return promotion.timeline
