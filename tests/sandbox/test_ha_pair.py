"""The pair that tests break comes back to health, whatever was done to it."""

from __future__ import annotations

import asyncpg

from postgres.layout import SUPERUSER
from sandbox.ha import PairSandbox
from sandbox.ha_servers import APP_USER


async def execute(pair: PairSandbox, name: str, *statements: str, user: str = SUPERUSER) -> None:
    conn = await asyncpg.connect(pair.dsn(name, user=user), timeout=30)
    try:
        for statement in statements:
            await conn.execute(statement, timeout=30)
    finally:
        await conn.close()


async def test_a_pair_that_is_well_is_left_as_it_is(pair: PairSandbox) -> None:
    before = [pair.server_pid(name) for name in pair.names]
    await pair.healthy()
    assert [pair.server_pid(name) for name in pair.names] == before
    assert None not in before


async def test_nodes_have_what_an_inventory_would_say(pair: PairSandbox) -> None:
    primary = await pair.primary()
    (standby,) = pair.others(primary)
    spec = pair.spec(standby)
    assert spec.target.url() != pair.spec(primary).target.url()
    assert spec.host
    assert (spec.host.data, spec.host.programs) == (pair.data(standby), pair.binaries.folder)
    # What pg_rewind copies from the other: the port is in the data folder.
    assert str(pair.port(standby)) in (spec.host.data / "postgresql.conf").read_text()
    assert await pair.says(standby, "SHOW port") == str(pair.port(standby))
    assert await pair.follows(standby, primary)
    assert not await pair.follows(primary, standby)


async def test_applications_write_with_a_role_of_their_own(pair: PairSandbox) -> None:
    primary = await pair.primary()
    await execute(pair, primary, "CREATE TABLE mine (n int)", "DROP TABLE mine", user=APP_USER)
    assert await pair.says(primary, "SELECT rolsuper FROM pg_roles WHERE rolname = 'app'") is False


async def test_settings_and_slots_that_somebody_left_are_gone(pair: PairSandbox) -> None:
    primary = await pair.primary()
    await execute(
        pair,
        primary,
        "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
        "SELECT pg_create_physical_replication_slot('forgotten', true)",
    )
    await pair.healthy()
    assert await pair.primary() == primary
    assert await pair.says(primary, "SHOW synchronous_standby_names") == ""
    assert await pair.says(primary, "SELECT count(*) FROM pg_replication_slots") == 1


async def test_a_primary_that_crashed_is_the_primary_again(pair: PairSandbox) -> None:
    primary = await pair.primary()
    pair.kill_server(primary)
    assert pair.server_pid(primary) is None
    assert pair.host_pids(primary) == ()
    await pair.healthy()
    assert await pair.primary() == primary


async def test_of_two_primaries_the_newer_timeline_stays(pair: PairSandbox) -> None:
    old = await pair.primary()
    (new,) = pair.others(old)
    pair.freeze(old)
    await pair.query(new, "SELECT pg_promote(true, 30)")
    pair.thaw(old)
    assert await pair.writable() == pair.names
    await execute(pair, new, "CREATE TABLE kept ()")
    await pair.healthy()
    assert await pair.primary() == new
    await execute(pair, new, "DROP TABLE kept")
