"""An engine as it stood at a moment: what its archive got later is not there.

For asking what a disaster would have left. The server lives on and archives on, so whole segments
are told apart by their names, and the one that was just being received is copied at that moment.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn

from postgres.backup.engine import Archive, Engine, LaidOut, OnText, Probe, TakeOrder
from postgres.backup.facts import BackupFacts, EngineName, Listing
from postgres.backup.progress import OnProgress
from postgres.backup.wal_names import timeline_of
from postgres.errors import DamagedError, PostgresError
from postgres.restore.folders import disk_error

_COMMAND: Final = "restore_command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """How far an archive had come: up to the segment `last`, '' for an empty one.

    `is_open`: that segment was still being received, and there is a copy of what it held.
    """

    last: str = ""
    is_open: bool = False


async def freeze(engine: Engine, folder: Path) -> Stand:
    """How far the archive is now; a segment that is being received is copied into `folder`.

    What comes while this runs may be left out, never what came before.

    Raises:
        PostgresError: the archive cannot be looked at, or there is no room.
    """
    segments = sorted((await engine.archive()).segments, key=lambda each: each.name)
    if not segments:
        return Stand()
    last = segments[-1]
    if not last.is_partial:
        return Stand(last=last.name)
    try:
        await engine.stage_wal([last.name], folder)
    except DamagedError:  # not whole, as a full disk leaves it: nobody could restore it
        return Stand(last=segments[-2].name) if segments[1:] else Stand()
    return Stand(last=last.name, is_open=True)


def as_it_stood(archive: Archive, stand: Stand) -> Archive:
    """An archive without what it got later. Pure."""
    segments = tuple(
        replace(each, is_partial=True) if stand.is_open and each.name == stand.last else each
        for each in archive.segments
        if each.name <= stand.last
    )
    newest = timeline_of(stand.last) if stand.last else 0
    histories = {line: text for line, text in archive.histories.items() if line <= newest}
    return Archive(segments=segments, histories=histories)


def bounded(command: str, stand: Stand) -> str:
    """A restore_command that does not give what came later. Pure.

    Names of one timeline are ordered as they were written, those of later timelines come after
    them, and so do the histories that lead there.
    """
    return f'[ ! "%f" ">" "{stand.last}" ] && {command}'


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenEngine:
    """`engine` as it was at `stand`, to be read alone; `folder`: where `freeze` copied to.

    Without that copy, as on another machine, it ends before the segment that was being received.
    """

    engine: Engine
    stand: Stand
    folder: Path

    @property
    def name(self) -> EngineName:
        """Which engine it is."""
        return self.engine.name

    async def probe(self) -> Probe:
        """What is installed and configured."""
        return await self.engine.probe()

    async def backups(self) -> Listing:
        """All complete backups, also later ones: whoever asks names one."""
        return await self.engine.backups()

    async def archive(self) -> Archive:
        """The WAL that was kept then.

        Raises:
            PostgresError: the archive cannot be looked at.
        """
        archive = as_it_stood(await self.engine.archive(), self.stand)
        if not self.stand.is_open or self._copy.exists():
            return archive
        whole = tuple(each for each in archive.segments if each.name != self.stand.last)
        return replace(archive, segments=whole)

    async def inspect(self, backup_id: str) -> Sequence[str]:
        """What is wrong with a backup."""
        return await self.engine.inspect(backup_id)

    async def lay_out(
        self, backup_id: str, work_folder: Path, *, on_step: OnText | None = None
    ) -> LaidOut:
        """Lay a backup out; a command that fetches WAL fetches nothing that came later.

        Raises:
            DamagedError, PostgresError: as the engine.
        """
        laid = await self.engine.lay_out(backup_id, work_folder, on_step=on_step)
        command = laid.settings.get(_COMMAND)
        if not command:
            return laid
        return replace(laid, settings={**laid.settings, _COMMAND: bounded(command, self.stand)})

    async def stage_wal(self, names: Sequence[str], folder: Path) -> int:
        """Put segments into a folder, the one that was being received as it was then.

        Raises:
            DamagedError, PostgresError: as the engine.
        """
        mine = self.stand.last if self.stand.is_open else ""
        size = await self.engine.stage_wal([name for name in names if name != mine], folder)
        if mine in names:
            size += await asyncio.to_thread(self._put, folder)
        return size

    async def take(self, order: TakeOrder, *, on_progress: OnProgress | None = None) -> BackupFacts:
        """Never: see the class."""
        del order, on_progress
        self._refuse()

    async def remove(self, backup_id: str) -> int:
        """Never: see the class."""
        del backup_id
        self._refuse()

    async def trim(self, before: str) -> int:
        """Never: see the class."""
        del before
        self._refuse()

    @property
    def _copy(self) -> Path:
        return self.folder / self.stand.last

    def _put(self, folder: Path) -> int:
        target = folder / self.stand.last
        try:
            shutil.copyfile(self._copy, target)
            owner = folder.stat()
            os.chown(target, owner.st_uid, owner.st_gid)
        except OSError as error:
            raise disk_error(folder, error) from error
        return target.stat().st_size

    def _refuse(self) -> NoReturn:
        raise PostgresError(
            f"The backups of {self.engine.name} are looked at as they stood once: nothing is"
            " changed there.",
            next_step="Ask the engine itself.",
        )
