"""dbmate's files: `20260101120000_users.sql` with `-- migrate:up` and `-- migrate:down` in it.

The rules of its own parser (pkg/dbmate/migration.go): a version is the digits that a name
begins with, files go by name, nothing but comments may stand before the first block, and
`transaction:false` behind a block's mark takes it out of a transaction.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from postgres.migrate.folders.files import (
    SqlFile,
    duplicates,
    empty_problem,
    is_empty,
    list_files,
    read_file,
    sha256_of,
    unknown_name,
)
from postgres.migrate.folders.folder import Folder
from postgres.migrate.words import Migration, Tool

_NAME: Final = re.compile(r"(?P<version>\d+)_?(?P<name>.*)\.sql")
MARK: Final = re.compile(
    r"^--[ \t]*migrate:(?P<way>up|down)(?P<options>[ \t]+[^\r\n]*)?\r?$", re.MULTILINE
)


def read(folder: Path) -> Folder:
    """The files by their name. Blocks: call it in a thread.

    Raises:
        PostgresError: see `files.list_files` and `files.read_file`.
    """
    paths = list_files(folder, "*.sql")
    named = [(match["version"], path) for path in paths if (match := _NAME.fullmatch(path.name))]
    problems = [
        *(
            unknown_name(p, "20260101120000_users.sql")
            for p in paths
            if not _NAME.fullmatch(p.name)
        ),
        *duplicates(named),
    ]
    return Folder(
        tool=Tool.DBMATE,
        path=folder,
        migrations=tuple(_migration(version, read_file(path)) for version, path in named),
        problems=tuple(problems),
    )


def _migration(version: str, file: SqlFile) -> Migration:
    match = _NAME.fullmatch(file.path.name)
    marks = list(MARK.finditer(file.text))
    problem = file.problem or _problem(file, marks)
    up, down = (
        ("", "") if problem else (file.text[: marks[1].start()], file.text[marks[1].start() :])
    )
    has_down = not is_empty(down)
    return Migration(
        tool=Tool.DBMATE,
        version=version,
        name=match["name"] if match else "",
        path=file.path,
        up=up,
        sha256=sha256_of(up) if up else file.sha256,
        down=down if has_down else None,
        down_sha256=sha256_of(down) if has_down else "",
        is_transactional=None if problem else _is_transactional(marks[0]),
        down_is_transactional=None if problem else _is_transactional(marks[1]),
        problem=problem or empty_problem(file.path, up),
    )


def _problem(file: SqlFile, marks: list[re.Match[str]]) -> str:
    """Why dbmate would not take it, or why we do not."""
    name = file.path.name
    ways = [mark["way"] for mark in marks]
    if ways != ["up", "down"]:
        return (
            f"{name} needs one block `-- migrate:up` and after it one `-- migrate:down`, and has"
            f" {' and '.join(ways) or 'neither'}. Write both marks, the second may stay empty."
        )
    if not is_empty(file.text[: marks[0].start()]):
        return f"{name} has statements before `-- migrate:up`. Move them below the mark."
    return ""


def _is_transactional(mark: re.Match[str]) -> bool:
    # dbmate takes each `key:value`, and knows this one alone.
    return "transaction:false" not in (mark["options"] or "").split()
