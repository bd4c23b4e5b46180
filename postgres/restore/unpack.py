"""Unpack the archives of a backup, and hash them in the same pass.

One thread reads, hashes and decompresses, another one writes: both for the most part outside
of the interpreter's lock. An archive is believed only as far as it keeps to files and folders
below the target; until it is handed over, nobody but us can enter the target.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import queue
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

import zstandard
from pydantic import SecretStr

from postgres.account import Account
from postgres.backup.facts import FileFact
from postgres.backup.sealing import SEALED, Readable, no_identity, open_sealed
from postgres.errors import DamagedError

__all__ = ["DamagedError", "unpack_archives"]

CHUNK_BYTES: Final = 1 << 20
_QUEUED_CHUNKS_MAX: Final = 16
_QUEUE_SECONDS: Final = 0.2
_BLOCK_BYTES: Final = 512
_DAMAGE: Final = (zstandard.ZstdError, zlib.error, EOFError, gzip.BadGzipFile)


class _StoppedError(Exception):
    """The caller no longer wants the result."""


@dataclass(slots=True)
class _Source:
    """A file that is hashed as it is read."""

    file: BinaryIO
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    size_bytes: int = 0

    def read(self, size: int = -1) -> bytes:
        chunk = self.file.read(size if size > 0 else CHUNK_BYTES)
        self.hash.update(chunk)
        self.size_bytes += len(chunk)
        return chunk


@dataclass(slots=True)
class _Pump:
    """Decompresses in its own thread into a queue of bounded length."""

    archive: Path
    stopped: Callable[[], bool]
    identity: SecretStr | None = None
    chunks: queue.Queue[bytes] = field(default_factory=lambda: queue.Queue(_QUEUED_CHUNKS_MAX))
    error: Exception | None = None
    fact: FileFact | None = None
    _left: memoryview = field(default_factory=lambda: memoryview(b""))

    def run(self) -> None:
        try:
            with self.archive.open("rb", buffering=0) as file:
                source = _Source(cast("BinaryIO", file))
                with _unsealed(self.archive, source, self.identity) as opened:
                    for chunk in _chunks(self.archive, opened):
                        self._put(chunk)
                while source.read():  # to the end, for the hash
                    pass
                self.fact = FileFact(
                    name=self.archive.name,
                    size_bytes=source.size_bytes,
                    sha256=source.hash.hexdigest(),
                )
        except _StoppedError:
            return
        except Exception as error:  # noqa: BLE001  (raised again in the other thread)
            self.error = error
        with suppress(_StoppedError):
            self._put(b"")

    def _put(self, chunk: bytes) -> None:
        while not self.stopped():
            try:
                self.chunks.put(chunk, timeout=_QUEUE_SECONDS)
            except queue.Full:
                continue
            return
        raise _StoppedError

    def take(self, size_max: int) -> memoryview:
        """Some bytes of the archive's contents; none at its end."""
        while not self._left and not self.stopped():
            try:
                chunk = self.chunks.get(timeout=_QUEUE_SECONDS)
            except queue.Empty:
                continue
            if not chunk:
                self.chunks.put(b"")  # the end stays the end
                if self.error:
                    raise self.error
                return memoryview(b"")
            self._left = memoryview(chunk)
        if self.stopped():
            raise _StoppedError
        part, self._left = self._left[:size_max], self._left[size_max:]
        return part

    def take_block(self) -> bytes:
        """One tar block; shorter at the end."""
        block = bytearray()
        while len(block) < _BLOCK_BYTES and (part := self.take(_BLOCK_BYTES - len(block))):
            block += part
        return bytes(block)


async def unpack_archives(
    archives: Iterable[tuple[Path, Path]],
    account: Account | None,
    identity: SecretStr | None = None,
) -> tuple[FileFact, ...]:
    """Unpack each archive into its target folder; their sizes and SHA-256.

    Archives whose names end in `.age` are opened with the `identity`.

    Raises:
        WrongKeyError: an archive was encrypted for another identity, or there is none here.
        DamagedError: an archive is damaged, or tries to write elsewhere.
        OSError: the disk is full, or not ours to write on.
    """
    stop, facts = threading.Event(), []
    for archive, target in archives:
        work = asyncio.ensure_future(
            asyncio.to_thread(_unpack, archive, target, account, stop, identity)
        )
        try:
            facts.append(await asyncio.shield(work))
        except asyncio.CancelledError:
            stop.set()
            await asyncio.gather(work, return_exceptions=True)
            raise
    return tuple(facts)


def _unpack(
    archive: Path,
    target: Path,
    account: Account | None,
    stop: threading.Event,
    identity: SecretStr | None,
) -> FileFact:
    ended = threading.Event()
    pump = _Pump(archive, lambda: stop.is_set() or ended.is_set(), identity)
    thread = threading.Thread(target=pump.run, name=f"unpack {archive.name}", daemon=True)
    thread.start()
    try:
        _write_members(pump, target, account)
        while pump.take(CHUNK_BYTES):
            pass
        thread.join()
    except (*_DAMAGE, tarfile.HeaderError) as error:
        raise DamagedError(f"{archive.name} cannot be unpacked: {error}") from error
    finally:
        ended.set()
        thread.join()
    if pump.fact is None:
        raise DamagedError(f"{archive.name} could not be read to its end")
    return pump.fact


@contextmanager
def _unsealed(
    archive: Path, source: _Source, identity: SecretStr | None
) -> Iterator[BinaryIO | _Source]:
    if archive.suffix != SEALED:
        yield source
        return
    if identity is None:
        raise no_identity(archive.name)
    with open_sealed(cast("Readable", source), identity, name=archive.name) as opened:
        yield opened


def _chunks(archive: Path, source: BinaryIO | _Source) -> Iterable[bytes]:
    match Path(archive.name.removesuffix(SEALED)).suffix:
        case ".zst":
            reader = zstandard.ZstdDecompressor().stream_reader(
                cast("IO[bytes]", source), read_size=CHUNK_BYTES, read_across_frames=True
            )
            opened = cast("BinaryIO", reader)
        case ".gz":
            opened = cast("BinaryIO", gzip.GzipFile(fileobj=cast("IO[bytes]", source)))
        case _:
            opened = cast("BinaryIO", source)
    while chunk := opened.read(CHUNK_BYTES):
        yield chunk


def _write_members(pump: _Pump, target: Path, account: Account | None) -> None:
    made: set[Path] = set()
    while True:
        block = pump.take_block()
        if len(block) < _BLOCK_BYTES:
            raise DamagedError(f"{pump.archive.name} ends too early")
        if not any(block):
            return
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        path = _inside(pump.archive, target, member)
        if member.isdir():
            _make_folder(path, account, made)
        elif member.isreg():
            _make_folder(path.parent, account, made)
            _write_file(pump, path, member.size, account)
        else:
            raise DamagedError(f"{pump.archive.name} holds a link or device: {member.name}")


def _inside(archive: Path, target: Path, member: tarfile.TarInfo) -> Path:
    parts = Path(member.name).parts
    if not parts or Path(member.name).is_absolute() or ".." in parts or "\0" in member.name:
        raise DamagedError(f"{archive.name} holds a path that leads out of it: {member.name!r}")
    return target.joinpath(*parts)


def _make_folder(path: Path, account: Account | None, made: set[Path]) -> None:
    if path in made:
        return
    if not path.is_dir():
        _make_folder(path.parent, account, made)
        path.mkdir(mode=0o700)
        if account:
            os.chown(path, account.uid, account.gid)
    made.add(path)


def _write_file(pump: _Pump, path: Path, size_bytes: int, account: Account | None) -> None:
    # A file that is there already would be a second one of the same name in the archive.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        if account:
            os.fchown(handle, account.uid, account.gid)
        left = size_bytes
        while left:
            part = pump.take(left)
            if not part:
                raise DamagedError(f"{pump.archive.name} ends too early, in {path.name}")
            left -= len(part)
            while part:
                part = part[os.write(handle, part) :]
    finally:
        os.close(handle)
    padding = -size_bytes % _BLOCK_BYTES
    while padding:
        part = pump.take(padding)
        if not part:
            raise DamagedError(f"{pump.archive.name} ends too early, after {path.name}")
        padding -= len(part)
