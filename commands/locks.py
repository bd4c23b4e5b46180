"""`/db locks orders`: who waits for whose locks, and what would let them go on. Always live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.backend_words import doing, lock_of, name_of, transaction_text, who
from jobs.operation import (
    Answer,
    Context,
    JobError,
    Kind,
    Operation,
    Risk,
    Suggestion,
    Table,
)
from jobs.text import count_text, span_text
from postgres.health.blocking import (
    LOOK,
    PREPARED,
    SHOWN_MAX,
    Backend,
    Branch,
    Forest,
    Root,
    backends,
    forest,
)

SEES: Final = """
    SELECT /* twokey-monitor */ pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
           current_user::text AS us
"""
COLUMNS: Final = ("Session", "Who", "Waits", "For", "Transaction", "Does")
_ROOTS_SAID_MAX: Final = 5
_HELPED_MAX: Final = 2
_DOES_CHARS_MAX: Final = 70


class Params(BaseModel, extra="forbid"):
    """Which database."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


async def answer(context: Context, params: Params) -> Answer:
    """The tree of all who wait, under those who hold them up.

    Raises:
        JobError: our user sees its own sessions alone, so that "nobody waits" would mean nothing.
    """
    [ours] = await context.reader.rows(SEES)
    if not ours["sees_all"]:
        raise JobError(
            f"Our user {ours['us']} may not see who waits in {params.database}.",
            next_step=f"As a superuser there: GRANT pg_monitor TO {ours['us']}; then ask again.",
        )
    rows = await context.reader.rows(LOOK)
    prepared = any(0 in row["blocked_by"] for row in rows)
    found = backends(rows, await context.reader.rows(PREPARED) if prepared else ())
    trees = forest(found)
    if not trees.branches:
        return Answer(title=f"Locks of {params.database}: nobody waits")
    return Answer(
        title=f"Locks of {params.database}: {count_text(trees.waiting, 'session')} waiting",
        lines=tuple(_lines(trees, params.database)),
        table=Table(columns=COLUMNS, rows=tuple(_row(each) for each in trees.branches)),
        suggestions=tuple(_suggestions(trees.roots, params.database)),
    )


def _lines(trees: Forest, database: str) -> Iterator[str]:
    for root in trees.roots[:_ROOTS_SAID_MAX]:
        yield _root(root, database)
    if (more := len(trees.roots) - _ROOTS_SAID_MAX) > 0:
        yield f"And {count_text(more, 'other session')} that hold up fewer."
    if trees.left_out > 0:
        more_text = count_text(trees.left_out, "more session")
        yield f"{more_text} wait behind these and are not shown (at most {SHOWN_MAX} are)."


def _root(root: Root, database: str) -> str:
    backend = root.backend
    if root.is_circle:
        return (
            f"{name_of(backend)} and {root.waiting} more wait in a circle: PostgreSQL itself ends"
            " one of them after deadlock_timeout."
        )
    opened = f", its transaction open for {transaction_text(backend)}" if backend.xact_start else ""
    text = (
        f"{count_text(root.waiting, 'session')} held up by {name_of(backend)},"
        f" {who(backend)}: {doing(backend)}{opened}."
    )
    return f"{text} {_way_out(backend, database)}"


def _way_out(backend: Backend, database: str) -> str:
    if backend.is_prepared:
        return (
            "No session holds it: COMMIT PREPARED or ROLLBACK PREPARED by its owner, in its"
            f" database ({backend.database}), ends it."
        )
    if backend.is_against_wraparound:
        return "Let it end, and take the lock that waits for it later."
    if backend.backend_type != "client backend":
        return f"It is no client's ({backend.backend_type}): it ends by itself."
    if backend.state == "active":
        return f"/db cancel-backend {database} {backend.key} ends what it runs."
    return f"It runs nothing: only /db terminate-backend {database} {backend.key} frees the locks."


def _suggestions(roots: Sequence[Root], database: str) -> Iterator[Suggestion]:
    """For the sessions that hold up most: what could be asked for."""
    mine = [
        root
        for root in roots
        if not root.is_circle and root.backend.backend_type == "client backend"
    ]
    for root in mine[:_HELPED_MAX]:
        backend = root.backend
        params: Mapping[str, JsonValue] = {"database": database, "pid": int(backend.key)}
        reason = f"{count_text(root.waiting, 'session')} held up by it"
        if backend.state == "active":
            yield Suggestion(
                text=f"Cancel what {backend.key} runs",
                operation="cancel-backend",
                params=params,
                reason=reason,
            )
        yield Suggestion(
            text=f"End session {backend.key}",
            operation="terminate-backend",
            params=params,
            reason=reason,
        )


def _row(branch: Branch) -> tuple[str, ...]:
    backend = branch.backend
    # Cells lose the spaces that they begin with, so the depth is drawn.
    stem = f"└{'──' * (branch.depth - 1)} " if branch.depth else ""
    also = f" (and for {', '.join(map(str, branch.also[:3]))})" if branch.also else ""
    waits = span_text(max(backend.waited, timedelta(0))) if backend.blocked_by else "-"
    return (
        f"{stem}{name_of(backend)}",
        who(backend),
        waits,
        f"{lock_of(backend)}{also}",
        transaction_text(backend),
        doing(backend, chars_max=_DOES_CHARS_MAX),
    )


OPERATION = Operation(
    name="locks",
    summary="Who waits for whose locks, and who holds up everybody",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db locks orders",
    answer=answer,
)
