"""An agent never dies before its server: against programs that do what must not be."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from postgres.account import server_account
from postgres.cluster import faults
from postgres.cluster.faults import Fault, inject, is_in_force, lift
from postgres.cluster.words import ClusterKind, NodeSpec
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.ports import LOOPBACK
from tests.postgres.cluster.fault_machine import (
    IDLES,
    MINDS,
    STUBBORN,
    Machine,
    is_alive,
    send,
    state,
    until,
)

LIMIT = timedelta(seconds=20)
SHORT = timedelta(seconds=1)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account")


@pytest.fixture
def machine(home: Path) -> Iterator[Machine]:
    made = Machine.make(home)
    try:
        yield made
    finally:
        made.end()


def as_account() -> tuple[str, ...]:
    """What leads to the account that servers run as."""
    account = server_account()
    if account is None:
        return ()
    return ("setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups")


def _noted(machine: Machine) -> Path:
    """What leads there and writes down which process does."""
    path = machine.home / "via"
    path.write_text(f'#!/bin/sh\necho "$$" >"{machine.data}/script"\nexec "$@"\n')
    path.chmod(0o755)
    return path


async def refused(node: NodeSpec, fault: Fault, limit: timedelta = SHORT) -> PostgresError:
    with pytest.raises(PostgresError) as caught:
        await inject(node, fault, limit=limit)
    return caught.value


async def test_an_agent_that_minds_its_server_does_not_see_it_die_with_the_host(
    machine: Machine,
) -> None:
    agent = machine.agent(MINDS)
    await until(machine.servers)
    [server] = machine.servers()
    said = await inject(machine.node(), Fault.HOST, limit=LIMIT)
    assert said == f"killed the server (process {server}) and its agent (process {agent})"
    assert (machine.servers(), is_alive(agent)) == ([], False)
    assert machine.starts() == 1
    assert await is_in_force(machine.node(), Fault.HOST) is True


async def test_an_agent_whose_server_alone_is_killed_goes_on_and_starts_it(
    machine: Machine,
) -> None:
    agent = machine.agent(MINDS)
    await until(machine.servers)
    [server] = machine.servers()
    assert await is_in_force(machine.node(), Fault.SERVER) is False
    said = await inject(machine.node(), Fault.SERVER, limit=LIMIT)
    assert said == f"killed the server (process {server})"
    await until(lambda: machine.starts() == 2)
    await until(machine.servers)
    assert state(agent) not in {"", "Z", "T"}
    assert server not in machine.servers()


@pytest.mark.parametrize("fault", [Fault.SERVER, Fault.HOST])
async def test_a_server_that_survives_keeps_its_agent(machine: Machine, fault: Fault) -> None:
    agent = machine.agent()
    machine.program("systemd", STUBBORN)
    await until(machine.servers)
    error = await refused(machine.node(), fault)
    assert "east's server lives though it was killed (process" in error.problem
    assert f"Its agent (process {agent}) goes on to mind it." in error.problem
    assert "what starts it" in error.next_step
    assert state(agent) not in {"", "Z", "T"}
    assert await is_in_force(machine.node(), Fault.HOST) is False


async def test_an_agent_that_is_gone_while_its_server_lives_is_an_alarm(machine: Machine) -> None:
    agent = machine.agent()
    machine.program("systemd", STUBBORN)
    await until(machine.servers)

    async def kill_it_too() -> None:
        await until(lambda: state(agent) == "T")
        send(agent, signal.SIGKILL)

    killing = asyncio.create_task(kill_it_too())
    error = await refused(machine.node(), Fault.HOST, timedelta(seconds=2))
    await killing
    assert "east's agent is gone while its server lives (process" in error.problem
    assert "Stop the server at once: on east's machine, kill -9 " in error.next_step


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
async def test_whatever_ends_us_in_between_the_agent_goes_on(
    machine: Machine, number: signal.Signals
) -> None:
    agent = machine.agent()
    machine.program("systemd", STUBBORN)
    await until(machine.servers)
    node = machine.node(via=(*as_account(), str(_noted(machine))))
    injecting = asyncio.create_task(refused(node, Fault.HOST))
    await until(lambda: state(agent) == "T")
    send(int((machine.data / "script").read_text()), number)
    error = await injecting
    if number is signal.SIGKILL:
        assert "Whether east's server was killed is not known" in error.problem
        assert "while the server does, so must the agent" in error.next_step
    else:  # nobody stops it half way
        assert "lives though it was killed" in error.problem
    await until(lambda: state(agent) not in {"", "Z", "T"})


@pytest.mark.parametrize(
    ("noted", "why"),
    [
        (None, "names no process"),
        ("", "names no process"),
        ("twelve\n", "holds no process id"),
        ("{gone}\n", "its agent does not run (process"),
        ("{server}\n", "is the server itself"),
        ("{other}\n", "is no agent of this server"),
    ],
)
@pytest.mark.parametrize("fault", [Fault.SERVER, Fault.HOST])
async def test_without_its_agent_a_server_is_left_alone(
    machine: Machine, noted: str | None, why: str, fault: Fault
) -> None:
    server, other = machine.server(), machine.program("tail", IDLES)
    (machine.data / "postmaster.pid").write_text(f"{server}\n{machine.data}\n")
    if noted is not None:
        gone = subprocess.Popen(["/bin/true"])
        gone.wait()
        machine.note.write_text(noted.format(server=server, other=other, gone=gone.pid))
    error = await refused(machine.node(), fault)
    assert why in error.problem
    assert error.problem.endswith("Nothing happened.")
    assert "never kills an agent alone" in error.next_step
    assert is_alive(server)
    assert is_alive(other)


async def test_an_agent_of_any_name_is_known_by_the_server_that_it_started(
    machine: Machine,
) -> None:
    agent = machine.program("runner", MINDS)
    await until(machine.servers)
    [server] = machine.servers()
    (machine.data / "postmaster.pid").write_text(f"{server}\n{machine.data}\n")
    machine.note.write_text(str(agent))  # without an end of the line
    said = await inject(machine.node(), Fault.HOST, limit=LIMIT)
    assert said.endswith(f"and its agent (process {agent})")
    assert machine.servers() == []


async def test_nobody_stays_stopped_for_as_long_as_a_leader_key_lives(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "_STOPPED_MAX", timedelta(seconds=1))
    agent = machine.agent()
    machine.program("systemd", STUBBORN)
    await until(machine.servers)
    async with asyncio.timeout(60):
        await refused(machine.node(), Fault.HOST, timedelta(hours=1))
    assert state(agent) != "T"


async def test_where_no_server_lives_its_agent_is_left_alone(machine: Machine) -> None:
    agent = machine.agent()
    error = await refused(machine.node(), Fault.HOST)
    assert "no process of the server lives. Nothing happened." in error.problem
    assert is_alive(agent)


async def test_a_patroni_without_a_note_of_its_agent_is_left_alone(machine: Machine) -> None:
    server = machine.server()
    node = machine.node()
    assert node.host
    bare = replace(node, host=replace(node.host, agent_pid=None))
    error = await refused(bare, Fault.SERVER)
    assert "it must be held. Nothing happened." in error.problem
    assert is_alive(server)


async def test_a_machine_that_cannot_be_asked_tells_nothing_and_nothing_happens(
    machine: Machine,
) -> None:
    server = machine.server()
    node = machine.node(via=("/bin/false",))
    assert [await is_in_force(node, fault) for fault in Fault] == [None, None, None]
    error = await refused(node, Fault.SERVER)
    assert "cannot be asked" in error.problem
    assert error.problem.endswith("Nothing happened.")
    assert is_alive(server)


@as_root
async def test_an_account_that_does_not_own_the_folder_is_not_believed(machine: Machine) -> None:
    server = machine.server()
    machine.agent()
    node = machine.node(via=("env",))  # as root
    assert await is_in_force(node, Fault.SERVER) is None
    error = await refused(node, Fault.SERVER)
    assert "does not see it. Nothing happened." in error.problem
    assert is_alive(server)


async def test_commands_go_through_what_leads_there(machine: Machine) -> None:
    agent, server = machine.agent(), machine.server()
    node = machine.node(via=("env", *as_account()))
    said = await inject(node, Fault.HOST, limit=LIMIT)
    assert said == f"killed the server (process {server}) and its agent (process {agent})"


@as_root
@pytest.mark.needs("unshare", "nsenter", "setpriv")
async def test_a_server_that_is_its_containers_first_process_survives_and_is_told(
    machine: Machine,
) -> None:
    # Nobody inside can kill the first process of a container, not even with signal 9.
    account = as_account()
    outer = subprocess.Popen(
        [
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(f"--wd={machine.data}", *account, str(machine.home / "postgres"), "600"),
        ],
        start_new_session=True,
    )
    machine.started.append(outer)
    await until(machine.servers)
    [server] = machine.servers()
    inside = ("nsenter", f"--target={server}", "--pid", "--mount", "--wd=/", "--", *account)
    error = await refused(machine.node(via=inside, agent=False), Fault.SERVER)
    assert "east's server lives though it was killed (process 1)" in error.problem
    assert is_alive(server)


async def test_a_stopped_agent_goes_on_when_the_fault_is_taken_back(machine: Machine) -> None:
    agent = machine.agent()
    send(agent, signal.SIGSTOP)
    await until(lambda: state(agent) == "T")
    listening = await asyncio.start_server(lambda _, writer: writer.close(), LOOPBACK, 0)
    port = listening.sockets[0].getsockname()[1]
    target = parse_dsn(f"postgresql://u@{LOOPBACK}:{port}/app")
    async with listening:
        node = replace(machine.node(), target=target)
        await lift(node, Fault.SERVER, kind=ClusterKind.PATRONI, limit=LIMIT)
    assert state(agent) != "T"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ((), "nobody has said what starts it"),
        (("/bin/false",), "agent could not be started"),
        (("/bin/true",), "nobody listens at its address yet"),
    ],
)
async def test_what_cannot_be_brought_back_is_told(
    machine: Machine, command: tuple[str, ...], problem: str
) -> None:
    node = machine.node()
    assert node.host
    node = replace(node, host=replace(node.host, agent_start=command))
    with pytest.raises(PostgresError, match=problem) as caught:
        await lift(node, Fault.HOST, kind=ClusterKind.PATRONI, limit=timedelta(seconds=1))
    assert "east" in caught.value.next_step


@pytest.mark.parametrize(
    ("cut", "mend", "problem"),
    [
        ("true", "true", None),
        ("false", "true", "has taken back what it may have done: nothing happened."),
        ("false", "false", "Whether east is parted is not known"),
    ],
)
async def test_half_a_cut_is_taken_back(
    machine: Machine, cut: str, mend: str, problem: str | None
) -> None:
    node = machine.node()
    assert node.host
    host = replace(node.host, network_cut=(f"/bin/{cut}",), network_mend=(f"/bin/{mend}",))
    node = replace(node, host=host)
    if problem is None:
        assert await inject(node, Fault.NETWORK, limit=LIMIT) == "parted east from all others"
        return
    assert problem in (await refused(node, Fault.NETWORK)).problem
