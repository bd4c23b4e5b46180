"""What the catalogue says of backups, beside what is really there.

`reconcile` is pure. `look` and `settle` are for whoever has the backups at hand: a worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from approvals.counting import count_text
from jobs import backup_settings
from jobs.operation import Database
from postgres.backup.engine import Engine, Finding
from postgres.backup.facts import BackupFacts, Listing
from store.backups import BackupRecord, all_backups
from store.connect import Store
from store.keeping import find_again, lose_backups

# A backup is complete on disk a moment before the catalogue has it.
ENTERED_WITHIN: Final = timedelta(hours=1)
_SHOWN: Final = 5
_COUNTED: Final = frozenset({"complete", "damaged"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """Where catalogue and disk differ; ids, oldest first.

    `lost`: the catalogue counts on them and their files are not there. `found`: they were
    lost, and are back. `unknown`: no catalogue has them. `unreadable`: their facts are
    damaged. `is_away`: all that the catalogue counts on is lost, so that more likely the place
    is: a disk that is not mounted.
    """

    lost: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    is_away: bool = False


def reconcile(known: Iterable[BackupRecord], listing: Listing, now: datetime) -> Reconciled:
    """Where they differ. `known`: every backup of one database that is not removed."""
    catalogue = sorted(known, key=lambda backup: backup.started_at)
    there = {name for facts in listing.backups for name in _names(facts.id, facts.label)}
    there |= set(listing.unreadable)
    counted = [backup for backup in catalogue if backup.state in _COUNTED]
    lost = [backup.id for backup in counted if not there & _names(backup.id, backup.label)]
    ours = {name for backup in catalogue for name in _names(backup.id, backup.label)}
    return Reconciled(
        lost=tuple(lost),
        found=tuple(
            backup.id
            for backup in catalogue
            if backup.state == "lost" and there & _names(backup.id, backup.label)
        ),
        unknown=tuple(facts.id for facts in listing.backups if _is_unknown(facts, ours, now)),
        unreadable=listing.unreadable,
        is_away=bool(counted) and len(lost) == len(counted),
    )


def findings(database: Database, seen: Reconciled) -> tuple[Finding, ...]:
    """What people should know of the differences, worst first."""
    name, place = database.name, _place(database)
    found: list[Finding] = []
    if seen.is_away:
        found.append(
            Finding(
                problem=f"No backup of {name} that the catalogue has is in {place}.",
                next_step=f"Mount it, or correct its place in the inventory. If they are gone:"
                f" /db backup {name} at once.",
            )
        )
    if seen.lost and not seen.is_away:
        found.append(
            Finding(
                problem=f"The files of {_named(seen.lost)} of {name} are not in {place} any more.",
                next_step="Find out who removed them, and put them back where there is a copy;"
                f" then look at what is left: /db backups {name}",
            )
        )
    if seen.unreadable:
        found.append(
            Finding(
                problem=f"The facts of {_named(seen.unreadable)} in {place} are damaged.",
                next_step=f"Do not rely on what is there; prove another one: /db verify {name}",
            )
        )
    if seen.unknown:
        found.append(
            Finding(
                problem=f"{_named(seen.unknown)} in {place}: not in the catalogue, and never"
                " removed by us.",
                next_step="Remove what nobody needs by hand, with the tool that made it.",
            )
        )
    return tuple(found)


def is_at_hand(database: Database) -> bool:
    """Whether the backups of a database can be seen from this host. Reads the disk."""
    settings = database.backups
    if settings.engine is backup_settings.Engine.NATIVE:
        return database.backup_folder.is_dir()
    return settings.repository is not None and settings.repository.config.is_file()


async def look(store: Store, database: Database, engine: Engine, now: datetime) -> Reconciled:
    """Compare catalogue and disk now.

    Raises:
        PostgresError: the engine cannot say what is there.
    """
    # In this order: a backup that is removed in between is missing from both.
    async with store.begin() as conn:
        known = await all_backups(conn, database.name)
    listing = await engine.backups()
    return reconcile((each.backup for each in known), listing, now)


async def settle(
    store: Store, database: Database, seen: Reconciled, now: datetime, *, for_good: bool = False
) -> None:
    """Enter into the catalogue what is lost and what is back.

    Where all is lost, only `for_good`: what is only away comes back within minutes.
    """
    async with store.begin() as conn:
        if seen.lost and (for_good or not seen.is_away):
            await lose_backups(conn, database.name, seen.lost, at=now)
        if seen.found:
            await find_again(conn, database.name, seen.found)


async def at_hand(database: Database) -> bool:
    """As `is_at_hand`, without holding up anybody while a disk does not answer."""
    return await asyncio.to_thread(is_at_hand, database)


def _names(backup_id: str, label: str) -> set[str]:
    return {backup_id, label} - {""}


def _is_unknown(facts: BackupFacts, ours: set[str], now: datetime) -> bool:
    return not ours & _names(facts.id, facts.label) and now - facts.ended_at > ENTERED_WITHIN


def _place(database: Database) -> str:
    settings = database.backups
    if settings.engine is backup_settings.Engine.NATIVE or settings.repository is None:
        return str(database.backup_folder)
    return f"{settings.engine}'s repository {settings.repository.name}"


def _named(ids: tuple[str, ...]) -> str:
    """The newest of them by name, and how many there are."""
    shown = ", ".join(ids[-_SHOWN:])
    rest = len(ids) - _SHOWN
    return f"{shown} and {count_text(rest, 'other')}" if rest > 0 else shown
