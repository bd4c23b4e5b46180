"""`/db digest [orders] [weekly]`: what managers get by the clock, at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, Field, model_validator

from jobs.asked_databases import asked_databases
from jobs.digest import Period
from jobs.digest_facts import digest_of
from jobs.digest_words import as_answer
from jobs.operation import Answer, Context, Kind, Operation, Risk

# A forecast of all sizes and a week of a hundred databases are more than an ack waits for.
PATIENCE: Final = timedelta(seconds=45)
_PERIODS: Final = frozenset(Period)


class Params(BaseModel, extra="forbid"):
    """Which database, or all of them, and how far to look back."""

    database: str = Field(
        default="", description="Database in the inventory; all of them when left out"
    )
    period: Period = Field(default=Period.WEEKLY, description="daily or weekly")

    @model_validator(mode="before")
    @classmethod
    def _is_period(cls, given: Any) -> Any:
        """`/db digest daily` is of all databases."""
        if isinstance(given, dict) and set(given) == {"database"} and given["database"] in _PERIODS:
            return {"period": given["database"]}
        return given


async def answer(context: Context, params: Params) -> Answer:
    """The digest of a period that ends now."""
    wanted = asked_databases(context, params.database)
    async with context.store.begin() as conn:
        return as_answer(await digest_of(conn, wanted, params.period, context.now))


OPERATION = Operation(
    name="digest",
    summary="Show what managers get by the clock: status, readiness, alerts, approvals, growth",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db digest orders weekly",
    answer=answer,
    patience=PATIENCE,
    is_routed=False,  # our store says it
)
