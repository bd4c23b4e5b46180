"""The floor for an ack: a Bolt app that checks the signature and acks, and does nothing else.

`python -m bench.floor SECRET` prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.authorization import AuthorizeResult

LOOPBACK = "127.0.0.1"


async def _authorize(enterprise_id: str | None, team_id: str | None) -> AuthorizeResult:
    return AuthorizeResult(
        enterprise_id=enterprise_id, team_id=team_id, bot_token="xoxb-floor", bot_user_id="U0FLOOR"
    )


def floor_app(secret: str) -> web.Application:
    """The smallest app that Slack would be content with."""
    bolt = AsyncApp(signing_secret=secret, authorize=_authorize, process_before_response=True)

    @bolt.command("/db")
    async def only_ack(ack: AsyncAck) -> None:
        await ack("Noted.")

    async def events(request: web.Request) -> web.Response:
        return await to_aiohttp_response(await bolt.async_dispatch(await to_bolt_request(request)))

    app = web.Application()
    app.router.add_post("/slack/events", events)
    return app


async def serve(secret: str) -> None:
    """Serve on a free port, which is printed, until the process is ended."""
    runner = web.AppRunner(floor_app(secret), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
