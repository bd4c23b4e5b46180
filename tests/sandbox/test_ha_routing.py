"""HAProxy and PgBouncer, as the examples for operators configure them, lead to the primary."""

from __future__ import annotations

import asyncpg
import pytest

from postgres.dsn import parse_dsn
from postgres.health.pgbouncer import simple_query
from sandbox.ha import Haproxy, PairSandbox, PatroniSandbox, Pgbouncer
from sandbox.ha_home import until
from sandbox.ha_servers import HEALTHY_LIMIT


async def reached(dsn: str) -> str:
    """The port of the server that an application writes to; '' where it cannot."""
    try:
        conn = await asyncpg.connect(dsn, timeout=10, statement_cache_size=0)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return ""
    try:
        row = await conn.fetchrow("SELECT current_setting('port'), pg_is_in_recovery()")
        return "" if row is None or row[1] else str(row[0])
    finally:
        conn.terminate()


@pytest.mark.needs("patroni", "etcd", "haproxy")
async def test_haproxy_leads_to_the_primary_and_to_the_next_one(
    patroni: PatroniSandbox, haproxy: Haproxy
) -> None:
    old = await patroni.primary()
    (new,) = patroni.others(old)
    assert await haproxy.leads_to() == (old,)
    assert await reached(haproxy.dsn()) == str(patroni.port(old))
    # Not a crash: an agent that has just lost sight of etcd may restart its server in place.
    await patroni.stop_agent(old)
    assert patroni.server_pid(old) is None
    wanted = str(patroni.port(new))

    async def follows() -> bool:
        return await reached(haproxy.dsn()) == wanted

    await until(follows, HEALTHY_LIMIT, lambda: f"{new} is not reached: {patroni.logs()}")
    assert await haproxy.leads_to() == (new,)
    await patroni.healthy()
    assert await patroni.follows(old, new)


@pytest.mark.needs("pgbouncer")
async def test_pgbouncer_leads_where_its_file_says_after_a_reload(
    pair: PairSandbox, pgbouncer: Pgbouncer
) -> None:
    port = pair.port(await pair.primary())
    assert await reached(pgbouncer.dsn()) == str(port)
    assert f"host=127.0.0.1 port={port}" in pgbouncer.config.read_text()
    pgbouncer.point_to(nobody := 1)
    console = parse_dsn(pgbouncer.admin)
    await simple_query(console, "RELOAD")
    names, rows = await simple_query(console, "SHOW DATABASES")
    at = dict(zip(names, next(row for row in rows if row[0] == pgbouncer.database), strict=True))
    assert at["port"] == str(nobody)
    await pgbouncer.restart()
    pgbouncer.point_to(port)
    await simple_query(console, "RELOAD")
    assert await reached(pgbouncer.dsn()) == str(port)


@pytest.mark.needs("pgbouncer")
async def test_no_application_may_pause(pgbouncer: Pgbouncer) -> None:
    conn = await asyncpg.connect(pgbouncer.dsn(), timeout=10, statement_cache_size=0)
    await conn.close()
    with pytest.raises(asyncpg.PostgresError, match="not allowed"):
        await asyncpg.connect(pgbouncer.dsn("pgbouncer"), timeout=10)
