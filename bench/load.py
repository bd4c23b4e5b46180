"""A load generator in a process of its own: signed slash commands against an app.

`python -m bench.load '{"url": …}'` prints one JSON line: latencies in ms, sorted.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

import aiohttp

TEAM = "T0DEMO"
ACK_LIMIT_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send: `requests` commands, at most `concurrency` at a time."""

    url: str
    secret: str
    concurrency: int
    requests: int
    text: str = "backup orders"
    user: str = "U0ANA"
    warm_up: int = 20


def signed_command(load: Load, number: int) -> tuple[bytes, dict[str, str]]:
    """A slash command that no replay cache has seen, as Slack signs it."""
    body = urlencode(
        {
            "token": "unused", "team_id": TEAM, "team_domain": "acme",
            "channel_id": "C0DBOPS", "channel_name": "db-ops", "user_id": load.user,
            "user_name": "ana", "command": "/db", "text": load.text, "api_app_id": "A0TWOKEY",
            "is_enterprise_install": "false", "response_url": f"{load.url}/none/{number}",
            "trigger_id": f"{time.time_ns()}.{number}",
        }
    )  # fmt: skip
    stamp = str(int(time.time()))
    mac = hmac.new(load.secret.encode(), f"v0:{stamp}:{body}".encode(), hashlib.sha256)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": stamp,
        "X-Slack-Signature": f"v0={mac.hexdigest()}",
    }
    return body.encode(), headers


async def drive(load: Load) -> dict[str, object]:
    """Send it all; latencies in ms sorted, failures counted, and the rate."""
    timeout = aiohttp.ClientTimeout(total=ACK_LIMIT_SECONDS)
    connector = aiohttp.TCPConnector(limit=load.concurrency)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        numbers = itertools.count()
        await _send(session, load, numbers, load.warm_up)
        start = time.perf_counter()
        latencies, failures = await _send(session, load, numbers, load.requests)
        seconds = time.perf_counter() - start
    return {"ms": sorted(latencies), "failures": failures, "per_second": load.requests / seconds}


async def _send(
    session: aiohttp.ClientSession, load: Load, numbers: Iterator[int], total: int
) -> tuple[list[float], int]:
    latencies: list[float] = []
    failed = 0
    left = itertools.count()
    sign: Callable[[int], tuple[bytes, dict[str, str]]] = lambda n: signed_command(load, n)  # noqa: E731

    async def one_client() -> None:
        nonlocal failed
        while next(left) < total:
            body, headers = sign(next(numbers))
            start = time.perf_counter()
            try:
                async with session.post(load.url, data=body, headers=headers) as answer:
                    await answer.read()
                    failed += answer.status != 200
            except (aiohttp.ClientError, TimeoutError):
                failed += 1
            latencies.append((time.perf_counter() - start) * 1000)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(load.concurrency, total)):
            group.create_task(one_client())
    return latencies, failed


async def run_load(load: Load) -> dict[str, object]:
    """`drive` in another process, so that the app's loop is not the client's."""
    arguments = json.dumps({name: getattr(load, name) for name in Load.__slots__})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, "the load generator failed"
    found: dict[str, object] = json.loads(out)
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(drive(Load(**json.loads(sys.argv[1]))))))
