"""A process that applies a file until it dies: `python -m tests.postgres.migrate.applier`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

from postgres.migrate.words import Observation, ReviewedStatement
from tests.postgres.migrate.applying import apply_now, unit_of


@dataclass(frozen=True, slots=True)
class Deadly:
    """Dies right before or right after a statement."""

    moment: str

    async def before(self, conn: Any, statement: ReviewedStatement) -> None:
        self._die(f"before {statement.index}")

    async def after(self, conn: Any, statement: ReviewedStatement) -> Observation:
        self._die(f"after {statement.index}")
        return Observation(index=statement.index, seconds=0)

    def _die(self, moment: str) -> None:
        if moment == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    asyncio.run(apply_now(asked["dsn"], unit_of(asked["sql"]), observer=Deadly(asked["moment"])))
