"""A look at the place that a restore is to take: the server, and its data folder on this host."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jobs.backup_settings import PlaceSettings
from jobs.operation import Context, JobError
from jobs.place_objections import Place
from postgres.account import closed_parent, server_account
from postgres.errors import PostgresError
from postgres.restore.closing import is_backend
from postgres.restore.control import (
    control_facts,
    read_instance,
    setting_of,
    standing,
)
from postgres.restore.ways import beside
from store.replaced import ReplacedServer, kept_aside

_PATRONI_FILES: Final = ("patroni.dynamic.json", "postgresql.base.conf")
# Programs that receive WAL or copy the server, and find their way to another timeline.
_RECEIVERS: Final = ("pg_receivewal", "barman_receive_wal", "twokey")

# Whoever follows, but for our own slot ($1). One row.
SERVER: Final = """
    SELECT (SELECT s.system_identifier::text FROM pg_control_system() AS s) AS system_identifier,
           pg_is_in_recovery()                                              AS standby,
           pg_backend_pid()                                                 AS pid,
           pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')          AS sees_sessions,
           has_function_privilege('pg_switch_wal()', 'EXECUTE')             AS may_switch,
           current_setting('archive_mode')                                  AS archive_mode,
           (SELECT count(*) FROM pg_prepared_xacts)                         AS prepared,
           ARRAY(SELECT coalesce(nullif(r.application_name, ''), host(r.client_addr), '?')
                   FROM pg_stat_replication r
                   LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
                  WHERE s.slot_name IS DISTINCT FROM $1
                  ORDER BY 1)                                               AS followers,
           ARRAY(SELECT slot_name::text FROM pg_replication_slots
                  WHERE slot_name <> $1 ORDER BY 1)                         AS slots
"""


async def look(context: Context) -> Place:
    """The place that the inventory names, and the server at its address.

    Raises:
        JobError: no place is configured, it is not on this host, or cannot be read.
    """
    settings = place_of(context)
    database = context.database
    row = (await context.reader.rows(SERVER, database.backups.slot_of(database.name)))[0]
    async with context.store.begin() as conn:
        kept = await kept_aside(conn, database.name)
    try:
        return await _seen(context.database.name, settings.data, row, kept)
    except PostgresError as error:
        raise JobError(error.problem, next_step=error.next_step) from error
    except OSError as error:
        raise JobError(
            f"{settings.data} cannot be looked at: {error.strerror or error}.",
            next_step="Run Twokey on the database's host, as root or as the owner of its data"
            " folder, or restore --into scratch.",
        ) from error


def place_of(context: Context) -> PlaceSettings:
    """What the inventory says about the place.

    Raises:
        JobError: nothing, or a folder that is not on this host.
    """
    settings = place_settings(context)
    if not (settings.data / "PG_VERSION").exists():
        raise JobError(
            f"{settings.data} is no data folder on this host ({host()}).",
            next_step="A restore into place is planned and run on the database's own host:"
            " ask there, or restore --into scratch.",
        )
    return settings


def place_settings(context: Context) -> PlaceSettings:
    """What the inventory says about the place, whether anything stands there or not.

    Raises:
        JobError: nothing, or one folder for a database of several servers: it is that of one of
            them, and another may be the primary now.
    """
    database = context.database
    cluster = database.cluster
    if cluster is not None and len(cluster.nodes) > 1:
        raise JobError(
            f"{database.name} has {len(cluster.nodes)} servers, and a restore into place replaces"
            " one: the others would go on with what it is to get rid of, and may take over.",
            next_step="Restore --into scratch, and bring back from there what is missing"
            f" (/db recover-table {database.name}). To replace all of it, stop all servers,"
            " restore one by hand, and build the others anew from it.",
        )
    settings = database.backups.place
    if settings is None:
        raise JobError(
            f"The inventory does not say where the server of {database.name} has its data.",
            next_step=f"Set `backups: {{place: {{data: ...}}}}` of {database.name} on the host of"
            " its server, where a worker must run; or restore --into scratch.",
        )
    return settings


def host() -> str:
    """The host that we run on, as rows and pins name it."""
    return socket.gethostname()


async def _seen(
    name: str, configured: Path, row: Mapping[str, Any], kept: Sequence[ReplacedServer]
) -> Place:
    data = await asyncio.to_thread(configured.resolve)
    instance = await asyncio.to_thread(read_instance, data)
    facts = await control_facts(instance.folder, data)
    hba = (data / await setting_of(instance, "hba_file")).resolve()
    account = server_account()
    uid = account.uid if account else os.geteuid()
    mine = {Path(server.aside).name for server in kept}
    aside = (path.name for path in data.parent.glob(f"{beside(data, 'old-').name}*"))
    return Place(
        database=name,
        data=data,
        server_system=str(row["system_identifier"]),
        is_standby=bool(row["standby"]),
        sees_sessions=bool(row["sees_sessions"]),
        may_switch=bool(row["may_switch"]),
        archive_mode=str(row["archive_mode"]),
        prepared=int(row["prepared"]),
        followers=[text for text in row["followers"] if not text.startswith(_RECEIVERS)],
        slots=list(row["slots"]),
        folder_system=facts.system_identifier,
        standing=standing(data),
        is_same_server=is_backend(data, int(row["pid"])),
        owner_fits=data.stat().st_uid == uid and closed_parent(data, account) is None,
        can_rename=os.access(data.parent, os.W_OK | os.X_OK),
        is_mount=data.is_mount(),
        hba=str(hba),
        hba_writable=os.access(hba, os.W_OK) and os.access(hba.parent, os.W_OK | os.X_OK),
        patroni=any((data / name).exists() for name in _PATRONI_FILES),
        tablespaces=sum(1 for _ in (data / "pg_tblspc").iterdir()),
        wal_is_elsewhere=(data / "pg_wal").is_symlink(),
        data_bytes=await asyncio.to_thread(size_of, data),
        free_bytes=shutil.disk_usage(data.parent).free,
        kept=[server.request_id for server in kept],
        strangers=sorted(set(aside) - mine),
    )


def size_of(folder: Path) -> int:
    """How much the files of a folder take up, in bytes, but for those that vanish meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{parent}/{name}").st_blocks * 512
            except FileNotFoundError:
                continue
    return total
