"""`/db audit-trigger orders public.users`: write down who changes which row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Literal

import asyncpg
from pydantic import BaseModel, Field, JsonValue

from jobs.operation import (
    TARGET_PINS,
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
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.row_audit import (
    LOOK,
    SCHEMA,
    Audited,
    AuditState,
    install_statements,
    remove_statements,
    states,
)
from postgres.sizes import pretty_bytes

LIMIT: Final = timedelta(minutes=2)
UNDO_WITHIN: Final = timedelta(days=30)
LOCK_MS: Final = 3000
ATTEMPTS: Final = 8
_DAY: Final = timedelta(days=1)
_KINDS: Final[Mapping[str, str]] = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
}


class Params(BaseModel, extra="forbid"):
    """Which table, and what is done."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    table: str = Field(
        pattern=r"^[^.]+\..+$", description="The table with its schema", examples=["public.users"]
    )
    action: Literal["install", "remove"] = Field(
        default="install", description="install, or remove what was installed"
    )
    without: list[str] = Field(
        default=[],
        max_length=50,
        description="Columns whose values are not written down, such as password hashes",
        examples=["password_hash"],
    )


async def plan(context: Context, params: Params) -> Plan:
    """The table, what will be written down of it, and what that costs.

    Raises:
        JobError: there is no such table, it is not ours to change, or there is nothing to do.
    """
    seen, audited = await _look(context, params)
    if objection := _objection(params, seen, audited):
        raise objection
    return Plan(
        title=f"{params.action.capitalize()} the row audit of {params.table}",
        steps=_steps(params),
        statements=_shown(params, seen),
        facts=(
            ("Table", f"{seen['quoted']}, {seen['rows']:,} rows, {_size(seen)}"),
            ("Audit now", str(audited.state)),
            ("Writes", _writes(seen, context)),
            ("Not written down", ", ".join(params.without) or "nothing is left out"),
            ("Blocks", "writers of this table for an instant (SHARE ROW EXCLUSIVE)"),
        ),
        warnings=tuple(_warnings(params, seen)),
        estimate_seconds=2,
        undo=_undo_words(params),
        pins=_pinned(seen, audited),
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The same table, with the audit as it was."""
    del plan
    return _pinned(*await _look(context, params))


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """All of it in one transaction; afterwards the catalogue must say that it is so."""
    del plan

    async def change(attempt: Attempt) -> JsonValue:
        del attempt
        seen, _ = await _look(job, params)
        make = install_statements if params.action == "install" else remove_statements
        await _execute(job, make(seen))
        return None

    # Retryable: the transaction is all or nothing, and made again it makes the same.
    await job.step("change", change, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=ATTEMPTS)
    _, audited = await _look(job, params)
    wanted = AuditState.IN_FORCE if params.action == "install" else AuditState.MISSING
    if audited.state is not wanted:
        raise JobError(
            f"The row audit of {params.table} is {audited.state}, though it was just changed.",
            next_step=f"Somebody else changes it: /db audit-triggers {params.database}",
        )
    return _answer(params)


async def _look(context: Context, params: Params) -> tuple[Mapping[str, Any], Audited]:
    found = await context.reader.rows(LOOK, params.table, params.without)
    if not found:
        raise JobError(
            f"There is no table {params.table} in {params.database}.",
            next_step="Name it with its schema, such as public.users, as \\d in psql writes it.",
        )
    audited = await states(context.reader, [params.table])
    return found[0], next(each for each in audited if each.table == params.table)


async def _execute(job: Job, statements: str) -> None:
    """One transaction that gives way when it would have to wait for its lock.

    Raises:
        JobError: the server refused it, or somebody holds the table.
    """
    async with connection(parse_dsn(job.database.dsn.get_secret_value())) as conn:
        try:
            async with conn.transaction():
                await conn.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
                await conn.execute(statements)
        except asyncpg.LockNotAvailableError as error:
            raise JobError(
                "Somebody holds a lock on the table for longer than we wait.",
                next_step=f"See who: /db locks {job.database.name}",
            ) from error
        except asyncpg.PostgresError as error:
            raise JobError(
                f"The server refused it: {error}.",
                next_step="Nothing was changed. Mend that, then ask again.",
            ) from error


def _objection(params: Params, seen: Mapping[str, Any], audited: Audited) -> JobError | None:
    """Why it cannot be done, or None."""
    name, table = params.database, params.table
    if seen["standby"]:
        return JobError(
            f"{name} is a standby: nothing can be changed there.",
            next_step="Point its entry in the inventory to the primary.",
        )
    if seen["kind"] in _KINDS or seen["is_partition"] or table.startswith(f"{SCHEMA}."):
        what = _KINDS.get(seen["kind"], "a partition" if seen["is_partition"] else "the record")
        return JobError(
            f"{table} is {what}; row changes are written down of tables alone.",
            next_step="Name the table behind it, or the parent of the partitions.",
        )
    if not seen["is_ours"]:
        return JobError(
            f"{table} belongs to {seen['owner']}, and {seen['us']} is no member of that role.",
            next_step=f"As its owner: GRANT {seen['owner']} TO {seen['us']}, then ask again.",
        )
    if seen["strangers"] and params.action == "install":
        return JobError(
            f"The schema {SCHEMA} is there, and {', '.join(seen['strangers'])} owns part of it.",
            next_step=f"Whoever owns it could change the record. Give all of it to {seen['us']},"
            " or have it renamed, then ask again.",
        )
    return _no_use(params, seen, audited)


def _no_use(params: Params, seen: Mapping[str, Any], audited: Audited) -> JobError | None:
    """Why it would change nothing, or not what was meant."""
    if params.action == "remove":
        if audited.state is AuditState.MISSING:
            return JobError(
                f"There is no row audit on {params.table}.",
                next_step=f"See where there is one: /db audit-triggers {params.database}",
            )
        return None
    if unknown := seen["unknown"]:
        return JobError(
            f"{params.table} has no column {', '.join(unknown)}.",
            next_step="Correct the names of the columns that are left out.",
        )
    if audited.state is AuditState.IN_FORCE and set(audited.without) == set(params.without):
        return JobError(
            f"The row audit of {params.table} is in force already.",
            next_step=f"See what it has recorded: /db audit-triggers {params.database}",
        )
    if not seen["may_create"]:
        return JobError(
            f"{seen['us']} may not make the schema {SCHEMA} in {params.database}.",
            next_step="As the owner there: GRANT CREATE ON DATABASE … TO …, then ask again.",
        )
    return None


def _steps(params: Params) -> tuple[str, ...]:
    if params.action == "remove":
        return (
            f"Drop both triggers of {params.table}, in one transaction",
            "Read the catalogue: they are gone. What was written down stays",
        )
    return (
        f"Make the schema {SCHEMA} with its record and functions, where it is not there yet",
        f"Put two triggers on {params.table}: each inserted, updated and deleted row, and TRUNCATE",
        "Read the catalogue: both fire always, and run what we installed",
    )


def _shown(params: Params, seen: Mapping[str, Any]) -> tuple[str, ...]:
    make = install_statements if params.action == "install" else remove_statements
    return (make(seen).strip(),)


def _size(seen: Mapping[str, Any]) -> str:
    return pretty_bytes(int(seen["size_bytes"]))


def _writes(seen: Mapping[str, Any], context: Context) -> str:
    span = max(context.now - seen["writes_since"], timedelta(hours=1))
    return f"about {seen['writes'] * (_DAY / span):,.0f} rows a day, each of which is recorded"


def _warnings(params: Params, seen: Mapping[str, Any]) -> list[str]:
    if params.action == "remove":
        return ["From then on nobody can say who changed what in this table."]
    return [
        "Each row that is written costs one more insert.",
        f"The record grows until somebody calls {SCHEMA}.forget(now() - interval '1 year').",
        "The record holds copies of rows, personal data included: leave out what it must not have.",
        f"{seen['owner']} and superusers can still remove it; /db audit-triggers says when.",
    ]


def _undo_words(params: Params) -> str:
    other = "remove" if params.action == "install" else "install"
    return f"/db audit-trigger {params.database} {params.table} {other}"


def _pinned(seen: Mapping[str, Any], audited: Audited) -> dict[str, str]:
    return {"table": f"{seen['quoted']} {seen['oid']}", "row audit": str(audited.state)}


def _answer(params: Params) -> Answer:
    if params.action == "remove":
        return Answer(
            title=f"The row audit of {params.table} is removed",
            lines=("What was written down stays in twokey_audit.row_changes.",),
        )
    return Answer(
        title=f"The row audit of {params.table} is in force",
        lines=(
            f"Who changed what stands in {SCHEMA}.row_changes, by table_name and changed_at.",
            f"Whether it still is: /db audit-triggers {params.database}",
        ),
    )


def _undo(params: Params, numbers: Mapping[str, JsonValue]) -> UndoCall:
    del numbers
    other = "remove" if params.action == "install" else "install"
    call: dict[str, JsonValue] = {
        "database": params.database,
        "table": params.table,
        "action": other,
        "without": list(params.without),
    }
    return UndoCall(operation="audit-trigger", params=call, within=UNDO_WITHIN)


OPERATION = Operation(
    name="audit-trigger",
    summary="Write down who changes which row of a sensitive table, or stop doing so",
    kind=Kind.CHANGE,
    risk=Risk.RECOVERABLE,
    params=Params,
    example="/db audit-trigger orders public.users --without password_hash",
    plan=plan,
    run=run,
    pinned=TARGET_PINS,
    pins=pins,
    time_limit=timedelta(minutes=20),
    undo=_undo,
)
