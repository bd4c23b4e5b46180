"""The files of a folder of migrations, read with a bound on everything.

What a person must see to is a `problem` of the file and not an error: a file that was applied
years ago must not keep the others from running. Who would run the file refuses it.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postgres.errors import PostgresError

FILE_BYTES_MAX: Final = 5 * 2**20
# Beyond this nobody has a migration: it is a dump or a device.
HASHED_BYTES_MAX: Final = 2**30
FOLDER_BYTES_MAX: Final = 2**28
FILES_MAX: Final = 5_000
_CHUNK_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlFile:
    """A file. `text` is what would run: without the byte order mark, '' where there is a problem.

    `sha256` is of the file's bytes. `problem`: why it cannot be run, with the next step; '' when
    it can.
    """

    path: Path
    text: str
    sha256: str
    problem: str = ""


def list_files(folder: Path, pattern: str) -> tuple[Path, ...]:
    """The files of `folder` whose path within it fits `pattern`, by name.

    Raises:
        PostgresError: there is no such folder, a file is none or leads out of the folder, or
            there are more than FILES_MAX of them or FOLDER_BYTES_MAX bytes in them.
    """
    if not folder.is_dir():
        raise PostgresError(
            f"There is no folder {folder}.",
            next_step="Correct `migrations.folder` in the inventory, or check the code out there.",
        )
    found: list[Path] = []
    size_bytes = 0
    try:
        for path in folder.glob(pattern):
            size_bytes += min(_size_inside(folder, path), FILE_BYTES_MAX)
            found.append(path)
            if len(found) > FILES_MAX or size_bytes > FOLDER_BYTES_MAX:
                raise PostgresError(
                    f"{folder} has more than {FILES_MAX} migrations, or more than"
                    f" {FOLDER_BYTES_MAX // 2**20} MB of them.",
                    next_step="Point `migrations.folder` at the migrations alone.",
                )
    except OSError as error:
        raise _unreadable(folder, error) from error
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).parts))


def read_file(path: Path) -> SqlFile:
    """One file, whatever is in it.

    Raises:
        PostgresError: it cannot be read, or is larger than HASHED_BYTES_MAX.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > HASHED_BYTES_MAX:
            raise PostgresError(
                f"{path} has {size_bytes // 2**20} MB: that is no migration.",
                next_step="Take it out of the folder.",
            )
        if size_bytes > FILE_BYTES_MAX:
            return SqlFile(
                path=path, text="", sha256=_sha256_of(path), problem=_too_large(path, size_bytes)
            )
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        return SqlFile(path=path, text="", sha256=sha256, problem=_not_utf8(path, error))
    if "\0" in text:
        return SqlFile(path=path, text="", sha256=sha256, problem=_not_text(path))
    return SqlFile(path=path, text=text, sha256=sha256, problem=empty_problem(path, text))


def sha256_of(text: str) -> str:
    """The SHA-256 of the text as UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def empty_problem(path: Path, sql: str) -> str:
    """Why a text without a statement is not run, or ''."""
    if not is_empty(sql):
        return ""
    return (
        f"{path.name} has no statement in it. Write one, or take the file away before it is"
        " applied anywhere."
    )


def is_empty(sql: str) -> bool:
    """Whether there is nothing in it but white space, comments and semicolons."""
    at, end = 0, len(sql)
    while at < end:
        if sql[at] in " \t\r\n\f\v;":
            at += 1
        elif sql.startswith("--", at):
            newline = sql.find("\n", at)
            at = end if newline < 0 else newline + 1
        elif sql.startswith("/*", at):
            at = _after_comment(sql, at)
        else:
            return False
    return True


def _after_comment(sql: str, at: int) -> int:
    """Where a block comment that begins at `at` ends. They nest in PostgreSQL."""
    depth = 0
    while at < len(sql):
        if sql.startswith("/*", at):
            depth, at = depth + 1, at + 2
        elif sql.startswith("*/", at):
            depth, at = depth - 1, at + 2
            if not depth:
                break
        else:
            at += 1
    return at


def duplicates(named: Iterable[tuple[str, Path]]) -> tuple[str, ...]:
    """A problem for every version that two files have."""
    first: dict[str, Path] = {}
    problems: list[str] = []
    for version, path in named:
        if version in first:
            problems.append(
                f"{first[version].name} and {path.name} are both version {version}."
                " Give the newer one a version of its own."
            )
        first.setdefault(version, path)
    return tuple(problems)


def unknown_name(path: Path, expected: str) -> str:
    """The problem of a file that its tool would pass over in silence."""
    return (
        f"{path.name} has no name that the tool would read, such as {expected}."
        " Rename it, or move it out of the folder."
    )


def _size_inside(folder: Path, path: Path) -> int:
    """Its size, when it is a plain file of this folder."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PostgresError(
            f"{path.relative_to(folder)} in {folder} leads out of the folder.",
            next_step="Put the file itself there instead of a symbolic link.",
        )
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise PostgresError(
            f"{path.relative_to(folder)} in {folder} is no plain file.",
            next_step="Take it out of the folder.",
        )
    return status.st_size


def _sha256_of(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _too_large(path: Path, size_bytes: int) -> str:
    return (
        f"{path.name} has {size_bytes / 2**20:.1f} MB, and nobody reviews more than"
        f" {FILE_BYTES_MAX // 2**20} MB of SQL. Split it, or load its rows with a backfill."
    )


def _not_utf8(path: Path, error: UnicodeDecodeError) -> str:
    return (
        f"{path.name} is not UTF-8: byte {error.start + 1} is 0x{error.object[error.start]:02x}."
        " Save it as UTF-8."
    )


def _not_text(path: Path) -> str:
    return f"{path.name} has a zero byte in it, which is no text. Save it as UTF-8."


def _unreadable(path: Path, error: OSError) -> PostgresError:
    return PostgresError(
        f"{path} cannot be read: {error.strerror or error}.",
        next_step="See whether the account that runs Twokey may read it.",
    )
