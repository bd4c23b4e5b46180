"""A network of its own for each server of a sandbox, so that one can be parted from the others.

Each server lives in a network namespace whose only wire leads to a switch, a bridge in one more
namespace; from there a wire leads to us. Namespaces live as long as their processes, and wires
as long as both ends: nothing has a name in /run/netns, and nothing stays when we are killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from shutil import which
from typing import Final

from postgres.account import Account
from postgres.errors import PostgresError
from postgres.process import clean_environment, end_with_parent
from postgres.programs import Finished, run_program
from sandbox.ha_home import until

# For tests of network devices (RFC 2544): nobody's real network is hidden by it.
_PREFIX: Final = "198.18"
_NUMBERS: Final = 256
_WIRE: Final = "twokey"  # ours, with the number of its network: who has it has the addresses
_BRIDGE: Final = "switch"
_FIRST_HOST: Final = 11
_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_LIMIT: Final = timedelta(seconds=30)
_END_SECONDS_MAX: Final = 10
_TRY_SECONDS_MAX: Final = 20
_PROGRAMS: Final = ("ip", "unshare", "nsenter", "setpriv")


def objection() -> tuple[str, str] | None:
    """Why this machine gives nobody a network of their own, and the next step; None: it does."""
    if os.geteuid() != 0:
        return (
            "Only root gives servers a network of their own.",
            "Start it as root, or leave the namespaces out.",
        )
    if missing := [name for name in _PROGRAMS if which(name, path=_PATH) is None]:
        return (
            f"Not installed: {', '.join(missing)}. Servers get no network of their own.",
            "Install them (Debian: `apt-get install iproute2 util-linux`).",
        )
    words = [_program("unshare"), "--net", "--", _program("ip"), "link", "add", "name", _BRIDGE]
    try:
        done = subprocess.run(
            [*words, "type", "bridge"],
            capture_output=True,
            text=True,
            timeout=_TRY_SECONDS_MAX,
            check=False,
        )
        said = done.stderr.strip() if done.returncode else ""
    except subprocess.TimeoutExpired:
        said = "no answer"
    if not said:
        return None
    return (
        f"This machine makes no network namespaces: {said.splitlines()[-1].rstrip('.')}.",
        "Run it where root may make them (a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN).",
    )


class Network:
    """The wires between servers, and the one to us.

    `ours`: our address, at which servers find what we run.
    """

    def __init__(self, names: Sequence[str], account: Account | None) -> None:
        self.names = tuple(names)
        self._account = account
        self._number = -1
        self._held: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    async def start(cls, names: Sequence[str], account: Account | None) -> Network:
        """Make it. `account`: whom `via` leads to.

        Raises:
            PostgresError: this machine makes none; nothing is left of it.
        """
        if problem := objection():
            raise PostgresError(problem[0], next_step=problem[1])
        made = cls(names, account)
        try:
            await made._come_up()
        except BaseException:
            made.close()
            raise
        return made

    @property
    def ours(self) -> str:
        """Our address in it."""
        return f"{_PREFIX}.{self._number}.1"

    @property
    def range(self) -> str:
        """All addresses, as pg_hba.conf names them."""
        return f"{_PREFIX}.{self._number}.0/24"

    def address(self, name: str) -> str:
        """A server's address."""
        return f"{_PREFIX}.{self._number}.{_FIRST_HOST + self.names.index(name)}"

    def via(self, name: str) -> tuple[str, ...]:
        """What is put before a command that runs in a server's network, as its account."""
        account = self._account
        if account is None:
            return self._in(name)
        who = (f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups")
        return (*self._in(name), _program("setpriv"), *who, "--")

    def cut(self, name: str) -> tuple[str, ...]:
        """The command that parts a server from all: its wire ends at no switch, silently."""
        return (*self._in(_BRIDGE), _program("ip"), "link", "set", "dev", name, "nomaster")

    def mend(self, name: str) -> tuple[str, ...]:
        """The command that brings it back; harmless where it is."""
        ip = (_program("ip"), "link", "set", "dev", name, "master", _BRIDGE)
        return (*self._in(_BRIDGE), *ip)

    async def mend_all(self) -> None:
        """Bring every server back.

        Raises:
            PostgresError: the network is gone.
        """
        for name in self.names:
            await _run(self.mend(name))

    def close(self) -> None:
        """Take the wires away. A server's network itself ends with its last process."""
        for held in self._held.values():
            held.kill()
        for held in self._held.values():
            held.wait(timeout=_END_SECONDS_MAX)
        self._held.clear()

    async def _come_up(self) -> None:
        for name in (_BRIDGE, *self.names):
            await self._hold(name)
        await self._at(_BRIDGE, "link add name", _BRIDGE, "type bridge forward_delay 0")
        await self._at(_BRIDGE, "link set dev", _BRIDGE, "up")
        await self._reach_us()
        for name in self.names:
            pid = str(self._held[name].pid)
            await self._at(_BRIDGE, "link add name", name, "type veth peer name eth0 netns", pid)
            await self._at(_BRIDGE, "link set dev", name, f"master {_BRIDGE} up")
            await self._at(name, "link set dev lo up")
            await self._at(name, "addr add", f"{self.address(name)}/24", "dev eth0")
            await self._at(name, "link set dev eth0 up")

    async def _hold(self, name: str) -> None:
        self._held[name] = _in_new_network()

        async def is_in_it() -> bool:
            return _network_of(self._held[name].pid) != _network_of("self")

        await until(is_in_it, _LIMIT, lambda: f"{name} got no network of its own.")

    async def _reach_us(self) -> None:
        """A wire from the switch to us, with a number that nobody else here has."""
        pid = str(self._held[_BRIDGE].pid)
        first = os.getpid() % _NUMBERS
        for step in range(_NUMBERS):
            number = (first + step) % _NUMBERS
            wire = f"{_WIRE}{number}"
            words = ("link", "add", "name", wire, "type", "veth", "peer", "name", "us")
            done = await _tried((_program("ip"), *words, "netns", pid))
            if done.code == 0:
                break
            if "File exists" not in done.stderr:
                raise _failed(done)
        else:
            raise PostgresError(
                "All networks for sandboxes are in use.", next_step="End sandboxes that run."
            )
        self._number = number
        await _run((_program("ip"), "addr", "add", f"{self.ours}/24", "dev", wire))
        await _run((_program("ip"), "link", "set", "dev", wire, "up"))
        await self._at(_BRIDGE, f"link set dev us master {_BRIDGE} up")

    async def _at(self, name: str, *words: str) -> None:
        await _run((*self._in(name), _program("ip"), *" ".join(words).split()))

    def _in(self, name: str) -> tuple[str, ...]:
        return (_program("nsenter"), f"--net=/proc/{self._held[name].pid}/ns/net", "--")


def _in_new_network() -> subprocess.Popen[bytes]:
    """A process that has nothing to do but to be in a network; it ends when we do."""
    return subprocess.Popen(
        [_program("unshare"), "--net", "--", _program("sleep"), "infinity"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=clean_environment(Path("/usr/bin")),
        start_new_session=True,
        preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509
    )


def _network_of(pid: int | str) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


async def _run(command: Sequence[str]) -> None:
    done = await _tried(command)
    if done.code:
        raise _failed(done)


async def _tried(command: Sequence[str]) -> Finished:
    return await run_program(command, time_limit=_LIMIT, as_server=False)


def _failed(done: Finished) -> PostgresError:
    return PostgresError(
        f"The sandbox's network cannot be changed: {done.last_words.rstrip('.')}.",
        next_step="End the sandbox and start it anew.",
    )


def _program(name: str) -> str:
    return which(name, path=_PATH) or name
