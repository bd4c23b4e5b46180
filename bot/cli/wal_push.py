"""One WAL file into an archive, for archive_command. A server waits: nothing is imported in vain.

Exit codes are as PostgreSQL wants them: 0 for kept, and 1 for what it should try again. Above
125 its archiver would end itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from postgres.backup.wal_files import push
from postgres.errors import DamagedError, PostgresError

WAL_FOLDER: Final = "wal"  # as postgres.backup.native_engine has it
FAILED: Final = 1


def push_wal(folder: Path, path: str, name: str, *, recipient: str = "") -> int:
    """Keep a file durably in the archive below a backup folder; the exit code."""
    try:
        push(Path(path), name, folder / WAL_FOLDER, recipient=recipient or None)
    except PostgresError as error:
        return _complain(error.problem, error.next_step)
    except DamagedError as error:
        return _complain(f"{error}", "Look at the server's pg_wal folder: it was not kept.")
    except OSError as error:
        return _complain(
            f"{name} cannot be kept in {folder}: {error.strerror or error}.",
            "See that the folder can be written and has room; the server tries again.",
        )
    except KeyboardInterrupt:
        return FAILED
    return 0


def as_usual(arguments: Sequence[str]) -> tuple[Path, str, str] | None:
    """Folder, path and name of `--folder FOLDER PATH NAME`; None for whatever else is asked."""
    match arguments:
        case ["--folder", folder, path, name] if not any(
            part.startswith("-") for part in (folder, path, name)
        ):
            return Path(folder), path, name
        case _:
            return None


def _complain(problem: str, next_step: str) -> int:
    sys.stderr.write(f"{problem}\n→ {next_step}\n")
    return FAILED
