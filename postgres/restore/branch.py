"""Give a stopped server a timeline of its own, without anybody being able to use it meanwhile.

A server that comes back after another one has written WAL of the same cluster must not go on
with the old numbers: whoever recovers "the latest" would follow the wrong one of the two. So it
is promoted once, on a private socket that rejects everybody, and stopped in good order again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from postgres.account import make_private, server_account
from postgres.errors import PostgresError
from postgres.ports import free_port
from postgres.programs import run_program
from postgres.restore.control import (
    ControlFacts,
    Instance,
    control_facts,
    standing,
    start,
    stop,
    stop_hard,
)
from postgres.restore.exchange import sync_tree

_LIMIT: Final = timedelta(minutes=10)
_REJECT: Final = "local all all reject\nhost all all all reject\n"


async def branch(data: Path, programs: Path, histories: Mapping[str, str]) -> ControlFacts:
    """Promote the stopped server on `data`; what its control file says afterwards.

    `histories` are the history files of timelines whose numbers are taken, name -> text.
    Harmless when it is done twice: then there is one more timeline.

    Raises:
        PostgresError: it cannot be promoted. It is stopped.
    """
    before = await control_facts(programs, data)
    home = Path(tempfile.mkdtemp(prefix="twokey-"))
    instance = Instance(
        data=data, program=programs / "postgres", arguments=_alone(home, before), log=home / "log"
    )
    try:
        await stop(instance, time_limit=_LIMIT)  # a worker may have died at this very point
        await asyncio.to_thread(_prepare, data, home, histories)
        await start(instance, time_limit=_LIMIT)
        await _promote(instance)
        await stop(instance, time_limit=_LIMIT)
        await asyncio.to_thread(sync_tree, data)
    finally:
        (data / "standby.signal").unlink(missing_ok=True)
        if standing(data) != "down":
            await asyncio.shield(stop_hard(instance))
        shutil.rmtree(home, ignore_errors=True)
    after = await control_facts(programs, data)
    if not after.is_clean or after.timeline <= before.timeline:
        raise PostgresError(
            f"{data} was not promoted (timeline {after.timeline}, {after.state}).",
            next_step="See its log, then ask again.",
        )
    return after


def _alone(home: Path, facts: ControlFacts) -> tuple[str, ...]:
    """Arguments that win over every file of the server's own configuration."""
    settings: Mapping[str, str] = {
        **facts.minima,
        "config_file": "/dev/null",
        "hba_file": str(home / "hba.conf"),
        "listen_addresses": "",
        "port": str(free_port()),
        "unix_socket_directories": str(home),
        "archive_mode": "off",
        "restore_command": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "recovery_target_timeline": "current",
        "shared_preload_libraries": "",
        "session_preload_libraries": "",
        "max_logical_replication_workers": "0",
        "autovacuum": "off",
        "logging_collector": "off",
        "fsync": "on",
        "full_page_writes": "on",
        "ssl": "off",
    }
    return tuple(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))


def _prepare(data: Path, home: Path, histories: Mapping[str, str]) -> None:
    account = server_account()
    make_private(home, account)
    _write(home / "hba.conf", _REJECT)
    for name, text in histories.items():
        goal = data / "pg_wal" / name
        if not goal.exists():
            _write(goal, text)
    _write(data / "standby.signal", "")


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    if account := server_account():
        os.chown(path, account.uid, account.gid)


def histories_in(data: Path) -> dict[str, str]:
    """The history files that a data folder has."""
    return {path.name: path.read_text() for path in (data / "pg_wal").glob("????????.history")}


async def _promote(instance: Instance) -> None:
    done = await run_program(
        [instance.folder / "pg_ctl", "-D", instance.data, "-w", "promote"], time_limit=_LIMIT
    )
    if done.code:
        raise PostgresError(
            f"The server on {instance.data} cannot be promoted: {done.last_words}",
            next_step="See its log, then ask again.",
        )
