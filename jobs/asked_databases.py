"""Which databases a query is about that takes one or all of them."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.operation import Context, Database, JobError


def asked_databases(context: Context, name: str) -> Sequence[Database]:
    """The one that was named, or all of the inventory.

    Raises:
        JobError: there is none.
    """
    found = [context.database] if name else list(context.databases.values())
    if not found:
        raise JobError(
            "There is no database in the inventory.",
            next_step="Name one there: twokey.example.yml shows how.",
        )
    return found
