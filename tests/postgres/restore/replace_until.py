"""Replaces a server, and is killed at a point of it: for test_place.py."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from pydantic import SecretStr

from postgres.restore.place import Replacement, replace_server
from postgres.restore.ways import Ways


async def _main(dsn: str, point: str, data: str, mark: str, coming: str, leaving: str) -> None:
    ways = Ways(data=Path(data), mark=int(mark), coming=Path(coming), leaving=Path(leaving))

    async def say(text: str) -> None:
        del text

    def at(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    order = Replacement(ways=ways, dsn=SecretStr(dsn), take_files=True)
    await replace_server(order, on_step=say, at=at)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
