"""Single WAL files: kept durably, compared, opened, and looked at. Quick to import.

A kept file is `<name>.zst` (with a checksum of its content), or `<name>.zst.age` when there
is a recipient; what is no segment, such as a timeline's history, stays as it is. Nobody can
compare an encrypted file without the key, so its content's SHA-256 stands beside it, in
`<name>.sum`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import zstandard

from postgres.backup.wal_names import (
    ARCHIVABLE,
    PARTIAL_SUFFIX,
    is_segment,
    number_of,
    timeline_of,
)
from postgres.errors import DamagedError, PostgresError

if TYPE_CHECKING:  # a server waits for `twokey wal push`: nothing that it does not need
    from pydantic import SecretStr

ZSTD: Final = ".zst"
AGE: Final = ".age"
SUM: Final = ".sum"
CLUSTER: Final = "cluster"
TEMPORARY: Final = ".tmp"
_LEVEL: Final = 1
_CHUNK_BYTES: Final = 1 << 20
# XLogLongPageHeaderData: magic, info, timeline, address, continued bytes; system, sizes.
_HEADER: Final = struct.Struct("=HHIQI4xQII")
_LONG_HEADER: Final = 0x0002
_MAGICS: Final = range(0xD100, 0xD200)  # PostgreSQL 13 has 0xD106, 17 has 0xD116
_NOTHING: Final = b"\0" * _HEADER.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the first page of a segment says of it."""

    timeline: int
    address: int
    system_identifier: str
    segment_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Whose WAL an archive holds."""

    system_identifier: str
    segment_bytes: int


def push(source: Path, name: str, folder: Path, *, recipient: str | None = None) -> bool:
    """Keep a file as an archive_command must: as `keep`, and of one cluster only.

    Raises:
        PostgresError: see `keep`; or it is another cluster's.
        DamagedError: it is not what its name says.
        OSError: it cannot be read or written.
    """
    if is_segment(name):
        _recognise(folder, check_header(_head(source), name))
    return keep(source, name, folder, recipient=recipient)


def keep(source: Path, name: str, folder: Path, *, recipient: str | None = None) -> bool:
    """Put a WAL file into an archive's folder so that it survives a crash; whether it is new.

    It appears under its name only when all of it is on disk. One that is there already with
    the same content is left as it is.

    Raises:
        PostgresError: a different file of that name is there, or this is no WAL file's name.
        OSError: it cannot be read or written.
    """
    if not ARCHIVABLE.fullmatch(name):
        raise PostgresError(
            f"{name!r} is no name of a WAL file.",
            next_step="Use archive_command = 'twokey wal push --folder FOLDER %p %f'.",
        )
    _make(folder)
    if (there := kept_path(folder, name)) is not None:
        _compare(source, there, name)
        return False
    if is_segment(name):
        check_header(_head(source), name)
    _write(source, name, folder, recipient)
    return True


def keep_further(source: Path, name: str, folder: Path, *, recipient: str | None = None) -> None:
    """Put a partial segment into an archive's folder, unless it is kept and had come further.

    Of two that begin alike and end in zeros, the one with more in it takes more room when it
    is compressed: that holds without a key, too.

    Raises:
        OSError: it cannot be read or written.
    """
    before = kept_path(folder, name)
    least = before.stat().st_size if before else -1
    written = _write(source, name, folder, recipient, larger_than=least)
    if before is not None and written is not None and written != before:
        before.unlink()


def kept_path(folder: Path, name: str) -> Path | None:
    """Where a file is kept, in whatever form; None: it is not."""
    for suffix in ("", ZSTD, ZSTD + AGE, AGE):
        path = folder / (name + suffix)
        if path.exists():
            return path
    return None


@contextmanager
def opened(path: Path, identity: SecretStr | None = None) -> Iterator[BinaryIO]:
    """The content of a kept file, decrypted and decompressed while it is read.

    Raises:
        PostgresError: it is encrypted and there is no key, or the key does not fit.
        DamagedError: it was changed since it was kept; also while it is read.
    """
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(_decrypted(path, identity))
        stack.enter_context(_damage_named(path))
        if ZSTD not in path.suffixes:
            yield raw
            return
        yield cast("BinaryIO", stack.enter_context(zstandard.ZstdDecompressor().stream_reader(raw)))


def read_cluster(folder: Path) -> Cluster | None:
    """Whose WAL an archive's folder holds; None: nothing was ever kept there.

    Raises:
        PostgresError: its note of that is damaged.
    """
    path = folder / CLUSTER
    try:
        system, size = path.read_text().split()
        return Cluster(system_identifier=system, segment_bytes=int(size))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise PostgresError(
            f"{path} does not say whose WAL is kept there.",
            next_step="Remove that file if the folder is this database's own; it is made anew.",
        ) from error


def read_header(head: bytes) -> Header | None:
    """What the beginning of a segment says; None: it is no segment's.

    40 bytes are enough. A segment that was only made room for is all zeros: None, too.
    """
    if len(head) < _HEADER.size or head[: _HEADER.size] == _NOTHING:
        return None
    magic, info, timeline, address, _, system, size, _ = _HEADER.unpack(head[: _HEADER.size])
    if magic not in _MAGICS or not info & _LONG_HEADER:
        return None
    return Header(
        timeline=timeline, address=address, system_identifier=str(system), segment_bytes=size
    )


def check_header(head: bytes, name: str) -> Header:
    """The header of a segment, if it belongs to a file of that name.

    Raises:
        DamagedError: it does not.
    """
    header = read_header(head)
    if header is None:
        raise DamagedError(f"{name} does not begin as WAL does.")
    number = number_of(name, header.segment_bytes)
    # The first segment of a timeline begins with the old timeline's pages.
    if header.address != number * header.segment_bytes or header.timeline > timeline_of(name):
        raise DamagedError(f"{name} holds the WAL of another place.")
    return header


def head_of(path: Path, identity: SecretStr | None = None) -> bytes:
    """The first bytes of a kept segment.

    Raises:
        PostgresError: see `opened`.
    """
    with opened(path, identity) as file:
        return file.read(_HEADER.size)


def copy_out(path: Path, target: Path, identity: SecretStr | None = None) -> Header:
    """Write the content of a kept segment to `target`, which appears whole or not at all.

    `target` is named as the segment; its header has been looked at.

    Raises:
        PostgresError: see `opened`.
        DamagedError: the content is cut short, or is not what the name says.
    """
    temporary = target.with_name(f".{target.name}{TEMPORARY}")
    try:
        with opened(path, identity) as reader, temporary.open("wb") as writer:
            shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
        header = check_header(_head(temporary), target.name)
        if temporary.stat().st_size != header.segment_bytes:
            raise DamagedError(f"{path} is damaged: it is cut short.")
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
    return header


def sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in a folder survive a crash."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str, *, temporary: Path) -> None:
    """Write a small file whole or not at all, by way of `temporary` in the same folder."""
    with temporary.open("w") as file:
        os.fchmod(file.fileno(), _as_open_as(path.parent))
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _recognise(folder: Path, header: Header) -> None:
    """Remember whose WAL is kept in a folder, or compare.

    Raises:
        PostgresError: it is another cluster's.
    """
    known = read_cluster(folder)
    if known is None:
        _make(folder)
        temporary = folder / f".{CLUSTER}.{os.getpid()}{TEMPORARY}"
        text = f"{header.system_identifier} {header.segment_bytes}\n"
        write_text(folder / CLUSTER, text, temporary=temporary)
        sync_folder(folder)
    elif known.system_identifier != header.system_identifier:
        raise PostgresError(
            f"{folder} keeps the WAL of the cluster {known.system_identifier}, and what "
            f"comes is of {header.system_identifier}.",
            next_step="See where the database's dsn leads. For a new cluster, move the "
            "folder away, with the backups that need it.",
        )


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)


def _as_open_as(folder: Path) -> int:
    """The mode of a new file: others get what the folder gives them, but no more than reading."""
    return 0o600 | folder.stat().st_mode & 0o044


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER.size)


def _write(
    source: Path, name: str, folder: Path, recipient: str | None, *, larger_than: int = -1
) -> Path | None:
    """Write whole or not at all; not at all, too, if it is not larger than that many bytes."""
    compress = is_segment(name.removesuffix(PARTIAL_SUFFIX))
    temporary = folder / f".{name}.{os.getpid()}{TEMPORARY}"
    sealed = folder / f".{name}.{os.getpid()}{AGE}{TEMPORARY}"
    target = folder / (name + (ZSTD if compress else ""))
    try:
        digest = _copy(source, temporary, compress=compress)
        if recipient is not None and compress:
            _seal(temporary, sealed, recipient)
            sealed.replace(temporary)
            target = target.with_name(target.name + AGE)
        if temporary.stat().st_size <= larger_than:
            return None
        if target.suffix == AGE:
            write_text(folder / (name + SUM), digest, temporary=sealed)
        temporary.chmod(_as_open_as(folder))
        stat = source.stat()
        os.utime(temporary, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
        temporary.rename(target)
        sync_folder(folder)
    finally:
        temporary.unlink(missing_ok=True)
        sealed.unlink(missing_ok=True)
    return target


def _copy(source: Path, target: Path, *, compress: bool) -> str:
    """Copy to disk, compressed or not; the SHA-256 of the content."""
    digest = hashlib.sha256()
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with source.open("rb") as reader, os.fdopen(handle, "wb") as file:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        writer: Any = compressor.stream_writer(file, closefd=False) if compress else file
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
            writer.write(chunk)
        if compress:
            writer.close()
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _seal(source: Path, target: Path, recipient: str) -> None:
    from postgres.backup.sealing import seal_file  # noqa: PLC0415 - most archives need none

    seal_file(source, target, recipient)


def _compare(source: Path, kept: Path, name: str) -> None:
    """Nothing, if a kept file has the content of `source`.

    Raises:
        PostgresError: it has not, or nobody can tell.
    """
    if AGE in kept.suffixes:
        same = (kept.with_name(name + SUM)).read_text() == _digest(source)
    else:
        with source.open("rb") as ours, opened(kept) as theirs:
            same = _same(ours, theirs)
    if not same:
        raise PostgresError(
            f"The archive already holds another file {name}: {kept}.",
            next_step="See whether two servers write into one archive. Both files were left "
            "as they are.",
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same(ours: BinaryIO, theirs: BinaryIO) -> bool:
    while True:
        chunk = _exactly(ours)
        if chunk != _exactly(theirs):
            return False
        if not chunk:
            return True


def _exactly(file: BinaryIO) -> bytes:
    """A whole chunk, unless the file ends: a decompressor gives less at a time."""
    parts: list[bytes] = []
    wanted = _CHUNK_BYTES
    while wanted and (part := file.read(wanted)):
        parts.append(part)
        wanted -= len(part)
    return b"".join(parts)


@contextmanager
def _decrypted(path: Path, identity: SecretStr | None) -> Iterator[BinaryIO]:
    if AGE not in path.suffixes:
        with path.open("rb") as file:
            yield file
        return
    if identity is None:
        raise PostgresError(
            f"{path} is encrypted, and there is no key to read it.",
            next_step="Set the database's backups.encryption.identity in the inventory.",
        )
    from postgres.backup.sealing import open_sealed  # noqa: PLC0415 - most archives need none

    with open_sealed(path, identity) as file:
        yield file


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (zstandard.ZstdError, EOFError) as error:
        raise DamagedError(f"{path} is damaged: {error}.") from error
