"""A scratch server that people use: it outlives who made it, asks for a password, and is removed.

It is the isolated copy of `postgres.restore.scratch`, but it listens over TCP, autovacuum
keeps it usable, and one new login may enter: that of production's people may not, although
the copy has all their passwords. Nobody is a superuser there over the network: a superuser
could start programs on this host.

    <home>/scratch/<id>/lock          held by whoever makes or removes it
    <home>/scratch/<id>/pgpass        the password, for us alone
    <home>/scratch/<id>/server.json   how to reach it
    <home>/scratch/<id>/scratch/      see postgres.restore.scratch
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import hmac
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg
from pydantic import BaseModel, ConfigDict, ValidationError

from postgres.account import make_open, reachable, server_account
from postgres.backup.facts import BackupFacts
from postgres.connect import connection
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.layout import Layout, setting
from postgres.ports import LOOPBACK, free_port
from postgres.postmaster import live_postmaster
from postgres.programs import run_program
from postgres.restore.scratch import remove_scratch
from postgres.server import Server

USER: Final = "twokey"
# The first with pg_read_all_data, so that the login need be no superuser.
MAJOR_MIN: Final = 14
FOLDER: Final = "scratch"
_START_SECONDS: Final = 120
_PORT_TRIES_MAX: Final = 5
_LOCK_TRIES_MAX: Final = 20
_LOG_TAIL_BYTES: Final = 20_000
_SCRAM_ROUNDS: Final = 4096
# pg_ctl hands these paths to a shell, within double quotes.
_ODD: Final = frozenset('"$`\\\n')
_HBA: Final = """\
# Written by Twokey. Only the server account can reach the socket; over TCP one login enters.
local all all    trust
host  all {user} {where} scram-sha-256
"""

FREE_NAME: Final = """
    SELECT name
      FROM unnest($1::text[]) WITH ORDINALITY AS candidates (name, position)
     WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
     ORDER BY position
     LIMIT 1
"""

# PostgreSQL quotes the names. Row security would hide rows from whoever looks for them.
MAKE_LOGIN: Final = """
    SELECT statement
      FROM (SELECT 1, format('CREATE ROLE %I LOGIN BYPASSRLS PASSWORD %L', $1::text, $2::text)
             UNION ALL
            SELECT 2, format('GRANT pg_read_all_data, pg_write_all_data TO %I', $1::text)
             UNION ALL
            SELECT 3, format('GRANT CONNECT, CREATE, TEMPORARY ON DATABASE %I TO %I',
                             datname, $1::text)
              FROM pg_database
             WHERE datallowconn) AS steps (step, statement)
     ORDER BY step
"""


class Lasting(BaseModel):
    """How to reach a lasting scratch server; never its password."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    host: str
    port: int
    user: str
    database: str
    superuser: str
    sockets: Path

    @property
    def passfile(self) -> Path:
        """The file with the password; only who runs Twokey on this host can read it."""
        return self.folder / "pgpass"

    @property
    def dsn(self) -> str:
        """For people on its host, with the place of the password instead of the password."""
        name, where = quote(self.database, safe=""), quote(str(self.passfile))
        return f"postgresql://{self.user}@{self.host}:{self.port}/{name}?passfile={where}"

    def local(self, database: str | None = None) -> Target:
        """For us on its host: over the private socket, as the superuser."""
        name, user = quote(database or self.database, safe=""), quote(self.superuser, safe="")
        where = quote(str(self.sockets), safe="")
        return parse_dsn(f"postgresql://{user}@/{name}?host={where}&port={self.port}")


async def make_lasting(
    server: Server, facts: BackupFacts, folder: Path, *, host: str = LOOPBACK
) -> Lasting:
    """Let a recovered server in `folder` outlive us, and open it to one new login.

    `server` is running, writable, and stands where `postgres.restore` puts scratch servers of
    the work folder `folder`. It is started anew, detached from this process; after an error it
    does not run.

    Raises:
        PostgresError: it is too old for this, does not start again, or its path cannot be used.
    """
    password = secrets.token_urlsafe(24)
    try:
        _check(server, facts)
        user = await _make_login(server, facts, password, spare=f"{USER}_{folder.name}")
        await server.stop("fast")
        port = await _start(server, host=host, user=user)
    except BaseException:
        await asyncio.shield(server.stop("immediate"))
        raise
    lasting = Lasting(
        folder=folder, host=host, port=port, user=user, database=facts.database,
        superuser=facts.superuser, sockets=Path(_layout(server).load().sockets),
    )  # fmt: skip
    await asyncio.to_thread(_write_down, lasting, password)
    return lasting


def read_lasting(folder: Path) -> Lasting:
    """How to reach the scratch server in a folder.

    Raises:
        PostgresError: there is none that is ready.
    """
    try:
        return Lasting.model_validate_json((folder / "server.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise PostgresError(
            f"There is no scratch server in {folder}.",
            next_step="List those that run with /db scratches, or restore another one.",
        ) from error


def may_read(folder: Path) -> bool:
    """Whether we run as who made the scratch server in this folder, and may enter it."""
    return os.access(folder / "server.json", os.R_OK)


def is_alive(folder: Path) -> bool:
    """Whether the scratch server in this folder runs."""
    return live_postmaster(_data(folder)) is not None


def lasting_folders(home: Path) -> tuple[Path, ...]:
    """All folders of scratch servers under Twokey's home, whatever is in them."""
    with suppress(FileNotFoundError):
        return tuple(sorted(path for path in (home / FOLDER).iterdir() if path.is_dir()))
    return ()


@contextmanager
def alone(folder: Path, *, make: bool = False) -> Iterator[None]:
    """Keep all others away from a scratch server's folder; the lock goes with its process.

    With `make` the folder is made if it is missing.

    Raises:
        BusyError: somebody else is at work there.
        FileNotFoundError: there is no such folder.
    """
    if make:
        make_open(folder, server_account())
    handle = _lock(folder / "lock")
    try:
        yield
    finally:
        os.close(handle)


class BusyError(PostgresError):
    """Another process makes or removes this scratch server right now."""


async def empty_lasting(folder: Path) -> None:
    """Stop and remove what an earlier attempt has made in the folder, which stays ours."""
    for name in ("server.json", "pgpass"):
        (folder / name).unlink(missing_ok=True)
    await remove_scratch(folder)


async def remove_lasting(folder: Path) -> None:
    """Stop a scratch server at once and remove all of it; harmless where there is none.

    The caller holds `alone`, whose file goes last of all.
    """
    await remove_scratch(folder)
    await asyncio.shield(asyncio.to_thread(_remove, folder))


async def remove_all(home: Path) -> tuple[str, ...]:
    """Stop and remove every scratch server under Twokey's home; their ids.

    Raises:
        BusyError: a process makes or removes one of them right now.
    """
    found = await asyncio.to_thread(lasting_folders, home)
    for folder in found:
        with alone(folder):
            await remove_lasting(folder)
    with suppress(OSError):
        (home / FOLDER).rmdir()
    return tuple(folder.name for folder in found)


def _check(server: Server, facts: BackupFacts) -> None:
    if facts.major < MAJOR_MIN:
        raise PostgresError(
            f"A scratch server of PostgreSQL {facts.major} cannot be opened to people: its login"
            " would have to be a superuser.",
            next_step=f"That takes PostgreSQL {MAJOR_MIN} or newer; restore into place, or verify.",
        )
    if _ODD & set(str(server.data)):
        raise PostgresError(
            f"The folder {server.data} has characters in its name that a shell would understand.",
            next_step="Set TWOKEY_HOME to a folder without quotes, dollars and backslashes.",
        )


async def _make_login(server: Server, facts: BackupFacts, password: str, *, spare: str) -> str:
    """A login that the copy does not have yet, with a verifier instead of the password."""
    where = parse_dsn(server.dsn(facts.database, facts.superuser))
    async with connection(where) as conn:
        try:
            user = str(await conn.fetchval(FREE_NAME, [USER, f"{USER}_scratch", spare]))
            for row in await conn.fetch(MAKE_LOGIN, user, _scram(password)):
                await conn.execute(row["statement"])
        except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            raise PostgresError(
                f"The login of the scratch server could not be made: {error}.",
                next_step="Tell the operator; the copy's own roles or settings are in the way.",
            ) from error
    return user


def _scram(password: str) -> str:
    """What PostgreSQL keeps of a password, so that no log of a server ever holds the password."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ROUNDS)
    client = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    ours = hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(part).decode() for part in (salt, client, ours)]
    return f"SCRAM-SHA-256${_SCRAM_ROUNDS}:{parts[0]}${parts[1]}:{parts[2]}"


async def _start(server: Server, *, host: str, user: str) -> int:
    """Start it so that it does not end with us; the port that it listens on."""
    layout = _layout(server)
    for _ in range(_PORT_TRIES_MAX):
        port = free_port()
        offset = await asyncio.to_thread(_configure, layout, port=port, host=host, user=user)
        try:
            done = await run_program(
                [server.binaries.program("pg_ctl"), "start", "--silent", "--wait",
                 f"--timeout={_START_SECONDS}", "-D", layout.data, "-l", layout.log],
                time_limit=timedelta(seconds=2 * _START_SECONDS),
            )  # fmt: skip
        except PostgresError as error:  # pg_ctl is gone, and what it started may not be
            raise _failed(layout, error.problem) from error
        if done.code == 0:
            return port
        await asyncio.shield(server.stop("immediate"))
        said = _said(layout, offset)
        if "Address already in use" not in said:
            raise _failed(layout, said or done.last_words)
    raise _failed(layout, f"no free port was found on {host}")


def _configure(layout: Layout, *, port: int, host: str, user: str) -> int:
    """Write how it shall run; how long its log is."""
    notes = layout.load()
    kept = {k: v for k, v in notes.settings.items() if not k.startswith("recovery_")}
    opened = {"listen_addresses": host, "autovacuum": "on", "restore_command": ""}
    layout.save(notes.model_copy(update={"port": port, "settings": {**kept, **opened}}))
    where = f"{LOOPBACK}/32" if host == LOOPBACK else "all"
    quoted = '"' + user.replace('"', '""') + '"'
    (layout.run / "hba.conf").write_text(_HBA.format(user=quoted, where=where))
    _write(layout.data / "postgresql.conf", f"include = {setting(str(layout.config))}\n", give=True)
    with layout.log.open("ab") as log:  # pg_ctl has the server's account write it
        if account := server_account():
            os.fchown(log.fileno(), account.uid, account.gid)
        return log.tell()


def _write_down(lasting: Lasting, password: str) -> None:
    place = f"{lasting.host}:{lasting.port}:*:{lasting.user}"
    _write(lasting.passfile, f"{place}:{password}\n")
    # Last: with it, it counts as ready.
    _write(lasting.folder / "server.json", lasting.model_dump_json(indent=1) + "\n")


def _write(path: Path, text: str, *, give: bool = False) -> None:
    """A file of its own that nobody else can read; with `give`, the server's account alone."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w") as file:
        if give and (account := server_account()):
            os.fchown(handle, account.uid, account.gid)
        file.write(text)


def _lock(path: Path) -> int:
    """The open lock file. One that was removed meanwhile keeps nobody away: then once more."""
    for _ in range(_LOCK_TRIES_MAX):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(handle, path):
                return handle
        except BlockingIOError:
            os.close(handle)
            break
        os.close(handle)
    raise BusyError(
        f"Another process is at work on the scratch server {path.parent.name}.",
        next_step="Wait until it is done: /db scratches shows what came of it.",
    )


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _layout(server: Server) -> Layout:
    return Layout(data=server.data, named=server.data)


def _data(folder: Path) -> Path:
    return reachable(folder / "scratch", server_account()) / "data"


def _said(layout: Layout, offset: int) -> str:
    with layout.log.open("rb") as log:
        log.seek(offset)
        return log.read(_LOG_TAIL_BYTES).decode(errors="replace")


def _failed(layout: Layout, said: str) -> PostgresError:
    fatal = [line for line in said.splitlines() if "FATAL:" in line or "PANIC:" in line]
    reason = (fatal or said.strip().splitlines() or ["it said nothing"])[-1]
    return PostgresError(
        f"The scratch server did not start: {reason.split('FATAL:')[-1].strip()}.",
        next_step=f"Read the end of {layout.log}, mend what it names, and restore once more.",
    )
