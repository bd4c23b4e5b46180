"""Prisma's folders: `migrations/20260101120000_users/migration.sql`.

A version is the whole name of the folder, as Prisma writes it down. Prisma itself never goes
back; a `down.sql` beside the file is a custom of teams, and is read as the way back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from postgres.errors import PostgresError
from postgres.migrate.folders.files import SqlFile, list_files, read_file
from postgres.migrate.folders.folder import Folder
from postgres.migrate.folders.plain import from_files
from postgres.migrate.words import Migration, Tool

_FILE: Final = "migration.sql"
_DOWN: Final = "down.sql"
_NAME_CHARS_MAX: Final = 255  # the column migration_name


def read(folder: Path) -> Folder:
    """The migrations by the names of their folders. Blocks: call it in a thread.

    `folder` is `migrations` itself, or the folder that it stands in beside schema.prisma.

    Raises:
        PostgresError: see `files.list_files` and `files.read_file`; or the lock file says that
            these are no migrations of PostgreSQL.
    """
    root = folder if _is_root(folder) else folder / "migrations"
    _check_provider(root)
    ups = list_files(root, f"*/{_FILE}")
    downs = {path.parent.name: path for path in list_files(root, f"*/{_DOWN}")}
    return Folder(
        tool=Tool.PRISMA,
        path=folder,
        migrations=tuple(_migration(path, downs.get(path.parent.name)) for path in ups),
        problems=tuple(_problems(root, ups, downs)),
    )


def checksums(data: bytes) -> tuple[str, ...]:
    """The SHA-256 that Prisma writes, then those that it takes for the same script.

    Its rule (checksum.rs): git changes the ends of lines, and old versions of Prisma left out
    the leading zero of a byte.
    """
    texts = (data, data.replace(b"\r\n", b"\n"), data.replace(b"\n", b"\r\n"))
    digests = [hashlib.sha256(text).digest() for text in texts]
    found = [digest.hex() for digest in digests]
    found += ["".join(f"{byte:x}" for byte in digest) for digest in digests]
    return tuple(dict.fromkeys(found))


def _is_root(folder: Path) -> bool:
    return (folder / "migration_lock.toml").is_file() or any(folder.glob(f"*/{_FILE}"))


def _check_provider(root: Path) -> None:
    lock = root / "migration_lock.toml"
    if not lock.is_file():
        return
    lines = lock.read_bytes()[:10_000].decode(errors="replace").splitlines()
    provider = next((line for line in lines if line.startswith("provider")), "")
    if provider and not any(name in provider for name in ('"postgresql"', '"postgres"')):
        raise PostgresError(
            f"{lock} says {provider.strip()[:100]}: these are no migrations of PostgreSQL.",
            next_step="Point `migrations.folder` at the migrations of this database.",
        )


def _migration(path: Path, down: Path | None) -> Migration:
    version = path.parent.name
    up = _without_folder(read_file(path))
    found = from_files(
        Tool.PRISMA,
        version=version,
        name="",
        up=up,
        down=_without_folder(read_file(down)) if down else None,
    )
    if up.problem and not up.text:  # perhaps too large to be read at once
        return replace(found, checksum=up.sha256)
    same = checksums(path.read_bytes())
    return replace(found, checksum=same[0], same_checksums=same[1:])


def _without_folder(file: SqlFile) -> SqlFile:
    """All of them are called migration.sql: a problem names the folder too."""
    if not file.problem:
        return file
    named = file.problem.replace(file.path.name, f"{file.path.parent.name}/{file.path.name}", 1)
    return replace(file, problem=named)


def _problems(root: Path, ups: tuple[Path, ...], downs: dict[str, Path]) -> Iterator[str]:
    known = {path.parent.name for path in ups}
    for name in sorted(known):
        if len(name) > _NAME_CHARS_MAX:
            yield f"{name} is too long for Prisma's table. Give the folder a shorter name."
    for name in sorted(downs.keys() - known):
        yield f"{name}/{_DOWN} has no {_FILE} beside it. Restore that, or take this one away."
    for path in list_files(root, "*.sql"):
        yield (
            f"{path.name} stands beside the folders of Prisma, which passes it over."
            f" Move it into a folder of its own as {_FILE}, or out of here."
        )
