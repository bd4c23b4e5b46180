"""The default engine: PostgreSQL's own programs, and nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from postgres.backup.engine import Archive, Finding, LaidOut, OnText, Probe, TakeOrder
from postgres.backup.facts import (
    BackupFacts,
    BackupKind,
    EngineName,
    Listing,
    backup_folder,
    list_backups,
    read_backup,
)
from postgres.backup.native import Compression, take_backup
from postgres.backup.progress import OnProgress
from postgres.backup.removal import remove_folder
from postgres.backup.wal_archive import WalArchive
from postgres.binaries import Binaries, find_binaries
from postgres.errors import PostgresError
from postgres.restore.checks import check_files
from postgres.restore.folders import disk_error
from postgres.restore.scratch import unpack

# The archive of WAL stands beside the backups that need it.
WAL_FOLDER: Final = "wal"


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeEngine:
    """Backups of one server in one folder: `<folder>/<id>/`, and its WAL in `<folder>/wal/`.

    `recipient` and `identity` are age's keys: with the first, backups and WAL are encrypted.
    """

    dsn: SecretStr
    folder: Path
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    compression: Compression = "auto"
    rate_max_bytes: int | None = None
    workers: int = 4
    recipient: str | None = None
    identity: SecretStr | None = None

    @property
    def name(self) -> EngineName:
        """Which engine it is."""
        return "native"

    async def probe(self) -> Probe:
        """Which programs there are, of which version."""
        try:
            binaries = await asyncio.to_thread(find_binaries, self.environ)
        except PostgresError as error:
            finding = Finding(problem=error.problem, next_step=error.next_step)
            return Probe(name="native", version="", kinds=(), findings=(finding,))
        kinds: tuple[BackupKind, ...] = ("full",)
        return Probe(name="native", version=binaries.version, kinds=kinds)

    async def take(self, order: TakeOrder, *, on_progress: OnProgress | None = None) -> BackupFacts:
        """Take a backup with the newest programs, which can copy older servers too."""
        binaries = await asyncio.to_thread(find_binaries, self.environ)
        return await take_backup(
            binaries,
            self.dsn,
            self.folder,
            backup_id=order.backup_id,
            compress=self.compression,
            on_progress=on_progress,
        )

    async def backups(self) -> Listing:
        """All complete backups in the folder, oldest first."""
        return await asyncio.to_thread(list_backups, self.folder)

    async def archive(self) -> Archive:
        """The WAL in the folder's archive."""
        return await self.wal.listing()

    @property
    def wal(self) -> WalArchive:
        """The archive of WAL beside the backups."""
        return WalArchive(self.folder / WAL_FOLDER, self.recipient, self.identity)

    async def inspect(self, backup_id: str) -> Sequence[str]:
        """What is wrong with the files, by size and SHA-256."""
        facts = await asyncio.to_thread(read_backup, self.folder, backup_id)
        return await asyncio.to_thread(check_files, self.folder / backup_id, facts)

    async def lay_out(
        self, backup_id: str, work_folder: Path, *, on_step: OnText | None = None
    ) -> LaidOut:
        """Unpack the archives of a backup."""
        facts = await asyncio.to_thread(read_backup, self.folder, backup_id)
        if on_step:
            await on_step(f"Unpacking {backup_id}")
        binaries = await self._programs(facts)
        read = await unpack(binaries, self.folder / backup_id, facts, work_folder)
        return LaidOut(data=work_folder / "scratch" / "data", settings={}, read=read)

    async def stage_wal(self, names: Sequence[str], folder: Path) -> int:
        """Segments and histories, decrypted and decompressed."""
        try:
            return await self.wal.stage(names, folder)
        except OSError as error:
            raise disk_error(folder, error) from error

    async def remove(self, backup_id: str) -> int:
        """Rename it, so that it no longer counts, then remove it: a crash leaves no half."""
        return await asyncio.to_thread(remove_folder, backup_folder(self.folder, backup_id))

    async def trim(self, before: str) -> int:
        """Remove WAL files older than `before`; history files stay."""
        return await self.wal.trim(before)

    async def _programs(self, facts: BackupFacts) -> Binaries:
        return await asyncio.to_thread(find_binaries, self.environ, major=facts.major)
