"""Which files of a server's configuration stand inside of its data folder, and keeping them.

A restored copy brings the configuration of the day of its backup. What counts is what the
server that it replaces is told today: those files are taken over, wherever they include others.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from postgres.restore.control import OPTIONS_FILE, Instance, setting_of

# Settings that name files; relative ones count from the data folder.
_FILES: Final = (
    "config_file",
    "hba_file",
    "ident_file",
    "ssl_cert_file",
    "ssl_key_file",
    "ssl_ca_file",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "krb_server_keyfile",
)
_INCLUDE: Final = re.compile(
    r"^\s*(include|include_if_exists|include_dir)(?:\s*=\s*|\s+)(?:'((?:[^']|'')*)'|\"([^\"]*)\"|(\S+))",
    re.MULTILINE | re.IGNORECASE,
)
_NAME_LIST: Final = re.compile(r"(?<!\S)@(?:\"([^\"]+)\"|([^\s,\"]+))")
_AUTO: Final = "postgresql.auto.conf"
# Of a backup or of a recovery: they would make the next start one, or say nothing any more.
_LEFTOVERS: Final = (
    "recovery.signal",
    "standby.signal",
    "backup_label",
    "backup_label.old",
    "tablespace_map",
    "tablespace_map.old",
    "backup_manifest",
)
_FILES_MAX: Final = 1000


async def configuration_files(instance: Instance) -> tuple[Path, ...]:
    """The files inside of the data folder that tell this server what to do.

    Raises:
        PostgresError: its configuration cannot be read.
    """
    named = [Path(await setting_of(instance, name) or ".") for name in _FILES]
    roots = [instance.data / path for path in named if path != Path()]
    always = (instance.data / _AUTO, instance.data / OPTIONS_FILE)
    found = [*always, *follow(roots)]
    return tuple(dict.fromkeys(path for path in found if path.is_relative_to(instance.data)))


def follow(roots: Iterable[Path]) -> Iterator[Path]:
    """These files and all that they include, each once, as far as they exist."""
    waiting, seen = list(roots), set[Path]()
    while waiting and len(seen) < _FILES_MAX:
        path = Path(os.path.normpath(waiting.pop(0)))
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        yield path
        waiting += included(path, path.read_text(errors="replace"))


def included(path: Path, text: str) -> list[Path]:
    """What a configuration file, a `pg_hba.conf` or a list of names includes."""
    found: list[Path] = []
    for match in _INCLUDE.finditer(text):
        name = (match[2] or match[3] or match[4] or "").replace("''", "'")
        target = path.parent / name
        if match[1].lower() == "include_dir":
            found += sorted(target.glob("*.conf"))
        else:
            found.append(target)
    lines = (line.partition("#")[0] for line in text.splitlines())
    found += [path.parent / (m[1] or m[2]) for line in lines for m in _NAME_LIST.finditer(line)]
    return found


def take_over(files: Iterable[Path], *, source: Path, target: Path) -> None:
    """Give the data folder `target` these files of `source`, and nothing of a recovery.

    Raises:
        OSError: a file cannot be copied.
    """
    for name in _LEFTOVERS:
        (target / name).unlink(missing_ok=True)
    for path in files:
        if not path.is_file():  # PostgreSQL does without a postgresql.auto.conf
            continue
        goal = target / path.relative_to(source)
        _make_folders(source, target, goal.parent)
        goal.unlink(missing_ok=True)
        shutil.copy2(path, goal, follow_symlinks=False)
        _own(path, goal)
        if not goal.is_symlink():
            sync(goal)
        sync(goal.parent)
    sync(target)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_folders(source: Path, target: Path, folder: Path) -> None:
    if folder == target or folder.is_dir():
        return
    _make_folders(source, target, folder.parent)
    folder.mkdir(mode=0o700)
    _own(source / folder.relative_to(target), folder)


def _own(source: Path, target: Path) -> None:
    if os.geteuid() == 0:
        found = source.lstat()
        os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
