"""Doctor's look at what takes backups: the engine of a database, what it can do and leaves open."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from approvals.words import ExplainedError
from bot.finding import Finding
from jobs.engines import engine_of
from jobs.operation import Database
from postgres.backup.engine import Probe
from postgres.errors import PostgresError

# An engine asks its storage, which may be far away.
LIMIT: Final = timedelta(seconds=30)
_BOT_ALONE: Final = " A bot alone does not need it."


async def examine_engine(
    database: Database, environ: Mapping[str, str] = os.environ
) -> list[Finding]:
    """One finding that all is well, or one for each thing that is not."""
    name = f"engine of {database.name}"
    try:
        async with asyncio.timeout(LIMIT.total_seconds()):
            probe = await engine_of(database, environ).probe()
    except (ExplainedError, PostgresError) as error:
        return [Finding(name=name, ok=False, says=error.problem, fix=error.next_step)]
    except TimeoutError:
        return [
            Finding(
                name=name,
                ok=False,
                says=f"{database.backups.engine} did not answer within {LIMIT.seconds} seconds.",
                fix="See whether its repository can be reached from this host." + _BOT_ALONE,
            )
        ]
    return _findings(name, probe)


def _findings(name: str, probe: Probe) -> list[Finding]:
    if not probe.findings:
        kinds = ", ".join(probe.kinds)
        says = f"{probe.name} {probe.version}, takes {kinds} backups"
        return [Finding(name=name, ok=True, says=says)]
    return [
        Finding(name=name, ok=False, says=found.problem, fix=found.next_step + _BOT_ALONE)
        for found in probe.findings
    ]
