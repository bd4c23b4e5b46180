"""Real clusters for all tests: one of a kind per worker process, well before each test.

A plugin of tests/conftest.py. Nothing is started before a test asks for it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from sandbox import ha_network
from sandbox.ha import Haproxy, PairSandbox, PatroniSandbox, Pgbouncer, find_patroni
from tests.conftest import folder_of_its_own

FAST: Final = {"fsync": "off"}


@pytest.fixture(scope="session")
def session_pair() -> Iterator[PairSandbox]:
    """As the last test left it: ask for `pair`."""
    home = folder_of_its_own()
    made = asyncio.run(PairSandbox.start(home / "ha", settings=FAST))
    try:
        yield made
    finally:
        asyncio.run(made.remove())
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def pair(session_pair: PairSandbox) -> PairSandbox:
    """A primary and a standby that streams. Either may be the primary: ask `primary()`."""
    await session_pair.healthy()
    return session_pair


@contextmanager
def _patroni(*, namespaces: bool) -> Iterator[PatroniSandbox]:
    programs = find_patroni()
    if programs is None:
        pytest.skip("the account that runs servers has no patroni and etcd to run")
    home = folder_of_its_own()
    start = PatroniSandbox.start(
        home / "ha", settings=FAST, programs=programs, namespaces=namespaces
    )
    made = asyncio.run(start)
    try:
        yield made
    finally:
        asyncio.run(made.remove())
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def session_patroni() -> Iterator[PatroniSandbox]:
    """As the last test left it: ask for `patroni`."""
    with _patroni(namespaces=False) as made:
        yield made


@pytest.fixture
async def patroni(session_patroni: PatroniSandbox) -> PatroniSandbox:
    """Two nodes that are well, and their etcd. Either may be the primary: ask `primary()`.

    Tests that use it say `@pytest.mark.needs("patroni", "etcd")`.
    """
    await session_patroni.healthy()
    return session_patroni


@pytest.fixture(scope="session")
def session_parted() -> Iterator[PatroniSandbox]:
    """As the last test left it: ask for `parted`."""
    if problem := ha_network.objection():
        pytest.skip(problem[0])
    with _patroni(namespaces=True) as made:
        yield made


@pytest.fixture
async def parted(session_parted: PatroniSandbox) -> PatroniSandbox:
    """As `patroni`, each node in a network of its own, from which it can be cut off."""
    await session_parted.healthy()
    return session_parted


@pytest.fixture
async def haproxy(patroni: PatroniSandbox) -> AsyncIterator[Haproxy]:
    """HAProxy before the Patroni cluster: `@pytest.mark.needs("patroni", "etcd", "haproxy")`."""
    made = await Haproxy.start(patroni)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def pgbouncer(pair: PairSandbox) -> AsyncIterator[Pgbouncer]:
    """PgBouncer before the pair's primary: `@pytest.mark.needs("pgbouncer")`."""
    made = await Pgbouncer.start(pair)
    try:
        yield made
    finally:
        await made.close()
