"""`/db readiness [orders]`: could it be brought back today? With the evidence, and its age."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, Field

from jobs.backup_state import states
from jobs.operation import Answer, Context, JobError, Kind, Operation, Risk, Table
from jobs.readiness import Readiness, readiness, worst_first

_DATABASES_MAX: Final = 100
_NEXT_MAX: Final = 5
_ALERTS_MAX: Final = 10


class Params(BaseModel, extra="forbid"):
    """Which database, or all of them."""

    database: str = Field(
        default="", description="Database in the inventory; all of them when left out"
    )


async def answer(context: Context, params: Params) -> Answer:
    """The checklist of one database, or one line for each, the worst first."""
    wanted = [context.database] if params.database else list(context.databases.values())
    if not wanted:
        raise JobError(
            "There is no database in the inventory.",
            next_step="Name one there: twokey.example.yml shows how.",
        )
    async with context.store.begin() as conn:
        known = await states(conn, wanted, context.now)
    found = [readiness(state, context.now) for state in known]
    return _of_one(found[0]) if params.database else _of_all(worst_first(found))


def _of_one(found: Readiness) -> Answer:
    alerts = [
        f"{alert.severity}: {alert.name}. {alert.problem} {alert.next_step}"
        for alert in found.alerts[:_ALERTS_MAX]
    ]
    return Answer(
        title=f"Readiness of {found.database}: {found.score}",
        lines=(*alerts, _next(found)),
        table=Table(
            columns=("", "Check", "Evidence"),
            rows=tuple(
                ("ok" if item.is_met else "NO", item.name, item.evidence) for item in found.items
            ),
        ),
    )


def _of_all(found: Sequence[Readiness]) -> Answer:
    ready = sum(each.met == len(each.items) for each in found)
    shown = found[:_DATABASES_MAX]
    rest = len(found) - len(shown)
    return Answer(
        title=f"{ready} of {len(found)} databases are ready",
        lines=(
            "The worst first. One of them in full: /db readiness NAME",
            *((f"And {rest} more that are no worse.",) if rest else ()),
        ),
        table=Table(
            columns=("Database", "Ready", "Missing", "Next"),
            rows=tuple(
                (each.database, each.score, _missing(each), _soonest(each)) for each in shown
            ),
        ),
    )


def _missing(found: Readiness) -> str:
    missing = [item.name for item in found.items if not item.is_met]
    more = f" and {len(missing) - 2} more" if len(missing) > 2 else ""  # noqa: PLR2004
    return f"{', '.join(missing[:2])}{more}" or "nothing"


def _next(found: Readiness) -> str:
    soon = [f"{name} {at:%Y-%m-%d %H:%M} UTC" for name, at in found.next[:_NEXT_MAX]]
    return f"Next: {', '.join(soon)}" if soon else "Nothing happens by the clock."


def _soonest(found: Readiness) -> str:
    if not found.next:
        return "-"
    name, at = found.next[0]
    return f"{name.partition(' ')[0]} {at:%m-%d %H:%M} UTC"


OPERATION = Operation(
    name="readiness",
    summary="Show whether databases could be brought back today, and by what one can tell",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db readiness orders",
    answer=answer,
)
