"""Connections to the store, also when it moves from one host to another.

asyncpg's limit for connecting is for a whole list of hosts: a first one that hangs keeps it
from the second (MagicStack/asyncpg#1155). So each host is asked by itself, side by side, and
which of them the store is on is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from pydantic import SecretStr

from store.hosts import OTHERS_SECONDS_MAX, Host, Seen, SplitStoreError, choose, hosts_of

log: Final = logging.getLogger("twokey.store")

CONNECT_SECONDS_MAX: Final = 5
# How long the host that was chosen last is gone to before the others are asked again.
LOOK_SECONDS: Final = 5.0
KNOWN_SECONDS_MAX: Final = 1.0
HANG_UP_SECONDS_MAX: Final = 0.5
# A machine that is gone without a word answers nothing, and then nothing fails for many minutes.
SILENT_SECONDS_MAX: Final = 20

# Not pg_control_checkpoint(): it has the old timeline until the first checkpoint.
_TIMELINE: Final = """
    SELECT CASE WHEN pg_is_in_recovery()
                  OR current_setting('transaction_read_only') = 'on' THEN 0
                ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
           END AS timeline,
"""
HELLO: Final = _TIMELINE + "(SELECT system_identifier::text FROM pg_control_system()) AS system"  # noqa: S608 - two constants
# Where our login may not look into the control file: some clouds keep it to themselves.
HELLO_WITHOUT_SYSTEM: Final = _TIMELINE + "'' AS system"

# The last one is what asyncpg says when a server's farewell crosses our statement.
FAILURES: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class StoreMovedError(ConnectionError):
    """A connection leads to a server that takes no writes, or that was left behind."""


@dataclass(frozen=True, slots=True)
class _Answer:
    seen: Seen
    conn: asyncpg.Connection


class Reach:
    """The ways to one store. With a single host (or none named) it is asyncpg's own way."""

    def __init__(self, dsn: SecretStr) -> None:
        """Connects to nothing. A DSN that cannot be understood is asyncpg's to refuse."""
        self._dsn = dsn
        try:
            hosts = hosts_of(dsn.get_secret_value())
        except ValueError:
            hosts = ()
        self.hosts: Final = hosts if len(hosts) > 1 else ()
        self._newest = 0
        self._system = ""
        self._known: Host | None = None
        self._looked_at = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._timelines: weakref.WeakKeyDictionary[asyncpg.Connection, int] = (
            weakref.WeakKeyDictionary()
        )

    async def connect(self, **args: Any) -> asyncpg.Connection:
        """A connection to the store; `args` are asyncpg's.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError: there is no way to it now.
        """
        if not self.hosts:
            return await asyncpg.connect(
                self._dsn.get_secret_value(), timeout=CONNECT_SECONDS_MAX, **args
            )
        if self._known and self._now() - self._looked_at < LOOK_SECONDS:
            with contextlib.suppress(*FAILURES):
                async with asyncio.timeout(KNOWN_SECONDS_MAX):
                    answer = await self._knock(self._known, args)
                if answer.seen.timeline and answer.seen.timeline == self._newest:
                    self._timelines[answer.conn] = self._newest
                    return answer.conn
                answer.conn.terminate()
        answer = await self._look(args)
        self._note(answer.seen)
        self._timelines[answer.conn] = answer.seen.timeline
        return answer.conn

    def is_good(self, conn: asyncpg.Connection) -> bool:
        """Whether a connection may be used again: costs no round trip.

        Now and then this begins a look at all hosts beside what goes on. A connection whose
        server was left behind is known for one afterwards.
        """
        if conn.is_closed():
            return False
        if not self.hosts:
            return True
        if self._now() - self._looked_at >= LOOK_SECONDS and self._looking is None:
            self._looking = asyncio.create_task(self._look_again())
        return self._timelines.get(conn, self._newest) >= self._newest

    async def check(self, conn: asyncpg.Connection, *, seconds_max: float) -> None:
        """Ask the server behind a connection whether it is the store still.

        Raises:
            StoreMovedError: it takes no writes, or another was promoted.
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError: it does not answer.
        """
        if not self.hosts:
            await conn.fetchval("SELECT 1", timeout=seconds_max)
            return
        timeline, _ = await _hello(conn, seconds_max)
        if not timeline or not self.is_good(conn):
            raise StoreMovedError("the store is on another host now")

    async def survey(self) -> Sequence[tuple[Host, int, str]]:
        """Each of several hosts with its timeline, 0 for a standby; and why it does not answer."""

        async def one(host: Host) -> tuple[Host, int, str]:
            try:
                answer = await self._knock(host, {})
            except FAILURES as error:
                return host, 0, str(error) or type(error).__name__
            answer.conn.terminate()
            return host, answer.seen.timeline, ""

        return await asyncio.gather(*(one(host) for host in self.hosts))

    async def close(self) -> None:
        """End what looks around."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look_again(self) -> None:
        try:
            answer = await self._look({"server_settings": {"application_name": "twokey look"}})
            self._note(answer.seen)
            answer.conn.terminate()
        except FAILURES as error:
            # Whoever needs a connection finds out by itself, and says so.
            self._looked_at = self._now()
            if isinstance(error, SplitStoreError):
                log.error("The store is split: %s.", error)  # noqa: TRY400 - no bug of ours
        finally:
            self._looking = None

    async def _look(self, args: dict[str, Any]) -> _Answer:
        """Ask all hosts side by side, and keep the connection to the one that is the store."""
        began = self._now()
        tasks = [asyncio.create_task(self._knock(host, args)) for host in self.hosts]
        chosen: _Answer | None = None
        try:
            while chosen is None:
                silent = [task for task in tasks if not task.done()]
                waited = self._now() - began
                found = _answers(tasks)
                best = choose(
                    [each.seen for each in found], silent=len(silent), waited=waited,
                    newest=self._newest, system=self._system,
                )  # fmt: skip
                chosen = next((each for each in found if each.seen is best), None)
                if chosen is None and not silent:
                    raise self._nowhere(tasks)
                if chosen is None:
                    left = OTHERS_SECONDS_MAX - waited
                    has_primary = any(each.seen.timeline for each in found)
                    await asyncio.wait(
                        silent,
                        timeout=left if has_primary and left > 0 else None,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
            return chosen
        finally:
            await _dismiss(tasks, but=chosen)

    async def _knock(self, host: Host, args: dict[str, Any]) -> _Answer:
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                conn = await asyncpg.connect(
                    self._dsn.get_secret_value(),
                    host=host.name,
                    port=host.port,
                    target_session_attrs="any",  # what it is, it is asked here
                    timeout=CONNECT_SECONDS_MAX,
                    **args,
                )
                try:
                    timeline, system = await _hello(conn, CONNECT_SECONDS_MAX)
                except BaseException:
                    conn.terminate()
                    raise
        except TimeoutError:
            raise TimeoutError(f"no answer within {CONNECT_SECONDS_MAX} s") from None
        _notice_silence(conn)
        return _Answer(Seen(host=host, timeline=timeline, system=system), conn)

    def _note(self, seen: Seen) -> None:
        if self._newest and (seen.timeline, seen.host) != (self._newest, self._known):
            log.warning("The store is on %s now (timeline %d).", seen.host, seen.timeline)
        self._newest, self._system, self._known = seen.timeline, seen.system, seen.host
        self._looked_at = self._now()

    def _nowhere(self, tasks: list[asyncio.Task[_Answer]]) -> ConnectionError:
        said = [f"{host}: {self._why(task)}" for host, task in zip(self.hosts, tasks, strict=True)]
        return ConnectionError(f"none of the store's hosts takes writes ({'; '.join(said)})")

    def _why(self, task: asyncio.Task[_Answer]) -> str:
        if error := task.exception():
            return str(error) or type(error).__name__
        if 0 < (timeline := task.result().seen.timeline) < self._newest:
            return f"was left behind on timeline {timeline}, the store is on {self._newest}"
        return "is a standby, or reads only"

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


async def _hello(conn: asyncpg.Connection, seconds_max: float) -> tuple[int, str]:
    """The timeline on which a server writes, 0 for none; and which cluster it is of, if it says."""
    try:
        row = await conn.fetchrow(HELLO, timeout=seconds_max)
    except asyncpg.InsufficientPrivilegeError:
        row = await conn.fetchrow(HELLO_WITHOUT_SYSTEM, timeout=seconds_max)
    return (row["timeline"], row["system"]) if row else (0, "")


def _answers(tasks: list[asyncio.Task[_Answer]]) -> list[_Answer]:
    return [task.result() for task in tasks if task.done() and task.exception() is None]


async def _dismiss(tasks: list[asyncio.Task[_Answer]], *, but: _Answer | None) -> None:
    """Hang up on all but the chosen one, whatever they are at."""
    for task in tasks:
        task.cancel()
    try:
        ended, _ = await asyncio.wait(tasks, timeout=HANG_UP_SECONDS_MAX)
    except asyncio.CancelledError:
        if but is not None:
            but.conn.terminate()
        raise
    for task in ended:
        if not task.cancelled() and task.exception() is None and task.result() is not but:
            task.result().conn.terminate()


def _notice_silence(conn: asyncpg.Connection) -> None:
    """Have the kernel end a connection whose other end is gone without a word.

    libpq has words for this in the DSN; asyncpg has none, so its socket is asked for.
    """
    transport = getattr(conn, "_transport", None)
    sock = transport.get_extra_info("socket") if transport else None
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 10),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", SILENT_SECONDS_MAX * 1000),
    ):
        if hasattr(socket, name):  # not everywhere that we develop
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
