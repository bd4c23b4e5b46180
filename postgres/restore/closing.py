"""Close a running server to everybody, and open it again, whatever happens in between.

`pg_hba.conf` is replaced by one that rejects all, and the server told to read it. The file that
was there is kept beside it until it is put back, so that a crash in between loses nothing: where
the kept file stands, the door is closed. Existing sessions are ended from outside.
"""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postgres.errors import PostgresError
from postgres.postmaster import live_postmaster
from postgres.process import send
from postgres.restore.exchange import sync_folder

CLOSED: Final = """\
# Written by Twokey while it replaces this server; the file that belongs here stands beside it
# ({kept}) and is put back by itself.
local all         all      reject
host  all         all all  reject
local replication all      reject
host  replication all all  reject
"""
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The `pg_hba.conf` of a server, and where it is kept while another one stands there."""

    data: Path
    hba: Path
    kept: Path

    @property
    def is_closed(self) -> bool:
        """Whether the server's own file stands beside its place."""
        return self.kept.exists()


def door_of(data: Path, hba: str, mark: str) -> Door:
    """The door of a server; `hba` is its setting `hba_file`, `mark` a word for the kept file."""
    path = (data / hba).resolve()
    return Door(data=data, hba=path, kept=path.with_name(f"{path.name}.{mark}"))


def close(door: Door) -> None:
    """Let nobody in any more. Sessions that are there stay.

    Raises:
        PostgresError: the file cannot be replaced; nothing has changed.
    """
    try:
        if not door.is_closed:
            _copy(door.hba, door.kept)
        _replace(door.hba, CLOSED.format(kept=door.kept.name))
    except OSError as error:
        raise PostgresError(
            f"{door.hba} cannot be replaced for a moment: {error.strerror or error}.",
            next_step="Let the account that runs Twokey write there.",
        ) from error
    reread(door.data)


def reopen(door: Door) -> None:
    """Put the server's own file back, unless somebody did. Harmless where it is open."""
    if not door.is_closed:
        return
    with suppress(FileNotFoundError):  # another thread of ours was quicker
        if door.hba.read_text(errors="replace") == CLOSED.format(kept=door.kept.name):
            door.kept.replace(door.hba)
        else:  # somebody wrote a new one meanwhile
            door.kept.unlink()
    sync_folder(door.hba.parent)
    reread(door.data)


def reread(data: Path) -> None:
    """Have the server on this folder read its files again, if one runs."""
    if found := live_postmaster(data):
        send(found.pid, signal.SIGHUP)


def is_backend(data: Path, pid: int) -> bool:
    """Whether a process belongs to the server on this folder; True where nobody can say."""
    found = live_postmaster(data)
    if found is None:
        return False
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except FileNotFoundError:
        return not (_PROC / "self").exists()
    return int(stat.rpartition(")")[2].split()[1]) == found.pid


def end_session(data: Path, pid: int) -> None:
    """End one session, as `pg_terminate_backend` does, also a superuser's."""
    if is_backend(data, pid):
        send(pid, signal.SIGTERM)


def _copy(source: Path, target: Path) -> None:
    """A copy that counts only when it is whole, with its owner and mode."""
    partial = target.with_name(target.name + ".part")
    shutil.copyfile(source, partial)
    _as_before(source, partial)
    partial.replace(target)
    sync_folder(target.parent)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".twokey-part")
    partial.write_text(text)
    _as_before(path, partial)
    partial.replace(path)
    sync_folder(path.parent)


def _as_before(source: Path, target: Path) -> None:
    found = source.stat()
    if os.geteuid() == 0:
        os.chown(target, found.st_uid, found.st_gid)
    target.chmod(found.st_mode & 0o7777)
    with target.open("rb") as file:
        os.fsync(file.fileno())
