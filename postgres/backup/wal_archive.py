"""The archive of WAL beside the native engine's backups: `<backup folder>/wal/`.

    wal/<name>.zst        a complete segment; `<name>.zst.age` when encrypted
    wal/<name>.partial.zst  how far a segment had come when its timeline ended
    wal/<8 digits>.history  which timeline came out of which, plain
    wal/cluster           whose WAL this is: system identifier and segment size
    wal/incoming/         pg_receivewal's own: complete segments, and one `<name>.partial`

A segment leaves `incoming` only when it is kept, and on disk: a crash at any moment leaves it
in one of the two places at least. The newest complete segment stays there until a newer file
has come, because pg_receivewal goes on after the last one that it finds.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from postgres.backup.engine import Archive, Segment
from postgres.backup.wal_files import (
    AGE,
    TEMPORARY,
    ZSTD,
    Cluster,
    copy_out,
    head_of,
    keep,
    keep_further,
    kept_path,
    push,
    read_cluster,
    read_header,
    sync_folder,
)
from postgres.backup.wal_names import HISTORY, PARTIAL_SUFFIX, SEGMENT, is_segment
from postgres.errors import PostgresError

INCOMING: Final = "incoming"
_WORKERS: Final = 4
_TEMPORARY_SECONDS_MAX: Final = 3600.0
# Timeline and place: what is older has a smaller place, whatever its timeline.
_PLACE: Final = slice(8, 24)
_WRITTEN: Final = frozenset(("", PARTIAL_SUFFIX))
_FORMS: Final = frozenset(
    part + form for part in ("", PARTIAL_SUFFIX) for form in ("", ZSTD, ZSTD + AGE)
)


@dataclass(frozen=True, slots=True)
class WalArchive:
    """The WAL in one folder. `recipient` and `identity` are age's keys, see `native_engine`."""

    folder: Path
    recipient: str | None = None
    identity: SecretStr | None = None

    @property
    def incoming(self) -> Path:
        """Where pg_receivewal writes."""
        return self.folder / INCOMING

    async def listing(self) -> Archive:
        """All WAL that is here, kept or just come, in the order of names.

        Raises:
            OSError: the folder cannot be read. One that does not exist is empty.
        """
        return await asyncio.to_thread(self._listing)

    async def cluster(self) -> Cluster | None:
        """Whose WAL this is; None: nothing was ever kept here."""
        return await asyncio.to_thread(read_cluster, self.folder)

    async def push(self, path: Path, name: str) -> bool:
        """Keep a file as an archive_command must: durable when this returns; whether it is new.

        Raises:
            PostgresError: a different file of that name is kept, it is of another cluster, or
                `name` is no WAL file's.
            OSError: it cannot be read or written.
        """
        return await asyncio.to_thread(self._push, path, name)

    async def settle(self) -> tuple[str, ...]:
        """Keep what pg_receivewal has completed, and say which segments that were.

        Call it for one folder in one process only.

        Raises:
            PostgresError: something there is not what it should be. It is left where it is.
            OSError: it cannot be read or written.
        """
        return await asyncio.to_thread(self._settle)

    async def set_aside(self, *, begin_after: str | None = None) -> bool:
        """Empty `incoming`, so that pg_receivewal begins where its slot says; whether it was not.

        Complete segments are kept, and a partial one is kept as such: it is how far its
        timeline had come. With `begin_after`, the name of a segment, pg_receivewal begins with
        the one after it: it looks at names and sizes alone, so an empty file is left for it.
        """
        return await asyncio.to_thread(self._set_aside, begin_after)

    async def mend(self, segment_bytes: int) -> None:
        """Empty a partial segment of another size, which pg_receivewal would refuse for ever.

        A full disk leaves one, or kill -9 while room is made for a segment. Call it while no
        pg_receivewal runs. Should anything be in it, that is kept.
        """
        await asyncio.to_thread(self._mend, segment_bytes)

    async def stage(self, names: Iterable[str], folder: Path) -> int:
        """Put segments into a folder as a restore_command hands them over; how many bytes.

        Each is decrypted, decompressed, and checked to be the WAL of its name and of this
        cluster. A partial one gets the name of the whole. All history files come along.
        Files get the owner of the folder; those that are there already stay.

        Raises:
            PostgresError: a segment is not kept, or cannot be decrypted.
            DamagedError: a segment is not what was kept.
            OSError: no room.
        """
        return await asyncio.to_thread(self._stage, tuple(dict.fromkeys(names)), folder)

    async def trim(self, before: str) -> int:
        """Remove kept segments older than the one called `before`; how many bytes that freed.

        History files stay, and so does what pg_receivewal has not handed over.
        """
        return await asyncio.to_thread(self._trim, before)

    def _push(self, path: Path, name: str) -> bool:
        return push(path, name, self.folder, recipient=self.recipient)

    def _listing(self) -> Archive:
        found: dict[str, Segment] = {}
        histories: dict[int, str] = {}
        for path in (*_files(self.incoming), *_files(self.folder)):
            if history := HISTORY.fullmatch(path.name):
                histories[int(history[1], 16)] = path.read_text(errors="replace")
            elif segment := _segment(path):
                before = found.get(segment.name)
                if before is None or before.is_partial:
                    found[segment.name] = segment
        return Archive(segments=tuple(found[name] for name in sorted(found)), histories=histories)

    def _settle(self) -> tuple[str, ...]:
        if not self.incoming.is_dir():
            return ()
        self._forget_temporary()
        self._copy_histories()
        names = self._written()
        done = [name for name in names if is_segment(name) and self._kept_anew(name, names[-1])]
        for name in names[:-1]:
            self._let_go(name)
        sync_folder(self.incoming)
        return tuple(done)

    def _written(self) -> list[str]:
        """The names of pg_receivewal's segments, as it orders them: the newest last."""
        names = [path.name for path in _files(self.incoming) if path.name[24:] in _WRITTEN]
        return sorted(filter(SEGMENT.match, names), key=_order)

    def _kept_anew(self, name: str, newest: str) -> bool:
        if name == newest and kept_path(self.folder, name) is not None:
            return False  # it stays in both places: no need to compare it again and again
        if read_header(head_of(self.incoming / name)) is None:
            return False  # made room for, or a starting point of ours
        return self._push(self.incoming / name, name)

    def _let_go(self, name: str) -> None:
        """Remove a segment from `incoming` if it is kept, or keep how far it had come."""
        path = self.incoming / name
        whole = kept_path(self.folder, name.removesuffix(PARTIAL_SUFFIX))
        if whole is None and read_header(head_of(path)) is not None:
            if is_segment(name):
                return
            keep_further(path, name, self.folder, recipient=self.recipient)
        path.unlink()

    def _set_aside(self, begin_after: str | None) -> bool:
        self._settle()
        names = self._written()
        for name in names:
            self._let_go(name)
        known = read_cluster(self.folder)
        if begin_after is not None and known is not None:
            with (self.incoming / begin_after).open("wb") as file:
                file.truncate(known.segment_bytes)
        sync_folder(self.incoming)
        return bool(names)

    def _mend(self, segment_bytes: int) -> None:
        for name in self._written():
            path = self.incoming / name
            if is_segment(name) or path.stat().st_size in {0, segment_bytes}:
                continue
            if read_header(head_of(path)) is not None:
                os.truncate(path, segment_bytes)  # the missing end is zeros: a recovery wants all
                keep_further(path, name, self.folder, recipient=self.recipient)
            os.truncate(path, 0)

    def _copy_histories(self) -> None:
        for path in _files(self.incoming):
            if HISTORY.fullmatch(path.name):
                keep(path, path.name, self.folder)

    def _forget_temporary(self) -> None:
        """Remove what a crash left of a file that was being written."""
        for path in self.folder.glob(f".*{TEMPORARY}"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _TEMPORARY_SECONDS_MAX:
                    path.unlink()

    def _stage(self, names: Sequence[str], folder: Path) -> int:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat()
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="stage-wal") as pool:
            sizes = list(pool.map(partial(self._stage_one, folder=folder), names))
        for timeline in self._listing().histories:
            name = f"{timeline:08X}.history"
            source = self.folder / name
            text = (source if source.exists() else self.incoming / name).read_bytes()
            (folder / name).write_bytes(text)
        for path in _files(folder):
            os.chown(path, owner.st_uid, owner.st_gid)
        return sum(sizes)

    def _stage_one(self, name: str, *, folder: Path) -> int:
        target = folder / name
        if target.exists():
            return target.stat().st_size
        for path in self._places(name):
            try:
                header = copy_out(path, target, self.identity)
            except FileNotFoundError:  # settled in this moment: it is in the next place
                continue
            known = read_cluster(self.folder)
            if known is not None and known.system_identifier != header.system_identifier:
                target.unlink()
                raise PostgresError(
                    f"{path} is WAL of another cluster ({header.system_identifier}).",
                    next_step="See who writes into this archive, and take a full backup.",
                )
            return header.segment_bytes
        raise PostgresError(
            f"The WAL file {name} is not in {self.folder}.",
            next_step="Choose a moment before it, or one that a later backup reaches.",
        )

    def _places(self, name: str) -> Iterator[Path]:
        """Where a segment may be, the best first; once more in the archive, as files move there."""
        for _ in range(2):
            if (kept := kept_path(self.folder, name)) is not None:
                yield kept
            yield self.incoming / name
        yield self.incoming / (name + PARTIAL_SUFFIX)
        if (kept := kept_path(self.folder, name + PARTIAL_SUFFIX)) is not None:
            yield kept
        if (kept := kept_path(self.folder, name)) is not None:
            yield kept

    def _trim(self, before: str) -> int:
        freed = 0
        for path in _files(self.folder):
            if SEGMENT.match(path.name) and path.name[_PLACE] < before[_PLACE]:
                with suppress(FileNotFoundError):
                    freed += path.stat().st_size
                    path.unlink()
        if freed:
            sync_folder(self.folder)
        return freed


def _segment(path: Path) -> Segment | None:
    """A segment, whole or partial; None for what is none, or has only been made room for."""
    found = SEGMENT.match(path.name)
    rest = path.name[24:]
    if found is None or rest not in _FORMS:
        return None
    try:
        if path.parent.name == INCOMING and read_header(head_of(path)) is None:
            return None
        stat = path.stat()
    except FileNotFoundError:  # settled in this moment
        return None
    return Segment(
        name=found[0],
        size_bytes=stat.st_size,
        at=datetime.fromtimestamp(stat.st_mtime, UTC),
        is_partial=rest.startswith(PARTIAL_SUFFIX),
    )


def _order(name: str) -> tuple[str, str]:
    """By place, and at one place by timeline: as pg_receivewal finds the newest."""
    return name[_PLACE], name[:8]


def _files(folder: Path) -> list[Path]:
    """The files of a folder, without those that are being written."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [
            Path(entry.path)
            for entry in entries
            if not entry.name.startswith(".") and entry.is_file()
        ]
    return sorted(found)
