"""Incremental backups: what they may build on, and all that one of them needs. PostgreSQL 17.

A chain is a full backup and the incrementals on it, oldest first. A restore needs every link,
so a chain is kept short, and each link is checked before another one is added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from postgres.backup.facts import BackupFacts, read_backup
from postgres.backup.hashing import hash_file
from postgres.backup.source import Source
from postgres.errors import PostgresError

FIRST_MAJOR: Final = 17
# Every link costs time and room at a restore, and each is one more file that must be whole.
INCREMENTS_MAX: Final = 14
MANIFEST: Final = "backup_manifest"
_PART: Final = "INCREMENTAL."
_FULL: Final = "Take a full backup; later incrementals build on that one."


def read_chain(folder: Path, backup_id: str) -> tuple[BackupFacts, ...]:
    """A backup and all that it builds on, the full one first; one alone for other kinds.

    Raises:
        PostgresError: a link is missing or damaged.
    """
    found = [read_backup(folder, backup_id)]
    while base := found[0].base:
        if len(found) > INCREMENTS_MAX:
            raise PostgresError(
                f"{backup_id} builds on more than {INCREMENTS_MAX} backups, or on itself.",
                next_step="Do not use it: take a full backup.",
            )
        try:
            found.insert(0, read_backup(folder, base))
        except PostgresError as error:
            raise PostgresError(
                f"{found[0].id} builds on {base}, which is not whole: {error.problem}",
                next_step="Restore another backup, and take a full one.",
            ) from error
    return tuple(found)


def builders(backup_id: str, kept: Sequence[BackupFacts]) -> tuple[str, ...]:
    """The backups among `kept` that build on this one directly."""
    return tuple(facts.id for facts in kept if facts.base == backup_id)


def server_refusal(*, major: int, version: str, summarizes_wal: bool) -> PostgresError | None:
    """Why a server can make no incremental backup at all, or None."""
    if major < FIRST_MAJOR:
        return PostgresError(
            f"Incremental backups need PostgreSQL {FIRST_MAJOR}; this server runs {version}.",
            next_step="Take a full backup, or use an engine that has incrementals of its own"
            " (pgbackrest).",
        )
    if not summarizes_wal:
        return PostgresError(
            "The server does not note which blocks change (summarize_wal is off), so it can make"
            " no incremental backup.",
            next_step="On it: ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf(); then"
            " take a full backup to build on.",
        )
    return None


def refusal(source: Source, chain: Sequence[BackupFacts]) -> PostgresError | None:
    """Why the server can make no incremental on the last of this chain, or None."""
    base = chain[-1]
    if refused := server_refusal(
        major=source.major, version=source.version, summarizes_wal=source.summarizes_wal
    ):
        return refused
    if base.kind not in ("full", "incremental") or base.engine != "native":
        why = f"it is a {base.kind} backup of {base.engine}"
    elif base.system_identifier != source.system_identifier:
        why = "it is of another cluster"
    elif base.major != source.major:
        why = f"it is of PostgreSQL {base.major}, and the server runs {source.major}"
    elif base.timeline > source.timeline:
        why = f"it is of timeline {base.timeline}, and the server is on {source.timeline}"
    elif len(chain) > INCREMENTS_MAX:
        why = f"its chain has {INCREMENTS_MAX} incrementals already"
    else:
        return None
    return PostgresError(f"No incremental backup can build on {base.id}: {why}.", next_step=_FULL)


def check_manifest(folder: Path, base: BackupFacts) -> Path:
    """The manifest of a base, as it was written.

    Raises:
        PostgresError: it is missing or damaged.
    """
    path = folder / base.id / MANIFEST
    try:
        whole = hash_file(path) in base.files
    except OSError:
        whole = False
    if not whole:
        raise PostgresError(
            f"The manifest of {base.id} is missing or damaged, so nothing can build on it.",
            next_step=f"Verify {base.id}, and take a full backup.",
        )
    return path


def restored_bytes(manifests: Sequence[Path]) -> int:
    """How large the data folder is that a chain becomes; its manifests, the newest first.

    A file of which only changed blocks were copied has at least the size that it had before.

    Raises:
        PostgresError: a manifest is damaged.
    """
    newest, *older = (_sizes(path) for path in manifests)
    total = 0
    for name, size_bytes in newest.items():
        path = PurePosixPath(name)
        if not path.name.startswith(_PART):
            total += size_bytes
            continue
        whole = str(path.with_name(path.name.removeprefix(_PART)))
        total += max(size_bytes, next((old[whole] for old in older if whole in old), 0))
    return total


def _sizes(manifest: Path) -> Mapping[str, int]:
    try:
        return {
            file.get("Path") or file["Encoded-Path"]: int(file["Size"])
            for file in json.loads(manifest.read_bytes())["Files"]
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PostgresError(f"The manifest {manifest} cannot be read.", next_step=_FULL) from error
