"""What the tests of restore drills share: a drill as its flow runs it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jobs.drill_restore_words import DRILLED, RestoreDrilled, drilled_json
from jobs.drill_words import Phase
from jobs.drilling_restore import RestoreOrder, rehearse
from jobs.operation import Database
from jobs.reader import Readers
from postgres.backup.facts import BackupFacts
from store.backups import Verification, record_backup, record_verification
from store.connect import Store
from tests.commands.archived import (
    add_request,
    record_of,
)
from tests.commands.conftest import Attempt, DirectJob
from tests.conftest import folder_of_its_own

ROWS: Final = 40


def clock() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, kw_only=True)
class Drill:
    """A drill as its flow runs it: what it was told, and what happens when it is."""

    job: DirectJob
    backup_id: str = "shop-1"
    attempt: Attempt = field(default_factory=Attempt)
    noted: list[tuple[Phase, str]] = field(default_factory=list)
    after: Mapping[Phase, Any] = field(default_factory=dict)

    async def run(self) -> RestoreDrilled:
        drilled = await rehearse(self.job, self.attempt, self.order, clock=clock, note=self._note)
        assert DRILLED.validate_python(drilled_json(drilled)) == drilled
        return drilled

    @property
    def order(self) -> RestoreOrder:
        return RestoreOrder(
            backup_id=self.backup_id, key=self.job.run_key, folder=self.folder, baseline_rows=ROWS
        )

    @property
    def folder(self) -> Path:
        return self.job.folder.parent / f"ledger-{self.job.run_key}"

    async def _note(self, phase: Phase, text: str) -> None:
        self.noted.append((phase, text))
        if act := self.after.get(phase):
            await act()


@asynccontextmanager
async def made_job(database: Database, store: Store) -> AsyncIterator[DirectJob]:
    # In memory: a copy is as durable as a server that takes over, and others want the disk.
    home = folder_of_its_own()
    (home / "run").mkdir()
    readers = Readers()
    try:
        yield DirectJob(
            database=database, store=store, reader=readers.of(database), folder=home / "run",
            request_id=await add_request(store), run_key="run-7", now=clock(),
        )  # fmt: skip
    finally:
        await readers.close()
        shutil.rmtree(home, ignore_errors=True)


async def enter(store: Store, taken: BackupFacts, *, is_proven: bool = True) -> None:
    proof = Verification(
        backup_id=taken.id, at=taken.ended_at, ok=True, restore_seconds=2.0, total_seconds=3.0,
        checks=[("restore", True, "")], request_id=None, data_bytes=taken.data_bytes,
    )  # fmt: skip
    async with store.begin() as conn:
        await record_backup(conn, record_of(taken))
        if is_proven:
            await record_verification(conn, proof)


def said(drilled: RestoreDrilled) -> dict[str, str]:
    return dict(drilled.facts)


def nothing_is_left(drill: Drill) -> bool:
    return not ((drill.job.folder / "scratch").exists() or drill.folder.exists())
