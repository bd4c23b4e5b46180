"""What the nodes of a database said at once becomes the rows of a look. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from jobs.collect_node import Silent
from jobs.collect_pending import HourSums, Look
from jobs.operation import Database
from postgres.health.collect import Collected
from postgres.health.lag import Replication, merge
from store.samples import NodeRow
from store.sizes import Size
from store.statements import StatementText

PRIMARY: Final = "primary"
_NOTES_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What history says: stands in the numbers of the primary. None where it says nothing yet."""

    growth_bytes_day: float | None = None
    days_until_full: float | None = None


def look_of(
    database: Database,
    at: datetime,
    found: Mapping[str, Collected | Silent],
    *,
    worker: str,
    outlook: Outlook,
    hours: Sequence[HourSums] = (),
    texts: Sequence[StatementText] = (),
) -> Look:
    """All nodes' rows, with what only all of them together can say in the primary's.

    Without a primary that answers, it stands with the inventory's own node.
    """
    seen = {name: each for name, each in found.items() if isinstance(each, Collected)}
    primary = primary_of(database, seen)
    main = primary or database.name
    together = _together(database, seen, primary)
    return Look(
        at=at,
        rows=tuple(
            _row(
                database,
                name,
                at,
                answer,
                worker=worker,
                together=together if name == main else None,
                outlook=outlook,
            )
            for name, answer in found.items()
        ),
        sizes_of=primary or "",
        sizes={
            each.what: Size(bytes=each.bytes, rows=each.rows)
            for each in (seen[primary].sizes if primary else ())
        },
        hours=tuple(hours),
        texts=tuple(texts),
    )


def primary_of(database: Database, seen: Mapping[str, Collected]) -> str | None:
    """The node that takes writes; of two, the inventory's own, or the first by name."""
    names = sorted(
        (name for name, each in seen.items() if each.detail.get("role") == PRIMARY),
        key=lambda name: (name != database.name, name),
    )
    return names[0] if names else None


def _together(
    database: Database, seen: Mapping[str, Collected], primary: str | None
) -> Replication:
    others = [name for name in seen if name != primary]
    expected = database.monitoring.replicas
    return merge(
        seen[primary] if primary else None,
        [seen[name] for name in others],
        len(database.replicas) if expected is None else expected,
        names=others,
    )


def _row(
    database: Database,
    name: str,
    at: datetime,
    answer: Collected | Silent,
    *,
    worker: str,
    together: Replication | None,
    outlook: Outlook,
) -> NodeRow:
    numbers: dict[str, float | None] = {}
    detail: dict[str, Any] = {}
    problem = next_step = ""
    if isinstance(answer, Collected):
        numbers |= {**answer.numbers, "up": 1.0}
        detail |= answer.detail
    else:
        numbers["up"] = 0.0
        problem, next_step = answer.problem, answer.next_step
    if together is not None:
        numbers |= together.numbers
        if isinstance(answer, Collected):
            numbers["growth_bytes_day"] = outlook.growth_bytes_day
            numbers["days_until_full"] = outlook.days_until_full
            detail["replicas"] = [dict(each) for each in together.replicas]
            notes = [*detail.get("notes", ()), *together.notes]
            detail["notes"] = notes[:_NOTES_MAX]
    return NodeRow(
        database=database.name,
        node=name,
        region=_region(database, name),
        collector=worker,
        at=at,
        ok=isinstance(answer, Collected),
        problem=problem,
        next_step=next_step,
        numbers=numbers,
        detail=detail,
    )


def _region(database: Database, name: str) -> str:
    regions = {node.name: node.region for node in database.replicas}
    return regions.get(name, database.region)
