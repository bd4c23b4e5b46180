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


def engine_of(database: Database, environ: Mapping[str, str] = os.environ) -> Engine:
    """The engine of a database.

    Raises:
        JobError: this release does not have it.
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
        case backup_settings.Engine.PGBACKREST | backup_settings.Engine.BARMAN:
            raise JobError(
                f"The engine {settings.engine} of {database.name} is not known here.",
                next_step="Set engine: native in the inventory.",
            )
        case _:
            assert_never(settings.engine)
