"""The way back of each migration: its own down file, or what can be proven to undo it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from jobs.migrating import LOOK_LIMIT, Outlook
from jobs.operation import Context
from postgres.errors import PostgresError
from postgres.migrate.reverse import read_reverse_facts, reverse
from postgres.migrate.reverse_scene import Exactness
from postgres.migrate.words import Direction, Migration

_AGAIN: Final = "apply it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How one migration is taken back. `how` '': not at all, and `why`. `loses`: what data."""

    title: str
    how: str
    loses: str = ""
    why: str = ""

    @property
    def is_there(self) -> bool:
        """Whether there is a way."""
        return bool(self.how)


async def ways_back(context: Context, outlook: Outlook) -> Sequence[Way]:
    """The way back of each, in order.

    Raises:
        JobError: the catalog cannot be read.
    """
    if outlook.direction is Direction.DOWN:
        return [Way(title=each.title, how=_AGAIN) for each in outlook.migrations]
    async with context.reader.session(limit=LOOK_LIMIT) as session:
        return [
            await _way(session, each, keeps=bool(aside.kept))
            for each, aside in zip(outlook.migrations, outlook.asides, strict=True)
        ]


def way_text(ways: Sequence[Way]) -> str:
    """All of them for people; '' where one of them has none."""
    if not ways or not all(way.is_there for way in ways):
        return ""
    return "; ".join(dict.fromkeys(way.how for way in ways))


async def _way(session: object, migration: Migration, *, keeps: bool) -> Way:
    if migration.down is not None:
        return Way(title=migration.title, how="down migration")
    try:
        facts = await read_reverse_facts(session, migration.up)  # type: ignore[arg-type]
        made = reverse(migration.up, facts)
    except PostgresError as error:
        return Way(title=migration.title, how="", why=error.problem)
    reasons = " ".join(made.reasons)
    match made.exactness:
        # A table that would be made anew, and empty, stands in the way of the one that was kept.
        case Exactness.NONE | Exactness.SCHEMA_ONLY if keeps:
            return Way(title=migration.title, how="kept aside: /db restore-aside")
        case Exactness.NONE:
            return Way(title=migration.title, how="", why=reasons)
        case Exactness.SCHEMA_ONLY:
            return Way(title=migration.title, how="worked out: the schema alone", loses=reasons)
        case Exactness.EXACT:
            return Way(title=migration.title, how="worked out, exactly")
