"""What a tool's book says of one migration. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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


def as_before(
    entries: Sequence[BookEntry] | None,
    migrations: Sequence[Migration],
    begun: Mapping[str, Direction],
) -> Sequence[BookEntry] | None:
    """The book as it was before what we have begun ourselves and not ended.

    That is ours to go on with, and so counts as what is still to be done. `begun`: by version,
    which way. What others have begun stays as it is.
    """
    if entries is None or all(each.is_complete for each in entries):
        return entries
    for migration in migrations:
        direction = begun.get(migration.version)
        if direction is not None and book_state(migration, entries) is BookState.BEGUN:
            return _stood(entries, migration, direction)
    return entries


def _stood(
    entries: Sequence[BookEntry], migration: Migration, direction: Direction
) -> tuple[BookEntry, ...]:
    is_up = direction is Direction.UP
    if migration.book_before or migration.book_after:
        stood = migration.book_before if is_up else migration.book_after
        return tuple(BookEntry(version=version, covers_earlier=True) for version in stood)
    others = tuple(each for each in entries if each.version != migration.version)
    own = (each for each in entries if each.version == migration.version)
    return others if is_up else (*others, *(replace(each, is_complete=True) for each in own))


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
