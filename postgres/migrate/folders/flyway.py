"""Flyway's files: `V2.1__users.sql`, `U2.1__users.sql` to go back, `R__views.sql` when it changes.

Versions go by their numbers (2.1 before 2.10), and 1.0 is 1 (MigrationVersion.java). A checksum
is the CRC-32 of the lines without their ends, as a signed number (ChecksumCalculator.java). A
file `V2.1__users.sql.conf` with `executeInTransaction=false` takes it out of a transaction.
What Flyway would do besides, we do not: callbacks, Java, placeholders, baselines are refused.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from postgres.migrate.folders.files import SqlFile, duplicates, list_files, read_file, unknown_name
from postgres.migrate.folders.folder import Folder
from postgres.migrate.folders.plain import from_files
from postgres.migrate.words import Migration, Tool

_NAME: Final = re.compile(
    r"(?:(?P<kind>[VU])(?P<version>\d+(?:[._]\d+)*)|(?P<repeatable>R))__(?P<name>.+)\.sql"
)
_PLACEHOLDER: Final = re.compile(r"\$\{[^}\n]*\}")
_CALLBACK: Final = re.compile(r"(before|after|create)[A-Z]\w*?(__.*)?\.sql")
_CONF: Final = ".conf"
_CONF_BYTES_MAX: Final = 65_536
_LINE_CHARS_MAX: Final = 2**20


def read(folder: Path) -> Folder:
    """The files below `folder` in Flyway's order, the repeatable ones last. Blocks.

    Raises:
        PostgresError: see `files.list_files` and `files.read_file`.
    """
    paths = list_files(folder, "**/*.sql")
    named = [(path, match) for path in paths if (match := _NAME.fullmatch(path.name))]
    downs = [(canonical(m["version"]), path) for path, m in named if m["kind"] == "U"]
    ups = [(canonical(m["version"]), path) for path, m in named if m["kind"] == "V"]
    repeated = [(repeatable_key(m["name"]), path) for path, m in named if m["repeatable"]]
    ups.sort(key=lambda pair: (_numbers(pair[0]), pair[1].name))
    repeated.sort()
    return Folder(
        tool=Tool.FLYWAY,
        path=folder,
        migrations=(
            *(_migration(version, path, dict(downs).get(version)) for version, path in ups),
            *(replace(_migration(key, p, None), is_repeatable=True) for key, p in repeated),
        ),
        problems=(
            *(_unknown(path) for path in paths if not _NAME.fullmatch(path.name)),
            *duplicates(ups),
            *duplicates(downs),
            *duplicates(repeated),
            *_orphans(downs, {version for version, _ in ups}),
        ),
    )


def canonical(version: str) -> str:
    """The version by which Flyway compares: `2_1`, `02.1` and `2.1.0` are all `2.1`."""
    numbers = _numbers(version)
    while len(numbers) > 1 and not numbers[-1]:
        numbers = numbers[:-1]
    return ".".join(map(str, numbers))


def repeatable_key(description: str) -> str:
    """What stands for the version of a repeatable one: Flyway knows it by its description."""
    return "R__" + description.replace(" ", "_")


def written_version(path: Path) -> str | None:
    """The version as Flyway writes it down, such as `2.1` of `V2_1__x.sql`. None: repeatable."""
    match = _NAME.fullmatch(path.name)
    return match["version"].replace("_", ".") if match and match["version"] else None


def description(path: Path) -> str:
    """What Flyway writes down as the description: the name with blanks in it."""
    match = _NAME.fullmatch(path.name)
    return match["name"].replace("_", " ") if match else ""


def checksum(path: Path) -> str:
    """The checksum as Flyway writes it down; '' for a file that is not UTF-8."""
    found = 0
    try:
        # Java's readLine knows the same three ends of a line as Python's universal newlines.
        with path.open(encoding="utf-8", newline=None) as file:
            at_start = True
            while part := file.readline(_LINE_CHARS_MAX):
                text = part.removeprefix("\ufeff") if at_start else part
                found = zlib.crc32(text.removesuffix("\n").encode(), found)
                at_start = False
    except UnicodeDecodeError:
        return ""
    return str(found - 2**32 if found >= 2**31 else found)


def _migration(version: str, path: Path, down: Path | None) -> Migration:
    match = _NAME.fullmatch(path.name)
    up = read_file(path)
    problem = _placeholders(up)
    found = from_files(
        Tool.FLYWAY,
        version=version,
        name=match["name"] if match and match["version"] else "",
        up=replace(up, problem=up.problem or problem),
        down=read_file(down) if down else None,
    )
    return replace(
        found,
        checksum=checksum(path),
        is_transactional=_is_transactional(path),
        down_is_transactional=_is_transactional(down) if down else None,
    )


def _placeholders(file: SqlFile) -> str:
    found = _PLACEHOLDER.search(file.text)
    if found is None or _setting(file.path, "placeholderReplacement") == "false":
        return ""
    return (
        f"{file.path.name} has the placeholder {found[0][:60]}, and only Flyway knows its value."
        " Write the value, or let Flyway apply this file."
    )


def _is_transactional(path: Path) -> bool | None:
    return False if _setting(path, "executeInTransaction") == "false" else None


def _setting(path: Path, name: str) -> str:
    """What a script's own .conf file sets, in small letters; ''."""
    conf = path.with_name(path.name + _CONF)
    if not conf.is_file():
        return ""
    with conf.open("rb") as file:
        lines = file.read(_CONF_BYTES_MAX).decode(errors="replace").splitlines()
    for line in lines:
        key, separator, value = line.partition("=")
        if separator and key.strip().removeprefix("flyway.") == name:
            return value.strip().lower()
    return ""


def _unknown(path: Path) -> str:
    if _CALLBACK.fullmatch(path.name):
        return (
            f"{path.name} is a callback, which only Flyway runs."
            " Make a repeatable migration of it (R__name.sql), or let Flyway apply this folder."
        )
    if path.name.startswith("B") and "__" in path.name:
        return (
            f"{path.name} is a baseline migration, which only Flyway applies."
            " Let Flyway apply it, or move it out of the folder."
        )
    return unknown_name(path, "V2__users.sql")


def _orphans(downs: list[tuple[str, Path]], ups: set[str]) -> Iterator[str]:
    for version, path in downs:
        if version not in ups:
            yield (
                f"{path.name} goes back from version {version}, which has no V file."
                " Restore that, or take this one away."
            )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.split("[._]", version))
