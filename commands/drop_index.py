"""`/db drop-index orders public.orders_note_idx`: while its table stays in use.

An index that backs a constraint, keeps values unique, identifies rows for replication or belongs
to a partitioned one is refused. Its definition is kept, so that it can be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, Field, JsonValue

from jobs.index_run import LIMITS, RUN_LIMIT, explained, old_transactions, replica_scans, telling
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
from jobs.text import span_text
from postgres.dsn import parse_dsn
from postgres.health.index_build import drop
from postgres.health.index_drop import (
    FIND,
    SHAPES,
    drop_objection,
    drop_warnings,
    recreation,
    twin_of,
)
from postgres.health.index_nodes import FORMAT
from postgres.health.indexes import Counted
from postgres.sizes import pretty_bytes

UNDO_WITHIN: Final = timedelta(days=30)


class Params(BaseModel, extra="forbid"):
    """Which index."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    index: str = Field(
        pattern=r".+\..+",
        max_length=200,
        description="The index with its schema",
        examples=["public.orders_note_idx"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """An index that somebody wants to drop, and the others of its table."""

    row: Mapping[str, Any]
    siblings: Sequence[Mapping[str, Any]]

    @property
    def text(self) -> str:
        """The index, for people."""
        return f"{self.row['schema']}.{self.row['name']}"

    @property
    def pins(self) -> Mapping[str, str]:
        """The very index."""
        return {"index": str(self.row["oid"]), "definition": str(self.row["definition"])}


async def plan(context: Context, params: Params) -> Plan:
    """The index, its use on every node, and how it comes back.

    Raises:
        JobError: it is not there, or must stay.
    """
    doomed = await _found(context, params)
    if objection := drop_objection(doomed.row, doomed.siblings):
        raise JobError(objection.problem, next_step=objection.next_step)
    replicas, silent = await replica_scans(context, [doomed.row["oid"]])
    names = [doomed.row["schema"], doomed.row["name"]]
    (made,) = await context.reader.rows(FORMAT, "DROP INDEX CONCURRENTLY %I.%I", names)
    old = await old_transactions(context)
    warnings = drop_warnings(doomed.row, doomed.siblings, replicas, silent)
    waits = [f"It waits for older transactions. Now: {'; '.join(old)}"] if old else []
    return Plan(
        title=f"Drop index {doomed.text}",
        steps=(
            f"Drop {doomed.text} while {doomed.row['table_name']} is in use, in no transaction",
        ),
        statements=(f"{made['sql']};",),
        facts=tuple(_facts(doomed, context.database.name, replicas, silent)),
        warnings=(*warnings, *waits),
        estimate_seconds=1,
        undo=_undo_text(doomed),
        pins=doomed.pins,
        risk=Risk.DISRUPTIVE if doomed.row["is_valid"] else Risk.RECOVERABLE,
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The index as it is now, if it is there."""
    del plan
    return (await _found(context, params)).pins


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Drop it; a drop that was cut off is ended by whoever comes next."""
    schema, name = await _names(job, params, plan)

    async def remove(_: Attempt) -> JsonValue:
        target = parse_dsn(job.database.dsn.get_secret_value())
        with explained():
            return await drop(target, schema, name, limits=LIMITS, tell=telling(job))

    definition = plan.pins["definition"]
    # Retryable: a second time ends what was begun, or finds nothing to drop.
    await job.step("drop", remove, mode=Mode.RETRYABLE, time_limit=LIMITS.whole)
    again = recreation(definition)
    numbers: dict[str, str] = {"index": params.index, "definition": definition}
    if again is not None:
        numbers |= {f"again_{key}": value for key, value in again.items()}
    return Answer(
        title=f"{params.index} is dropped",
        lines=("If something got slower, make it again with Undo, or with the definition below.",)
        if again
        else ("It can only be made again by hand, by the definition below.",),
        facts=(("Definition", definition),),
        numbers=numbers,
    )


def undo(params: Params, numbers: Mapping[str, JsonValue]) -> UndoCall | None:
    """Make it again, where `create-index` can say all that it was."""
    again = {
        key.removeprefix("again_"): value
        for key, value in numbers.items()
        if key.startswith("again_")
    }
    if not again:
        return None
    call: dict[str, JsonValue] = {"database": params.database, **again}
    call["unique"] = again.get("unique") == "yes"
    return UndoCall(operation="create-index", params=call, within=UNDO_WITHIN)


async def _found(context: Context, params: Params) -> Doomed:
    rows = await context.reader.rows(FIND, params.index)
    if not rows:
        raise JobError(
            f"There is no index {params.index}.",
            next_step=f"See what there is: /db indexes {params.database}",
        )
    oid = rows[0]["oid"]
    shapes = await context.reader.rows(SHAPES, rows[0]["table_oid"])
    own = next((shape for shape in shapes if shape["oid"] == oid), {})
    siblings = [shape for shape in shapes if shape["oid"] != oid]
    return Doomed(row={**own, **rows[0]}, siblings=siblings)


async def _names(job: Job, params: Params, plan: Plan) -> tuple[str, str]:
    """Schema and name of the index that the plan pinned; also when it is gone by now."""
    rows = await job.reader.rows(FIND, params.index)
    if not rows:
        schema, _, name = params.index.partition(".")
        return schema, name
    # A cut-off drop leaves it invalid; its number and its definition stay.
    if str(rows[0]["oid"]) != plan.pins["index"]:
        raise JobError(
            f"{params.index} is another index than the one that was agreed to.",
            next_step="Ask for it again.",
        )
    return rows[0]["schema"], rows[0]["name"]


def _facts(
    doomed: Doomed, node: str, replicas: Sequence[Counted], silent: Sequence[str]
) -> list[tuple[str, str]]:
    row = doomed.row
    used = [_used(node, row["scans"], row["since"], row["now"])]
    used += [
        _used(each.node, each.scans.get(row["oid"], 0), each.since, each.now) for each in replicas
    ]
    used += [f"{name}: could not be asked" for name in silent]
    twin = twin_of(row, doomed.siblings)
    found = [
        ("Table", str(row["table_name"])),
        ("Size", pretty_bytes(row["size_bytes"])),
        ("Used", "; ".join(used)),
        ("Definition", str(row["definition"])),
        ("State", "valid" if row["is_valid"] else "invalid: no query uses it"),
    ]
    return [*found, ("Same as", twin)] if twin else found


def _used(node: str, scans: int, since: datetime | None, now: datetime) -> str:
    span = f"in {span_text(now - since)}" if since else "since it was made"
    return f"{node}: {scans:,} times {span}"


def _undo_text(doomed: Doomed) -> str:
    if recreation(str(doomed.row["definition"])) is None:
        return "None: /db create-index cannot say all that it is. Its definition is kept above."
    return "/db create-index with the same definition, which reads the whole table again."


OPERATION = Operation(
    name="drop-index",
    summary="Drop an index while its table stays in use",
    kind=Kind.CHANGE,
    risk=Risk.DISRUPTIVE,
    params=Params,
    example="/db drop-index orders public.orders_note_idx",
    plan=plan,
    run=run,
    pins=pins,
    time_limit=RUN_LIMIT,
    undo=undo,
    lesser_risks=frozenset({Risk.RECOVERABLE}),
)
