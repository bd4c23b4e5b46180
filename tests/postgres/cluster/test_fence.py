"""Nobody is promoted without a proof that the old primary takes no more writes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from postgres.cluster.fence import Door, fence_of, knock, prove_fence
from postgres.cluster.host_words import HostSeen, ServerProcess
from postgres.cluster.words import HostSettings, NodeSpec
from postgres.dsn import parse_dsn
from postgres.ports import free_port

GONE = HostSeen(
    exists=True, is_owner=True, sees_processes=True, version="17", listens=False, note_holder="gone"
)
ALIVE = replace(GONE, servers=(ServerProcess(pid=41, state="S"),))


@pytest.mark.parametrize(
    ("seen", "door"),
    [
        (GONE, Door.REFUSES),
        (GONE, Door.SILENT),  # its machine was asked: a firewall changes nothing
        (replace(GONE, note_pid=7, note_holder="zombie"), Door.REFUSES),
        (replace(GONE, note_pid=7, note_holder="other"), Door.REFUSES),
        (replace(GONE, has_standby_signal=True), Door.REFUSES),
    ],
)
def test_no_process_and_a_closed_port_are_a_proof(seen: HostSeen, door: Door) -> None:
    assert fence_of("east", seen, door).is_proven


@pytest.mark.parametrize(
    ("seen", "door", "why"),
    [
        (ALIVE, Door.REFUSES, "lives"),
        (ALIVE, Door.SILENT, "lives"),
        (replace(GONE, servers=(ServerProcess(pid=41, state="T"),)), Door.SILENT, "frozen"),
        # A backend that outlived its postmaster: it may commit.
        (replace(ALIVE, note_holder="gone"), Door.REFUSES, "lives"),
        (replace(GONE, listens=True), Door.REFUSES, "listens"),
        (replace(GONE, listens=None), Door.REFUSES, "listens"),
        (GONE, Door.OPEN, "listens"),
        (replace(GONE, exists=False), Door.REFUSES, "no data folder"),
        (replace(GONE, version=""), Door.REFUSES, "no data folder"),
        (replace(GONE, is_owner=False), Door.REFUSES, "cannot see"),
        (replace(GONE, sees_processes=False), Door.REFUSES, "cannot see"),
    ],
)
def test_anything_less_is_none(seen: HostSeen, door: Door, why: str) -> None:
    found = fence_of("east", seen, door)
    assert not found.is_proven
    assert why in found.why
    assert found.next_step


async def test_a_machine_that_cannot_be_asked_proves_nothing(tmp_path: Path) -> None:
    node = NodeSpec(
        name="east",
        target=parse_dsn(f"postgresql://u@127.0.0.1:{free_port()}/app"),
        host=HostSettings(via=("/bin/false",), data=tmp_path, programs=tmp_path),
    )
    found = await prove_fence(node)
    assert not found.is_proven
    assert "cannot be told" in found.why


async def test_a_node_whose_machine_nobody_named_is_never_fenced() -> None:
    found = await prove_fence(
        NodeSpec(name="east", target=parse_dsn(f"postgresql://u@127.0.0.1:{free_port()}/app"))
    )
    assert not found.is_proven


async def test_a_door_is_open_where_somebody_listens(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        assert await knock(_at(f"postgresql://u@127.0.0.1:{port}/app")) is Door.OPEN
    finally:
        server.close()
        await server.wait_closed()
    assert await knock(_at(f"postgresql://u@127.0.0.1:{port}/app")) is Door.REFUSES
    assert await knock(_at(f"postgresql://u@/app?host={tmp_path}")) is Door.REFUSES


def _at(dsn: str) -> NodeSpec:
    return NodeSpec(name="east", target=parse_dsn(dsn))
