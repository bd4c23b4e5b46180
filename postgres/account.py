"""The system account that servers run as, and the folders that it can reach.

PostgreSQL refuses to run as root. When we are root, servers run as `postgres`, which is
created if it is missing; otherwise they run as we do.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from postgres.errors import PostgresError

NAME: Final = "postgres"
# Where things go that the account must reach when the place that was asked for is closed to it.
OPEN_HOME: Final = Path("/var/lib/twokey")
_USERADD_SECONDS_MAX: Final = 20.0


class Identity(TypedDict, total=False):
    """What `subprocess` needs to start a program as an account; empty: as ourselves."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A system account other than our own."""

    name: str
    uid: int
    gid: int

    def identity(self) -> Identity:
        """The arguments that make `subprocess` start a program as this account."""
        return Identity(user=self.uid, group=self.gid, extra_groups=[])


def server_account() -> Account | None:
    """The account that servers run as, or None when they run as we do.

    Raises:
        PostgresError: we are root and there is no other account to use.
    """
    if os.geteuid() != 0:
        return None
    if found := _look_up(NAME):
        return found
    _create(NAME)
    if found := _look_up(NAME) or _look_up("nobody"):
        return found
    raise PostgresError(
        "PostgreSQL refuses to run as root, and this machine has no account to run it as.",
        next_step=f"Create one with `useradd --system {NAME}`, or start Twokey as another user.",
    )


def identity_of(account: Account | None) -> Identity:
    """The arguments for `subprocess`; None means ourselves."""
    return account.identity() if account else Identity()


def closed_parent(path: Path, account: Account | None) -> Path | None:
    """The folder on the way to `path` that the account cannot enter, or None."""
    if account is None:
        return None
    for folder in reversed(path.parents):
        if folder.exists() and not _may_enter(folder.stat(), account):
            return folder
    return None


def reachable(path: Path, account: Account | None) -> Path:
    """Where a folder of the server account really is.

    Normally `path` itself. Where a parent is closed to the account, such as /root, it is
    a folder under /var/lib/twokey, always the same one for the same path.
    """
    real = path.resolve()
    if closed_parent(real, account) is None:
        return real
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  (not resolved: a link keeps its name)
    digest = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:12]
    return OPEN_HOME / digest / path.name


def make_private(folder: Path, account: Account | None) -> None:
    """Make a folder that only the server account (and root) can enter.

    Raises:
        PostgresError: it cannot be made, or exists and belongs to somebody else.
    """
    owner = account.uid if account else os.geteuid()
    try:
        make_open(folder.parent, account)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if account and found.st_uid == os.geteuid():
            os.chown(folder, account.uid, account.gid, follow_symlinks=False)
            found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
            raise PostgresError(
                f"{folder} is in the way: it is no folder, or belongs to somebody else.",
                next_step="Move it away, or choose another folder.",
            )
        if stat.S_IMODE(found.st_mode) != 0o700:  # noqa: PLR2004  (the mode of two lines above)
            folder.chmod(0o700)
    except OSError as error:
        raise cannot_make(folder, error) from error


def make_open(folder: Path, account: Account | None) -> None:
    """Make a folder and its missing parents; the account can walk through all new ones.

    Raises:
        OSError: it cannot be made.
    """
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if account:
        for part in missing:  # our umask may have closed them
            part.chmod(0o711)


def cannot_make(folder: Path, error: OSError) -> PostgresError:
    """The error for a folder that the system will not let us make or change."""
    return PostgresError(
        f"The folder {folder} cannot be made: {error.strerror or error}.",
        next_step="Make its parent writable for this user, or choose another folder "
        "(TWOKEY_HOME says where Twokey keeps its data).",
    )


def _look_up(name: str) -> Account | None:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name=found.pw_name, uid=found.pw_uid, gid=found.pw_gid)


def _create(name: str) -> None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin")
    if useradd is None:
        return
    options = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    # A failure shows as the account still missing; the caller then goes on to the next.
    subprocess.run(
        [useradd, *options, name],
        check=False,
        capture_output=True,
        timeout=_USERADD_SECONDS_MAX,
    )


def _may_enter(found: os.stat_result, account: Account) -> bool:
    if found.st_uid == account.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
