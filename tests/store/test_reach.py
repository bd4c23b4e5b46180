"""The store is where its newest primary is: hosts that hang or fell behind lead nowhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from jobs.away import is_away
from postgres.server import Server
from sandbox.ha import PairSandbox
from store.connect import Store, connect
from store.hosts import SplitStoreError
from store.quick import Statement
from store.reach import Reach, StoreMovedError
from store.upgrade import schema_state, upgrade
from tests.own_store import PairStore, eventually, store_on

WHERE = "SELECT inet_server_port()"
NEXT = "SELECT nextval('requests_id_seq')"


@pytest.fixture
async def hanging() -> AsyncIterator[int]:
    """A port that takes connections and never says a word."""
    silent = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        silent.set()
        server.close()


@pytest.fixture
async def own(pair: PairSandbox) -> AsyncIterator[PairStore]:
    async with store_on(pair) as made:
        yield made


def two(server: Server, database: str, port: int) -> str:
    """A DSN whose first host hangs."""
    return (
        f"postgresql://postgres@/{database}?host=127.0.0.1,{server.sockets}"
        f"&port={port},{server.port}&target_session_attrs=primary"
    )


async def port_of(store: Store) -> int:
    async with store.begin() as conn:
        return int((await conn.execute(sa.text(WHERE))).scalar_one())


async def test_a_first_host_that_hangs_keeps_nobody_from_the_second(
    server: Server, store_name: str, hanging: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.reach.CONNECT_SECONDS_MAX", 3)
    dsn = two(server, store_name, hanging)
    with pytest.raises(TimeoutError):  # asyncpg's limit is for the whole list
        await asyncpg.connect(dsn, timeout=1)
    await upgrade(dsn)
    store = connect(dsn)
    try:
        assert await schema_state(store) == "current"
        async with store.begin() as conn:
            assert (await conn.execute(sa.text("SELECT 1"))).scalar_one() == 1
        survey = {str(host): said for host, _, said in await store.reach.survey()}
        assert survey == {
            f"127.0.0.1:{hanging}": "no answer within 3 s", f"{server.sockets}:{server.port}": "",
        }  # fmt: skip
    finally:
        await store.close()


async def test_a_single_host_is_asked_as_ever(store: Store) -> None:
    assert store.reach.hosts == ()
    conn = await store.direct()
    assert store.reach.is_good(conn)
    await store.reach.check(conn, seconds_max=30)
    await conn.close()
    assert not store.reach.is_good(conn)


async def test_a_server_that_takes_writes_no_more_is_left(store: Store) -> None:
    pid = "SELECT pg_backend_pid()"
    async with store.begin() as conn:
        before = (await conn.execute(sa.text(pid))).scalar_one()
        await conn.execute(sa.text("SET default_transaction_read_only = on"))
    with pytest.raises(DBAPIError) as refused:
        async with store.begin() as conn:
            await conn.execute(sa.text(NEXT))
    assert is_away(refused.value)
    async with store.begin() as conn:
        assert (await conn.execute(sa.text(pid))).scalar_one() != before


async def test_a_quick_connection_to_such_a_server_is_left_too(store: Store) -> None:
    fenced = "SELECT set_config('default_transaction_read_only', 'on', false)"
    await store.rows(Statement(sa.text(fenced)), {})
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as quick:
        await store.rows(Statement(sa.text(NEXT)), {})
    assert is_away(quick.value)
    await store.rows(Statement(sa.text(NEXT)), {})


async def test_the_store_is_followed_to_the_standby_that_was_promoted(own: PairStore) -> None:
    pair, store = own.pair, own.store
    query = Statement(sa.text(WHERE + " AS port"))
    assert await port_of(store) == pair.port(own.old)
    assert (await store.rows(query, {}))[0]["port"] == pair.port(own.old)
    await own.lose_the_primary()
    with pytest.raises(ConnectionError, match="none of the store's hosts takes writes") as nowhere:
        await store.direct()
    assert "is a standby, or reads only" in str(nowhere.value)
    await own.promote()
    listener = await store.direct()
    assert await listener.fetchval(WHERE) == pair.port(own.new)
    await listener.close()
    assert (await store.rows(query, {}))[0]["port"] == pair.port(own.new)

    async def follows() -> bool:
        with contextlib.suppress(DBAPIError):  # what was cut in the middle is an error once
            return await port_of(store) == pair.port(own.new)
        return False

    await eventually(follows)


async def test_an_old_primary_that_lives_on_is_left_for_the_newer_one(
    own: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.reach.LOOK_SECONDS", 0.2)
    pair, store = own.pair, own.store
    assert await port_of(store) == pair.port(own.old)
    held = await store.direct()
    await store.reach.check(held, seconds_max=30)
    await own.promote()  # two take writes now
    fresh = Reach(SecretStr(own.dsn))
    conn = await fresh.connect()
    assert await conn.fetchval(WHERE) == pair.port(own.new)
    await conn.close()

    async def left() -> bool:
        return await port_of(store) == pair.port(own.new)

    await eventually(left)
    with pytest.raises(StoreMovedError):
        await store.reach.check(held, seconds_max=30)
    assert not store.reach.is_good(held)
    held.terminate()
    pair.kill_server(own.new)
    with pytest.raises(ConnectionError, match="was left behind on timeline"):
        await store.direct()


async def test_hosts_of_two_clusters_are_no_store(own: PairStore, server: Server) -> None:
    both = own.dsn.replace(
        f"127.0.0.1:{own.pair.port(own.new)}", f"127.0.0.1:{server.port}"
    ).replace(own.pair.password, "wrong")
    reach = Reach(SecretStr(both))
    with pytest.raises(ConnectionError, match="password authentication failed"):
        await reach.connect()
    own_server = f"{server.sockets}:{server.port}"
    mixed = (
        f"postgresql://{own.pair.superuser}:{own.pair.password}@/postgres"
        f"?host=127.0.0.1,{server.sockets}&port={own.pair.port(own.old)},{server.port}"
    )
    with pytest.raises(SplitStoreError, match="not one cluster") as split:
        await Reach(SecretStr(mixed)).connect()
    assert own_server in str(split.value)
    assert is_away(split.value)
