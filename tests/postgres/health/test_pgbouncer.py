"""The console's protocol against a real PostgreSQL, and a real PgBouncer where there is one."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from postgres.account import identity_of, server_account
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.health.pgbouncer import Pool, pools_of, simple_query, waiting_pools
from postgres.ports import free_port
from postgres.server import Server
from tests.postgres.health.conftest import Pair, Watch, connected, until

ROWS = "SELECT 1 AS a, NULL AS \"b c\" UNION ALL SELECT 2, 'x'"


@pytest.mark.parametrize("tcp", [True, False])
async def test_rows_come_with_a_scram_password_and_over_a_socket(pair: Pair, tcp: bool) -> None:  # noqa: FBT001
    target = parse_dsn(pair.primary.dsn(tcp=tcp))
    assert await simple_query(target, ROWS) == (["a", "b c"], [["1", None], ["2", "x"]])


async def test_a_wrong_password_is_refused(pair: Pair) -> None:
    dsn = SecretStr(f"postgresql://postgres:wrong@127.0.0.1:{pair.primary.port}/postgres")
    with pytest.raises(PostgresError, match="password authentication failed"):
        await waiting_pools(dsn)


async def test_a_server_that_is_no_pgbouncer_is_refused(pair: Pair) -> None:
    with pytest.raises(PostgresError, match="says nothing of use"):
        await waiting_pools(SecretStr(pair.primary.dsn()))


@pytest.mark.parametrize(
    "said",
    [
        b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"R\0\0\0\x08\0\0\0\x63",
        b"R\0\0\0\x08\0\0\0\x0b", b"R\x7f\xff\xff\xff", b"R\0\0\0\x04", b"Z\0\0\0\x05IT\0\0",
        b"Z\0\0\0\x05ID\0\0\0\x06\xff\xff",
    ],
)  # fmt: skip
async def test_junk_is_an_error_for_people(said: bytes) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port := free_port())
    async with server:
        dsn = SecretStr(f"postgresql://a:b@127.0.0.1:{port}/pgbouncer?sslmode=disable")
        with pytest.raises(PostgresError, match="PgBouncer"):
            await waiting_pools(dsn)


async def test_a_server_without_tls_is_refused_where_tls_is_asked_for(pair: Pair) -> None:
    dsn = f"postgresql://postgres@127.0.0.1:{pair.primary.port}/postgres?sslmode=require"
    with pytest.raises(PostgresError, match="offers no TLS"):
        await waiting_pools(SecretStr(dsn))


# As PgBouncer 1.18 and 1.24 have it; later ones only add columns.
NAMES = ["database", "user", "cl_active", "cl_waiting", "cl_cancel_req", "sv_active", "sv_idle",
         "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us", "pool_mode"]  # fmt: skip


def row(database: str, active: int, waiting: int, wait_s: int = 0) -> list[str | None]:
    return [database, "app", str(active), str(waiting), "0", "1", "0", "0", "0", "0",
            str(wait_s), "500000", "transaction"]  # fmt: skip


def test_waiting_clients_of_all_pools_are_summed_without_the_consoles_own() -> None:
    found = pools_of(
        NAMES, [row("pgbouncer", 1, 0), row("orders", 20, 3, 2), row("stock", 5, 9, 7)]
    )
    assert (found.waiting, found.active, found.wait_s) == (12, 25, 7.5)
    assert found.pools[0] == Pool(database="stock", user="app", active=5, waiting=9, wait_s=7.5)


def test_an_answer_without_the_columns_is_refused() -> None:
    with pytest.raises(PostgresError, match="not understood"):
        pools_of(["database"], [["orders"]])


@asynccontextmanager
async def bouncer(server: Server, folder: Path, auth: str, password: str) -> AsyncIterator[int]:
    """A PgBouncer with one server connection for all; its port."""
    folder.chmod(0o755)
    port = free_port()
    (folder / "users.txt").write_text(f'"stats" "{password}"\n"postgres" ""\n')
    config = folder / "bouncer.ini"
    config.write_text(f"""
[databases]
shop = host={server.sockets} port={server.port} dbname=postgres user=postgres pool_size=1
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = {auth}
auth_file = {folder}/users.txt
stats_users = stats
""")
    running = await asyncio.create_subprocess_exec(
        str(shutil.which("pgbouncer")), config, stderr=asyncio.subprocess.DEVNULL,
        **identity_of(server_account()),
    )  # fmt: skip

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(listens)
        yield port
    finally:
        running.terminate()
        await running.wait()


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("auth", ["trust", "plain", "md5", "scram-sha-256"])
async def test_a_real_console_answers_whatever_it_asks_for(
    pair: Pair, tmp_path: Path, auth: str
) -> None:
    stored = "s3cret" if auth != "md5" else "md5" + hashlib.md5(b"s3cretstats").hexdigest()  # noqa: S324
    home = Path(shutil.copytree(tmp_path, pair.primary.data.parent / f"bounce-{auth}"))
    async with bouncer(pair.primary, home, auth, stored) as port:
        dsn = f"postgresql://stats:s3cret@127.0.0.1:{port}/pgbouncer?sslmode=prefer"
        assert (await waiting_pools(SecretStr(dsn))).waiting == 0
    shutil.rmtree(home)


@pytest.mark.needs("pgbouncer")
async def test_clients_that_wait_in_a_real_pgbouncer_count_as_waiting(
    pair: Pair, watch: Watch
) -> None:
    home = pair.primary.data.parent / "bounce"
    home.mkdir()
    async with bouncer(pair.primary, home, "any", "") as port:
        one, two = [
            await asyncio.create_subprocess_exec(
                pair.primary.binaries.program("psql"), "-h", "127.0.0.1", "-p", str(port),
                "-U", "stats", "-d", "shop", "-c", "SELECT pg_sleep(0.4)",
                stdout=asyncio.subprocess.DEVNULL,
            )
            for _ in range(2)
        ]  # fmt: skip
        dsn = f"postgresql://stats@127.0.0.1:{port}/pgbouncer?sslmode=disable"
        look = watch(pair.primary, pgbouncer=SecretStr(dsn))

        async def waits() -> bool:
            seen = await look()
            return bool(seen.numbers["connections_waiting"] == 1)

        await until(waits)
        assert (await one.wait(), await two.wait()) == (0, 0)
    shutil.rmtree(home)


async def test_a_console_that_does_not_answer_costs_no_other_number(
    pair: Pair, watch: Watch
) -> None:
    dsn = SecretStr(f"postgresql://stats@127.0.0.1:{free_port()}/pgbouncer")
    seen = await watch(pair.primary, pgbouncer=dsn)()
    assert any("PgBouncer could not be read" in note for note in seen.detail["notes"])
    assert seen.numbers["connections_waiting"] == 0
    async with connected(pair.primary) as conn:
        assert await conn.fetchval("SELECT 1") == 1
