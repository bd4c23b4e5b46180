"""PostgreSQL servers on this machine: make, start, stop, follow and promote.

For development, the demo, the tests and restore tests: they listen on 127.0.0.1 and a
private socket alone, and end when the process that started them ends, however it ends.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

import asyncpg

from postgres.account import identity_of, server_account
from postgres.binaries import Binaries, find_binaries
from postgres.errors import PostgresError
from postgres.initialise import copy_primary, major_of, make_cluster
from postgres.layout import SUPERUSER, Layout, Notes
from postgres.ports import LOOPBACK, free_port
from postgres.postmaster import Postmaster, disown_stale_note, live_postmaster
from postgres.process import clean_environment, end_with_parent, send

__all__ = ["Binaries", "Server", "create", "find_binaries", "open_server", "standby"]

StopMode = Literal["smart", "fast", "immediate"]

_START_LIMIT: Final = timedelta(seconds=60)
_STOP_LIMIT: Final = timedelta(seconds=30)
_LAST_SECONDS: Final = 10.0
_LOOK_EVERY_SECONDS: Final = 0.02
_PORT_TRIES_MAX: Final = 5
_LOG_TAIL_BYTES: Final = 20_000
_ESCALATION: Final[Mapping[StopMode, tuple[signal.Signals, ...]]] = {
    "smart": (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
    "fast": (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
    "immediate": (signal.SIGQUIT, signal.SIGKILL),
}


class Server:
    """A server on this machine that Twokey made, running or not."""

    def __init__(self, *, binaries: Binaries, layout: Layout, notes: Notes) -> None:
        self.binaries = binaries
        self._layout = layout
        self._notes = notes
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The data folder, where it really is."""
        return self._layout.data

    @property
    def port(self) -> int:
        """The port on 127.0.0.1, and the number in the socket's name."""
        return self._notes.port

    @property
    def sockets(self) -> Path:
        """The folder of the socket; only the server account can enter it."""
        return Path(self._notes.sockets)

    @property
    def log(self) -> Path:
        """What the server says."""
        return self._layout.log

    @property
    def started_here(self) -> bool:
        """Whether this object started the running server, which then ends with our process."""
        return self._child is not None and self._child.poll() is None

    def dsn(self, database: str = "postgres", user: str = SUPERUSER, *, tcp: bool = False) -> str:
        """Where to connect: over the private socket, which asks no password.

        With `tcp`, over 127.0.0.1 with the superuser's password in the text.
        """
        name, account = quote(database, safe=""), quote(user, safe="")
        if tcp:
            password = quote(self._layout.password.read_text().strip(), safe="")
            return f"postgresql://{account}:{password}@{LOOPBACK}:{self.port}/{name}"
        return f"postgresql://{account}@/{name}?host={quote(str(self.sockets))}&port={self.port}"

    async def is_running(self) -> bool:
        """Whether the server is up and takes connections."""
        found = live_postmaster(self.data)
        return found is not None and found.ready

    async def start(self, *, time_limit: timedelta = _START_LIMIT) -> None:
        """Start, and wait until it takes connections; a server that runs already is used as it is.

        A port that somebody else took meanwhile is replaced by a free one, unless `create`
        was told which port to use.

        Raises:
            PostgresError: it could not start. Nothing is left running.
        """
        async with self._layout.starting(time_limit.total_seconds()):
            for _ in range(_PORT_TRIES_MAX):
                self._notes = self._layout.load()
                said = await self._launch(time_limit.total_seconds())
                if said is None:
                    return
                if "Address already in use" not in said:
                    raise self._failed(said)
                if self._notes.pinned:
                    break
                self._remember(self._notes.model_copy(update={"port": free_port()}))
        raise PostgresError(
            f"Port {self.port} on {LOOPBACK} is taken by another program.",
            next_step=f"End that program (`ss -ltnp 'sport = :{self.port}'` names it), "
            "or choose another port.",
        )

    async def stop(self, mode: StopMode = "fast", *, time_limit: timedelta = _STOP_LIMIT) -> None:
        """Stop, whoever started it; nothing happens to a server that does not run.

        When the time is up, harder ways follow: the next start then does crash recovery.

        Raises:
            PostgresError: its process cannot be ended at all.
        """
        seconds = time_limit.total_seconds()
        for number in _ESCALATION[mode]:
            pid = self._pid()
            if pid is None:
                return
            send(pid, number)
            if await _until(lambda: self._pid() is None, seconds):
                return
            seconds = _LAST_SECONDS
        raise PostgresError(
            f"The server on {self.data} (process {self._pid()}) cannot be ended.",
            next_step="See what it waits for (`ps -o stat,wchan -p PID`): often a dead disk.",
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        """Start, and stop at the end unless somebody else had started it."""
        await self.start()
        try:
            yield self
        finally:
            if self.started_here:
                await self.stop()

    async def reload(self) -> None:
        """Have the server read its configuration again."""
        if pid := self._pid():
            send(pid, signal.SIGHUP)

    async def promote(self, *, time_limit: timedelta = _START_LIMIT) -> None:
        """Make a standby a primary, and wait until it is one.

        Raises:
            PostgresError: it is no standby, does not run, or took too long.
        """
        seconds = time_limit.total_seconds()
        try:
            conn = await asyncpg.connect(self.dsn(), timeout=int(seconds))
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise PostgresError(
                f"The standby on {self.data} cannot be reached: {error}.",
                next_step="Start it, then promote it again.",
            ) from error
        try:
            # Over a private socket; pg_promote waits for as long as it is told.
            done = await conn.fetchval(
                "SELECT NOT pg_is_in_recovery() OR pg_promote(true, $1)",
                int(seconds),
                timeout=seconds + _LAST_SECONDS,
            )
        finally:
            await conn.close(timeout=_LAST_SECONDS)
        if not done:
            raise self._failed("it was not promoted in time")
        kept = {k: v for k, v in self._notes.settings.items() if not k.startswith("primary_")}
        self._remember(self._notes.model_copy(update={"settings": kept}))

    async def remove(self) -> None:
        """Stop at once, and remove the data folder and all that stands beside it."""
        await self.stop("immediate")
        await asyncio.to_thread(self._layout.remove)

    async def _launch(self, seconds: float) -> str | None:
        """None when it runs, or what it said before it ended."""
        if self._pid():
            if not await _until(self._is_ready, seconds):
                raise self._failed("it runs already, but takes no connections")
            return None
        disown_stale_note(self.data)
        self._restore_sockets()
        self._layout.rotate_log()
        offset = self._layout.log.stat().st_size if self._layout.log.exists() else 0
        child = self._child = self._spawn()
        try:
            settled = await _until(lambda: child.poll() is not None or self._is_ready(), seconds)
        except BaseException:
            await self.stop("immediate")
            raise
        if not settled:
            await self.stop("immediate")
            raise self._failed(f"it was not ready after {seconds:.0f} seconds")
        return None if child.poll() is None else self._said(offset)

    def _spawn(self) -> subprocess.Popen[bytes]:
        program = self.binaries.program("postgres")
        with self._layout.log.open("ab") as log:
            return subprocess.Popen(
                [program, "-D", self.data, "-c", f"config_file={self._layout.config}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=clean_environment(self.binaries.folder),
                start_new_session=True,  # Ctrl-C is for us: we stop the servers in order
                # SIGINT is a fast shutdown.
                preexec_fn=end_with_parent(signal.SIGINT),  # noqa: PLW1509
                **identity_of(server_account()),
            )

    def _restore_sockets(self) -> None:
        """The socket folder may be gone: /tmp is swept at a reboot."""
        sockets = self._layout.choose_sockets(server_account(), current=self.sockets)
        if sockets != self.sockets:
            self._remember(self._notes.model_copy(update={"sockets": str(sockets)}))

    def _remember(self, notes: Notes) -> None:
        self._layout.save(notes)
        self._notes = notes

    def _is_ready(self) -> bool:
        found = live_postmaster(self.data)
        return found is not None and found.ready

    def _pid(self) -> int | None:
        """The server's process; a child of ours that has ended is collected."""
        if self._child and self._child.poll() is None:
            return self._child.pid
        found: Postmaster | None = live_postmaster(self.data)
        return found.pid if found else None

    def _said(self, offset: int) -> str:
        with self._layout.log.open("rb") as log:
            log.seek(offset)
            return log.read(_LOG_TAIL_BYTES).decode(errors="replace")

    def _failed(self, said: str) -> PostgresError:
        fatal = [line for line in said.splitlines() if "FATAL:" in line or "PANIC:" in line]
        reason = (fatal or said.strip().splitlines() or ["it said nothing"])[-1]
        return PostgresError(
            f"PostgreSQL on {self.data} did not start: {reason.split('FATAL:')[-1].strip()}.",
            next_step=f"Read the end of {self.log}, mend what it names, and start again.",
        )


async def create(
    binaries: Binaries,
    data: Path,
    *,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
    sync: bool = True,
) -> Server:
    """Make a new server in the folder `data`; it does not run yet.

    Without `port` a free one is taken, and another one should it be taken at a start. `sync`
    is for servers whose data shall survive a power cut.

    Raises:
        PostgresError: the folder is not empty or cannot be used, or initdb failed.
    """
    layout = await make_cluster(binaries, data, sync=sync)
    return _remembered(binaries, layout, port=port, settings=settings or {})


async def standby(
    primary: Server,
    data: Path,
    *,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
    slot: str | None = None,
) -> Server:
    """Make a standby of a running server in the folder `data`; it does not run yet.

    It follows through a replication slot, by default named as the folder.

    Raises:
        PostgresError: the primary does not run, or the folder or the copy fails.
    """
    layout, follow = await copy_primary(
        primary.binaries, data, dsn=primary.dsn(), sockets=primary.sockets, slot=slot
    )
    inherited = {**primary._notes.settings, **follow, **(settings or {})}  # noqa: SLF001
    return _remembered(primary.binaries, layout, port=port, settings=inherited)


def open_server(binaries: Binaries, data: Path) -> Server:
    """A server that `create` or `standby` made earlier, running or not.

    Raises:
        PostgresError: there is none, or it is of another major version.
    """
    layout = Layout.at(data)
    major = major_of(layout.data)
    if major != binaries.major:
        raise PostgresError(
            f"{data} is of PostgreSQL {major}, but the programs are of {binaries.major}.",
            next_step=f"Use programs of PostgreSQL {major}, or move the folder away to start anew.",
        )
    return Server(binaries=binaries, layout=layout, notes=layout.load())


async def remove_server(data: Path) -> None:
    """Remove all of a stopped server, wherever it really stands; harmless where there is none.

    As root, data under a closed folder stands elsewhere: removing the folder alone would leave
    it, and in the way of the next server of that name.

    Raises:
        PostgresError: it is running.
    """
    layout = Layout.at(data)
    if live_postmaster(layout.data):
        raise PostgresError(
            f"The server of {data} is running, so it was not removed.",
            next_step="Stop it first.",
        )
    await asyncio.to_thread(layout.remove)


def _remembered(
    binaries: Binaries, layout: Layout, *, port: int | None, settings: Mapping[str, str]
) -> Server:
    notes = Notes(
        port=port or free_port(),
        pinned=port is not None,
        sockets=str(layout.choose_sockets(server_account())),
        settings=dict(settings),
    )
    layout.save(notes)
    return Server(binaries=binaries, layout=layout, notes=notes)


async def _until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    return True
