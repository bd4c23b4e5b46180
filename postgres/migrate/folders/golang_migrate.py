"""golang-migrate's files: `000001_users.up.sql`, and `000001_users.down.sql` to go back.

The rules of its own parser (source/parse.go): the digits in front are a number, so that 1 and
001 are the same version, and what is named otherwise is passed over.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from postgres.migrate.folders.files import duplicates, list_files, read_file, unknown_name
from postgres.migrate.folders.folder import Folder
from postgres.migrate.folders.plain import from_files
from postgres.migrate.words import Migration, Tool

_NAME: Final = re.compile(r"(?P<version>\d{1,19})_(?P<name>.*)\.(?P<way>up|down)\.sql")


def read(folder: Path) -> Folder:
    """The files by their number. Blocks: call it in a thread.

    Raises:
        PostgresError: see `files.list_files` and `files.read_file`.
    """
    paths = list_files(folder, "*.sql")
    named = [(path, match) for path in paths if (match := _NAME.fullmatch(path.name))]
    ups = [(str(int(match["version"])), path) for path, match in named if match["way"] == "up"]
    downs = [(str(int(match["version"])), path) for path, match in named if match["way"] == "down"]
    known = {version for version, _ in ups}
    problems = [
        *(unknown_name(p, "000001_users.up.sql") for p in paths if not _NAME.fullmatch(p.name)),
        *duplicates(ups),
        *duplicates(downs),
        *(
            f"{path.name} goes back from version {version}, which has no file to go forward."
            " Restore its .up.sql file, or take this one away."
            for version, path in downs
            if version not in known
        ),
    ]
    return Folder(
        tool=Tool.GOLANG_MIGRATE,
        path=folder,
        migrations=_in_order(ups, dict(downs)),
        problems=tuple(problems),
    )


def _in_order(ups: list[tuple[str, Path]], downs: dict[str, Path]) -> tuple[Migration, ...]:
    """With what the tool's one row says before and after each."""
    found: list[Migration] = []
    before: tuple[str, ...] = ()
    for version, path in sorted(ups, key=lambda pair: (int(pair[0]), pair[1].name)):
        match = _NAME.fullmatch(path.name)
        down = downs.get(version)
        migration = from_files(
            Tool.GOLANG_MIGRATE,
            version=version,
            name=match["name"] if match else "",
            up=read_file(path),
            down=read_file(down) if down else None,
        )
        found.append(replace(migration, book_before=before, book_after=(version,)))
        before = (version,)
    return tuple(found)
