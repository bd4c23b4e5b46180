"""What pgBackRest says, understood: `info` and `repo-ls` as JSON, `verify` as text. Pure.

What does not parse is an error, never an empty answer: a repository that cannot be read must
not look like one without backups.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from postgres.backup.engine import Segment
from postgres.backup.facts import BackupKind
from postgres.backup.wal_names import SEGMENT, lsn_number, number_of
from postgres.errors import PostgresError

# Annotations that we give to a backup; pgBackRest keeps them with it.
ID_NOTE: Final = "twokey-id"
DATABASE_NOTE: Final = "twokey-database"
SUPERUSER_NOTE: Final = "twokey-superuser"

# A stanza that can be worked with: all is well, or there is no backup yet.
USABLE: Final = (0, 2)
OLDEST: Final = (2, 45)
# Before, `verify` reads the whole repository.
FIRST_WITH_VERIFY_SET: Final = (2, 55)
# From which version on a major version of PostgreSQL can be backed up.
_FIRST_FOR: Final[Mapping[int, tuple[int, int]]] = {16: (2, 48), 17: (2, 54), 18: (2, 57)}
_SEGMENT_BYTES: Final = tuple(1 << power for power in range(20, 31))
_USUAL_SEGMENT_BYTES: Final = 16 * 1024 * 1024
_FINE: Final = "valid"
_HISTORY: Final = re.compile(r"([0-9A-F]{8})\.history")
_VERIFIED: Final = re.compile(r"\s+backup: (?P<label>\S+), status: (?P<status>[^,]+)(,.*)?")
_ARCHIVED: Final = re.compile(r"\s+archiveId: (?P<id>\S+), .*")
_COUNT: Final = re.compile(r"(missing|checksum invalid|size invalid|other): (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A complete backup in a repository. `error`: pages of it carry a wrong checksum.

    `builds_on` are the labels of all backups that it takes files from; `damaged_files` and
    `tablespaces` (their OIDs) are known only where one backup was asked for.
    """

    label: str
    type: str  # full, diff, incr
    prior: str | None
    builds_on: tuple[str, ...]
    error: bool
    damaged_files: tuple[str, ...]
    tablespaces: tuple[int, ...]
    notes: Mapping[str, str]
    began_at: datetime
    ended_at: datetime
    data_bytes: int
    size_bytes: int
    start_wal: str
    end_wal: str
    start_lsn: str
    end_lsn: str
    database: int  # the stanza's own number: it grows with every upgrade of PostgreSQL

    @property
    def id(self) -> str:
        """Our name for it; its label for one that we did not take."""
        return self.notes.get(ID_NOTE) or self.label

    @property
    def kind(self) -> BackupKind:
        """As we call it."""
        return "full" if self.type == "full" else "incremental"

    @property
    def segment_bytes(self) -> int:
        """The size of its WAL files, which follows from a position and the file that holds it."""
        start, end = lsn_number(self.start_lsn), lsn_number(self.end_lsn) - 1
        fitting = [
            size
            for size in _SEGMENT_BYTES
            if number_of(self.start_wal, size) == start // size
            and number_of(self.end_wal, size) == end // size
        ]
        if not fitting or _USUAL_SEGMENT_BYTES in fitting:
            return _USUAL_SEGMENT_BYTES
        return fitting[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stanza:
    """One repository of a stanza. `status` is pgBackRest's number: 0 fine, 2 no backup yet."""

    status: int
    message: str
    cipher: str
    versions: Mapping[int, str]  # of PostgreSQL, by the stanza's own number
    systems: Mapping[int, str]
    archives: Mapping[int, str]  # the folder of WAL, such as 15-1
    backups: tuple[Taken, ...]

    @property
    def current(self) -> int:
        """The number of the cluster as it is now; 0: the stanza knows of none."""
        return max(self.versions, default=0)

    def find(self, backup_id: str) -> Taken | None:
        """A backup by our name for it, or by its label. The newest, should there be two."""
        found = [taken for taken in self.backups if backup_id in {taken.id, taken.label}]
        return found[-1] if found else None

    def dependents(self, taken: Taken) -> tuple[Taken, ...]:
        """The backups that cannot be restored without this one."""
        return tuple(
            other
            for other in self.backups
            if other.label != taken.label and taken.label in {*other.builds_on, other.prior}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What `verify` found: the problems of each backup, and those of the archive of WAL."""

    backups: Mapping[str, tuple[str, ...]]
    archive: tuple[str, ...]
    usable: bool


def parse_version(text: str) -> tuple[int, int]:
    """`pgBackRest 2.45` as numbers.

    Raises:
        PostgresError: it is no version.
    """
    found = re.search(r"pgBackRest (\d+)\.(\d+)", text)
    if found is None:
        raise _unclear("version", text)
    return int(found[1]), int(found[2])


def too_old_for(version: tuple[int, int], major: int) -> tuple[int, int] | None:
    """The version that a PostgreSQL of this major version needs, or None when this one does."""
    newest = max((known for known in _FIRST_FOR if known <= major), default=None)
    needed = _FIRST_FOR[newest] if newest else OLDEST
    return needed if version < needed else None


def parse_info(text: str, *, repository: int = 1) -> Stanza:
    """What `info --output=json` says about the one stanza that was asked for.

    Raises:
        PostgresError: it cannot be understood.
    """
    try:
        [body] = json.loads(text)
        own = [repo for repo in body["repo"] if repo["key"] == repository]
        return Stanza(
            status=own[0]["status"]["code"] if own else body["status"]["code"],
            message=own[0]["status"]["message"] if own else body["status"]["message"],
            cipher=own[0]["cipher"] if own else "none",
            versions={db["id"]: db["version"] for db in body["db"]},
            systems={db["id"]: str(db["system-id"]) for db in body["db"]},
            archives={
                each["database"]["id"]: each["id"]
                for each in body["archive"]
                if each["database"]["repo-key"] == repository
            },
            backups=tuple(
                _taken(each)
                for each in body["backup"]
                if each["database"]["repo-key"] == repository
            ),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unclear("info", text) from error


def parse_archive(text: str, archive_id: str) -> tuple[tuple[Segment, ...], tuple[str, ...]]:
    """The segments in one folder of WAL, and the names of its history files, by `repo-ls`.

    Raises:
        PostgresError: it cannot be understood.
    """
    segments: list[Segment] = []
    histories: list[str] = []
    try:
        for path, entry in json.loads(text).items():
            folder, _, name = path.rpartition("/")
            if folder.split("/")[0] != archive_id or entry["type"] != "file":
                continue
            if _HISTORY.fullmatch(name):
                histories.append(name)
            elif segment := _segment(name, entry):
                segments.append(segment)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unclear("repo-ls", text) from error
    return tuple(sorted(segments, key=lambda each: each.name)), tuple(sorted(histories))


def parse_verify(text: str) -> Verified:
    """What `verify --output=text --verbose` says. Its exit status says nothing (0 on damage).

    Raises:
        PostgresError: it cannot be understood.
    """
    if not re.search(r"^status: ", text, re.MULTILINE):
        raise _unclear("verify", text)
    backups: dict[str, list[str]] = {}
    archive: list[str] = []
    where, place = archive, "the archive of WAL"
    for line in text.splitlines():
        if found := _VERIFIED.fullmatch(line):
            where, place = backups.setdefault(found["label"], []), "it"
            if found["status"].strip() != _FINE:
                where.append(f"pgBackRest calls it {found['status'].strip()}")
        elif found := _ARCHIVED.fullmatch(line):
            where, place = archive, f"the archive of WAL {found['id']}"
        else:
            where += [
                f"files of {place} with a problem ({what}): {count}"
                for what, count in _COUNT.findall(line)
                if int(count)
            ]
    return Verified(
        backups={label: tuple(problems) for label, problems in backups.items()},
        archive=tuple(archive),
        usable="No usable" not in text,
    )


def _taken(body: Mapping[str, Any]) -> Taken:
    return Taken(
        label=body["label"],
        type=body["type"],
        prior=body["prior"],
        builds_on=tuple(body["reference"] or ()),
        # A key that is missing is no promise that all pages are sound.
        error=body.get("error") is not False,
        damaged_files=tuple(_name(each) for each in body.get("error-list") or ()),
        tablespaces=tuple(each["oid"] for each in body.get("tablespace") or ()),
        notes=body.get("annotation") or {},
        began_at=datetime.fromtimestamp(body["timestamp"]["start"], UTC),
        # Whole seconds, cut off: the end is at most one later, and it must not seem earlier.
        ended_at=datetime.fromtimestamp(body["timestamp"]["stop"] + 1, UTC),
        data_bytes=body["info"]["size"],
        size_bytes=body["info"]["repository"]["delta"],
        start_wal=body["archive"]["start"],
        end_wal=body["archive"]["stop"],
        start_lsn=body["lsn"]["start"],
        end_lsn=body["lsn"]["stop"],
        database=body["database"]["id"],
    )


def _name(each: object) -> str:
    return str(each.get("name")) if isinstance(each, dict) else str(each)


def _segment(name: str, entry: Mapping[str, Any]) -> Segment | None:
    """A kept segment is called NAME-HASH and how it is compressed; NAME.OFFSET.backup is none."""
    stem, _, rest = name.partition("-")
    is_partial = stem.endswith(".partial")
    if not rest or not SEGMENT.fullmatch(stem.removesuffix(".partial")):
        return None
    return Segment(
        name=stem.removesuffix(".partial"),
        size_bytes=entry["size"],
        at=datetime.fromtimestamp(entry["time"], UTC),
        is_partial=is_partial,
    )


def _unclear(command: str, said: Sequence[str] | str) -> PostgresError:
    return PostgresError(
        f"What pgBackRest says cannot be understood ({command}): {str(said).strip()[:200]!r}",
        next_step="See whether this version of pgBackRest is supported (`twokey doctor`), and "
        "ask it by hand with the same configuration.",
    )
