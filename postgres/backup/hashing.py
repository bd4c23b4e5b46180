"""SHA-256 of files, also of those that are still being written."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postgres.backup.facts import FileFact

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK_BYTES: Final = 1 << 20
_LOOK_EVERY_SECONDS: Final = 0.1
# Archives are only ever appended to; pg_wal.tar gets its headers mended as it is written.
_APPENDED: Final = ("base.tar", *(f"{digit}" for digit in range(1, 10)))


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


async def hash_while_written(folder: Path, done: asyncio.Event) -> tuple[FileFact, ...]:
    """Hash a folder's files while a program writes them; ends soon after `done`."""
    digests: dict[str, _Digest] = {}
    while not done.is_set():
        await asyncio.to_thread(_catch_up, folder, digests, everything=False)
        try:
            async with asyncio.timeout(_LOOK_EVERY_SECONDS):
                await done.wait()
        except TimeoutError:
            continue
    await asyncio.to_thread(_catch_up, folder, digests, everything=True)
    return tuple(digests[name].fact() for name in sorted(digests))


def hash_file(path: Path) -> FileFact:
    """Name, size and SHA-256 of a file."""
    digest = _Digest(path)
    digest.catch_up()
    return digest.fact()


def _catch_up(folder: Path, digests: dict[str, _Digest], *, everything: bool) -> None:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if everything or path.name.startswith(_APPENDED):
            digests.setdefault(path.name, _Digest(path)).catch_up()
