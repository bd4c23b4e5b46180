"""A plain streaming pair to break: a primary and a standby that follows through a slot.

Everything is where an operator would have it: the configuration with the port in the data
folder (so that pg_rewind takes the other's), `pg_ctl -D` starts a node, a password file and not
`trust` lets the standby in. What belongs to an ended process of ours is ended by a keeper.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

import asyncpg

from postgres.binaries import Binaries, find_binaries
from postgres.cluster.words import HostSettings, NodeSpec
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.initialise import make_cluster
from postgres.layout import SUPERUSER, setting
from postgres.ports import LOOPBACK
from sandbox.ha_home import Home, run, until
from sandbox.ha_processes import is_zombie
from sandbox.ha_servers import (
    APP_USER,
    DATABASE,
    HEALTHY_LIMIT,
    IS_PRIMARY,
    REPLICATOR,
    SECONDS_MAX,
    SMALL,
    Servers,
    keep,
    region,
)

NAMES: Final = ("pg1", "pg2")
_PROGRAM_LIMIT: Final = timedelta(seconds=60)
# wal_retrieve_retry_interval also bounds for how long a standby stays away from a primary that
# was started again; wal_log_hints lets pg_rewind work where checksums are off.
_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **SMALL,
        "listen_addresses": LOOPBACK,
        "max_connections": "60",
        "wal_level": "replica",
        "wal_log_hints": "on",
        "hot_standby": "on",
        "max_wal_senders": "10",
        "max_replication_slots": "10",
        "wal_keep_size": "64MB",
        "max_slot_wal_keep_size": "1GB",
        "wal_retrieve_retry_interval": "500ms",
        "password_encryption": "scram-sha-256",
    }
)
_HBA: Final = """\
host all         all        127.0.0.1/32 scram-sha-256
host replication replicator 127.0.0.1/32 scram-sha-256
host replication postgres   127.0.0.1/32 scram-sha-256
"""
_ROLES: Final = """
    CREATE ROLE {replicator} LOGIN REPLICATION PASSWORD '{password}';
    CREATE ROLE {app} LOGIN PASSWORD '{app_password}';
"""
# A standby reconnects every 500 ms; one that has not for so long follows something else.
_PATIENCE: Final = timedelta(seconds=3)
# The sender of a standby that was killed may not know so yet, and holds the slot.
_END_SENDERS: Final = """
    SELECT count(coalesce(pg_terminate_backend(active_pid), true))
      FROM pg_replication_slots
"""
# A slot that nobody uses keeps WAL; those of tests go with it.
_DROP_IDLE_SLOTS: Final = """
    SELECT pg_drop_replication_slot(slot_name)
      FROM pg_replication_slots
     WHERE NOT active AND slot_name <> ALL ($1::text[])
"""


class PairSandbox(Servers):
    """Two servers of which one follows the other, and the ways to break them."""

    def __init__(
        self, home: Home, binaries: Binaries, kept: Mapping[str, str], settings: Mapping[str, str]
    ) -> None:
        super().__init__(home, binaries, NAMES, kept)
        self._settings = settings
        self.specs = tuple(self._spec(number, name) for number, name in enumerate(NAMES))

    @classmethod
    async def start(
        cls,
        home: Path,
        *,
        settings: Mapping[str, str] | None = None,
        binaries: Binaries | None = None,
    ) -> PairSandbox:
        """Make the pair in a folder, or start the one that is there, and wait until it streams.

        `settings`: more of postgresql.conf, for both.

        Raises:
            PostgresError: it did not come up. Nothing is left running.
        """
        place = await asyncio.to_thread(Home.make, home)
        kept = keep(place, NAMES, (APP_USER, SUPERUSER, REPLICATOR))
        made = cls(place, binaries or find_binaries(os.environ), kept, settings or {})
        made._keep([made.data(name) for name in NAMES])
        try:
            await made._come_up()
        except BaseException:
            await made.close()
            raise
        return made

    def log(self, name: str) -> Path:
        """What a node's server says, where it was started here."""
        return self.home.write_log(f"{name}.log")

    async def start_server(self, name: str) -> None:
        """Start a node that does not run, as what its data folder says that it is.

        Raises:
            PostgresError: it did not start.
        """
        await until(
            lambda: self._is_reaped(name), _PROGRAM_LIMIT, lambda: f"{name}'s process stays."
        )
        words = ["start", "-w", "-t", str(int(_PROGRAM_LIMIT.total_seconds())), "-s"]
        await self._pg_ctl(name, *words, "-l", self.log(name))

    async def stop_server(self, name: str, mode: str = "fast") -> None:
        """Stop a node as `pg_ctl stop` does; nothing happens to one that does not run.

        Raises:
            PostgresError: it does not end.
        """
        if self.server_pid(name) is not None:
            await self._pg_ctl(name, "stop", "-w", "-s", "-m", mode)

    async def healthy(self, limit: timedelta = HEALTHY_LIMIT) -> None:
        """Bring the pair back: one primary as configured at first, and the other streams from it.

        Which one is primary stays as it is; a node that does not follow is copied anew. What is
        in the databases stays.

        Raises:
            PostgresError: it took longer than `limit`.
        """
        try:
            async with asyncio.timeout(limit.total_seconds()):
                await self._mend()
        except TimeoutError:
            raise PostgresError(
                "The sandbox pair did not come back to health in time.",
                next_step=f"Read the logs in {self.home.folder}, or remove it and start anew.",
            ) from None

    async def close(self) -> None:
        """End all its processes; the data stays and `start` goes on with it."""
        for name in NAMES:
            self.thaw(name)
        # Standby first: it has nothing more to get.
        for name in sorted(NAMES, key=lambda each: not self._is_standby(each)):
            try:
                await self.stop_server(name)
            except PostgresError:
                self.kill_server(name)
        await asyncio.to_thread(self._dismiss_keeper)

    async def remove(self) -> None:
        """End all at once and remove the data."""
        await asyncio.to_thread(self._dismiss_keeper)
        await asyncio.to_thread(self.home.remove)

    async def _come_up(self) -> None:
        if not (self.data(NAMES[0]) / "PG_VERSION").exists():
            await self._make_primary(NAMES[0])
        await self.healthy()

    async def _make_primary(self, name: str) -> None:
        layout = await make_cluster(self.binaries, self.data(name), sync=False)
        word = layout.password.read_text().strip()
        self._configure(name)
        await self.start_server(name)
        place = f"{LOOPBACK}:{self.port(name)}"
        conn = await asyncpg.connect(
            f"postgresql://{SUPERUSER}:{word}@{place}/postgres", timeout=SECONDS_MAX
        )
        try:
            roles = _ROLES.format(
                replicator=REPLICATOR,
                password=self._kept[REPLICATOR],
                app=APP_USER,
                app_password=self.app_password,
            )
            await conn.execute(roles, timeout=SECONDS_MAX)
            await conn.execute(
                f"ALTER ROLE {SUPERUSER} PASSWORD '{self.password}'", timeout=SECONDS_MAX
            )
            await conn.execute(f"CREATE DATABASE {DATABASE} OWNER {APP_USER}", timeout=60)
        finally:
            await conn.close(timeout=SECONDS_MAX)

    async def _mend(self) -> None:
        for name in NAMES:
            self.thaw(name)
        primary = await self._choose_primary()
        (other,) = self.others(primary)
        if self._is_changed(primary) or not await self.says(primary, IS_PRIMARY):
            await self._restart_as_primary(primary)
        if not await self._came_back(other, primary):
            await self._copy(other, primary)
        await self.query(primary, _DROP_IDLE_SLOTS, [other])
        await until(
            lambda: self.follows(other, primary),
            HEALTHY_LIMIT,
            lambda: f"{other} does not follow {primary}: {self.home.tail(f'{other}.log')}",
        )

    async def _choose_primary(self) -> str:
        """Who takes writes now; else the one with the newest timeline that is no standby."""
        if len(found := await self.writable()) == 1:
            return found[0]
        known = [name for name in NAMES if (self.data(name) / "PG_VERSION").exists()]
        ranked = [(await self._timeline(name), not self._is_standby(name), name) for name in known]
        return max(ranked)[2]

    async def _came_back(self, name: str, primary: str) -> bool:
        """Whether a standby as configured at first streams, within the time that it may need."""
        if self._is_changed(name, of=primary) or not self._is_standby(name):
            return False
        with suppress(PostgresError):
            if self.server_pid(name) is None:
                await self.start_server(name)
            await until(lambda: self.follows(name, primary), _PATIENCE, lambda: "no")
            return True
        return False

    async def _timeline(self, name: str) -> int:
        said = await run(
            self.binaries.program("pg_controldata"), self.data(name), limit=_PROGRAM_LIMIT
        )
        # Until the first checkpoint after a promotion only the recovery's end tells the new one.
        lines = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
        found = (
            lines["Latest checkpoint's TimeLineID"],
            lines["Min recovery ending loc's timeline"],
        )
        history = [
            int(path.name[:8], 16) for path in (self.data(name) / "pg_wal").glob("????????.history")
        ]
        return max(int(text) for text in (*found, *map(str, history)))

    async def _restart_as_primary(self, name: str) -> None:
        await self.stop_server(name, "immediate")
        for signal_file in ("standby.signal", "recovery.signal"):
            (self.data(name) / signal_file).unlink(missing_ok=True)
        self._configure(name)
        await self.start_server(name)

    async def _copy(self, name: str, primary: str) -> None:
        """Make the standby anew, by a copy of the primary over its port."""
        self.kill_server(name)
        await asyncio.to_thread(shutil.rmtree, self.data(name), ignore_errors=True)

        async def has_no_slots() -> bool:
            await self.query(primary, _DROP_IDLE_SLOTS, [])
            return await self.query(primary, _END_SENDERS) == 0

        await until(has_no_slots, _PROGRAM_LIMIT, lambda: f"{primary} keeps the slot of {name}.")
        conninfo = self._conninfo(name, primary)
        words: list[str | Path] = ["-D", self.data(name), "-d", conninfo, "-X", "stream"]
        words += ["-c", "fast", "-R", "-C", "-S", name, "--no-password", "--no-sync"]
        await run(self.binaries.program("pg_basebackup"), *words, limit=_PROGRAM_LIMIT)
        self._configure(name, of=primary)
        await self.start_server(name)

    def _configure(self, name: str, *, of: str = "") -> None:
        for file, text in self._files(name, of=of).items():
            self.home.write(f"{name}/{file}", text)

    def _is_changed(self, name: str, *, of: str = "") -> bool:
        """Whether somebody has changed what a node's files say, such as by ALTER SYSTEM."""
        folder = self.data(name)
        wanted = self._files(name, of=of).items()
        return any(
            not (folder / file).exists() or (folder / file).read_text() != text
            for file, text in wanted
        )

    def _files(self, name: str, *, of: str) -> Mapping[str, str]:
        """A node's configuration as it is at first; `of`: the primary that it follows."""
        ours = {**_SETTINGS, **self._settings, "port": str(self.port(name)), "cluster_name": name}
        follow = (
            {"primary_conninfo": self._conninfo(name, of), "primary_slot_name": name} if of else {}
        )
        return {
            "postgresql.conf": _lines(ours),
            "postgresql.auto.conf": _lines(follow),
            "pg_hba.conf": _HBA,
        }

    def _conninfo(self, name: str, primary: str) -> str:
        """How a node follows; the password file lets it follow any other."""
        word = f"{LOOPBACK}:*:*:{REPLICATOR}:{self._kept[REPLICATOR]}\n"
        passfile = self.home.folder / "pgpass"
        if not passfile.exists():
            self.home.write("pgpass", word)
        return (
            f"host={LOOPBACK} port={self.port(primary)} user={REPLICATOR} "
            f"passfile={passfile} application_name={name}"
        )

    async def _is_reaped(self, name: str) -> bool:
        """Whether no lock file names a process that has ended but is still known."""
        try:
            pid = int((self.data(name) / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return True
        return not is_zombie(pid)

    def _is_standby(self, name: str) -> bool:
        return (self.data(name) / "standby.signal").exists()

    async def _pg_ctl(self, name: str, *words: str | Path) -> None:
        program = self.binaries.program("pg_ctl")
        await run(program, *words, "-D", self.data(name), limit=2 * _PROGRAM_LIMIT)

    def _spec(self, number: int, name: str) -> NodeSpec:
        return NodeSpec(
            name=name,
            target=parse_dsn(self.dsn(name)),
            region=region(number),
            host=HostSettings(data=self.data(name), programs=self.binaries.folder),
        )


def _lines(values: Mapping[str, str]) -> str:
    return "".join(f"{name} = {setting(value)}\n" for name, value in values.items())
