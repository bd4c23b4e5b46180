"""What a worker is given to work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from approvals.directory import Directory
from approvals.in_force import Policies
from jobs.engine import PgQueue
from jobs.grants import Grants
from jobs.limits import Limits
from jobs.operation import Database, Operation
from jobs.reader import Readers
from jobs.routes import Routes
from store.connect import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a worker is given to work with. `home` holds the private folders of runs."""

    store: Store
    queue: PgQueue
    approvals: Grants
    directory: Directory
    operations: Mapping[str, Operation]
    databases: Mapping[str, Database]
    readers: Readers
    home: Path
    clock: Callable[[], datetime]
    worker: str
    limits: Limits
    policies: Policies | None = None
    routes: Routes = field(default_factory=Routes)
