"""What is known about a backup of pgBackRest: its own JSON, and our notes with row counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from postgres.backup.facts import BackupFacts, list_backups
from postgres.backup.pgbackrest_json import DATABASE_NOTE, SUPERUSER_NOTE, Stanza, Taken
from postgres.backup.wal_names import timeline_of

_NOT_COUNTED = "rows were not counted when it was taken, or the counts are on another machine"


def read_notes(folder: Path) -> Mapping[str, BackupFacts]:
    """Our notes about backups, by label. Notes alone are no backup."""
    return {facts.label: facts for facts in list_backups(folder).backups if facts.label}


def facts_of(taken: Taken, stanza: Stanza, *, compression: str, database: str) -> BackupFacts:
    """What pgBackRest alone knows, also of backups that somebody else took.

    What it does not know is safe: a start reads `settings` from the copy itself.
    """
    by_label = {each.label: each.id for each in stanza.backups}
    version = stanza.versions.get(taken.database, "0")
    return BackupFacts(
        id=taken.id,
        engine="pgbackrest",
        kind=taken.kind,
        base=by_label.get(taken.prior, taken.prior) if taken.prior else None,
        label=taken.label,
        encryption="none" if stanza.cipher == "none" else "aes-256-cbc",
        began_at=taken.began_at,
        ended_at=taken.ended_at,
        seconds=(taken.ended_at - taken.began_at).total_seconds(),
        compression=compression,
        size_bytes=taken.size_bytes,
        data_bytes=taken.data_bytes,
        major=int(version.split(".")[0]),
        server_version=version,
        system_identifier=stanza.systems.get(taken.database, ""),
        timeline=timeline_of(taken.start_wal),
        start_lsn=taken.start_lsn,
        end_lsn=taken.end_lsn,
        start_wal=taken.start_wal,
        end_wal=taken.end_wal,
        wal_segment_bytes=taken.segment_bytes,
        page_checksums=False,
        database=taken.notes.get(DATABASE_NOTE, database),
        superuser=taken.notes.get(SUPERUSER_NOTE, "postgres"),
        settings={},
        files=(),
        tables=(),
        counting_problem=_NOT_COUNTED,
    )
