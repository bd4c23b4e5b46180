"""`/db silence orders [alert] 4h "<reason>"`: alerts that are known say nothing for a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, Field, JsonValue, model_validator

from jobs.operation import (
    Answer,
    Attempt,
    Context,
    Job,
    JobError,
    Kind,
    Mode,
    Operation,
    Plan,
    Risk,
    UndoCall,
)
from jobs.silencing import SPAN_MAX, end_of, known_names, looks_like_end, named, redraw_incidents
from jobs.text import count_text, span_text
from store.alerts import firing_alerts
from store.silences import SilenceRow, active_silences, add_silence
from store.silencing import asker, silence_of_request

LIMIT: Final = timedelta(minutes=1)
ENDS: Final = "ends at"
ALERT: Final = "alert"
_ALL: Final = "all alerts"
_NAMED_MAX: Final = 10


class Params(BaseModel, extra="forbid"):
    """What is silent, how long, and why."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    alert: str = Field(
        default="",
        description="An alert's name; empty: all alerts of the database",
        examples=["ReplicationLag"],
        max_length=200,
    )
    until: str = Field(
        description="How long, or until when; 30 days at most",
        examples=["4h", "18:00", "until Friday"],
        min_length=1,
        max_length=60,
    )
    reason: str = Field(
        description="Why nobody needs to hear of it",
        examples=["the standby is being rebuilt"],
        min_length=8,
        max_length=500,
    )

    @model_validator(mode="before")
    @classmethod
    def _without_alert(cls, values: Any) -> Any:
        """`orders 4h "why"` names no alert: what stands in its place is the time."""
        if not isinstance(values, dict) or "reason" in values or "until" not in values:
            return values
        if not looks_like_end(str(values.get("alert", ""))):
            return values
        return {**values, "alert": "", "until": values["alert"], "reason": values["until"]}


async def plan(context: Context, params: Params) -> Plan:
    """What would say nothing, until when, and what of it fires at the moment.

    Raises:
        JobError: there is no such alert, the end cannot be understood, or it is silent already.
    """
    database = context.database
    end = end_of(params.until, now=context.now, zone=database.backups.zone)
    async with context.store.begin() as conn:
        name = named(params.alert, await known_names(conn, database), database=database.name)
        silences = await active_silences(conn, context.now, database.name)
        firing = [
            alert for alert in await firing_alerts(conn, database.name) if name in {"", alert.name}
        ]
    _not_yet_silent(silences, name, end)
    shown = ", ".join(sorted({alert.name for alert in firing})[:_NAMED_MAX])
    return Plan(
        title=f"Silence {name or _ALL} on {database.name} until {_text(end)}",
        steps=("Tell nobody of them until then; they are still looked at, and shown as silenced",),
        facts=(
            ("Alerts", name or _ALL),
            ("Until", f"{_text(end)}, in {span_text(end - context.now)}"),
            ("Firing now", f"{count_text(len(firing), 'alert')}: {shown}" if firing else "none"),
            ("Why", params.reason),
        ),
        warnings=tuple(_warnings(name, end - context.now)),
        estimate_seconds=1,
        undo=f"/db unsilence {database.name} {name}".strip(),
        pins={ENDS: end.isoformat(), ALERT: name or _ALL},
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """What was planned: nothing of the database enters into it."""
    del context, params
    return {name: plan.pins[name] for name in (ENDS, ALERT)}


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Begin the silence, and have the messages of what fires say so."""
    ends_at = datetime.fromisoformat(plan.pins[ENDS])
    name = "" if plan.pins[ALERT] == _ALL else plan.pins[ALERT]

    async def begin(attempt: Attempt) -> JsonValue:
        del attempt
        return await _begun(job, params, name, ends_at)

    if ends_at <= job.now:
        raise JobError(
            f"The silence was to end at {_text(ends_at)}, and that is over.",
            next_step="Ask for it again with a later end.",
        )
    number = await job.step("silence", begin, mode=Mode.RETRYABLE, time_limit=LIMIT)
    sooner = f"/db unsilence {params.database} {name}".strip()
    return Answer(
        title=f"{name or 'Everything'} on {params.database} is silent until {_text(ends_at)}",
        lines=(f"It ends by itself. Sooner: {sooner}",),
        facts=(("Why", params.reason),),
        numbers={"silence": int(str(number)), "name": name},
    )


async def _begun(job: Job, params: Params, name: str, ends_at: datetime) -> int:
    async with job.store.begin() as conn:
        if (known := await silence_of_request(conn, job.request_id)) is not None:
            return known
        who = await asker(conn, job.request_id)
        made = await add_silence(
            conn,
            database=params.database,
            name=name,
            source="person",
            reason=params.reason,
            by=who.person,
            by_slack=who.slack,
            request_id=job.request_id,
            starts_at=job.now,
            ends_at=ends_at,
        )
        text = f"{name or 'Everything'} is silenced until {_text(ends_at)} by {who.person}:"
        await redraw_incidents(
            conn, params.database, names=[name], text=f"{text} {params.reason}", mark="silence",
            at=job.now,
        )  # fmt: skip
        return made


def _not_yet_silent(silences: Sequence[SilenceRow], name: str, end: datetime) -> None:
    for known in silences:
        if known.name in {"", name} and known.ends_at >= end and known.source == "person":
            raise JobError(
                f"{known.name or 'Everything'} on {known.database} is silent until"
                f" {_text(known.ends_at)} already, by {known.by}: {known.reason}",
                next_step=f"End that first: /db unsilence {known.database} {known.name}".strip(),
            )


def _warnings(name: str, length: timedelta) -> Iterator[str]:
    if not name:
        yield "Everything of this database is silent, also what has not begun yet."
    if length > timedelta(days=1):
        yield f"That is longer than a day, and {SPAN_MAX.days} days are the most there is."


def _text(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _undo(params: Params, numbers: Mapping[str, JsonValue]) -> UndoCall:
    call: dict[str, JsonValue] = {"database": params.database, "alert": numbers["name"]}
    return UndoCall(operation="unsilence", params=call, within=SPAN_MAX)


OPERATION = Operation(
    name="silence",
    summary="Silence alerts of a database for a time, with a reason",
    kind=Kind.CHANGE,
    is_beside=True,
    risk=Risk.NONE,
    params=Params,
    example='/db silence orders ReplicationLag 4h "the standby is being rebuilt"',
    plan=plan,
    run=run,
    pinned=frozenset(),  # only what people are told changes
    pins=pins,
    undo=_undo,
    is_routed=False,  # our store says it
)
