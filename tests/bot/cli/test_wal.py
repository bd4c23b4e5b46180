"""`twokey wal push`, as a server's archive_command."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from bot.cli.main import app
from bot.cli.wal_push import as_usual
from postgres.account import server_account
from postgres.backup.sealing import new_identity
from postgres.backup.wal import gaps
from postgres.backup.wal_archive import WalArchive
from postgres.binaries import find_binaries
from postgres.server import Server, create
from tests.conftest import folder_of_its_own
from tests.postgres.backup.wal_samples import content, name_of, write

ROOT = Path(__file__).parents[3]
START = "from bot.cli.start import main; main()"
HEAVY = {"typer", "pydantic", "asyncpg", "sqlalchemy", "slack_sdk", "aiohttp", "pyrage"}


def push(*arguments: str | Path, start: str = START) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", start, "wal", "push", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=150,
    )  # fmt: skip


def test_a_pushed_file_is_kept_again_and_again(tmp_path: Path) -> None:
    source = write(tmp_path, 1, 5)
    for _ in range(2):
        done = push("--folder", tmp_path / "orders", source, source.name)
        assert (done.returncode, done.stderr) == (0, "")
    listing = asyncio.run(WalArchive(tmp_path / "orders" / "wal").listing())
    assert [segment.name for segment in listing.segments] == [source.name]


def test_a_different_file_of_that_name_is_refused_with_a_code_that_the_server_repeats(
    tmp_path: Path,
) -> None:
    source = write(tmp_path, 1, 5)
    assert push("--folder", tmp_path / "orders", source, source.name).returncode == 0
    write(tmp_path, 1, 5, seed=1)
    done = push("--folder", tmp_path / "orders", source, source.name)
    assert done.returncode == 1
    assert "already holds another file" in done.stderr
    assert "→" in done.stderr


@pytest.mark.parametrize(
    ("path", "name", "says"),
    [
        ("missing", name_of(1, 5), "No such file"),
        ("zeros", name_of(1, 5), "does not begin as WAL does"),
        ("zeros", "hello", "no name of a WAL file"),
    ],
)
def test_what_cannot_be_kept_is_said_and_tried_again(
    tmp_path: Path, path: str, name: str, says: str
) -> None:
    (tmp_path / "zeros").write_bytes(bytes(1 << 20))
    done = push("--folder", tmp_path / "orders", tmp_path / path, name)
    assert done.returncode == 1
    assert says in done.stderr
    assert "→" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_does_not_wait_for_what_it_does_not_need(tmp_path: Path) -> None:
    source = write(tmp_path, 1, 5)
    watched = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {START}"
    done = push("--folder", tmp_path / "orders", source, source.name, start=watched)
    assert done.returncode == 0
    assert not HEAVY & set(done.stdout.split())


def test_everything_else_is_asked_as_of_any_command(tmp_path: Path) -> None:
    keys = new_identity()
    source = write(tmp_path, 1, 5)
    done = CliRunner().invoke(
        app,
        ["wal", "push", str(source), source.name, "--folder", str(tmp_path / "orders"),
         "--recipient", keys.recipient],
    )  # fmt: skip
    assert done.exit_code == 0
    archive = WalArchive(tmp_path / "orders" / "wal", identity=keys.identity)
    asyncio.run(archive.stage([source.name], tmp_path / "out"))
    assert (tmp_path / "out" / source.name).read_bytes() == content(1, 5)
    assert "--recipient" in CliRunner().invoke(app, ["wal", "push", "--help"]).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["--folder", "f", "path"],
        ["--folder", "--recipient", "path", "name"],
        ["--folder", "f", "path", "--help"],
        ["path", "name", "--folder", "f"],
    ],
)
def test_only_the_usual_words_take_the_short_way(arguments: list[str]) -> None:
    assert as_usual(arguments) is None
    assert as_usual(["--folder", "f", "path", "name"]) == (Path("f"), "path", "name")


def test_files_are_as_open_as_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "orders" / "wal"
    folder.mkdir(parents=True)
    folder.chmod(0o2750)
    source = write(tmp_path, 1, 5)
    assert push("--folder", tmp_path / "orders", source, source.name).returncode == 0
    kept = [path for path in folder.iterdir() if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o640}


@pytest.fixture
def archiving() -> Iterator[tuple[Server, Path]]:
    """A server whose archive_command is ours, and the backup folder that it fills."""
    python = _python()
    home = folder_of_its_own()
    folder = home / "backups"
    folder.mkdir()
    if account := server_account():
        os.chown(folder, account.uid, account.gid)
    places = os.pathsep.join([str(ROOT), *(p for p in sys.path if p.endswith("site-packages"))])
    command = f'PYTHONPATH={places} {python} -c "{START}" wal push --folder {folder} %p %f'
    settings = {
        "fsync": "off", "shared_buffers": "16MB", "max_connections": "10",
        "wal_level": "replica", "archive_mode": "on", "archive_command": command,
    }  # fmt: skip
    made = asyncio.run(
        create(find_binaries(os.environ), home / "data", settings=settings, sync=False)
    )
    asyncio.run(made.start())
    try:
        yield made, folder
    finally:
        asyncio.run(made.remove())
        subprocess.run(["/bin/rm", "-rf", str(home)], check=False)


def _python() -> str:
    """A Python of our version that the server's account can run."""
    if server_account() is None:
        return sys.executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if Path(candidate).exists():
            return candidate
    pytest.skip(f"no {version} that the server's account can run")


async def test_a_server_archives_with_it(archiving: tuple[Server, Path]) -> None:
    server, folder = archiving
    conn = await asyncpg.connect(server.dsn(), timeout=30)
    try:
        wanted = await conn.fetchval("SELECT pg_walfile_name(pg_current_wal_lsn())")
        await conn.execute("CREATE TABLE t AS SELECT 1 AS one")
        await conn.execute("SELECT pg_switch_wal()")
        async with asyncio.timeout(30):
            while await conn.fetchval("SELECT last_archived_wal FROM pg_stat_archiver") != wanted:
                await asyncio.sleep(0.05)
        failed = await conn.fetchval("SELECT failed_count FROM pg_stat_archiver")
    finally:
        await conn.close()
    listing = await WalArchive(folder / "wal").listing()
    assert [segment.name for segment in listing.segments][-1] == wanted
    assert gaps(listing, 16 * 1024 * 1024) == ()
    assert failed == 0
