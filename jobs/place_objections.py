"""Can a server be replaced by a restored copy? What speaks against it, by what was seen. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.backup_settings import ArchiveMethod
from jobs.operation import JobError
from postgres.restore.control import Standing
from postgres.sizes import pretty_bytes

_MARGIN_BYTES: Final = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server and the data folder that is said to be its own, as both were seen.

    Sizes in bytes. `problem`: why the folder could not be looked at as it should.
    """

    database: str
    data: Path
    server_system: str
    is_standby: bool
    sees_sessions: bool
    may_switch: bool
    archive_mode: str
    prepared: int
    followers: Sequence[str]
    slots: Sequence[str]
    folder_system: str = ""
    standing: Standing = "down"
    is_same_server: bool = False
    owner_fits: bool = False
    can_rename: bool = False
    is_mount: bool = False
    hba: str = ""
    hba_writable: bool = False
    patroni: bool = False
    tablespaces: int = 0
    wal_is_elsewhere: bool = False
    data_bytes: int = 0
    free_bytes: int = 0
    kept: Sequence[int] = ()
    strangers: Sequence[str] = ()


def objection(place: Place, *, needed_bytes: int | None, archive: ArchiveMethod) -> JobError | None:
    """Why this server cannot be replaced, or None. `needed_bytes` None: nothing is copied."""
    for found in (
        _wrong_server(place),
        _not_alone(place),
        _folder(place),
        _rights(place, archive),
        None if needed_bytes is None else _room(place, needed_bytes),
    ):
        if found is not None:
            return found
    return None


def _wrong_server(place: Place) -> JobError | None:
    if place.is_standby:
        return JobError(
            f"The server of {place.database} is a standby.",
            next_step="Name its primary in the inventory, and restore there.",
        )
    if place.server_system != place.folder_system:
        return JobError(
            f"{place.data} is of another cluster ({place.folder_system}) than {place.database}"
            f" ({place.server_system}).",
            next_step="Correct `place: data` in the inventory.",
        )
    if place.standing != "up" or not place.is_same_server:
        return JobError(
            f"The server that answers for {place.database} does not run on {place.data}.",
            next_step="Correct `place: data` or the DSN in the inventory: it may be another node of"
            " the same cluster.",
        )
    return None


def _not_alone(place: Place) -> JobError | None:
    if place.patroni:
        return JobError(
            f"{place.database} is managed by Patroni, which would start again what we stop.",
            next_step="Restore --into scratch, and follow Patroni's own way to bring it in (a"
            " custom bootstrap, or `patronictl pause` and reinit of all members).",
        )
    if place.followers:
        return JobError(
            f"{', '.join(place.followers)} follow{'s' if len(place.followers) == 1 else ''}"
            f" {place.database}: the restored server goes another way than they do.",
            next_step="Stop the standbys and subscribers first; make them anew from the restored"
            " server.",
        )
    if place.kept:
        return JobError(
            f"Restore #{place.kept[0]} still keeps the server that it replaced.",
            next_step=f"Undo it (/db restore-undo {place.database} {place.kept[0]}) or confirm it"
            f" (/db restore-confirm {place.database} {place.kept[0]}) first.",
        )
    if place.strangers:
        return JobError(
            f"{place.strangers[0]} stands beside {place.data}, and no restore knows of it.",
            next_step="See what it is, and move it away.",
        )
    return None


def _folder(place: Place) -> JobError | None:
    if place.tablespaces:
        return JobError(
            f"{place.database} has {place.tablespaces} tablespaces outside of its data folder,"
            " which cannot be kept aside.",
            next_step="Restore --into scratch, and move what is needed from there.",
        )
    if place.wal_is_elsewhere:
        return JobError(
            f"pg_wal of {place.data} is a link to another place, which the restored server would"
            " not have.",
            next_step="Restore --into scratch; or move pg_wal into the data folder first.",
        )
    if place.is_mount:
        return JobError(
            f"{place.data} is a mount point, which cannot be renamed.",
            next_step="Move the data into a folder below it, or restore --into scratch.",
        )
    return None


def _rights(place: Place, archive: ArchiveMethod) -> JobError | None:
    if not place.owner_fits or not place.can_rename:
        return JobError(
            f"The account that runs Twokey here cannot replace {place.data}.",
            next_step="Run the worker as root (the folder then belongs to postgres) or as the owner"
            " of the data folder, which must be able to write to its parent.",
        )
    if not place.hba_writable:
        return JobError(
            f"{place.hba} cannot be replaced for a moment, to keep the applications out.",
            next_step="Let the account that runs Twokey write there.",
        )
    if not place.sees_sessions:
        return JobError(
            f"Twokey's user on {place.database} does not see the sessions of others.",
            next_step="GRANT pg_monitor TO it.",
        )
    if archive is not ArchiveMethod.NONE and not place.may_switch:
        return JobError(
            f"Twokey's user on {place.database} may not have the last WAL archived.",
            next_step="GRANT EXECUTE ON FUNCTION pg_switch_wal() TO it, in its DSN's database.",
        )
    return None


def _room(place: Place, needed_bytes: int) -> JobError | None:
    needed = needed_bytes + needed_bytes // 20 + _MARGIN_BYTES
    if place.free_bytes < needed:
        return JobError(
            f"A second copy beside {place.data} needs {pretty_bytes(needed)}, but"
            f" {pretty_bytes(place.free_bytes)} are free there.",
            next_step="Free some space on that disk, or restore --into scratch on another one.",
        )
    return None
