"""New data folders: empty ones, and copies of a running primary."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

import asyncpg

from postgres.account import Account, make_private, server_account
from postgres.binaries import Binaries
from postgres.errors import PostgresError
from postgres.layout import SUPERUSER, Layout
from postgres.programs import Finished, run_program

_INITDB_LIMIT: Final = timedelta(minutes=5)
_COPY_LIMIT: Final = timedelta(hours=6)
_SECONDS_MAX: Final = 30
_SLOT_CHARS_MAX: Final = 63
_FIRST_WITH_BUILTIN_LOCALES: Final = 17

# A slot that an interrupted attempt left behind would keep WAL for nobody.
DROP_SLOT: Final = """
    SELECT pg_drop_replication_slot(slot_name)
      FROM pg_replication_slots
     WHERE slot_name = $1
       AND NOT active
"""


async def make_cluster(binaries: Binaries, data: Path, *, sync: bool) -> Layout:
    """Make an empty data folder, whole or not at all.

    Raises:
        PostgresError: the folder is not empty or cannot be used, or initdb failed.
    """
    account = server_account()
    layout, partial = _prepare(data, account)
    try:
        word = _password_file(layout, account)
        command: list[str | Path] = [binaries.program("initdb"), "-D", partial, f"--pwfile={word}"]
        command += ["--username", SUPERUSER, "--encoding=UTF8", "--data-checksums"]
        command += ["--auth-local=trust", "--auth-host=scram-sha-256", *_locale(binaries)]
        done = await run_program(
            command if sync else [*command, "--no-sync"], time_limit=_INITDB_LIMIT
        )
        if done.code:
            raise _failed("initdb", data, done)
        partial.rename(layout.data)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(layout.run / "new", ignore_errors=True)
    return layout


async def copy_primary(
    binaries: Binaries, data: Path, *, dsn: str, sockets: Path, slot: str | None
) -> tuple[Layout, Mapping[str, str]]:
    """Copy a running primary into a data folder; also the settings with which to follow it.

    Raises:
        PostgresError: the primary cannot be reached, or the folder or the copy fails.
    """
    name = slot or re.sub(r"[^a-z0-9_]", "_", data.name.lower())[:_SLOT_CHARS_MAX]
    account = server_account()
    layout, partial = _prepare(data, account)
    port = await _drop_leftover_slot(dsn, name)
    try:
        _password_file(layout, account)
        command: list[str | Path] = [
            binaries.program("pg_basebackup"),
            "-D",
            partial,
            "-Fp",
            "-X",
            "stream",
        ]
        command += ["-c", "fast", "-C", "-S", name, "--no-password"]
        where = {"PGHOST": str(sockets), "PGPORT": str(port), "PGUSER": SUPERUSER}
        done = await run_program(command, time_limit=_COPY_LIMIT, environ=where)
        if done.code:
            raise _failed("pg_basebackup", data, done)
        (partial / "standby.signal").touch()
        partial.rename(layout.data)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(layout.run / "new", ignore_errors=True)
    conninfo = f"host='{sockets}' port={port} user={SUPERUSER} application_name={name}"
    return layout, {"primary_conninfo": conninfo, "primary_slot_name": name}


def major_of(data: Path) -> int:
    """The major version of a data folder.

    Raises:
        PostgresError: it is none.
    """
    try:
        return int((data / "PG_VERSION").read_text().strip())
    except (OSError, ValueError) as error:
        raise PostgresError(
            f"{data} is no data folder of PostgreSQL.",
            next_step="Name another folder, or make a new server.",
        ) from error


def _prepare(data: Path, account: Account | None) -> tuple[Layout, Path]:
    """The layout, and an empty folder to work in that is renamed when it is complete."""
    layout = Layout.at(data)
    if layout.data.exists() and any(layout.data.iterdir()):
        raise PostgresError(
            f"The folder {data} is not empty.",
            next_step="Name a new folder for a new server, or open the one that is there.",
        )
    layout.link()
    partial = layout.data.with_name(layout.data.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    make_private(partial, account)
    layout.make_run()
    return layout, partial


def _password_file(layout: Layout, account: Account | None) -> Path:
    """Make a random password; the path of a copy that the account can read."""
    word = secrets.token_urlsafe(24)
    layout.password.unlink(missing_ok=True)
    _write_new(layout.password, word, None)
    shutil.rmtree(layout.run / "new", ignore_errors=True)
    make_private(layout.run / "new", account)
    copy = layout.run / "new" / "password"
    _write_new(copy, word, account)
    return copy


def _write_new(path: Path, text: str, account: Account | None) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w") as file:
        if account:
            os.fchown(handle, account.uid, account.gid)
        file.write(text + "\n")


def _locale(binaries: Binaries) -> list[str]:
    """A locale that sorts the same on every machine, so that a copy's indexes stay right."""
    if binaries.major >= _FIRST_WITH_BUILTIN_LOCALES:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C"]


async def _drop_leftover_slot(dsn: str, name: str) -> int:
    """Make way for the slot; the primary's port."""
    try:
        conn = await asyncpg.connect(dsn, timeout=_SECONDS_MAX)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise PostgresError(
            f"The primary cannot be reached: {error}.",
            next_step="Start the primary, then make the standby again.",
        ) from error
    try:
        await conn.execute(DROP_SLOT, name, timeout=_SECONDS_MAX)
        return int(await conn.fetchval("SHOW port", timeout=_SECONDS_MAX))
    finally:
        await conn.close(timeout=_SECONDS_MAX)


def _failed(program: str, data: Path, done: Finished) -> PostgresError:
    return PostgresError(
        f"{program} could not make {data}: {done.last_words}",
        next_step="Mend what it names (often a full disk or a folder's owner), then try again.",
    )
