"""The demo's database that has two servers: payments, there to be switched, broken and mended.

Patroni with etcd where this machine has programs that the server account can run, else a plain
pair. HAProxy leads applications to the primary where it is installed, else a list of both servers.
"""

from __future__ import annotations

import shutil
from asyncio import to_thread
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from postgres.account import reachable, server_account
from postgres.binaries import Binaries
from postgres.cluster.words import ClusterKind
from postgres.layout import SUPERUSER
from postgres.ports import LOOPBACK
from sandbox.clusters import EXTENSIONS, SECONDS_MAX
from sandbox.ha import Haproxy, PairSandbox, PatroniSandbox, find_patroni
from sandbox.ha_processes import can_tell_hosts, end_all
from sandbox.ha_routing import find_program
from sandbox.ha_servers import APP_USER

NAME: Final = "payments"
_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {"shared_preload_libraries": "pg_stat_statements", "track_io_timing": "on"}
)
_IS_THERE: Final = "SELECT 1 FROM pg_database WHERE datname = $1"
_IS_FILLED: Final = "SELECT to_regclass('public.charges') IS NOT NULL"
# Whole or not at all: one message is one transaction.
_CONTENT: Final = """
    {extensions};
    SET LOCAL ROLE {owner};
    CREATE TABLE charges (
        id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        card  text NOT NULL,
        cents bigint NOT NULL CHECK (cents > 0),
        at    timestamptz NOT NULL DEFAULT now()
    );
    INSERT INTO charges (card, cents, at)
    SELECT format('card %s', n % 500), 100 + n * 37 % 90000, now() - n * interval '3 minutes'
      FROM generate_series(20000, 1, -1) AS n;
    ANALYZE charges;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payments:
    """Two servers that run, and how one gets to whichever is the primary."""

    sandbox: PatroniSandbox | PairSandbox
    router: Haproxy | None

    @property
    def name(self) -> str:
        """What the inventory calls it, and its database."""
        return NAME

    @property
    def kind(self) -> ClusterKind:
        """Who decides which of the two is the primary."""
        is_patroni = isinstance(self.sandbox, PatroniSandbox)
        return ClusterKind.PATRONI if is_patroni else ClusterKind.PAIR

    @property
    def dsn(self) -> str:
        """The primary, as a superuser: it is a demo on one's own machine."""
        return self._leads(SUPERUSER)

    @property
    def endpoint(self) -> str:
        """The primary, as the application finds it."""
        return self._leads(APP_USER)

    def node_dsn(self, name: str) -> str:
        """Where a superuser finds this very server, whatever its role."""
        return self.sandbox.dsn(name, NAME)

    async def close(self) -> None:
        """End all its processes; the data stays for the next start."""
        if self.router:
            await self.router.close()
        await self.sandbox.close()

    def _leads(self, user: str) -> str:
        if self.router:
            return self.router.dsn(NAME, user)
        first, *_ = self.sandbox.names
        parts = urlsplit(self.sandbox.dsn(first, NAME, user))
        places = ",".join(f"{LOOPBACK}:{self.sandbox.port(name)}" for name in self.sandbox.names)
        login = parts.netloc.rpartition("@")[0]
        # Not read-write: a client that sets its own session to read-only would find nobody.
        return parts._replace(
            netloc=f"{login}@{places}", query="target_session_attrs=primary"
        ).geturl()


async def start_payments(home: Path, binaries: Binaries) -> Payments | None:
    """Start it under `home`; the first time, make and fill it. Nobody else may be using `home`.

    None: this machine has no /proc, by which the servers' hosts are told apart.

    Raises:
        PostgresError: it did not come up. Nothing is left running.
    """
    if not can_tell_hosts():
        return None
    sandbox = await _servers(home, binaries)
    made = Payments(sandbox=sandbox, router=None)
    try:
        if isinstance(sandbox, PatroniSandbox) and find_program("haproxy"):
            made = Payments(sandbox=sandbox, router=await Haproxy.start(sandbox))
        await _fill(sandbox, await sandbox.primary())
    except BaseException:
        await made.close()
        raise
    return made


def remove_payments(home: Path) -> None:
    """Remove what stopped servers have left under `home`, wherever it really stands."""
    for kind in ClusterKind:
        shutil.rmtree(reachable(_folder(home, kind), server_account()), ignore_errors=True)


async def _servers(home: Path, binaries: Binaries) -> PatroniSandbox | PairSandbox:
    programs = await to_thread(find_patroni)
    kind = ClusterKind.PATRONI if programs else ClusterKind.PAIR
    folder = _folder(home, kind)
    # A demo that was killed has a keeper, which may need a moment.
    await to_thread(_end_rest, folder)
    if programs is None:
        return await PairSandbox.start(folder, settings=_SETTINGS, binaries=binaries)
    return await PatroniSandbox.start(
        folder, settings=_SETTINGS, binaries=binaries, programs=programs
    )


def _folder(home: Path, kind: ClusterKind) -> Path:
    """Each kind has its own, as one day this machine may have Patroni and the next day not."""
    return home / f"{NAME}-{kind}"


def _end_rest(folder: Path) -> None:
    place = reachable(folder, server_account())
    if place.is_dir():
        end_all([each for each in place.iterdir() if each.is_dir()])


async def _fill(sandbox: PatroniSandbox | PairSandbox, primary: str) -> None:
    conn = await asyncpg.connect(sandbox.dsn(primary, "postgres"), timeout=SECONDS_MAX)
    try:
        if not await conn.fetchval(_IS_THERE, NAME, timeout=SECONDS_MAX):
            await conn.execute(f"CREATE DATABASE {NAME} OWNER {APP_USER}", timeout=SECONDS_MAX)
    finally:
        await conn.close(timeout=SECONDS_MAX)
    content = _CONTENT.format(extensions=EXTENSIONS, owner=APP_USER)
    conn = await asyncpg.connect(sandbox.dsn(primary, NAME), timeout=SECONDS_MAX)
    try:
        if not await conn.fetchval(_IS_FILLED, timeout=SECONDS_MAX):
            await conn.execute(content, timeout=SECONDS_MAX)
    finally:
        await conn.close(timeout=SECONDS_MAX)
