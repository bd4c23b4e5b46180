"""What is applied, pending and wrong: the answer to `/db migrate orders status`."""

from __future__ import annotations

from datetime import UTC
from typing import Final

from jobs.migrating import Stood
from jobs.operation import Answer, Context, Suggestion, Table
from jobs.text import count_text
from postgres.migrate.words import Migration
from store.applied import AppliedRow

_APPLIED_MAX: Final = 20


async def status_answer(context: Context, stood: Stood) -> Answer:
    """Every pending one, the newest applied ones, and what forbids to go on."""
    name, standing = context.database.name, stood.standing
    hidden = len(standing.applied) - _APPLIED_MAX
    shown = standing.applied[-_APPLIED_MAX:]
    rows = [
        *(_row(each, "applied", stood.rows.get(each.version)) for each in shown),
        *(_row(each, "pending", None) for each in standing.pending),
    ]
    newest = standing.newest.title if standing.newest else "nothing"
    lines = [f"⚠ {problem}" for problem in standing.problems]
    if hidden > 0:
        lines.append(f"{count_text(hidden, 'older migration')} applied before these.")
    return Answer(
        title=f"{name}: {count_text(len(standing.pending), 'migration')} pending, stands at"
        f" {newest}",
        lines=tuple(lines),
        facts=(
            ("Folder", f"{stood.folder.path.name} ({stood.folder.tool})"),
            ("Book", stood.book.table),
        ),
        table=Table(columns=("Version", "Name", "State", "Applied", "By"), rows=tuple(rows))
        if rows
        else None,
        suggestions=(
            Suggestion(
                text="See what would happen",
                operation="migrate",
                params={"database": name, "action": "plan"},
            ),
        )
        if standing.pending and not standing.problems
        else (),
    )


def _row(migration: Migration, state: str, row: AppliedRow | None) -> tuple[str, ...]:
    is_ours = row is not None and row.rolled_back_at is None
    at = f"{row.applied_at.astimezone(UTC):%Y-%m-%d %H:%M}" if is_ours and row else "-"
    by = "-"
    if state == "applied":
        by = f"request {row.request_id}" if is_ours and row else str(migration.tool)
    return (migration.version, migration.name or "-", state, at, by)
