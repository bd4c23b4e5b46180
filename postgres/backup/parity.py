"""What a server needs at least in order to start from a copy, as the copy's pg_control says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from postgres.binaries import Binaries
from postgres.errors import DamagedError, PostgresError
from postgres.programs import run_program

_LOOK_LIMIT: Final = timedelta(minutes=1)
_PARITY: Final[Mapping[str, str]] = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}


async def parity_of(binaries: Binaries, data: Path) -> Mapping[str, str]:
    """The settings that a copy may not be lower in than its original was.

    Raises:
        DamagedError: pg_control cannot be read.
        PostgresError: what the program says cannot be understood.
    """
    done = await run_program([binaries.program("pg_controldata"), data], time_limit=_LOOK_LIMIT)
    if done.code:
        raise DamagedError(f"pg_control of the backup cannot be read: {done.last_words}")
    said = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    try:
        return {setting: str(int(said[name])) for name, setting in _PARITY.items()}
    except (LookupError, ValueError) as error:
        raise PostgresError(
            f"What {binaries.program('pg_controldata')} says cannot be understood: {error}.",
            next_step=f"Install a full PostgreSQL {binaries.major}.",
        ) from error
