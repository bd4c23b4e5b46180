"""`/db audit-triggers orders`: which sensitive tables write down who changes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, Field

from jobs.operation import Answer, Context, Kind, Operation, Risk, Suggestion, Table
from jobs.text import count_text, span_text
from postgres.row_audit import Audited, AuditState, Record, record, states
from postgres.sizes import pretty_bytes

_ROWS_MAX: Final = 60
_SUGGESTIONS_MAX: Final = 4


class Params(BaseModel, extra="forbid"):
    """Which database."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


async def answer(context: Context, params: Params) -> Answer:
    """Each audited or sensitive table, read from the catalogue, and how the record is."""
    sensitive = context.database.monitoring.sensitive_tables
    found = await states(context.reader, sensitive)
    kept = await record(context.reader)
    good = [each for each in found if each.state is AuditState.IN_FORCE]
    return Answer(
        title=f"Row audit of {params.database}: {len(good)} of"
        f" {count_text(len(found), 'table')} in force",
        lines=(_about(context, found, kept),),
        table=Table(
            columns=("Table", "Row audit", "Sensitive", "Not written down"),
            rows=tuple(
                (
                    each.table,
                    _loud(each.state),
                    "yes" if each.table in sensitive else "",
                    ", ".join(each.without),
                )
                for each in found[:_ROWS_MAX]
            ),
        )
        if found
        else None,
        suggestions=tuple(
            Suggestion(
                text=f"Install on {each.table}",
                operation="audit-trigger",
                params={"database": params.database, "table": each.table,
                        "without": list(each.without)},
                reason="The inventory calls it sensitive.",
            )
            for each in found
            if each.state is not AuditState.IN_FORCE
        )[:_SUGGESTIONS_MAX],
    )  # fmt: skip


def _loud(state: AuditState) -> str:
    return str(state) if state is AuditState.IN_FORCE else str(state).upper()


def _about(context: Context, found: Sequence[Audited], kept: Record | None) -> str:
    if not found:
        return (
            "No table is called sensitive in the inventory (monitoring.sensitive_tables), and"
            " none has the trigger."
        )
    if kept is None:
        return "Nothing was ever written down here."
    newest = f"{span_text(context.now - kept.newest)} ago" if kept.newest else "never"
    guard = "" if kept.is_guarded else " ITS GUARD IS GONE: rows of it can be changed."
    return (
        f"The record has about {kept.rows:,} rows, {pretty_bytes(kept.size_bytes)}; the newest was"
        f" written {newest}.{guard}"
    )


OPERATION = Operation(
    name="audit-triggers",
    summary="Show which tables write down who changes their rows, and whether they still do",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db audit-triggers orders",
    answer=answer,
)
