"""The default engine: PostgreSQL's own programs, and nothing else."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, assert_never

from pydantic import SecretStr

from postgres.backup.engine import Archive, Finding, LaidOut, OnText, Probe, TakeOrder
from postgres.backup.facts import (
    BackupFacts,
    BackupKind,
    EngineName,
    Listing,
    backup_folder,
    list_backups,
)
from postgres.backup.incremental import FIRST_MAJOR, builders, read_chain
from postgres.backup.logical import take_logical
from postgres.backup.manner import Compression, Manner
from postgres.backup.native import take_backup
from postgres.backup.partial import sweep
from postgres.backup.progress import OnProgress
from postgres.backup.removal import remove_folder
from postgres.backup.sealing import check_recipient, recipient_of
from postgres.backup.source import look_at
from postgres.backup.wal_archive import WalArchive
from postgres.binaries import Binaries, find_binaries
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.restore.checks import check_files
from postgres.restore.combining import combine
from postgres.restore.folders import disk_error, scratch_folder
from postgres.restore.laying import unpack
from postgres.restore.loading import load
from postgres.sizes import pretty_bytes

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
        """Which programs there are, and whether the keys are any; the server is not asked."""
        try:
            binaries = await asyncio.to_thread(find_binaries, self.environ)
        except PostgresError as error:
            finding = Finding(problem=error.problem, next_step=error.next_step)
            return Probe(name="native", version="", kinds=(), findings=(finding,))
        kinds: list[BackupKind] = ["full"]
        if binaries.major >= FIRST_MAJOR:
            kinds.append("incremental")
        kinds.append("logical")
        return Probe(
            name="native",
            version=binaries.version,
            kinds=tuple(kinds),
            findings=tuple(_key_findings(self.recipient, self.identity)),
        )

    async def take(self, order: TakeOrder, *, on_progress: OnProgress | None = None) -> BackupFacts:
        """Take a backup with programs of the server's own version, or newer ones.

        What attempts left that died a day ago or earlier is removed first.
        """
        for finding in _key_findings(self.recipient, self.identity):
            raise PostgresError(finding.problem, next_step=finding.next_step)
        await asyncio.to_thread(sweep, self.folder, now=time.time())
        binaries = await self._programs_of_server(order.kind)
        match order.kind:
            case "logical":
                return await take_logical(
                    binaries,
                    self.dsn,
                    self.folder,
                    backup_id=order.backup_id,
                    manner=self.manner,
                    on_progress=on_progress,
                )
            case "full" | "incremental":
                return await take_backup(
                    binaries,
                    self.dsn,
                    self.folder,
                    backup_id=order.backup_id,
                    manner=self.manner,
                    base=_base(order),
                    on_progress=on_progress,
                )
            case _:
                assert_never(order.kind)

    @property
    def manner(self) -> Manner:
        """How this engine takes its backups."""
        return Manner(
            compression=self.compression,
            workers=self.workers,
            rate_max_bytes=self.rate_max_bytes,
            recipient=self.recipient,
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
        """What is wrong with the files, by size and SHA-256, also of all that it builds on."""
        chain = await asyncio.to_thread(read_chain, self.folder, backup_id)
        findings: list[str] = []
        for facts in chain:
            found = await asyncio.to_thread(check_files, self.folder / facts.id, facts)
            findings += (
                found if facts.id == backup_id else [f"{facts.id}: {text}" for text in found]
            )
        return findings

    async def lay_out(
        self, backup_id: str, work_folder: Path, *, on_step: OnText | None = None
    ) -> LaidOut:
        """Unpack a full backup, combine a chain of incrementals, or load a logical one."""
        chain = await asyncio.to_thread(read_chain, self.folder, backup_id)
        facts = chain[-1]
        binaries = await self._programs(facts)
        match facts.kind:
            case "full":
                if on_step:
                    await on_step(f"Unpacking {pretty_bytes(facts.data_bytes)}")
                read = await unpack(
                    binaries, self.folder / backup_id, facts, work_folder, identity=self.identity
                )
            case "incremental":
                read = await combine(
                    binaries,
                    self.folder,
                    chain,
                    work_folder,
                    identity=self.identity,
                    on_step=on_step,
                )
            case "logical":
                read = await load(
                    binaries,
                    self.folder / backup_id,
                    facts,
                    work_folder,
                    identity=self.identity,
                    on_step=on_step,
                )
            case _:
                assert_never(facts.kind)
        return LaidOut(data=scratch_folder(work_folder) / "data", settings={}, read=read)

    async def stage_wal(self, names: Sequence[str], folder: Path) -> int:
        """Segments and histories, decrypted and decompressed."""
        try:
            return await self.wal.stage(names, folder)
        except OSError as error:
            raise disk_error(folder, error) from error

    async def remove(self, backup_id: str) -> int:
        """Rename it, so that it no longer counts, then remove it: a crash leaves no half."""
        place = backup_folder(self.folder, backup_id)
        kept = (await self.backups()).backups
        if later := builders(backup_id, kept):
            raise PostgresError(
                f"{backup_id} cannot be removed: {', '.join(later)} builds on it.",
                next_step=f"Remove {later[-1]} first, or keep both.",
            )
        return await asyncio.to_thread(remove_folder, place)

    async def trim(self, before: str) -> int:
        """Remove WAL files older than `before`; history files stay."""
        return await self.wal.trim(before)

    async def _programs(self, facts: BackupFacts) -> Binaries:
        return await asyncio.to_thread(find_binaries, self.environ, major=facts.major)

    async def _programs_of_server(self, kind: BackupKind) -> Binaries:
        """A logical backup needs the server's own major version; pg_basebackup may be newer."""
        source = await look_at(parse_dsn(self.dsn.get_secret_value()))
        try:
            return await asyncio.to_thread(find_binaries, self.environ, major=source.major)
        except PostgresError:
            if kind == "logical":
                raise
            return await asyncio.to_thread(find_binaries, self.environ)


def _base(order: TakeOrder) -> str | None:
    if order.kind == "full":
        return None
    if order.base is None:
        raise PostgresError(
            "An incremental backup needs one that it builds on, and none was named.",
            next_step="Take a full backup; later incrementals build on that one.",
        )
    return order.base


def _key_findings(recipient: str | None, identity: SecretStr | None) -> Iterator[Finding]:
    """Keys that are none, or no pair: then nothing that is written could be read."""
    try:
        if recipient is not None:
            check_recipient(recipient)
        ours = recipient_of(identity) if identity else recipient
    except PostgresError as error:
        yield Finding(problem=error.problem, next_step=error.next_step)
        return
    if recipient is not None and ours != recipient:
        yield Finding(
            problem=f"Backups are encrypted for {recipient}, but the identity belongs to {ours}:"
            " what is written now could not be restored here.",
            next_step="Set encryption.recipient and encryption.identity of the inventory to one"
            " pair of keys.",
        )
