"""What is known about a backup: `twokey.json` in its folder.

A folder without it, or with a name that ends in `.partial`, is no backup.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from postgres.errors import PostgresError

FACTS_FILE: Final = "twokey.json"
PARTIAL: Final = ".partial"
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileFact(_Stored):
    """One file of the backup."""

    name: str
    size_bytes: int
    sha256: str


class TableCount(_Stored):
    """Rows of one table in a snapshot before and in one after the moment that was backed up.

    None: it was not there, or was not counted; `note` says why. `inserted` and `deleted` are
    what the server's statistics saw between the two; `rewritten` says that the table got a
    new file meanwhile, as by TRUNCATE.
    """

    database: str
    table: str
    before: int | None
    after: int | None
    inserted: int = 0
    deleted: int = 0
    rewritten: bool = False
    note: str = ""

    def bounds(self) -> tuple[int, int] | None:
        """The fewest and the most rows that a restored copy can have; None: nothing is known.

        A copy holds what was committed when the backup ended, which lies between the two
        snapshots. Nothing changed: exactly that many. Only inserts, or only deletes: between
        the two counts. Both: as far off as the changes allow. Of a table that came, went or
        was rewritten meanwhile nothing can be said.
        """
        if self.before is None or self.after is None or self.rewritten:
            return None
        before, after = self.before, self.after
        low, high = min(before, after), max(before, after)
        if self.inserted and self.deleted:
            low = min(low, max(before - self.deleted, after - self.inserted))
            high = max(high, min(before + self.inserted, after + self.deleted))
        return max(low, 0), high


BackupKind = Literal["full", "incremental", "logical"]
EngineName = Literal["native", "pgbackrest"]


class BackupFacts(_Stored):
    """A complete backup. Sizes are in bytes; LSNs as PostgreSQL writes them.

    `files` are as they are stored: sizes and hashes of an encrypted one are those of the
    ciphertext, so that damage is found without the key. Engines that keep their own files
    name none. A logical backup has no WAL: its LSNs say where the server stood.
    """

    format: Literal[1] = 1
    id: str
    engine: EngineName = "native"
    kind: BackupKind = "full"
    # The backup that an incremental one builds on; None for all others.
    base: str | None = None
    # The engine's own name for it.
    label: str = ""
    encryption: Literal["none", "age", "aes-256-cbc"] = "none"
    # The public key that it was encrypted for.
    recipient: str = ""
    began_at: datetime
    ended_at: datetime
    seconds: float
    compression: str
    size_bytes: int
    data_bytes: int
    major: int
    server_version: str
    system_identifier: str
    timeline: int
    start_lsn: str
    end_lsn: str
    start_wal: str
    end_wal: str
    wal_segment_bytes: int
    page_checksums: bool
    # The database of the connection string: critical queries run in it.
    database: str
    superuser: str
    # What a server needs at least in order to start from this backup.
    settings: Mapping[str, str]
    files: tuple[FileFact, ...]
    tables: tuple[TableCount, ...]
    # Why `tables` is empty, if it should not be.
    counting_problem: str = ""

    @property
    def fingerprint(self) -> str:
        """A SHA-256 that no other backup has: of PostgreSQL's manifest, or of all that is known."""
        for file in self.files:
            if file.name == "backup_manifest":
                return file.sha256
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def rows(self) -> int:
        """All rows that were counted."""
        return sum(table.after or table.before or 0 for table in self.tables)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The backups in a folder, oldest first, and names of folders that cannot be understood."""

    backups: tuple[BackupFacts, ...]
    unreadable: tuple[str, ...]


def backup_folder(folder: Path, backup_id: str) -> Path:
    """Where a backup is or will be.

    Raises:
        PostgresError: that can be no backup's name.
    """
    if not _ID.fullmatch(backup_id) or backup_id.endswith(PARTIAL):
        raise PostgresError(
            f"{backup_id!r} can be no backup's name.",
            next_step="Use letters, digits, dots, dashes and underscores: orders-2026-01-31.",
        )
    return folder / backup_id


def read_backup(folder: Path, backup_id: str) -> BackupFacts:
    """The facts of a backup in a folder of backups.

    Raises:
        PostgresError: there is no such backup, or its facts are damaged.
    """
    place = backup_folder(folder, backup_id)
    try:
        return read_facts(place)
    except FileNotFoundError as error:
        raise PostgresError(
            f"There is no backup {backup_id} in {folder}.",
            next_step="List the backups, and name one of them.",
        ) from error


def read_facts(place: Path) -> BackupFacts:
    """The facts in a backup's own folder.

    Raises:
        FileNotFoundError: there are none.
        PostgresError: they are damaged.
    """
    try:
        facts = BackupFacts.model_validate_json((place / FACTS_FILE).read_bytes())
    except ValidationError as error:
        raise PostgresError(
            f"The facts of the backup {place.name} ({FACTS_FILE}) are damaged.",
            next_step="Do not rely on this backup; take a new one and verify it.",
        ) from error
    if any(Path(file.name).name != file.name for file in facts.files):
        raise PostgresError(
            f"The facts of the backup {place.name} name files outside of its folder.",
            next_step="Somebody changed them: do not use this backup.",
        )
    return facts


def list_backups(folder: Path) -> Listing:
    """All complete backups in a folder; one that does not exist has none."""
    backups: list[BackupFacts] = []
    unreadable: list[str] = []
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if place.name.endswith(PARTIAL) or not place.is_dir():
            continue
        try:
            backups.append(read_facts(place))
        except FileNotFoundError:
            continue
        except (PostgresError, OSError):
            unreadable.append(place.name)
    backups.sort(key=lambda facts: facts.began_at)
    return Listing(backups=tuple(backups), unreadable=tuple(unreadable))


def complete(partial: Path, facts: BackupFacts) -> None:
    """Write the facts and give the folder its name: from here on it counts, even after a crash."""
    for kept in partial.iterdir():
        _sync(kept, os.O_RDONLY)
    path = partial / FACTS_FILE
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(facts.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    _sync(partial, os.O_RDONLY | os.O_DIRECTORY)
    partial.rename(partial.with_name(facts.id))
    _sync(partial.parent, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
