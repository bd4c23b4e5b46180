"""A process of its own that lets a pgbouncer's clients go when whoever holds them is gone.

Reads one line from its standard input: {"seconds": s, "bouncers": [[dsn, database], ...]}, says
"ready", and waits for the end of that pipe, or until the time is up.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress

from postgres.cluster.bouncer import Bouncer, let_go
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError


async def guard() -> None:
    """Wait for the end, then let go."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    order = json.loads(await reader.readline())
    bouncers = [
        Bouncer(admin=parse_dsn(dsn), database=database) for dsn, database in order["bouncers"]
    ]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with suppress(TimeoutError):
        async with asyncio.timeout(float(order["seconds"])):
            await reader.read()
    with suppress(PostgresError):  # nobody is left to hear of it
        await let_go(bouncers)


if __name__ == "__main__":
    asyncio.run(guard())
