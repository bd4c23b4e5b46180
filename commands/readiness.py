"""`/db readiness [orders]`: the guide's ten checks, each with its evidence and its age."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, Field

from jobs.asked_databases import asked_databases
from jobs.backup_state import states
from jobs.health_state import health_states
from jobs.operation import Answer, Context, Kind, Operation, Risk, Table
from jobs.readiness import Readiness, readiness, worst_first
from jobs.readiness_backups import Item
from jobs.readiness_checks import Check
from jobs.readiness_facts import facts_of
from jobs.text import span_text

_DATABASES_MAX: Final = 100
_NEXT_MAX: Final = 5
_ALERTS_MAX: Final = 10
_MENDS_MAX: Final = 5


class Params(BaseModel, extra="forbid"):
    """Which database, or all of them."""

    database: str = Field(
        default="", description="Database in the inventory; all of them when left out"
    )


async def answer(context: Context, params: Params) -> Answer:
    """The checklist of one database, or one line for each, the worst first."""
    wanted = asked_databases(context, params.database)
    async with context.store.begin() as conn:
        known = await states(conn, wanted, context.now)
        health = await health_states(conn, wanted)
        facts = await facts_of(conn, health, context.now)
    found = [
        readiness(state, each, facts[each.database.name], context.now)
        for state, each in zip(known, health, strict=True)
    ]
    return _of_one(found[0]) if params.database else _of_all(worst_first(found))


def _of_one(found: Readiness) -> Answer:
    alerts = [
        f"{alert.severity}: {alert.name}. {alert.problem} {alert.next_step}"
        for alert in found.alerts[:_ALERTS_MAX]
    ]
    return Answer(
        title=f"Readiness of {found.database}: {found.score}",
        lines=(*alerts, *_mends(found.missing), _next(found)),
        table=Table(
            columns=("", "Check", "Age", "Evidence"),
            rows=(*map(_row, found.checks), *map(_detail, found.items)),
        ),
    )


def _row(check: Check) -> tuple[str, str, str, str]:
    age = "-" if check.age is None else span_text(check.age)
    return str(check.verdict), f"{check.number}. {check.name}", age, check.evidence


def _detail(item: Item) -> tuple[str, str, str, str]:
    """What stands behind one of the first two."""
    return "ok" if item.is_met else "NO", f"{item.check} · {item.name}", "", item.evidence


def _mends(missing: Sequence[Check]) -> Sequence[str]:
    """What to do first, for what is not met."""
    said = [f"{check.number}. {check.name}: {check.mend}" for check in missing if check.mend]
    rest = len(said) - _MENDS_MAX
    return [
        *(["What is missing, and what would mend it:"] if said else []),
        *said[:_MENDS_MAX],
        *([f"And {rest} more, see below."] if rest > 0 else []),
    ]


def _of_all(found: Sequence[Readiness]) -> Answer:
    ready = sum(not each.missing for each in found)
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
    missing = [check.name for check in found.missing]
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
    summary="Show what databases are ready for: ten checks, each with its evidence and age",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db readiness orders",
    answer=answer,
    is_routed=False,  # our store says it
)
