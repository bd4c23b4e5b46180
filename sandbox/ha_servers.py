"""What the servers of every sandbox cluster have in common: how to reach and how to break them."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

import asyncpg

from postgres.binaries import Binaries
from postgres.cluster.words import NodeSpec
from postgres.errors import PostgresError
from postgres.health.connecting import FAILURES
from postgres.layout import SUPERUSER
from postgres.ports import LOOPBACK
from postgres.postmaster import live_postmaster
from sandbox.ha_home import Home, port_of, secret
from sandbox.ha_processes import end_all, freeze_all, start_keeper, thaw_all, working_in

DATABASE: Final = "app"
APP_USER: Final = "app"
REPLICATOR: Final = "replicator"
HEALTHY_LIMIT: Final = timedelta(seconds=60)
SECONDS_MAX: Final = 10
_REGIONS: Final = ("eu-west", "eu-central", "eu-north")
IS_PRIMARY: Final = """
    SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'
"""
IS_STANDBY: Final = "SELECT pg_is_in_recovery() AND NOT pg_is_wal_replay_paused()"
STREAMS: Final = """
    SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = $1
"""
# Where a small server does.
SMALL: Final[Mapping[str, str]] = MappingProxyType(
    {"shared_buffers": "16MB", "lc_messages": "C", "unix_socket_directories": ""}
)


class Servers:
    """Servers of one cluster, each a host of its own, and the ways to break them.

    Nothing here belongs to an event loop: it may be made in one and used in another. `kept`:
    passwords by role, and each node's port by its name.
    """

    def __init__(
        self, home: Home, binaries: Binaries, names: Sequence[str], kept: Mapping[str, str]
    ) -> None:
        self.binaries = binaries
        self.names = tuple(names)
        self.database = DATABASE
        self.app_user = APP_USER
        self.app_password = kept[APP_USER]
        self.superuser = SUPERUSER
        self.password = kept[SUPERUSER]
        self.home = home
        self.specs: tuple[NodeSpec, ...] = ()
        self._kept = kept
        self._keeper: subprocess.Popen[bytes] | None = None

    def spec(self, name: str) -> NodeSpec:
        """A node as the inventory would name it."""
        return next(each for each in self.specs if each.name == name)

    def others(self, name: str) -> tuple[str, ...]:
        """All nodes but this one."""
        return tuple(each for each in self.names if each != name)

    def data(self, name: str) -> Path:
        """A node's data folder."""
        return self.home.folder / name

    def folders(self, name: str) -> tuple[Path, ...]:
        """The folders in which the processes of a node's host work."""
        return (self.data(name),)

    def port(self, name: str) -> int:
        """A node's port."""
        return int(self._kept[name])

    def address(self, name: str) -> str:  # noqa: ARG002 - each may have its own
        """Where a node listens."""
        return LOOPBACK

    def dsn(self, name: str, database: str = DATABASE, user: str = SUPERUSER) -> str:
        """Where to connect to this very node, the password in the text."""
        password = {SUPERUSER: self.password, APP_USER: self.app_password}[user]
        place = f"{self.address(name)}:{self.port(name)}"
        return f"postgresql://{user}:{password}@{place}/{quote(database, safe='')}"

    def server_pid(self, name: str) -> int | None:
        """The postmaster's process id, None where none lives."""
        found = live_postmaster(self.data(name))
        return found.pid if found else None

    def host_pids(self, name: str) -> tuple[int, ...]:
        """All living processes of a node's host."""
        return tuple(working_in(self.folders(name)))

    def kill_server(self, name: str) -> None:
        """Kill -9 of all the server's processes, as when the machine's memory ran out."""
        end_all([self.data(name)])

    def kill_host(self, name: str) -> None:
        """Kill all that the host runs at once, as when the machine loses its power."""
        end_all(self.folders(name))

    def freeze(self, name: str) -> None:
        """Stop the host's processes, as a paused virtual machine: it answers nothing."""
        freeze_all(self.folders(name))

    def freeze_server(self, name: str) -> None:
        """Stop the server's processes alone; an agent goes on."""
        freeze_all([self.data(name)])

    def thaw(self, name: str) -> None:
        """Let the host go on where it was."""
        thaw_all(self.folders(name))

    async def writable(self) -> tuple[str, ...]:
        """The nodes that take writes right now, in order: one, in health."""
        said = await asyncio.gather(*(self.says(name, IS_PRIMARY) for name in self.names))
        return tuple(name for name, value in zip(self.names, said, strict=True) if value)

    async def primary(self) -> str:
        """The one node that takes writes.

        Raises:
            PostgresError: there is none, or more than one.
        """
        found = await self.writable()
        if len(found) != 1:
            raise PostgresError(
                f"{len(found)} nodes of the sandbox take writes.",
                next_step="Bring it back to health.",
            )
        return found[0]

    async def follows(self, name: str, primary: str) -> bool:
        """Whether a node is a standby that streams from `primary`."""
        if not await self.says(name, IS_STANDBY):
            return False
        return bool(await self.says(primary, STREAMS, name))

    async def says(self, name: str, query: str, *args: object) -> object:
        """The first value that a node answers; None where it does not answer."""
        try:
            return await self.query(name, query, *args)
        except FAILURES:  # a server that is just stopping can confuse asyncpg itself
            return None

    async def query(
        self, name: str, query: str, *args: object, database: str = "postgres"
    ) -> object:
        """The first value that a node answers to its superuser.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: it does not.
        """
        conn = await asyncpg.connect(self.dsn(name, database), timeout=SECONDS_MAX)
        try:
            return await conn.fetchval(query, *args, timeout=SECONDS_MAX)
        finally:
            conn.terminate()

    def _keep(self, folders: Sequence[Path]) -> None:
        self._keeper = start_keeper(folders)

    def _dismiss_keeper(self) -> None:
        """Have the keeper end all that is left, and wait until it has."""
        if self._keeper and self._keeper.stdin:
            self._keeper.stdin.close()
            self._keeper.wait(timeout=SECONDS_MAX)
        self._keeper = None


def region(index: int) -> str:
    """Where the node of this number stands."""
    return _REGIONS[index % len(_REGIONS)]


def keep(home: Home, ports: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """The passwords and ports of a sandbox: those of before, ports where they are still free."""
    secrets = home.remember("secrets.json", {word: secret() for word in words})
    before = home.recall("ports.json")
    chosen = {name: str(port_of(before.get(name))) for name in ports}
    home.keep("ports.json", chosen)
    return {**secrets, **chosen}
