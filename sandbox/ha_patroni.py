"""A Patroni cluster to break: its servers, its agents and its etcd, each a process of its own.

Started from the configuration that deploy/ha shows to operators. Each node's agent is started by
the very command that its `HostSettings.agent_start` names, so that what brings a node back in a
drill is what brought it up here.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any, Final

import asyncpg
import yaml

from postgres.account import identity_of, server_account
from postgres.binaries import Binaries, find_binaries
from postgres.cluster.words import HostSettings, NodeSpec
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.layout import SUPERUSER
from postgres.ports import LOOPBACK
from postgres.process import clean_environment
from sandbox.ha_etcd import Etcd
from sandbox.ha_home import Home, run, until
from sandbox.ha_network import Network
from sandbox.ha_patroni_rest import PatroniRest, is_healthy, members_of
from sandbox.ha_processes import end_all, is_alive, thaw_all
from sandbox.ha_servers import (
    APP_USER,
    DATABASE,
    HEALTHY_LIMIT,
    REPLICATOR,
    SECONDS_MAX,
    SMALL,
    Servers,
    keep,
    region,
)

EXAMPLES: Final = Path(__file__).parents[1] / "deploy" / "ha"
SCOPE: Final = "sandbox"
REST_USER: Final = "twokey"
_REWINDER: Final = "rewinder"
_PROBE_SECONDS_MAX: Final = 20
_START_LIMIT: Final = timedelta(seconds=30)
_ASK_VERSION: Final = (
    "import patroni.dcs.etcd3, patroni.version; print(patroni.version.__version__)"
)
_CLOSE_SECONDS_MAX: Final = 20.0
# A member that has not come back by itself for so long is copied anew.
_PATIENCE: Final = timedelta(seconds=20)
_STUCK: Final = frozenset({"crashed", "start failed", "restart failed", "stopped", "stop failed"})
_NO_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({})
_NO_DCS: Final[Mapping[str, object]] = MappingProxyType({})
_MAKE: Final = "CREATE ROLE {app} LOGIN PASSWORD '{password}'"
# Whoever may write the account's files may run it: root, and the account itself.
_START: Final = """\
#!/bin/sh
# Starts this node's agent unless it runs; returns at once.
cd {folder} || exit 1
pid=$(cat {pid}) && [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = {folder} ] && exit 0
drop=
[ "$(id -u)" = 0 ] && drop='setpriv --reuid={account} --regid={account} --init-groups'
PATH=/usr/local/bin:/usr/bin:/bin
export PATH
env -i PATH="$PATH" HOME={home} LC_ALL=C.UTF-8 \\
    $drop setsid {patroni} {config} >>{log} 2>&1 </dev/null &
echo $! >{pid}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatroniPrograms:
    """Programs that the server account can run. `version`: Patroni's, such as (3, 0, 2)."""

    patroni: Path
    etcd: Path
    version: tuple[int, ...]


def find_patroni() -> PatroniPrograms | None:
    """Patroni and etcd on this machine, or None where one is missing or cannot be run.

    As root our own virtual environment may be closed to the server account: then the system's
    is taken. Patroni without the library for its etcd counts as missing.
    """
    if sys.platform != "linux":  # hosts are told apart by /proc
        return None
    etcd = next((each for each in _places("etcd") if _says(each, "--version")), None)
    for patroni in _places("patroni"):
        if etcd and (version := _version(patroni)):
            return PatroniPrograms(patroni=patroni, etcd=etcd, version=version)
    return None


class PatroniSandbox(Servers):
    """A Patroni cluster on this machine, and the ways to break it.

    `etcd`: start, stop, kill, freeze and thaw it. `rest_user`, `rest_password`: what the agents
    want to hear before they change anything. `network`: where each has one of its own.
    """

    def __init__(
        self,
        home: Home,
        binaries: Binaries,
        programs: PatroniPrograms,
        names: tuple[str, ...],
        kept: Mapping[str, str],
        network: Network | None = None,
    ) -> None:
        super().__init__(home, binaries, names, kept)
        self.programs = programs
        self.network = network
        self.rest_user = REST_USER
        self.rest_password = kept[REST_USER]
        self.etcd = Etcd(
            home,
            programs.etcd,
            port=int(kept["etcd"]),
            peer_port=int(kept["etcd-peer"]),
            host=network.ours if network else LOOPBACK,
        )
        self.specs = tuple(self._spec(number, name) for number, name in enumerate(names))
        self._dcs: Mapping[str, object] = {}

    @classmethod
    async def start(
        cls,
        home: Path,
        nodes: int = 2,
        *,
        settings: Mapping[str, str] = _NO_SETTINGS,
        dcs: Mapping[str, object] = _NO_DCS,
        binaries: Binaries | None = None,
        programs: PatroniPrograms | None = None,
        namespaces: bool = False,
    ) -> PatroniSandbox:
        """Make the cluster in a folder, or start the one there, and wait until all stream.

        `settings`: more of postgresql.conf, for all. `dcs`: more of Patroni's dynamic
        configuration, such as `synchronous_mode`; `healthy` brings it back to that.
        `namespaces`: each server in a network of its own, from which it can be cut off: its
        `HostSettings` say how. We, etcd and all that routes stay on the other side.

        Raises:
            PostgresError: Patroni or etcd is missing, this machine gives nobody a network of
                their own, or the cluster did not come up. Nothing is left running.
        """
        found = programs or await asyncio.to_thread(find_patroni)
        if found is None:
            raise PostgresError(
                "Patroni and etcd are not installed on this machine, or the server account "
                "cannot run them.",
                next_step="Install both (Debian: `apt-get install patroni etcd-server`).",
            )
        place = await asyncio.to_thread(Home.make, home)
        names = tuple(f"pg{number}" for number in range(1, nodes + 1))
        ports = (*names, *(f"{name}-rest" for name in names), "etcd", "etcd-peer")
        words = (APP_USER, SUPERUSER, REPLICATOR, _REWINDER, REST_USER)
        kept = keep(place, ports, words)
        network = await Network.start(names, place.account) if namespaces else None
        made = cls(place, binaries or find_binaries(os.environ), found, names, kept, network)
        made._keep([folder for name in names for folder in made.folders(name)])
        try:
            await made._come_up(settings, dcs)
        except BaseException:
            await made.close()
            raise
        return made

    @property
    def dcs(self) -> Mapping[str, object]:
        """The dynamic configuration in health, as `healthy` brings it back."""
        return self._dcs

    def address(self, name: str) -> str:
        """Where a node listens, its agent too."""
        return self.network.address(name) if self.network else LOOPBACK

    def agent_folder(self, name: str) -> Path:
        """The folder in which a node's agent works."""
        return self.home.folder / f"{name}.agent"

    def folders(self, name: str) -> tuple[Path, ...]:
        """The folders in which the processes of a node's host work."""
        return (self.data(name), self.agent_folder(name))

    def log(self, name: str) -> Path:
        """What a node's agent and its server say."""
        return self.home.folder / f"{name}.log"

    def agent_pid(self, name: str) -> int | None:
        """The agent's process id, None where it does not run."""
        try:
            pid = int(self._pid_file(name).read_text())
        except (OSError, ValueError):
            return None
        return pid if is_alive(pid, self.agent_folder(name)) else None

    def kill_agent(self, name: str) -> None:
        """Kill -9 of the agent alone: the server runs on, and nobody minds it.

        After the time to live there are two primaries if it was one: never a drill's fault.
        """
        end_all([self.agent_folder(name)])

    async def start_agent(self, name: str) -> None:
        """Start a node's agent unless it runs; it starts or follows by itself.

        Raises:
            PostgresError: it could not be started.
        """
        thaw_all(self.folders(name))
        if self.agent_pid(name) is None:
            via = self.network.via(name) if self.network else ()
            await run(*via, self._start_script(name), limit=_START_LIMIT, as_server=not via)

    async def stop_agent(self, name: str) -> None:
        """End the agent as a host that shuts down does: it stops its server, and hands over."""
        pid = self.agent_pid(name)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        await until(
            lambda: self._has_ended(name), _START_LIMIT, lambda: f"{name}'s agent does not end."
        )

    def rest(self, name: str) -> PatroniRest:
        """A node's agent, to be asked in the plainest way: nothing here judges its answers."""
        return PatroniRest(self.spec(name).rest, self.rest_user, self.rest_password)

    async def healthy(self, limit: timedelta = HEALTHY_LIMIT) -> None:
        """Bring the cluster back: all run, one is the primary, the others stream from it.

        Which one is the primary stays as it is. The dynamic configuration becomes the first
        again, nothing is paused or scheduled. What is in the databases stays.

        Raises:
            PostgresError: it took longer than `limit`.
        """
        if self.network:
            await self.network.mend_all()
        await self.etcd.start()
        for name in self.names:
            await self.start_agent(name)
        begun = asyncio.get_running_loop().time()
        copied: set[str] = set()

        async def is_well() -> bool:
            if await self._is_well():
                return True
            waited = asyncio.get_running_loop().time() - begun
            if waited > _PATIENCE.total_seconds():
                await self._copy_stuck(copied)
            return False

        await until(is_well, limit, lambda: f"The sandbox is not healthy: {self.logs()}")

    async def close(self) -> None:
        """End all its processes; the data stays, and `start` goes on with it."""
        for name in self.names:
            self.thaw(name)
        # An agent that cannot reach etcd does not end in time, and is killed with the rest.
        with suppress(PostgresError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS_MAX):
                self.etcd.thaw()
                await asyncio.gather(*(self.stop_agent(name) for name in self.names))
        await asyncio.to_thread(self._dismiss_keeper)
        await self.etcd.stop()
        if self.network:
            self.network.close()

    async def remove(self) -> None:
        """End all at once and remove the data."""
        await asyncio.to_thread(self._dismiss_keeper)
        await asyncio.to_thread(self.etcd.kill)
        if self.network:
            self.network.close()
        await asyncio.to_thread(self.home.remove)

    async def _come_up(self, settings: Mapping[str, str], dcs: Mapping[str, object]) -> None:
        for name in self.names:
            self.home.private(f"{name}.agent")
            config = self._configuration(name, settings, dcs)
            self._dcs = config["bootstrap"]["dcs"]
            self.home.write(f"{name}.yml", yaml.safe_dump(config, sort_keys=False))
            self.home.write(f"{name}.pid", "")
            self.home.write_log(f"{name}.log")
            self.home.write(f"start-{name}", self._script(name), mode=0o700)
        await self.healthy()
        await self._make_database()

    async def _is_well(self) -> bool:
        """Whether the agents and the servers both say so. Puts the configuration right."""
        seen = await self.rest(self.names[0]).get("/cluster")
        if seen is None or not is_healthy(seen, self.names):
            await self._unschedule(seen)
            return False
        if not await self._configure():
            return False
        # A member that died is listed until its time to live is over, and a pause ends when an
        # agent has read so: each tells for itself.
        own = await asyncio.gather(*(self.rest(name).get("/patroni") for name in self.names))
        if not all(each and each.get("state") == "running" for each in own):
            return False
        if any(each.get("pause") for each in own):
            return False
        writable = await self.writable()
        if len(writable) != 1:
            return False
        follow = (self.follows(name, writable[0]) for name in self.others(writable[0]))
        return all(await asyncio.gather(*follow))

    async def _configure(self) -> bool:
        """Whether the dynamic configuration is the first one; else it is set."""
        agent = self.rest(self.names[0])
        if await agent.get("/config") == self._dcs:
            return True
        await agent.send("PUT", "/config", self._dcs)
        return False

    async def _unschedule(self, seen: Mapping[str, Any] | None) -> None:
        agent = self.rest(self.names[0])
        if seen and seen.get("scheduled_switchover"):
            await agent.send("DELETE", "/switchover")
        if seen and seen.get("pause"):
            await agent.send("PUT", "/config", self._dcs)

    async def _copy_stuck(self, copied: set[str]) -> None:
        """Copy members anew that do not come back by themselves; each once."""
        seen = await self.rest(self.names[0]).get("/cluster")
        for name, state in members_of(seen).items():
            if name not in copied and state in _STUCK:
                copied.add(name)
                await self.rest(name).send("POST", "/reinitialize", {"force": True})

    async def _make_database(self) -> None:
        primary = await self.primary()
        if await self.query(primary, "SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            return
        conn = await asyncpg.connect(self.dsn(primary, "postgres"), timeout=SECONDS_MAX)
        try:
            role = _MAKE.format(app=APP_USER, password=self.app_password)
            if not await conn.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", APP_USER):
                await conn.execute(role, timeout=SECONDS_MAX)
            await conn.execute(f"CREATE DATABASE {DATABASE} OWNER {APP_USER}", timeout=60)
        finally:
            await conn.close(timeout=SECONDS_MAX)

    def _configuration(
        self, name: str, settings: Mapping[str, str], dcs: Mapping[str, object]
    ) -> dict[str, Any]:
        """The example of deploy/ha for this node, and what a sandbox has otherwise."""
        text = Template((EXAMPLES / "patroni.yml").read_text()).substitute(
            SCOPE=SCOPE,
            NAME=name,
            HOST=self.address(name),
            PORT=self.port(name),
            REST_PORT=self._kept[f"{name}-rest"],
            REST_USER=REST_USER,
            REST_PASSWORD=self.rest_password,
            ETCD_HOSTS=f"{self.etcd.host}:{self.etcd.port}",
            DATA=self.data(name),
            PROGRAMS=self.binaries.folder,
            PGPASS=self.home.folder / f"{name}.pgpass",
            SUPERUSER_PASSWORD=self.password,
            REPLICATION_PASSWORD=self._kept[REPLICATOR],
            REWIND_PASSWORD=self._kept[_REWINDER],
            SOCKETS="",
            CLIENTS=self._clients(),
            WATCHDOG="off",
        )
        config: dict[str, Any] = yaml.safe_load(text)
        config["bootstrap"]["dcs"] |= dcs
        config["bootstrap"]["initdb"].append("no-sync")
        # Whoever takes backups.
        config["postgresql"]["pg_hba"].append(
            f"host replication {SUPERUSER} {self._clients()} scram-sha-256"
        )
        config["postgresql"]["parameters"] |= {**SMALL, **settings}
        config["postgresql"]["basebackup"] = ["no-sync", {"checkpoint": "fast"}]
        return config

    def _clients(self) -> str:
        return self.network.range if self.network else f"{LOOPBACK}/32"

    def _script(self, name: str) -> str:
        account = self.home.account
        places = {
            "folder": self.agent_folder(name),
            "pid": self._pid_file(name),
            "home": self.home.folder,
            "patroni": self.programs.patroni,
            "config": self.home.folder / f"{name}.yml",
            "log": self.log(name),
        }
        quoted = {word: shlex.quote(str(place)) for word, place in places.items()}
        return _START.format(account=account.name if account else "nobody", **quoted)

    def _start_script(self, name: str) -> Path:
        return self.home.folder / f"start-{name}"

    def _pid_file(self, name: str) -> Path:
        return self.home.folder / f"{name}.pid"

    async def _has_ended(self, name: str) -> bool:
        return self.agent_pid(name) is None

    def logs(self) -> str:
        """The end of what each agent and server said, for an error."""
        return " | ".join(f"{name}: {self.home.tail(f'{name}.log')}" for name in self.names)

    def _spec(self, number: int, name: str) -> NodeSpec:
        return NodeSpec(
            name=name,
            target=parse_dsn(self.dsn(name)),
            region=region(number),
            rest=f"http://{self.address(name)}:{self._kept[f'{name}-rest']}",
            host=HostSettings(
                via=self.network.via(name) if self.network else (),
                data=self.data(name),
                programs=self.binaries.folder,
                agent_pid=self._pid_file(name),
                agent_start=(str(self._start_script(name)),),
                network_cut=self.network.cut(name) if self.network else (),
                network_mend=self.network.mend(name) if self.network else (),
            ),
        )


def _places(name: str) -> list[Path]:
    """Where a program may be, the nearest first."""
    near = Path(sys.executable).with_name(name)
    found = [shutil.which(name), shutil.which(name, path="/usr/bin:/usr/local/bin")]
    places = [near, *(Path(each) for each in found if each)]
    return [place for place in dict.fromkeys(places) if place.exists()]


def _says(program: Path, *words: str) -> str:
    """What a program says to the server account; '' where it cannot be run."""
    try:
        done = subprocess.run(
            [program, *words],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS_MAX,
            cwd="/",
            env=clean_environment(program.parent),
            check=False,
            **identity_of(server_account()),
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _version(patroni: Path) -> tuple[int, ...]:
    """Patroni's version; () where its own Python lacks something that it needs for etcd."""
    with patroni.open(errors="replace") as script:
        python = script.readline().removeprefix("#!").strip()
    if not python.startswith("/"):
        return ()
    said = _says(Path(python), "-c", _ASK_VERSION).strip()
    return tuple(int(part) for part in said.split(".") if part.isdecimal())
