"""`/db create-index orders public.orders customer_id,status`: while the table stays in use.

Nothing that a person wrote gets into the statement: `postgres.health.index_terms` reads it with
PostgreSQL's grammar, and the server quotes what passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, JsonValue

from jobs.index_run import (
    LIMITS,
    RUN_LIMIT,
    explained,
    free_bytes,
    old_transactions,
    telling,
)
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
from postgres.health import index_plan
from postgres.health.index_build import Order, build, is_free
from postgres.health.index_nodes import FORMAT, Piece
from postgres.health.index_terms import (
    NAME_BYTES_MAX,
    TEXT_CHARS_MAX,
    Terms,
    create_template,
    index_name,
    read_terms,
)
from postgres.sizes import pretty_bytes

LOOK_LIMIT: Final = timedelta(minutes=2)
UNDO_WITHIN: Final = timedelta(days=7)
LARGE_SHARE: Final = 0.5  # of the free disk


class Params(BaseModel, extra="forbid"):
    """Which index, on which table."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    table: str = Field(
        min_length=1,
        max_length=200,
        description="The table with its schema",
        examples=["public.orders"],
    )
    columns: str = Field(
        min_length=1,
        max_length=TEXT_CHARS_MAX,
        description="Columns or simple expressions, with commas",
        examples=["customer_id,created_at DESC"],
    )
    where: str = Field(
        default="",
        max_length=TEXT_CHARS_MAX,
        description="Only rows for which this holds: a partial index",
        examples=["status = 'open'"],
    )
    include: str = Field(
        default="",
        max_length=TEXT_CHARS_MAX,
        description="Columns that are only carried along",
        examples=["total_cents"],
    )
    unique: bool = Field(default=False, description="Refuse rows with the same values")
    method: Literal["btree", "hash", "gin", "gist", "spgist", "brin"] = Field(
        default="btree", description="The kind of index"
    )
    name: str = Field(
        default="",
        max_length=NAME_BYTES_MAX,
        description="Its name; without one it is named after its columns",
        examples=["orders_customer_id_idx"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The index that somebody asks for, and its table as it is now."""

    table: Mapping[str, Any]
    columns: Mapping[str, Any]
    terms: Terms
    name: str
    existing: Sequence[index_plan.Existing]

    @property
    def text(self) -> str:
        """The index, for people."""
        return f"{self.table['schema']}.{self.name}"

    @property
    def pins(self) -> Mapping[str, str]:
        """The very table, and what its columns are."""
        named = sorted(self.terms.columns)
        types = ", ".join(f"{name} {self.columns[name]['type']}" for name in named)
        return {"table": str(self.table["oid"]), "columns": types}


async def plan(context: Context, params: Params) -> Plan:
    """Look what there is, what it will cost, and what it will have to wait for.

    Raises:
        JobError: it cannot be made, or is there already.
    """
    wanted = await _wanted(context, params)
    await _refuse(context, wanted)
    statement = await _statement(context, params, wanted)
    size, free = _size(wanted), await free_bytes(context)
    if free is not None and size > free:
        raise JobError(
            f"The index would take about {pretty_bytes(size)}, and {pretty_bytes(free)} are free.",
            next_step="Make room first; /db forecast says what grows.",
        )
    table = wanted.table
    return Plan(
        title=f"Create index {wanted.name} on {table['schema']}.{table['name']}",
        steps=(
            f"See that nothing is called {wanted.text}",
            "Build it while the table is read and written; it cannot be part of a transaction",
            "See that PostgreSQL calls it valid; what is half-built after a failure is dropped",
        ),
        statements=(f"{statement};",),
        facts=tuple(_facts(wanted, size, free)),
        warnings=(*_warnings(wanted, size, free), *await _waits(context)),
        estimate_seconds=index_plan.build_seconds(table["rows"], table["size_bytes"]),
        undo=f"/db drop-index {params.database} {wanted.text}",
        pins=wanted.pins,
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The table and its columns as they are now."""
    del plan
    return (await _wanted(context, params)).pins


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Build it; afterwards it is there and valid, or gone, or the error says what is left."""
    wanted = await _wanted(job, params)
    target = parse_dsn(job.database.dsn.get_secret_value())
    order = Order(
        schema=wanted.table["schema"],
        name=wanted.name,
        table_oid=wanted.table["oid"],
        statement=plan.statements[0].removesuffix(";"),
        terms=wanted.terms,
    )

    async def look(_: Attempt) -> JsonValue:
        with explained():
            if await is_free(target, order.schema, order.name):
                return True
        raise JobError(
            f"Something is called {order.text} already.",
            next_step="See what it is with /db indexes, or ask under another name.",
        )

    async def make(_: Attempt) -> JsonValue:
        with explained():
            made = await build(target, order, limits=LIMITS, tell=telling(job))
        return {"bytes": made.size_bytes, "definition": made.definition}

    # Its outcome says that an index of this name is ours, whatever happens from here on.
    await job.step("look", look, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT, attempts=3)
    # Retryable: whoever comes next goes on with what there is.
    made = await job.step("build", make, mode=Mode.RETRYABLE, time_limit=LIMITS.whole)
    return _answer(params, order, made if isinstance(made, dict) else {})


def undo(params: Params, numbers: Mapping[str, JsonValue]) -> UndoCall | None:
    """Drop what was made."""
    call: Mapping[str, JsonValue] = {"database": params.database, "index": numbers["index"]}
    return UndoCall(operation="drop-index", params=call, within=UNDO_WITHIN)


async def _wanted(context: Context, params: Params) -> Wanted:
    """What is asked for, if it can be understood and the table is there."""
    with explained():
        terms = read_terms(
            params.columns, where=params.where, include=params.include, method=params.method,
            unique=params.unique,
        )  # fmt: skip
    rows = await context.reader.rows(index_plan.FIND_TABLE, params.table)
    if not rows:
        raise JobError(
            f"There is no table {params.table}.",
            next_step="Name it with its schema: public.orders.",
        )
    table = rows[0]
    if objection := index_plan.table_objection(table):
        raise JobError(objection.problem, next_step=objection.next_step)
    columns = await context.reader.rows(index_plan.COLUMNS, table["oid"])
    known = {row["name"]: row for row in columns}
    functions = await context.reader.rows(index_plan.IMMUTABLE, sorted(terms.functions))
    immutable = [row["name"] for row in functions]
    if objection := index_plan.terms_objection(terms, known, immutable):
        raise JobError(objection.problem, next_step=objection.next_step)
    existing = await context.reader.rows(index_plan.EXISTING, table["oid"])
    return Wanted(
        table=table,
        columns=known,
        terms=terms,
        name=params.name or index_name(table["schema"], table["name"], terms),
        existing=[index_plan.Existing(**row) for row in existing],
    )


async def _refuse(context: Context, wanted: Wanted) -> None:
    """Stop where it is there already, or cannot be made."""
    if objection := index_plan.overlap_objection(wanted.terms, wanted.existing):
        raise JobError(objection.problem, next_step=objection.next_step)
    if len(wanted.name.encode()) > NAME_BYTES_MAX:
        raise JobError(
            f"The name has more than {NAME_BYTES_MAX} bytes.", next_step="Choose a shorter one."
        )
    (row,) = await context.reader.rows(index_plan.NAME_TAKEN, wanted.table["schema"], wanted.name)
    if row["taken"]:
        raise JobError(
            f"Something is called {wanted.text} already.",
            next_step="Choose another name, or see what it is with /db indexes.",
        )
    table = wanted.table
    check = index_plan.check_query(table["schema"], table["name"], wanted.terms)
    if check is not None and table["may_read"]:
        await context.reader.rows(await _formatted(context, check))


async def _statement(context: Context, params: Params, wanted: Wanted) -> str:
    """The statement, quoted by the server."""
    asked = [key.opclass[-1] for key in wanted.terms.keys if key.opclass]
    opclasses: dict[str, tuple[str, ...]] = {}
    for row in await context.reader.rows(index_plan.OPCLASSES, params.method, asked):
        own = row["schema"] == "pg_catalog"
        opclasses[row["name"]] = (row["name"],) if own else (row["schema"], row["name"])
    if unknown := sorted(set(asked) - set(opclasses)):
        raise JobError(
            f"There is no operator class {', '.join(unknown)} for {params.method}.",
            next_step="Leave it out, or create the extension that brings it.",
        )
    table = wanted.table
    template = create_template(table["schema"], table["name"], wanted.name, wanted.terms, opclasses)
    return await _formatted(context, template)


async def _formatted(context: Context, piece: Piece) -> str:
    rows = await context.reader.rows(FORMAT, piece.template, list(piece.args))
    return str(rows[0]["sql"])


def _size(wanted: Wanted) -> int:
    widths = [
        wanted.columns[key.column]["width"] if key.column else None for key in wanted.terms.keys
    ]
    carried = [wanted.columns[name]["width"] for name in wanted.terms.include]
    return index_plan.index_bytes(wanted.table["rows"], [*widths, *carried])


def _facts(wanted: Wanted, size: int, free: int | None) -> list[tuple[str, str]]:
    table = wanted.table
    part = " at most: only some rows" if wanted.terms.where else ""
    return [
        ("Table", f"{pretty_bytes(table['size_bytes'])}, about {table['rows']:,} rows"),
        ("Index", f"about {pretty_bytes(size)}{part}, and as much again while it is built"),
        ("Free disk", pretty_bytes(free) if free is not None else "not known here"),
        ("Writes that keep it up", _writes(table)),
        ("Indexes of the table", f"{table['indexes']} now"),
        ("Holds up", "VACUUM, ANALYZE and DDL on the table; no reads and no writes"),
    ]


def _writes(table: Mapping[str, Any]) -> str:
    """Writes by day where they have been counted that long."""
    days = table["days"]
    if days is None:
        return f"{table['writes']:,} since the statistics began"
    if days < 1:
        return f"{table['writes']:,} within {span_text(timedelta(days=days))}"
    return f"about {table['writes'] / days:,.0f} a day"


def _warnings(wanted: Wanted, size: int, free: int | None) -> list[str]:
    table, terms = wanted.table, wanted.terms
    found = index_plan.overlap_warnings(terms, wanted.existing)
    if table["indexes"] >= index_plan.MANY_INDEXES:
        found.append(f"The table has {table['indexes']} indexes: each write maintains them all.")
    if len(terms.keys) > index_plan.MANY_KEYS:
        found.append(f"{len(terms.keys)} columns make a large index: fewer serve more statements.")
    if free is not None and size > LARGE_SHARE * free:
        found.append("It takes more than half of the disk that is free.")
    if terms.is_unique:
        found.append("Writes that would repeat a value are refused from the moment it is built.")
    return found


async def _waits(context: Context) -> list[str]:
    old = await old_transactions(context)
    if not old:
        return []
    return [
        (
            f"It waits for transactions that began before it, {span_text(LIMITS.lock)} at most and"
            f" {LIMITS.again} times. Now: {'; '.join(old)}. End them where you can: /db locks"
        )
    ]


def _answer(params: Params, order: Order, made: Mapping[str, JsonValue]) -> Answer:
    size = int(str(made["bytes"]))
    return Answer(
        title=f"{order.text} is built and valid",
        lines=(f"Whether it is used shows in /db slow {params.database} soon.",),
        facts=(("Size", pretty_bytes(size)), ("Definition", str(made["definition"]))),
        numbers={"bytes": size, "index": order.text},
    )


OPERATION = Operation(
    name="create-index",
    summary="Create an index while its table stays in use",
    kind=Kind.CHANGE,
    risk=Risk.RECOVERABLE,
    params=Params,
    example="/db create-index orders public.orders customer_id,status",
    plan=plan,
    run=run,
    pins=pins,
    time_limit=RUN_LIMIT,
    undo=undo,
)
