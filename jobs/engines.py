"""The backup engine that the inventory names for a database."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import assert_never, cast

from jobs import backup_settings
from jobs.operation import Database, JobError
from postgres.backup.engine import Engine
from postgres.backup.native import Compression
from postgres.backup.native_engine import NativeEngine
from postgres.backup.pgbackrest import PgBackRestEngine


def engine_of(database: Database, environ: Mapping[str, str] = os.environ) -> Engine:
    """The engine of a database.

    Raises:
        JobError: its `repository` is not named.
    """
    settings = database.backups
    match settings.engine:
        case backup_settings.Engine.NATIVE:
            keys = settings.encryption
            return NativeEngine(
                dsn=database.dsn,
                folder=database.backup_folder,
                environ=environ,
                compression=cast("Compression", settings.compression),
                rate_max_bytes=settings.rate_max_bytes,
                workers=settings.workers,
                recipient=keys.recipient if keys else None,
                identity=keys.identity if keys else None,
            )
        case backup_settings.Engine.PGBACKREST:
            repository = _repository(database)
            return PgBackRestEngine(
                dsn=database.dsn,
                folder=database.backup_folder,
                config=repository.config,
                stanza=repository.name,
                environ=environ,
                workers=settings.workers,
                rate_max_bytes=settings.rate_max_bytes,
            )
        case _:
            assert_never(settings.engine)


def _repository(database: Database) -> backup_settings.RepositorySettings:
    if found := database.backups.repository:
        return found
    engine = database.backups.engine
    raise JobError(
        f"The inventory does not say where {engine} keeps the backups of {database.name}.",
        next_step="Name its configuration: repository: {config: ..., name: ...}",
    )
