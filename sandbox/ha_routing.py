"""What stands between applications and a sandbox cluster, run from the examples of deploy/ha."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from shutil import which
from string import Template
from typing import Final, Self
from urllib.parse import urlsplit

from postgres.errors import PostgresError
from postgres.ports import LOOPBACK, free_port
from postgres.process import end_with_parent
from sandbox.ha_home import until
from sandbox.ha_patroni import EXAMPLES, PatroniSandbox
from sandbox.ha_servers import APP_USER, DATABASE, Servers

ADMIN_USER: Final = "pgbouncer"
_UP_LIMIT: Final = timedelta(seconds=30)
_END_SECONDS_MAX: Final = 5
_ANSWER_SECONDS_MAX: Final = 5
_NOT_IN_PATH: Final = "/usr/sbin:/usr/local/sbin:/sbin"


class Router:
    """A program in front of a cluster. It ends when our process ends."""

    def __init__(self, servers: Servers, name: str) -> None:
        self.servers = servers
        self.name = name
        self.folder = servers.home.private(name)
        self.port = free_port()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, None where it does not run."""
        return self._child.pid if self._child and self._child.poll() is None else None

    def dsn(self, database: str = DATABASE, user: str = APP_USER) -> str:
        """What an application connects to, the password in the text."""
        parts = urlsplit(self.servers.dsn(self.servers.names[0], database, user))
        login = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{login}@{LOOPBACK}:{self.port}").geturl()

    async def close(self) -> None:
        """End it at once; its clients are hung up."""
        if self._child:
            self._child.send_signal(signal.SIGCONT)
            self._child.kill()
            await asyncio.to_thread(self._child.wait, _END_SECONDS_MAX)

    async def _start(self, *words: str | Path) -> None:
        self._child = self.servers.home.spawn(
            words,
            folder=self.folder,
            log=f"{self.name}.log",
            preexec=end_with_parent(signal.SIGKILL),
        )
        try:
            await until(
                self._is_up,
                _UP_LIMIT,
                lambda: f"{self.name} is not up: {self.servers.home.tail(f'{self.name}.log')}",
            )
        except BaseException:
            await self.close()
            raise

    async def _is_up(self) -> bool:
        return self.pid is not None and await _accepts(self.port)


class Haproxy(Router):
    """HAProxy that follows a Patroni cluster: `dsn` leads to the primary."""

    def __init__(self, servers: PatroniSandbox, name: str = "haproxy") -> None:
        super().__init__(servers, name)
        self.standby_port = free_port()

    @property
    def socket(self) -> Path:
        """Its command socket."""
        return self.folder / "haproxy.sock"

    @classmethod
    async def start(cls, servers: PatroniSandbox) -> Self:
        """Start it, and wait until it has found the primary.

        Raises:
            PostgresError: it is not installed, or does not come up.
        """
        made = cls(servers)
        config = servers.home.write(f"{made.name}/haproxy.cfg", made._configuration())
        await made._start(_program("haproxy"), "-db", "-f", config)
        return made

    async def says(self, command: str) -> str:
        """What it answers to a command, such as `show stat`.

        Raises:
            OSError, TimeoutError: it does not.
        """
        async with asyncio.timeout(_ANSWER_SECONDS_MAX):
            with _short(self.socket.parent) as folder:
                reader, writer = await asyncio.open_unix_connection(folder / self.socket.name)
            try:
                writer.write(command.encode() + b"\n")
                return (await reader.read()).decode(errors="replace")
            finally:
                writer.close()

    async def leads_to(self, listener: str = "primary") -> tuple[str, ...]:
        """The servers that it gives to clients of this listener right now.

        One that has just failed a check ("UP 1/2") still gets them.
        """
        lines = [line.split(",") for line in (await self.says("show stat")).splitlines()]
        status = lines[0].index("status") if lines else 0
        return tuple(
            line[1]
            for line in lines
            if line[0] == listener
            and line[1] in self.servers.names
            and line[status].startswith("UP")
        )

    async def _is_up(self) -> bool:
        try:
            return await super()._is_up() and len(await self.leads_to()) == 1
        except (OSError, TimeoutError):
            return False

    def _configuration(self) -> str:
        """The example, each `server` line once per server."""
        lines = (EXAMPLES / "haproxy.cfg").read_text().splitlines(keepends=True)
        return "".join(
            self._filled(line, name)
            for line in lines
            for name in (self.servers.names if "${NAME}" in line else self.servers.names[:1])
        )

    def _filled(self, line: str, name: str) -> str:
        return Template(line).substitute(
            NAME=name,
            HOST=LOOPBACK,
            PORT=self.port,
            STANDBY_PORT=self.standby_port,
            # It works there, and a socket's whole path may be 107 bytes long.
            SOCKET=f"unix@{self.socket.name}",
            SERVER_HOST=self.servers.address(name),
            SERVER_PORT=self.servers.port(name),
            REST_PORT=urlsplit(self.servers.spec(name).rest).port,
        )


class Pgbouncer(Router):
    """PgBouncer that leads to one server, or to another router.

    `config`: the file in which host and port may be rewritten; `admin`: its console.
    """

    def __init__(self, servers: Servers, name: str = "pgbouncer") -> None:
        super().__init__(servers, name)
        self.database = DATABASE
        self.config = self.folder / "pgbouncer.ini"

    @property
    def admin(self) -> str:
        """Where its console is, the password in the text."""
        password = self.servers.password
        return f"postgresql://{ADMIN_USER}:{password}@{LOOPBACK}:{self.port}/pgbouncer"

    @classmethod
    async def start(cls, servers: Servers, *, server_port: int | None = None) -> Self:
        """Start it before the primary, or before what listens on `server_port`.

        Raises:
            PostgresError: it is not installed, or does not come up, or nobody is the primary.
        """
        made = cls(servers)
        port = server_port or servers.port(await servers.primary())
        made._write(port)
        await made._start(_program("pgbouncer"), made.config)
        return made

    async def restart(self) -> None:
        """Start again what has ended, with the configuration as it now is.

        Raises:
            PostgresError: it does not come up.
        """
        await self.close()
        await self._start(_program("pgbouncer"), self.config)

    def point_to(self, port: int) -> None:
        """Write the configuration as it is at first; it counts after a RELOAD."""
        self._write(port)

    def reload(self) -> None:
        """Have it read its configuration again."""
        if self._child:
            self._child.send_signal(signal.SIGHUP)

    def _write(self, port: int) -> None:
        home = self.servers.home
        users = {APP_USER: self.servers.app_password, ADMIN_USER: self.servers.password}
        lines = "".join(f'"{user}" "{password}"\n' for user, password in users.items())
        text = Template((EXAMPLES / "pgbouncer.ini").read_text()).substitute(
            DATABASE=DATABASE,
            SERVER_HOST=LOOPBACK,
            SERVER_PORT=port,
            HOST=LOOPBACK,
            PORT=self.port,
            USERS=home.write(f"{self.name}/users.txt", lines),
            ADMIN_USER=ADMIN_USER,
            PID_FILE=self.folder / "pid",
            LOG_FILE=home.folder / f"{self.name}.log",
        )
        home.write(f"{self.name}/{self.config.name}", text)


def find_program(name: str) -> str | None:
    """Where a program is, also where only administrators look; None: it is not installed."""
    return which(name) or which(name, path=_NOT_IN_PATH)


@contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """A folder by a path that is short enough for a socket in it, however deep it lies."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def _program(name: str) -> str:
    found = find_program(name)
    if found is None:
        raise PostgresError(
            f"{name} is not installed on this machine.",
            next_step=f"Install it (Debian: `apt-get install {name}`).",
        )
    return found


async def _accepts(port: int) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS_MAX):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
