"""Times as people type them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from approvals.words import BadInputError


def moment(text: str) -> datetime:
    """A time that somebody typed; without a zone it is UTC.

    Raises:
        BadInputError: it is none.
    """
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInputError(
            f"{text!r} is no time.", next_step="Write it like 2026-01-31 or 2026-01-31T14:00+01:00."
        ) from None
