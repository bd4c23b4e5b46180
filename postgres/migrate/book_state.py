"""What a tool's book says of one migration. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from postgres.errors import PostgresError
from postgres.migrate.words import BookEntry, Direction, Migration

# What golang-migrate writes while it goes back from its first migration.
_BELOW_FIRST: Final = "-1"


class BookState(Enum):
    """How a migration stands in the book."""

    APPLIED = "applied"
    NOT_APPLIED = "not applied"
    BEGUN = "begun"  # and not known to have ended
    ELSEWHERE = "elsewhere"  # the book stands at neither side of it


def book_state(migration: Migration, entries: Sequence[BookEntry] | None) -> BookState:
    """How a migration stands. `entries` None: there is no table yet."""
    found = entries or ()
    if migration.book_before or migration.book_after:
        return _newest_alone(migration, found)
    own = next((each for each in found if each.version == migration.version), None)
    if own is None:
        return BookState.NOT_APPLIED
    if not own.is_complete:
        return BookState.BEGUN
    if migration.is_repeatable and own.checksum != migration.checksum:
        return BookState.NOT_APPLIED
    return BookState.APPLIED


def is_done(direction: Direction, state: BookState) -> bool:
    """Whether nothing is left to do that way."""
    done = BookState.APPLIED if direction is Direction.UP else BookState.NOT_APPLIED
    return state is done


def objection(migration: Migration, direction: Direction, state: BookState) -> PostgresError | None:
    """Why a migration that nobody of us has begun may not be run that way now."""
    match state:
        case BookState.BEGUN:
            return PostgresError(
                f"{migration.title} was begun by somebody else, and is not known to have ended.",
                next_step="See what of it stands in the database, and set the book right with the"
                " tool itself.",
            )
        case BookState.ELSEWHERE:
            side = "before" if direction is Direction.UP else "after"
            return PostgresError(
                f"The database does not stand right {side} {migration.title} by its book.",
                next_step="See who else applies migrations here, then ask for a new plan.",
            )
        case _:
            return None


def _newest_alone(migration: Migration, found: Sequence[BookEntry]) -> BookState:
    """The book of a tool that keeps where it stands, and not how it came there."""
    # golang-migrate calls it -1 while it goes back from the first of all.
    stands = {each.version for each in found if each.version != "-1"}
    if any(not each.is_complete for each in found):
        both = {*migration.book_before, *migration.book_after, _BELOW_FIRST}
        return BookState.BEGUN if stands <= both else BookState.ELSEWHERE
    if stands == set(migration.book_after):
        return BookState.APPLIED
    return BookState.NOT_APPLIED if stands == set(migration.book_before) else BookState.ELSEWHERE
