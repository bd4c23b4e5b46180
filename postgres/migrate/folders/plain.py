"""Numbered SQL files of nobody's tool: `001_users.sql`, and `001_users.down.sql` to go back."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from postgres.migrate.folders.files import (
    SqlFile,
    duplicates,
    list_files,
    read_file,
    sha256_of,
    unknown_name,
)
from postgres.migrate.folders.folder import Folder
from postgres.migrate.words import Migration, Tool

NAME: Final = re.compile(r"(?P<version>\d+)(?:[_\-. ]+(?P<name>.*?))?\.sql")
_DOWN: Final = ".down.sql"


def read(folder: Path) -> Folder:
    """The files by their number. Blocks: call it in a thread.

    Raises:
        PostgresError: see `files.list_files` and `files.read_file`.
    """
    paths = list_files(folder, "*.sql")
    downs = {path.name.removesuffix(_DOWN): path for path in paths if path.name.endswith(_DOWN)}
    ups = [path for path in paths if not path.name.endswith(_DOWN)]
    named = [(match["version"], path) for path in ups if (match := NAME.fullmatch(path.name))]
    problems = [
        *(unknown_name(path, "001_users.sql") for path in ups if not NAME.fullmatch(path.name)),
        *duplicates((str(int(version)), path) for version, path in named),
        *orphans(downs, {path.name.removesuffix(".sql") for path in ups}),
    ]
    migrations = [
        _migration(version, path, downs.get(path.name.removesuffix(".sql")))
        for version, path in sorted(named, key=lambda pair: (int(pair[0]), pair[1].name))
    ]
    return Folder(
        tool=Tool.PLAIN, path=folder, migrations=tuple(migrations), problems=tuple(problems)
    )


def orphans(downs: dict[str, Path], ups: set[str]) -> list[str]:
    """A problem for every way back of a migration that is not there."""
    return [
        f"{path.name} goes back from a migration that is not there."
        f" Restore the file {name} that it belongs to, or take it away."
        for name, path in sorted(downs.items())
        if name not in ups
    ]


def from_files(
    tool: Tool, *, version: str, name: str, up: SqlFile, down: SqlFile | None
) -> Migration:
    """A migration whose up and down stand in files of their own."""
    problem = up.problem or (down.problem if down else "")
    return Migration(
        tool=tool,
        version=version,
        name=name,
        path=up.path,
        up=up.text,
        sha256=sha256_of(up.text) if up.text else up.sha256,
        down=down.text if down else None,
        down_sha256=sha256_of(down.text) if down else "",
        problem=problem,
    )


def _migration(version: str, path: Path, down: Path | None) -> Migration:
    match = NAME.fullmatch(path.name)
    name = (match["name"] or "") if match else ""
    found = from_files(
        Tool.PLAIN,
        version=version,
        name=name,
        up=read_file(path),
        down=read_file(down) if down else None,
    )
    return replace(found, checksum=found.sha256)
