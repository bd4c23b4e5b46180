"""`/db unsilence orders [alert]`: end a silence before its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import BaseModel, Field, JsonValue

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
)
from jobs.silencing import redraw_incidents
from jobs.text import count_text
from store.silences import SilenceRow, active_silences, end_silence
from store.silencing import asker

LIMIT: Final = timedelta(minutes=1)
SILENCES: Final = "silences"
_SHOWN_MAX: Final = 20


class Params(BaseModel, extra="forbid"):
    """Which silences."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    alert: str = Field(
        default="",
        description="Only this alert's; empty: all silences of the database",
        examples=["ReplicationLag"],
        max_length=200,
    )


async def plan(context: Context, params: Params) -> Plan:
    """Which silences would end, whose they are and why they were wanted.

    Raises:
        JobError: nothing is silent there, or only together with everything else.
    """
    silent = await _silent(context, params)
    return Plan(
        title=f"Hear {params.alert or 'everything'} on {params.database} again",
        steps=(f"End {count_text(len(silent), 'silence')}: what fires is told again",),
        facts=tuple(
            (each.name or "Everything", f"until {_text(each.ends_at)}, {each.by}: {each.reason}")
            for each in silent[:_SHOWN_MAX]
        ),
        estimate_seconds=1,
        undo=f"/db silence {params.database} {params.alert or ''} <until> <reason>",
        pins={SILENCES: _numbers(silent)},
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The very silences: one that was begun since was not looked at."""
    del plan
    return {SILENCES: _numbers(await _silent(context, params))}


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """End them, and have the messages of what fires say so."""
    numbers = [int(number) for number in plan.pins[SILENCES].split(",")]

    async def end(attempt: Attempt) -> JsonValue:
        del attempt
        return await _ended(job, params, numbers)

    await job.step("unsilence", end, mode=Mode.RETRYABLE, time_limit=LIMIT)
    return Answer(
        title=f"{params.alert or 'Everything'} on {params.database} is heard again",
        lines=(f"What fires: /db alerts {params.database}",),
        numbers={"silences": len(numbers)},
    )


async def _ended(job: Job, params: Params, numbers: Sequence[int]) -> int:
    async with job.store.begin() as conn:
        who = await asker(conn, job.request_id)
        silent = {each.id: each for each in await active_silences(conn, job.now, params.database)}
        ended = [
            silent[number].name
            for number in numbers
            if number in silent and await end_silence(conn, number, by=who.person, at=job.now)
        ]
        if ended:
            what = "Everything" if "" in ended else ", ".join(sorted(set(ended)))
            await redraw_incidents(
                conn, params.database, names=ended, at=job.now, mark="warning",
                text=f"{what} is heard again: {who.person} ended the silence.",
            )  # fmt: skip
        return len(ended)


async def _silent(context: Context, params: Params) -> Sequence[SilenceRow]:
    async with context.store.begin() as conn:
        known = await active_silences(conn, context.now, params.database)
    wanted = params.alert.casefold()
    silent = [each for each in known if not wanted or each.name.casefold() == wanted]
    if silent:
        return silent
    if any(not each.name for each in known):
        raise JobError(
            f"{params.alert} on {params.database} is silent only together with everything else.",
            next_step=f"End that: /db unsilence {params.database}",
        )
    what = f"Nothing called {params.alert}" if wanted else "Nothing"
    raise JobError(
        f"{what} is silent on {params.database}.",
        next_step=f"See what fires and what is silent: /db alerts {params.database}",
    )


def _numbers(silent: Sequence[SilenceRow]) -> str:
    return ",".join(str(each.id) for each in sorted(silent, key=lambda each: each.id))


def _text(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


OPERATION = Operation(
    name="unsilence",
    summary="End a silence of alerts before its time",
    kind=Kind.CHANGE,
    is_beside=True,
    risk=Risk.NONE,
    params=Params,
    example="/db unsilence orders ReplicationLag",
    plan=plan,
    run=run,
    pinned=frozenset(),  # only what people are told changes
    pins=pins,
    is_routed=False,  # our store says it
)
