"""The proof that an old primary takes no more writes, without which nobody is promoted.

A server that does not answer may live on behind a broken network, or be frozen and thawed later:
each acknowledges writes that a promotion loses (270 rows in 3 s were measured). So the machine
on which it lived is asked, and only what is seen there counts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from postgres.cluster.host import Host
from postgres.cluster.host_words import HostSeen
from postgres.cluster.words import NodeSpec
from postgres.errors import PostgresError

_KNOCK_LIMIT: Final = timedelta(seconds=2)


class Door(StrEnum):
    """What a node's address does when we knock."""

    OPEN = "open"  # somebody listens
    REFUSES = "refuses"  # the machine says that nobody does
    SILENT = "silent"  # no answer, or no way there: says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Whether a node is proven to take no writes. `next_step`: '' when it is.

    `comes_back_as_standby`: whether its folder says so already.
    """

    is_proven: bool
    why: str
    next_step: str = ""
    comes_back_as_standby: bool = False


def fence_of(name: str, seen: HostSeen, door: Door) -> Fence:
    """Hold what was seen against what a proof needs. Pure.

    No process of the server lives (a zombie holds no socket), asked as the account that would see
    it; nothing listens on its port there; and nobody answers at its address from here.
    """
    if not seen.exists or not seen.version:
        return _open(
            f"There is no data folder of PostgreSQL where the inventory says {name} has one",
            "Correct `host.data` in the inventory: another server may live there.",
        )
    if not (seen.is_owner and seen.sees_processes):
        return _open(
            f"The account that was asked cannot see the processes of {name}'s server",
            "Let `host.via` lead to the account that owns the data folder, on its own machine.",
        )
    if seen.is_frozen:
        pids = ", ".join(str(each.pid) for each in seen.servers)
        return _open(
            f"{name}'s server is frozen, not gone (process {pids} is stopped): thawed, it would "
            "go on to take writes",
            f"End it for good on its machine: kill -9 {pids.replace(',', '')}. Then ask again.",
        )
    if seen.is_alive:
        pids = " ".join(str(each.pid) for each in seen.servers)
        return _open(
            f"{name}'s server lives ({len(seen.servers)} processes)",
            f"If it cannot be reached, stop it on its machine first (kill -9 {pids}, or switch "
            "the machine off). If it can, ask for a switchover: it loses nothing.",
        )
    if seen.listens is not False or door is Door.OPEN:
        return _open(
            f"Something listens on {name}'s port",
            "See what it is (ss -ltnp there): applications may still write to it.",
        )
    return Fence(
        is_proven=True,
        why=f"No process of {name}'s server lives, and its port refuses",
        comes_back_as_standby=seen.has_standby_signal,
    )


async def prove_fence(node: NodeSpec) -> Fence:
    """Ask the node's machine, and knock at its address.

    An answer that cannot be had proves nothing, and is said as such.
    """
    try:
        host = Host(node)
        seen, door = await asyncio.gather(host.look(), knock(node))
    except PostgresError as error:
        return _open(
            f"Whether {node.name}'s server lives cannot be told: {error.problem.rstrip('.')}",
            f"{error.next_step} A machine that is switched off for good has no say: promote by "
            "hand then (SELECT pg_promote()), and keep it off.",
        )
    return fence_of(node.name, seen, door)


async def knock(node: NodeSpec) -> Door:
    """Whether anybody listens at a node's address, as seen from here."""
    words = node.target.words
    host, port = words.get("host", "localhost"), words.get("port") or "5432"
    try:
        async with asyncio.timeout(_KNOCK_LIMIT.total_seconds()):
            if host.startswith("/"):
                _, writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            else:
                _, writer = await asyncio.open_connection(host, int(port))
    except (ConnectionRefusedError, FileNotFoundError):
        return Door.REFUSES
    except (OSError, TimeoutError, ValueError):
        return Door.SILENT
    writer.close()
    return Door.OPEN


def _open(why: str, next_step: str) -> Fence:
    return Fence(is_proven=False, why=why, next_step=next_step)
