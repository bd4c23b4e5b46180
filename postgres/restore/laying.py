"""Lay a physical backup out as a data folder: unpacked, closed to everybody else, not started.

<work folder>/scratch/data      the restored data folder
<work folder>/scratch/tblspc/   its tablespaces
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from postgres.account import make_open, server_account
from postgres.backup.facts import BackupFacts, FileFact
from postgres.backup.hashing import hash_file
from postgres.backup.sealing import SEALED, WrongKeyError, no_identity, recipient_of
from postgres.backup.source import wal_files
from postgres.binaries import Binaries
from postgres.errors import DamagedError, PostgresError
from postgres.restore.folders import disk_error, give, remove_scratch, scratch_folder
from postgres.restore.unpack import unpack_archives
from postgres.sizes import pretty_bytes

_MARGIN_BYTES: Final = 256 * 1024 * 1024
_WAL: Final = "pg_wal."
_ARCHIVES: Final = (".tar", ".tar.gz", ".tar.zst")


async def unpack(
    binaries: Binaries,
    backup: Path,
    facts: BackupFacts,
    work_folder: Path,
    *,
    identity: SecretStr | None = None,
) -> tuple[FileFact, ...]:
    """Unpack a full backup into the work folder, closed to everybody else; what was read of it.

    Whatever an earlier attempt left there is removed first.

    Raises:
        DamagedError: an archive is damaged or missing.
        WrongKeyError: it is encrypted, and this is not its key.
        PostgresError: there is no room, or PostgreSQL is of another major version.
    """
    check_programs(binaries, facts)
    check_key(facts, identity)
    await remove_scratch(work_folder)
    folder = scratch_folder(work_folder)
    try:
        check_room(folder, facts, facts.data_bytes + wal_bytes(facts))
        make_closed(folder)
        return await unpack_into(backup, facts, folder, identity=identity)
    except OSError as error:
        raise disk_error(folder, error) from error


async def unpack_into(
    backup: Path, facts: BackupFacts, folder: Path, *, identity: SecretStr | None, wal: bool = True
) -> tuple[FileFact, ...]:
    """Unpack into `<folder>/data` and `<folder>/tblspc`; `wal`: also the backup's own WAL.

    Raises:
        DamagedError: an archive is damaged or missing.
        WrongKeyError: it is encrypted, and this is not its key.
        OSError: the disk is full, or not ours to write on.
    """
    archives = _archives(backup, facts, folder, wal=wal)
    try:
        read = await unpack_archives(archives, server_account(), identity)
    except WrongKeyError:
        # A damaged head looks like another one's key; the hash tells which of the two it is.
        for archive, _ in archives:
            if await asyncio.to_thread(hash_file, archive) not in facts.files:
                raise DamagedError(
                    f"{archive.name} is not what was written: its SHA-256 differs"
                ) from None
        raise
    _copy_manifest(backup, folder)
    _link_tablespaces(folder)
    return read


def check_programs(binaries: Binaries, facts: BackupFacts) -> None:
    """Raise `PostgresError` where the programs are not of the backup's major version."""
    if binaries.major != facts.major:
        raise PostgresError(
            f"The backup {facts.id} is of PostgreSQL {facts.major}, but the programs here are of "
            f"{binaries.major}.",
            next_step=f"Install PostgreSQL {facts.major}, or name it in TWOKEY_PG_BIN.",
        )


def check_key(facts: BackupFacts, identity: SecretStr | None) -> None:
    """Raise `WrongKeyError` where a backup is encrypted and this is not its key."""
    if facts.encryption == "none":
        return
    if identity is None:
        raise no_identity(f"The backup {facts.id}")
    if facts.recipient and (ours := recipient_of(identity)) != facts.recipient:
        raise WrongKeyError(
            f"The backup {facts.id} is encrypted for {facts.recipient}, and Twokey's identity"
            f" belongs to {ours}.",
            next_step="Point encryption.identity of the inventory at the key of that recipient.",
        )


def wal_bytes(facts: BackupFacts) -> int:
    """The WAL that is in a physical backup, unpacked."""
    names = wal_files(facts.start_wal, facts.end_wal, facts.wal_segment_bytes)
    return len(names) * facts.wal_segment_bytes


def missing_wal(facts: BackupFacts, work_folder: Path) -> list[str]:
    """The WAL files that a start from this backup needs and that were not in it."""
    if facts.kind == "logical":
        return []
    folder = scratch_folder(work_folder) / "data" / "pg_wal"
    needed = wal_files(facts.start_wal, facts.end_wal, facts.wal_segment_bytes)
    return [name for name in needed if not (folder / name).is_file()]


def check_room(folder: Path, facts: BackupFacts, needed: int) -> None:
    """Raise `PostgresError` where there is no room for so many bytes, and a bit."""
    needed += needed // 20 + _MARGIN_BYTES
    parent = next(part for part in folder.parents if part.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise PostgresError(
            f"Restoring {facts.id} needs {pretty_bytes(needed)}, but {parent} has "
            f"{pretty_bytes(free)} free.",
            next_step="Free some space there, or set TWOKEY_HOME to a larger disk.",
        )


def make_closed(folder: Path) -> None:
    """Folders that only we can enter until they are handed over."""
    make_open(folder, server_account())
    (folder / "tblspc").mkdir(mode=0o700)
    (folder / "data").mkdir(mode=0o700)


def _archives(
    backup: Path, facts: BackupFacts, folder: Path, *, wal: bool
) -> list[tuple[Path, Path]]:
    """Every archive and where it goes; base first, as it brings the folders of the others."""
    names = sorted(
        (file.name for file in facts.files if _is_archive(file.name, wal=wal)),
        key=lambda name: (not name.startswith("base."), name),
    )
    if not names or not names[0].startswith("base."):
        raise DamagedError("its facts name no base archive")
    found = []
    for name in names:
        if not (backup / name).is_file():
            raise DamagedError(f"{name} is missing")
        found.append((backup / name, _goal(folder, name.split(".")[0])))
    return found


def _is_archive(name: str, *, wal: bool) -> bool:
    return name.removesuffix(SEALED).endswith(_ARCHIVES) and (wal or not name.startswith(_WAL))


def _goal(folder: Path, stem: str) -> Path:
    match stem:
        case "base":
            return folder / "data"
        case "pg_wal":
            return folder / "data" / "pg_wal"
        case oid if oid.isdigit():
            return folder / "tblspc" / oid
        case _:
            raise DamagedError(f"its facts name an archive that is none of PostgreSQL's: {stem}")


def _copy_manifest(backup: Path, folder: Path) -> None:
    try:
        shutil.copyfile(backup / "backup_manifest", folder / "data" / "backup_manifest")
    except FileNotFoundError:
        raise DamagedError("backup_manifest is missing") from None


def _link_tablespaces(folder: Path) -> None:
    for place in (folder / "tblspc").iterdir():
        link = folder / "data" / "pg_tblspc" / place.name
        link.symlink_to(place)
        give(link)
