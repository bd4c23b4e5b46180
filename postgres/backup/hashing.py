"""SHA-256 of files, also of those that are still being written.

While a program writes the archives of a backup, they are read as they grow: hashed, and for an
encrypted backup sealed into `<name>.age`. What is read is still in memory then, and little is
left to do at the program's end.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import zstandard

from postgres.backup.facts import FileFact
from postgres.backup.sealing import SEALED, Readable, seal_stream

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK_BYTES: Final = 1 << 20
_LOOK_EVERY_SECONDS: Final = 0.1
# Archives are only ever appended to; pg_wal.tar gets its headers mended as it is written.
_APPENDED: Final = ("base.tar", *(f"{digit}" for digit in range(1, 10)))
_WAL: Final = "pg_wal.tar"
# It names every file, and an incremental backup needs it without any key.
_OPEN: Final = "backup_manifest"
_THREADS_MAX: Final = 32


@dataclass(slots=True)
class _Digest:
    """How far a file has been read."""

    path: Path
    size_bytes: int = 0
    hash: _Hash = field(default_factory=hashlib.sha256)

    def catch_up(self) -> None:
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.size_bytes)
            while chunk := file.read(CHUNK_BYTES):
                self.hash.update(chunk)
                self.size_bytes += len(chunk)

    def fact(self) -> FileFact:
        return FileFact(
            name=self.path.name, size_bytes=self.size_bytes, sha256=self.hash.hexdigest()
        )


class _StoppedError(Exception):
    """Nobody wants the result any more."""


@dataclass(slots=True)
class _Growing:
    """A file that is still being written, as a stream that waits for more until it is done."""

    file: BinaryIO
    done: threading.Event
    stopped: threading.Event

    def read(self, size: int = -1, /) -> bytes:
        while not self.stopped.is_set():
            ended = self.done.is_set()  # asked before the read: what it gives then is the end
            if chunk := self.file.read(size if size > 0 else CHUNK_BYTES):
                return chunk
            if ended:
                return b""
            self.done.wait(_LOOK_EVERY_SECONDS)
        raise _StoppedError


@dataclass(slots=True)
class Writing:
    """A program that writes into a folder: `done` is set when it has ended, `well` says how."""

    folder: Path
    done: asyncio.Event = field(default_factory=asyncio.Event)
    well: bool = False


async def keep_while_written(
    writing: Writing, *, recipient: str | None, pack_wal: bool
) -> tuple[FileFact, ...]:
    """Hash a folder's files while a program writes them; ends soon after the program.

    With a `recipient` each is sealed as `<name>.age` and removed, but for PostgreSQL's manifest.
    With `pack_wal` the WAL, which comes as it is, is compressed. Nothing is kept of a program
    that failed: it removes its own files.

    Raises:
        OSError: the disk is full, or fails.
    """
    if recipient is None:
        facts = await _hash_while_written(writing, pack_wal=pack_wal)
    else:
        facts = await _seal_while_written(writing, recipient, pack_wal=pack_wal)
    return tuple(sorted(facts, key=lambda fact: fact.name))


def hash_file(path: Path) -> FileFact:
    """Name, size and SHA-256 of a file."""
    digest = _Digest(path)
    digest.catch_up()
    return digest.fact()


def keep_stream(source: Readable, goal: Path, recipient: str | None) -> FileFact:
    """Write a stream into a file, sealed as `<name>.age` where there is a recipient; on disk then.

    Raises:
        OSError: the disk is full, or the stream fails.
    """
    if recipient is not None:
        return seal_stream(source, goal.with_name(goal.name + SEALED), recipient)
    digest = _Digest(goal)
    handle = os.open(goal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb", buffering=0) as file:
        while chunk := source.read(CHUNK_BYTES):
            left = memoryview(chunk)
            while left:
                left = left[file.write(left) :]
            digest.hash.update(chunk)
            digest.size_bytes += len(chunk)
        os.fsync(file.fileno())
    return digest.fact()


def keep_file(path: Path, recipient: str | None, *, pack: bool = False) -> FileFact:
    """Keep a file that is whole: as it is, compressed with `pack`, sealed with a `recipient`.

    What is written anew replaces it.
    """
    if recipient is None and not pack:
        return hash_file(path)
    name = f"{path.name}.zst" if pack else path.name
    with path.open("rb", buffering=0) as file:
        source = cast("Readable", file)
        if pack:
            packer = zstandard.ZstdCompressor(level=1)
            source = cast("Readable", packer.stream_reader(file, size=path.stat().st_size))
        fact = keep_stream(source, path.with_name(name), recipient)
    path.unlink()
    return fact


async def _hash_while_written(writing: Writing, *, pack_wal: bool) -> Sequence[FileFact]:
    digests: dict[str, _Digest] = {}
    while not writing.done.is_set():
        with suppress(FileNotFoundError):  # it failed just now, and clears up
            await asyncio.to_thread(_catch_up, writing.folder, digests)
        await _pause(writing.done)
    if not writing.well:
        return ()
    await asyncio.to_thread(_catch_up, writing.folder, digests)
    rest = [path for path in _files(writing.folder) if path.name not in digests]
    facts = [digest.fact() for digest in digests.values()]
    for path in rest:
        pack = pack_wal and path.name == _WAL
        facts.append(await asyncio.to_thread(keep_file, path, None, pack=pack))
    return facts


async def _seal_while_written(
    writing: Writing, recipient: str, *, pack_wal: bool
) -> Sequence[FileFact]:
    """A thread for each archive: there is one per tablespace, and few have many of those."""
    ended, stopped = threading.Event(), threading.Event()
    sealing: dict[str, Future[FileFact]] = {}
    pool = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="seal")
    try:
        while not writing.done.is_set():
            for path in _new(writing.folder, sealing):
                sealing[path.name] = pool.submit(_seal, path, recipient, ended, stopped)
            _look_after(sealing)
            await _pause(writing.done)
        if not writing.well:
            return ()
        ended.set()
        for path in _files(writing.folder):
            if path.name not in sealing and path.suffix != SEALED:
                own = None if path.name == _OPEN else recipient
                pack = pack_wal and path.name == _WAL
                sealing[path.name] = pool.submit(keep_file, path, own, pack=pack)
        return [await asyncio.wrap_future(one) for one in sealing.values()]
    finally:
        stopped.set()
        await asyncio.shield(asyncio.to_thread(pool.shutdown))


def _look_after(sealing: dict[str, Future[FileFact]]) -> None:
    """Raise what ended one of them: before the program's end only an error does."""
    for name in [name for name, one in sealing.items() if one.done()]:
        with suppress(FileNotFoundError):  # the program failed just now, and clears up
            sealing.pop(name).result()


def _seal(path: Path, recipient: str, ended: threading.Event, stopped: threading.Event) -> FileFact:
    with path.open("rb", buffering=0) as file:
        growing = _Growing(cast("BinaryIO", file), ended, stopped)
        fact = seal_stream(growing, path.with_name(path.name + SEALED), recipient)
    path.unlink()
    return fact


def _new(folder: Path, known: dict[str, Future[FileFact]]) -> list[Path]:
    return [
        path
        for path in _files(folder)
        if path.name not in known and path.name.startswith(_APPENDED) and path.suffix != SEALED
    ]


def _catch_up(folder: Path, digests: dict[str, _Digest]) -> None:
    for path in _files(folder):
        if path.name.startswith(_APPENDED):
            digests.setdefault(path.name, _Digest(path)).catch_up()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


async def _pause(done: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK_EVERY_SECONDS):
            await done.wait()
    except TimeoutError:
        return
