"""What stands beside a server's data folder: its configuration, log, password and sockets.

    orders/        the data folder, PostgreSQL's alone: nothing of ours gets into a backup
    orders.run/    ours: server.json, server.conf, hba.conf, password, log
    orders.run/s/  the socket folder: only the server account can enter it

So the socket is as safe as the data folder itself and asks no password. Over
127.0.0.1, where everybody on the machine can knock, SCRAM and a random password are asked.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from postgres.account import (
    OPEN_HOME,
    Account,
    cannot_make,
    make_private,
    reachable,
    server_account,
)
from postgres.errors import PostgresError
from postgres.filelock import locked_within
from postgres.ports import LOOPBACK

SUPERUSER: Final = "postgres"
# A socket's path has 107 bytes at most, and its name is at most `/.s.PGSQL.32767`.
_SOCKET_FOLDER_BYTES_MAX: Final = 107 - len("/.s.PGSQL.32767")
_LOG_BYTES_MAX: Final = 10_000_000
_HBA: Final = """\
# Written by Twokey. Only the server account can reach the socket.
local all         all               trust
local replication all               trust
host  all         all 127.0.0.1/32  scram-sha-256
host  replication all 127.0.0.1/32  scram-sha-256
"""


class Notes(BaseModel):
    """What we remember about a server (`server.json`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: int
    # A pinned port was asked for by somebody and is never replaced by another one.
    pinned: bool
    sockets: str
    settings: dict[str, str]
    # An isolated server takes nothing from the configuration in its data folder.
    isolated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The files of one server, by the place of its data folder."""

    data: Path
    # As people name the folder: a link where it had to go elsewhere.
    named: Path

    @classmethod
    def at(cls, data: Path) -> Layout:
        """The layout of a folder as people name it; see `account.reachable`."""
        return cls(data=reachable(data, server_account()), named=data)

    def link(self) -> None:
        """Leave a link if the folder had to go elsewhere."""
        if self.named.resolve() == self.data:
            return
        try:
            self.named.parent.mkdir(parents=True, exist_ok=True)
            if self.named.exists() and not self.named.is_symlink():
                self.named.rmdir()
            self.named.unlink(missing_ok=True)
            self.named.symlink_to(self.data)
        except OSError as error:
            raise cannot_make(self.named, error) from error

    def make_run(self) -> None:
        """Make our folder beside the data folder: all may walk through, none may look in."""
        try:
            self.run.mkdir(mode=0o711, exist_ok=True)
            self.run.chmod(0o711)
        except OSError as error:
            raise cannot_make(self.run, error) from error

    @property
    def run(self) -> Path:
        """Our folder beside the data folder."""
        return self.data.with_name(self.data.name + ".run")

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.run / "log"

    @property
    def config(self) -> Path:
        """The configuration that we write; it includes the data folder's own."""
        return self.run / "server.conf"

    @property
    def password(self) -> Path:
        """The superuser's password for connections over 127.0.0.1."""
        return self.run / "password"

    def load(self) -> Notes:
        """What we remember.

        Raises:
            PostgresError: this is no server of ours.
        """
        try:
            return Notes.model_validate_json((self.run / "server.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise PostgresError(
                f"{self.data} is no server that Twokey made: {self.run}/server.json is missing "
                "or damaged.",
                next_step="Name another folder, or move both folders away to start anew.",
            ) from error

    def save(self, notes: Notes) -> None:
        """Remember, and write the configuration that follows from it."""
        self.make_run()
        _replace(self.run / "server.json", notes.model_dump_json(indent=1) + "\n", mode=0o600)
        _replace(self.run / "hba.conf", _HBA, mode=0o644)
        _replace(self.config, _configuration(self, notes), mode=0o644)

    def choose_sockets(self, account: Account | None, *, current: Path | None = None) -> Path:
        """A private socket folder beside the data folder, or in /tmp if that path is too long.

        The `current` one is kept if it can be. Call only while no server runs.
        """
        near = self.run / "s"
        if current and current != near and current.is_dir():
            near = current
        if len(os.fsencode(near)) <= _SOCKET_FOLDER_BYTES_MAX:
            make_private(near, account)
            # A dead server's; PostgreSQL would believe its number, were it in use again.
            for leftover in near.glob(".s.PGSQL.*"):
                leftover.unlink(missing_ok=True)
            return near
        far = Path(tempfile.mkdtemp(prefix="twokey-"))
        make_private(far, account)
        return far

    @asynccontextmanager
    async def starting(self, seconds: float) -> AsyncIterator[None]:
        """One start at a time, whatever process it comes from; dies with its holder.

        Raises:
            PostgresError: another start goes on for too long, or there is no server of ours.
        """
        try:
            handle = os.open(self.run / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise cannot_make(self.run / "start.lock", error) from error
        try:
            if not await locked_within(handle, seconds):
                raise PostgresError(
                    f"Another process has been starting {self.data} for {seconds:.0f} seconds.",
                    next_step=f"Read the end of {self.log}, and end that process if it hangs.",
                )
            yield
        finally:
            os.close(handle)

    def rotate_log(self) -> None:
        """Keep one older log, so that a server that starts a thousand times fills no disk."""
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES_MAX:
            self.log.replace(self.log.with_name("log.1"))

    def remove(self) -> None:
        """Remove all of a server that does not run."""
        try:
            sockets = Path(self.load().sockets)
        except PostgresError:
            sockets = self.run
        for folder in (sockets, self.run, self.data):
            shutil.rmtree(folder, ignore_errors=True)
        if self.named.is_symlink():
            self.named.unlink()
        elsewhere = self.data.parent
        if elsewhere.parent == OPEN_HOME and elsewhere.is_dir() and not any(elsewhere.iterdir()):
            elsewhere.rmdir()


def setting(value: str) -> str:
    """A value as postgresql.conf wants it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _configuration(layout: Layout, notes: Notes) -> str:
    ours: Mapping[str, str] = {
        "listen_addresses": LOOPBACK,
        **notes.settings,
        "port": str(notes.port),
        "unix_socket_directories": notes.sockets,
        "unix_socket_permissions": "0700",
        "hba_file": str(layout.run / "hba.conf"),
        "password_encryption": "scram-sha-256",
        "logging_collector": "off",
        "log_destination": "stderr",
        "lc_messages": "C",
    }
    lines = "".join(f"{name} = {setting(value)}\n" for name, value in ours.items())
    inherited = f"include_if_exists = {setting(str(layout.data / 'postgresql.conf'))}\n"
    return f"# Written by Twokey; changes are lost.\n{'' if notes.isolated else inherited}{lines}"


def _replace(path: Path, text: str, *, mode: int) -> None:
    """Write whole or not at all."""
    partial = path.with_name(path.name + ".new")
    partial.write_text(text)
    partial.chmod(mode)
    partial.replace(path)
