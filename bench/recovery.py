"""Backup, restore and recovery to a moment: ours beside pg_basebackup by hand, pgBackRest, Barman.

All of them on one server of PostgreSQL 15 (what Debian's pgBackRest knows), on rows that
compress well and on rows that do not, in interleaved rounds. What a recovery is measured by is
the time until a server stands at the moment, read-write.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from bench.backup import SCALE, Cost, checked, cost, middle, tool
from bench.places import ROOT, free_port, make_database
from bench.table import Result
from postgres.account import server_account
from postgres.backup.engine import TakeOrder
from postgres.backup.native_engine import NativeEngine
from postgres.backup.receiver import Receiver
from postgres.backup.wal_archive import WalArchive
from postgres.dsn import parse_dsn
from postgres.restore.folders import remove_scratch
from postgres.restore.recovery import plan_recovery, recover
from postgres.restore.target import parse_target
from postgres.server import Server, create, find_binaries

MAJOR = 15
ROUNDS = 3
TRANSACTIONS = 20_000  # of each of two clients, between a backup and the moment
SETTLE_SECONDS_MAX = 60
STANZA = "orders"
PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(slots=True, kw_only=True)
class Field:
    """The server, where everybody keeps what they keep, and what it has cost so far."""

    folder: Path
    server: Server
    native: NativeEngine
    config: Path  # pgBackRest's; not there where it is not installed
    barman: Path  # Barman's, likewise
    costs: dict[str, list[Cost]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def has_pgbackrest(self) -> bool:
        """Whether pgBackRest is measured too."""
        return self.config.exists()

    @property
    def has_barman(self) -> bool:
        """Whether Barman is measured too."""
        return self.barman.exists()

    async def add(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Measure `work` under this name."""
        self.costs.setdefault(name, []).append(await cost(work))


async def measure() -> list[Result]:
    """Medians of interleaved rounds, for both sets of rows."""
    async with _field() as on:
        await tool(on.server, "pgbench", "--initialize", f"--scale={SCALE}", "--quiet", "orders")
        well = await _measured(on, "20:1")
        await tool(on.server, "psql", "--quiet", "--dbname=orders", f"--command={HARDER}")
        return well + await _measured(on, "3:1")


HARDER = (
    "ALTER TABLE pgbench_accounts ALTER filler TYPE text"
    " USING md5(aid::text) || md5((aid + 1)::text) || repeat(' ', 20)"
)


async def _measured(on: Field, kind: str) -> list[Result]:
    on.costs.clear()
    await tool(on.server, "psql", "--quiet", "-d", "orders", "-c", "VACUUM FREEZE ANALYZE")
    await tool(on.server, "psql", "--quiet", "-d", "orders", "-c", "CHECKPOINT")
    for number in range(ROUNDS):
        await _backups(on, f"{kind.replace(':', '-')}-{number}")
    await _transactions(on)
    moment = await _moment(on)
    await _transactions(on)
    await _archived(on)
    for _ in range(ROUNDS):
        await _recoveries(on, moment)
    size = await _size(on)
    return _rows(on, f"{size / 1e9:.2f} GB that compress {kind}")


async def _backups(on: Field, name: str) -> None:
    by_hand = on.folder / "hand"
    shutil.rmtree(by_hand, ignore_errors=True)
    await on.add("hand backup", lambda: _by_hand(on, by_hand))
    on.sizes["hand"] = _bytes_in(by_hand)
    order = TakeOrder(backup_id=f"orders-{name}")
    await on.add("native backup", lambda: on.native.take(order))
    on.sizes["native"] = _bytes_in(on.native.folder / order.backup_id)
    if on.has_pgbackrest:
        await on.add("pgbackrest backup", lambda: _pgbackrest(on, "--type=full", "backup"))
    if on.has_barman:
        await on.add("barman backup", lambda: _barman(on, "backup", "--wait", STANZA))


async def _by_hand(on: Field, folder: Path) -> None:
    await tool(
        on.server, "pg_basebackup", f"--pgdata={folder}", "--format=tar", "--wal-method=stream",
        "--checkpoint=fast", "--manifest-checksums=SHA256",
        f"--compress=server-zstd:level=1,workers={min(4, os.cpu_count() or 1)}", as_server=False,
    )  # fmt: skip


async def _recoveries(on: Field, moment: datetime) -> None:
    """The newest backup of each, to its own end and to the moment."""
    for task, at in (("restore", None), ("recovery", moment)):
        await _recovery(on, task, at)


async def _recovery(on: Field, task: str, at: datetime | None) -> None:
    work = on.folder / "work"
    await on.add(f"hand {task}", lambda: _recover_by_hand(on, work, at))
    await _gone(work)
    await on.add(f"native {task}", lambda: _recover_natively(on, work, at))
    await remove_scratch(work)
    if on.has_pgbackrest:
        await on.add(f"pgbackrest {task}", lambda: _recover_by_pgbackrest(on, work, at))
        await _gone(work)
    if on.has_barman:
        await on.add(f"barman {task}", lambda: _recover_by_barman(on, work, at))
        await _gone(work)


async def _recover_natively(on: Field, work: Path, at: datetime | None) -> None:
    target = parse_target(at.isoformat() if at else "end", now=datetime.now(UTC))
    choice = await plan_recovery(on.native, target)
    await recover(on.native, on.server.binaries, choice, work)


async def _recover_by_hand(on: Field, work: Path, at: datetime | None) -> None:
    wal = on.native.folder / "wal"
    lay = f"""
zstd -dcq {on.folder}/hand/base.tar.zst | tar -x -C {work}/d
tar -xf {on.folder}/hand/pg_wal.tar -C {work}/d/pg_wal
"""
    if at is not None:
        lay += f"""
mkdir {work}/wal
zstd -dq --output-dir-flat {work}/wal {wal}/*.zst
cat >> {work}/d/postgresql.auto.conf <<X
restore_command = 'cp {work}/wal/%f %p'
recovery_target_time = '{at.isoformat(sep=" ")}'
recovery_target_action = 'promote'
X
touch {work}/d/recovery.signal
"""
    await _script(on, work, lay)


async def _recover_by_pgbackrest(on: Field, work: Path, at: datetime | None) -> None:
    target = f"--type=time --target='{at.isoformat(sep=' ')}'" if at else "--type=immediate"
    lay = f"""
{_given(work)}
{_become()} pgbackrest --config={on.config} --stanza={STANZA} --pg1-path={work}/d {target} \
  --target-action=promote --archive-mode=off --log-level-console=warn restore
"""
    await _script(on, work, lay)


async def _recover_by_barman(on: Field, work: Path, at: datetime | None) -> None:
    target = f"--target-time '{at.isoformat(sep=' ')}'" if at else "--target-immediate"
    lay = f"""
{_given(work)}
{_become()} barman -q -c {on.barman} recover {target} --target-action promote --no-get-wal \
  {STANZA} latest {work}/d
"""
    await _script(on, work, lay)


def _become() -> str:
    account = server_account()
    return f"runuser -u {account.name} --" if account else ""


def _given(work: Path) -> str:
    account = server_account()
    return f"chown -R {account.name}: {work}" if account else ""


async def _script(on: Field, work: Path, lay: str) -> None:
    """Lay out by `lay`, start, and wait until it is read-write."""
    port, become = free_port(), _become()
    programs = on.server.binaries.folder
    text = f"""
set -euo pipefail
umask 077
cd /
rm -rf {work}; mkdir -p {work}/s {work}/d
{lay}
{_given(work)}
cat >> {work}/d/postgresql.auto.conf <<X
port = {port}
listen_addresses = ''
unix_socket_directories = '{work}/s'
hba_file = '{work}/d/pg_hba.conf'
archive_mode = off
fsync = off
max_connections = 200
X
{become} {programs}/pg_ctl -D {work}/d -l {work}/s/log -w -t 600 start >/dev/null \
  || {{ tail -5 {work}/s/log >&2; exit 1; }}
for i in $(seq 1 6000); do
  state=$({become} {programs}/psql -h {work}/s -p {port} -U postgres -d postgres -Atc \
    'SELECT pg_is_in_recovery()' 2>/dev/null || true)
  if [ "$state" = f ]; then exit 0; fi
  sleep 0.05
done
exit 1
"""
    await checked(["bash", "-c", text], as_server=False, environ=PATH)


async def _gone(work: Path) -> None:
    account = server_account()
    become = ["runuser", "-u", account.name, "--"] if account else []
    stop = "/usr/lib/postgresql/15/bin/pg_ctl"
    await checked(
        [*become, stop, "-D", str(work / "d"), "-m", "immediate", "-w", "stop"],
        as_server=False, environ=PATH,
    )  # fmt: skip
    shutil.rmtree(work)


async def _transactions(on: Field) -> None:
    await tool(
        on.server, "pgbench", "--no-vacuum", "--client=2", "--jobs=2",
        f"--transactions={TRANSACTIONS}", "--protocol=prepared", "orders",
    )  # fmt: skip


async def _moment(on: Field) -> datetime:
    conn = await asyncpg.connect(on.server.dsn("orders"))
    try:
        at: datetime = await conn.fetchval("SELECT clock_timestamp()")
    finally:
        await conn.close()
    return at


async def _archived(on: Field) -> None:
    """Until all WAL of up to now is with everybody."""
    conn = await asyncpg.connect(on.server.dsn("orders"))
    try:
        name = await conn.fetchval("SELECT pg_walfile_name(pg_switch_wal())")
        async with asyncio.timeout(SETTLE_SECONDS_MAX):
            while True:
                archive = await on.native.archive()
                last = await conn.fetchval("SELECT last_archived_wal FROM pg_stat_archiver")
                here = {each.name for each in archive.segments if not each.is_partial}
                if name in here and (not on.has_pgbackrest or (last or "") >= name):
                    return
                await asyncio.sleep(0.2)
    finally:
        await conn.close()


async def _size(on: Field) -> int:
    found = await tool(
        on.server, "psql", "-At", "-d", "orders", "-c", "SELECT pg_database_size('orders')"
    )
    return int(found.stdout)


def _rows(on: Field, what: str) -> list[Result]:
    rows = []
    for task, aims in (
        ("backup", {"hand": "wall at most 1.1", "pgbackrest": "wall at most 0.5"}),
        ("restore", {"hand": "", "pgbackrest": ""}),
        ("recovery", {"hand": "", "pgbackrest": "wall at most 0.8"}),
    ):
        ours = on.costs[f"native {task}"]
        for other, aim in {**aims, "barman": ""}.items():
            if base := on.costs.get(f"{other} {task}"):
                rows.append(_row(f"{task} of {what}", other, ours, base, aim))
    rows.append(
        Result(
            what=f"size of that backup of {what}",
            ours=f"{on.sizes['native'] / 1e6:.0f} MB",
            floor=f"{on.sizes['hand'] / 1e6:.0f} MB (pg_basebackup by hand)",
            ratio=f"{on.sizes['native'] / on.sizes['hand']:.2f}",
        )
    )
    return rows


NAMES = {
    "hand": "pg_basebackup server-zstd by hand",
    "pgbackrest": "pgBackRest zst 1",
    "barman": "Barman",
}


def _row(what: str, other: str, ours: list[Cost], base: list[Cost], aim: str) -> Result:
    wall, cpu = middle(ours, "wall"), middle(ours, "cpu")
    wall_base, cpu_base = middle(base, "wall"), middle(base, "cpu")
    return Result(
        what=f"{what}: wall / CPU",
        ours=f"{wall:.1f} / {cpu:.1f} s",
        floor=f"{wall_base:.1f} / {cpu_base:.1f} s ({NAMES[other]})",
        ratio=f"{wall / wall_base:.2f} / {cpu / cpu_base:.2f}",
        aim=aim,
    )


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@asynccontextmanager
async def _field() -> AsyncIterator[Field]:
    (ROOT / ".bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".bench", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with AsyncExitStack() as stack:
            config = folder / "pgbr" / "pgbackrest.conf"
            server = await create(
                find_binaries(os.environ, major=MAJOR), folder / "pg", settings=_settings(config)
            )
            barman = folder / "barman" / "barman.conf"
            if shutil.which("pgbackrest"):
                _configure(config, server)
            if shutil.which("barman"):
                _configure_barman(barman, server)
            await server.start()
            stack.push_async_callback(server.stop, "immediate")
            await make_database(server, "orders")
            native = NativeEngine(dsn=SecretStr(server.dsn("orders")), folder=folder / "backups")
            on = Field(folder=folder, server=server, native=native, config=config, barman=barman)
            if on.has_pgbackrest:
                await _pgbackrest(on, "stanza-create")
            if on.has_barman:
                stack.push_async_callback(_barman, on, "receive-wal", "--stop", STANZA)
                await _barman(on, "receive-wal", "--create-slot", STANZA)
                await _barman(on, "cron")
                await _barman(on, "switch-wal", "--force", "--archive", STANZA)
            receiver = Receiver(
                binaries=server.binaries, target=parse_dsn(server.dsn("orders")), slot="bench",
                archive=WalArchive(folder / "backups" / "wal"),
            )  # fmt: skip
            running = asyncio.create_task(receiver.run())
            stack.push_async_callback(_ended, running)
            yield on


async def _ended(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.wait([running])


def _settings(config: Path) -> Mapping[str, str]:
    command = f"pgbackrest --config={config} --stanza={STANZA} archive-push %p"
    return {
        "max_connections": "200",
        "shared_buffers": "256MB",
        "max_wal_size": "4GB",
        "archive_mode": "on" if shutil.which("pgbackrest") else "off",
        "archive_command": command,
    }


def _configure(config: Path, server: Server) -> None:
    folder = config.parent
    for name in ("", "repo", "log", "lock", "spool"):
        (folder / name).mkdir(mode=0o750)
    config.write_text(f"""[global]
repo1-path={folder}/repo
log-path={folder}/log
lock-path={folder}/lock
spool-path={folder}/spool
repo1-bundle=y
repo1-retention-full=9
compress-type=zst
compress-level=1
process-max={min(4, os.cpu_count() or 1)}
start-fast=y

[{STANZA}]
pg1-path={server.data}
pg1-port={server.port}
pg1-socket-path={server.sockets}
pg1-user=postgres
""")
    _hand(folder)


def _hand(folder: Path) -> None:
    if account := server_account():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.uid, account.gid)


def _configure_barman(config: Path, server: Server) -> None:
    folder = config.parent
    for name in ("", "conf.d", "home", "lock"):
        (folder / name).mkdir(mode=0o750)
    reached = f"host={server.sockets} port={server.port} user=postgres dbname=postgres"
    config.write_text(f"""[barman]
barman_user = {os.environ.get("USER", "postgres") if not server_account() else "postgres"}
configuration_files_directory = {folder}/conf.d
barman_home = {folder}/home
barman_lock_directory = {folder}/lock
log_file = {folder}/barman.log

[{STANZA}]
description = "orders"
conninfo = {reached}
streaming_conninfo = {reached}
backup_method = postgres
streaming_archiver = on
slot_name = barman
path_prefix = {server.binaries.folder}
immediate_checkpoint = true
""")
    _hand(folder)


async def _barman(on: Field, *words: str) -> None:
    await checked(["/usr/bin/barman", "-q", "-c", on.barman, *words], as_server=True, environ=PATH)


async def _pgbackrest(on: Field, *words: str) -> None:
    await checked(
        ["/usr/bin/pgbackrest", f"--config={on.config}", f"--stanza={STANZA}",
         "--log-level-console=warn", *words],
        as_server=True, environ=PATH,
    )  # fmt: skip
