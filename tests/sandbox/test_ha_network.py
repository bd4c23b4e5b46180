"""Networks of servers that are there to be cut off."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from postgres.account import server_account
from postgres.errors import PostgresError
from postgres.programs import Finished, run_program
from sandbox import ha_network
from sandbox.ha_network import Network

LIMIT = timedelta(seconds=30)
WIRES = Path("/sys/class/net")
ROOT = Path(__file__).parents[2]
STARTS = """
import asyncio, sys
from sandbox.ha_network import Network
made = asyncio.run(Network.start(["one"], None))
print(made.ours, flush=True)
sys.stdin.read()
"""


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    if problem := ha_network.objection():
        pytest.skip(problem[0])
    made = await Network.start(["one", "two"], server_account())
    try:
        yield made
    finally:
        made.close()


async def ran(*command: str) -> Finished:
    return await run_program(command, time_limit=LIMIT, as_server=False)


async def reaches(network: Network, name: str, to: str) -> bool:
    """Whether the machine of an address answers a server: it says that nobody listens there."""
    knock = f"import socket; socket.create_connection(('{to}', 9), 0.5)"
    done = await ran(*network.via(name), "python3", "-c", knock)
    assert done.code
    return "refused" in done.stderr


def wire(network: Network) -> Path:
    return WIRES / f"twokey{network.ours.split('.')[2]}"


async def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not fact():
        if time.monotonic() > end:
            raise AssertionError("it did not happen")
        await asyncio.sleep(0.02)


async def test_a_server_that_is_cut_off_reaches_nobody_until_it_is_mended(
    network: Network,
) -> None:
    to = (network.ours, network.address("two"))
    assert [await reaches(network, "one", each) for each in to] == [True, True]
    assert (await ran(*network.cut("one"))).code == 0
    assert [await reaches(network, "one", each) for each in to] == [False, False]
    assert await reaches(network, "two", network.ours)
    for _ in range(2):  # the second time it is whole already
        assert (await ran(*network.mend("one"))).code == 0
    assert await reaches(network, "one", network.address("two"))


async def test_commands_run_there_as_the_account_of_servers(network: Network) -> None:
    account = server_account()
    assert account
    done = await ran(*network.via("one"), "id", "-u")
    assert done.stdout.strip() == str(account.uid)
    done = await ran(*network.via("one"), "cat", "/proc/net/dev")
    assert {line.split(":")[0].strip() for line in done.stdout.splitlines()[2:]} == {"lo", "eth0"}


async def test_two_networks_have_addresses_of_their_own_and_go_when_they_are_closed(
    network: Network,
) -> None:
    other = await Network.start(["one"], server_account())
    try:
        assert other.ours != network.ours
        assert wire(other).exists()
    finally:
        other.close()
    await until(lambda: not wire(other).exists())
    assert wire(network).exists()


async def test_nothing_stays_when_we_are_killed(network: Network) -> None:
    before = {path.name for path in WIRES.iterdir()}
    with subprocess.Popen(
        [sys.executable, "-c", STARTS],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        ours = await asyncio.to_thread(process.stdout.readline)
        made = WIRES / f"twokey{ours.split('.')[2]}"
        assert made.exists()
        assert made.name not in before
        process.kill()
    await until(lambda: not made.exists())
    assert wire(network).exists()


async def test_whoever_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PostgresError, match="Only root gives servers a network") as caught:
        await Network.start(["one"], None)
    assert "leave the namespaces out" in caught.value.next_step


async def test_programs_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(ha_network, "which", lambda name, path: None if name == "ip" else name)
    with pytest.raises(PostgresError, match=r"Not installed: ip\.") as caught:
        await Network.start(["one"], None)
    assert "iproute2" in caught.value.next_step
