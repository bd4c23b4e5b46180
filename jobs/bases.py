"""Which backup an incremental one builds on: chosen from the catalogue. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.operation import JobError
from postgres.backup.incremental import INCREMENTS_MAX
from store.backups import BackupRecord

_KINDS = ("full", "incremental")


def newest_base(
    known: Sequence[BackupRecord], *, database: str, engine: str, system_identifier: str, major: int
) -> BackupRecord:
    """The newest backup that is whole, of this very cluster, and of a chain that is not too long.

    Raises:
        JobError: there is none, or its chain is long enough.
    """
    by_id = {backup.id: backup for backup in known}
    able = [
        backup
        for backup in known
        if backup.engine == engine
        and backup.system_identifier == system_identifier
        and backup.major == major
        and _is_whole(backup, by_id)
    ]
    if not able:
        raise JobError(
            f"There is no backup of {database} that an incremental one can build on.",
            next_step=f"Take a full one: /db backup {database} full",
        )
    newest = max(able, key=lambda backup: backup.started_at)
    if (links := _increments(newest, by_id)) >= INCREMENTS_MAX:
        raise JobError(
            f"{newest.id} is the incremental number {links} on one full backup of {database}, and"
            " every one of them is needed at a restore.",
            next_step=f"Take a full one: /db backup {database} full",
        )
    return newest


def _is_whole(backup: BackupRecord, by_id: Mapping[str, BackupRecord]) -> bool:
    """Whether it and all that it builds on is kept, and not known to be damaged."""
    for _ in range(INCREMENTS_MAX + 1):
        if backup.state != "complete" or backup.kind not in _KINDS:
            return False
        if backup.base is None:
            return backup.kind == "full"
        if backup.base not in by_id:
            return False
        backup = by_id[backup.base]
    return False


def _increments(backup: BackupRecord, by_id: Mapping[str, BackupRecord]) -> int:
    links = 0
    while backup.base is not None:
        backup, links = by_id[backup.base], links + 1
    return links
