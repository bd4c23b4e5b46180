"""The folder of declared changes: which there are, and what one says."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Final

import yaml

from approvals.yaml_text import read_yaml
from jobs.migration_settings import MigrationSettings
from jobs.operation import Database, JobError
from postgres.migrate.changes.model import NAME, read_change
from postgres.migrate.changes.words import Change

FOLDER: Final = "changes"
ENDINGS: Final = (".yml", ".yaml")
_BYTES_MAX: Final = 256 * 1024
_LISTED_MAX: Final = 200


async def changes_of(database: Database) -> tuple[str, ...]:
    """The names of the changes that are declared, sorted.

    Raises:
        JobError: nobody has said where they are, or the folder cannot be read.
    """
    folder = folder_of(database)
    return await asyncio.to_thread(_names, folder)


async def load_change(database: Database, name: str) -> Change:
    """The change of this name.

    Raises:
        JobError: there is none; the error names those that there are.
        PostgresError: its file does not say a change: file, key and an example.
    """
    folder = folder_of(database)
    return await asyncio.to_thread(_load, folder, name, database.name)


def folder_of(database: Database) -> Path:
    """Where a database's declared changes are.

    Raises:
        JobError: nobody has said so.
    """
    settings: MigrationSettings = database.migrations
    if settings.changes is not None:
        return settings.changes
    if settings.folder is not None:
        return settings.folder / FOLDER
    raise JobError(
        f"Nobody has said where the declared changes of {database.name} are.",
        next_step="Say so in the inventory: migrations: {changes: ../shop/changes}",
    )


def _load(folder: Path, name: str, database: str) -> Change:
    if NAME.fullmatch(name):
        for ending in ENDINGS:
            path = folder / f"{name}{ending}"
            if path.is_file():
                return _read(path, name)
    there = _names(folder)
    raise JobError(
        f"There is no declared change {name[:60]} of {database}.",
        next_step=f"There are: {', '.join(there)}."
        if there
        else f"There is none yet: write {folder / 'tenant_bigint.yml'}.",
    )


def _read(path: Path, name: str) -> Change:
    try:
        if path.stat().st_size > _BYTES_MAX:
            raise JobError(
                f"{path.name} has more than {_BYTES_MAX:,} bytes.",
                next_step="A change is a page of YAML: see docs/migrations.md.",
            )
        content = path.read_bytes()
        data = read_yaml(content.decode("utf-8"))
    except OSError as error:
        raise JobError(
            f"{path} cannot be read: {error.strerror}.", next_step="See who may read it."
        ) from error
    except UnicodeDecodeError as error:
        raise JobError(
            f"{path.name} is not UTF-8 at byte {error.start}.", next_step="Save it as UTF-8."
        ) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise JobError(
            f"{path.name} is no YAML: {' '.join(str(error).split())[:300]}",
            next_step="Quote SQL that has commas, colons or braces: set: {a: \"f(b, ' ')\"}",
        ) from error
    return read_change(data, name=name, file=path.name, sha256=hashlib.sha256(content).hexdigest())


def _names(folder: Path) -> tuple[str, ...]:
    try:
        found = {path.stem for path in folder.iterdir() if path.suffix in ENDINGS}
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise JobError(
            f"{folder} cannot be read: {error.strerror}.", next_step="See who may read it."
        ) from error
    return tuple(sorted(name for name in found if NAME.fullmatch(name)))[:_LISTED_MAX]
