"""`alembic revision --autogenerate` on a copy of the team's folder, against a small server of ours.

The application's code runs in a child process, with its own Python. It gets the address of the
copy and no other: no login of any database of the inventory, no home, nothing of our environment.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from jobs.operation import JobError
from postgres.binaries import Binaries
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.programs import run_program
from postgres.schema.catalog import Catalog, full
from postgres.schema.declared import scratch_server
from postgres.schema.drafting import PRESENT, copy_present
from postgres.server import Server

TIME_LIMIT: Final = timedelta(seconds=40)
FOLDER_BYTES_MAX: Final = 50 * 2**20
FILES_MAX: Final = 5000
_TEXT_BYTES_MAX: Final = 200_000
_LEFT_OUT: Final = (".git", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache")
_ROLE: Final = "declared"
# Standard library and Alembic alone: it runs in the application's interpreter.
_CHILD: Final = """
import json, os, sys
ask = json.loads(os.environ.pop("TWOKEY_ALEMBIC_ASK"))
answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
os.chdir(ask["folder"])
sys.path[0] = ask["folder"]
sys.path.append(ask["original"])
from alembic import command
from alembic.config import Config
config = Config("alembic.ini")
said = config.get_main_option("sqlalchemy.url") or ""
scheme = said.partition("://")[0] if said.startswith("postgresql") else "postgresql"
url = scheme + "://" + ask["url"].partition("://")[2]
config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
made = command.revision(config, message=ask["message"], autogenerate=True)
made = made if isinstance(made, list) else [made]
with answer:
    json.dump([[os.path.basename(m.path), open(m.path, encoding="utf-8").read()] for m in made],
              answer)
"""


async def alembic_draft(
    binaries: Binaries,
    folder: Path,
    *,
    python: Path | None,
    present: Catalog,
    versions: Sequence[str],
    table: tuple[str, str],
    message: str,
) -> tuple[Sequence[tuple[str, str]], tuple[str, ...]]:
    """The files that Alembic would write (name, text), and what of the schema is not in the copy.

    `versions`: what the database's own bookkeeping holds. `table`: its schema or '', its name.

    Raises:
        JobError: the folder is too large, or Alembic refuses.
        PostgresError: no server can be started here.
    """
    root = Path(tempfile.mkdtemp(prefix="twokey-alembic-"))
    try:
        copy = await asyncio.to_thread(_copied, folder, root)
        async with scratch_server(binaries) as server:
            _, missing = await copy_present(server, present)
            await _book(server, versions, table)
            found = await _run(server, folder, copy, python or Path(sys.executable), message)
        return found, missing
    finally:
        await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)


def _copied(folder: Path, root: Path) -> Path:
    """The folder once more, so that nothing is written into the team's.

    Raises:
        JobError: it is too large for that.
    """
    size = files = 0
    for path in folder.rglob("*"):
        if set(path.relative_to(folder).parts) & set(_LEFT_OUT) or not path.is_file():
            continue
        size, files = size + path.stat().st_size, files + 1
        if size > FOLDER_BYTES_MAX or files > FILES_MAX:
            raise JobError(
                f"{folder.name} has more than {FOLDER_BYTES_MAX / 2**20:.0f} MB or"
                f" {FILES_MAX:,} files, so it is not copied.",
                next_step="Run `alembic revision --autogenerate` there yourself.",
            )
    into = root / "folder"
    shutil.copytree(folder, into, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    return into


async def _book(server: Server, versions: Sequence[str], table: tuple[str, str]) -> None:
    name = full(*table)
    async with connection(parse_dsn(server.dsn(PRESENT, _ROLE))) as conn:
        await conn.execute(f"CREATE TABLE {name} (version_num varchar(255) PRIMARY KEY)")
        for version in versions:
            await conn.execute(f"INSERT INTO {name} VALUES ($1)", version)  # noqa: S608 - quoted


async def _run(
    server: Server, folder: Path, copy: Path, python: Path, message: str
) -> Sequence[tuple[str, str]]:
    url = server.dsn(PRESENT, _ROLE)
    original = str(await asyncio.to_thread(folder.resolve))
    ask = {"folder": str(copy), "original": original, "url": url, "message": message}
    done = await run_program(
        [python, "-c", _CHILD],
        time_limit=TIME_LIMIT,
        as_server=False,
        environ={
            "HOME": "/nonexistent",  # there may be a .pgpass in ours
            "PYTHONDONTWRITEBYTECODE": "1",
            "DATABASE_URL": url,
            "SQLALCHEMY_DATABASE_URI": url,
            "TWOKEY_ALEMBIC_ASK": json.dumps(ask),
        },
        stdout_bytes_max=_TEXT_BYTES_MAX,
    )
    if done.code:
        raise JobError(
            f"Alembic could not draft a revision: {done.last_words[:500]}.",
            next_step="Apply what is pending first; then see what `alembic revision"
            " --autogenerate` says there.",
        )
    try:
        return [(str(name), str(text)) for name, text in json.loads(done.stdout)]
    except ValueError:
        raise JobError(
            "What Alembic drafted is longer than we show.",
            next_step="Run `alembic revision --autogenerate` there yourself.",
        ) from None
