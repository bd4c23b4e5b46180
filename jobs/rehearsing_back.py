"""The way back of a rehearsal: each file's own down SQL or what can be proven, tried on the copy.

After it the definitions and the contents are compared with those of before; then everything is
applied once more, since a real run may be taken back and done again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from jobs.rehearsals import RehearsedUnit, Return, WayBack
from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate.apply_words import Unit
from postgres.migrate.books.book import Book
from postgres.migrate.copies import Standstill, difference, stand_still
from postgres.migrate.own_schema import ASIDE_SCHEMA, ensure_schema
from postgres.migrate.reverse import read_reverse_facts, reverse
from postgres.migrate.review.reading import read_facts
from postgres.migrate.review.reviewer import review
from postgres.migrate.words import Direction, Lock

# On a connection to the copy, right before a file is applied: the file with its way back, or why
# there is none.
WayBackOf = Callable[[Any, Unit], Awaitable[Unit | str]]
Say = Callable[[str], Awaitable[None]]

_FORGET_ASIDE: Final = f'DROP SCHEMA IF EXISTS "{ASIDE_SCHEMA}" CASCADE'
_KEPT_MAX: Final = 50  # differences that are stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What was applied, how it stood before, and how each file is taken back."""

    units: tuple[Unit, ...]
    ways: tuple[Unit | str, ...]
    seen: tuple[RehearsedUnit, ...]
    before: Standstill
    book: Book
    major: int
    admin: Target
    login: Target
    attempt: Callable[[Unit], Awaitable[RehearsedUnit]]


async def way_back_of(conn: Any, unit: Unit) -> Unit | str:
    """By the file's own down SQL, else by statements that provably undo it.

    The result's review is of no use yet: what it would do is known when everything is applied.
    """
    migration = unit.migration
    if unit.direction is Direction.DOWN:
        return "it is itself a way back"
    if migration.down is not None:
        return _down(unit, migration.down, is_transactional=migration.down_is_transactional)
    try:
        found = reverse(migration.up, await read_reverse_facts(conn, migration.up))
    except PostgresError as error:
        return error.problem
    if not found.statements:
        return " ".join(found.reasons) or "none could be worked out"
    return _down(unit, ";\n".join(found.statements) + ";\n", is_transactional=None)


def _down(unit: Unit, sql: str, *, is_transactional: bool | None) -> Unit:
    key = f"{unit.migration.version}:{Direction.DOWN}"
    migration = replace(
        unit.migration,
        down=sql,
        down_sha256=hashlib.sha256(sql.encode()).hexdigest(),
        down_is_transactional=is_transactional,
    )
    return Unit(key=key, migration=migration, direction=Direction.DOWN, review=unit.review)


async def try_way_back(tried: Tried, *, say: Say) -> Return:
    """Take everything back in the opposite order, compare, and apply it again."""
    missing = [
        f"{unit.migration.title}: {way}"
        for unit, way in zip(tried.units, tried.ways, strict=True)
        if isinstance(way, str)
    ]
    if missing:
        return Return(outcome=WayBack.NONE, problem="; ".join(missing))
    is_written = all(unit.migration.down is not None for unit in tried.units)
    backs: list[RehearsedUnit] = []
    for way in reversed(tried.ways):
        if isinstance(way, str):
            raise TypeError("those were sorted out")
        await say(f"Taking {way.migration.title} back on the copy")
        unit = await _back(tried, way)
        if isinstance(unit, RehearsedUnit):
            backs.append(unit)
            problem = unit.problem
        else:
            problem = unit
        if problem:
            return _failed(problem, backs, is_written=is_written)
    compared = await _compare(tried, backs, is_written=is_written)
    return await _again(tried, compared, say)


async def _back(tried: Tried, way: Unit) -> RehearsedUnit | str:
    """One file taken back; a text: why it could not even be read."""
    migration = way.migration
    try:
        async with connection(tried.login) as conn:
            facts = await read_facts(conn, [migration.down or ""])
        found = await review(
            migration.down or "",
            facts=facts,
            major=tried.major,
            name=migration.path.name,
            is_transactional=migration.down_is_transactional,
        )
    except PostgresError as error:
        return f"{migration.title}: {error.problem}"
    return await tried.attempt(replace(way, review=found))


async def _compare(tried: Tried, backs: list[RehearsedUnit], *, is_written: bool) -> Return:
    worked = {
        table
        for unit in (*tried.seen, *backs)
        for each in unit.statements
        for table, lock in each.seen.locks.items()
        if lock >= Lock.ROW_EXCLUSIVE
    }
    book = tried.book.table
    after = await stand_still(tried.admin, first=worked, besides=(book,))
    worked -= {name for name in worked if book in {name, name.partition(".")[2]}}
    found = difference(tried.before, after, worked_on=worked)
    if found.definitions:
        outcome = WayBack.DIFFERENT
    elif found.contents:
        outcome = WayBack.LOSSY
    else:
        outcome = WayBack.SCHEMA_ONLY if found.uncompared else WayBack.EXACT
    return Return(
        outcome=outcome,
        seconds=round(sum(unit.seconds for unit in backs), 3),
        is_written=is_written,
        units=tuple(backs),
        differences=found.definitions[:_KEPT_MAX],
        lost=found.contents[:_KEPT_MAX],
    )


async def _again(tried: Tried, compared: Return, say: Say) -> Return:
    """Apply all of it once more: what was taken back must be possible again.

    A new plan would find other names free for what is kept aside; these units have theirs.
    """
    async with connection(tried.admin) as conn:
        await conn.execute(_FORGET_ASIDE)
    async with connection(tried.login) as conn:
        await ensure_schema(conn, ASIDE_SCHEMA)
    for unit in tried.units:
        await say(f"Applying {unit.title} again on the copy")
        again = await tried.attempt(unit)
        if again.problem:
            problem = f"after it, {unit.title} cannot be applied again: {again.problem}"
            return replace(compared, outcome=WayBack.FAILED, problem=problem)
    return compared


def _failed(problem: str, backs: list[RehearsedUnit], *, is_written: bool) -> Return:
    return Return(
        outcome=WayBack.FAILED,
        seconds=round(sum(unit.seconds for unit in backs), 3),
        is_written=is_written,
        units=tuple(backs),
        problem=problem,
    )
