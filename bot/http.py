"""The HTTP side: Slack's requests through the gate, and what an operator asks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import uuid4

import asyncpg
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_bolt.async_app import AsyncApp, AsyncBoltRequest
from sqlalchemy.exc import SQLAlchemyError

from bot import outbox_rows
from bot.edge import BODY_BYTES_MAX, Gate, Knock, status
from bot.metrics import Metrics
from postgres.ports import free_port
from store.connect import Store
from store.upgrade import schema_state

log: Final = logging.getLogger("twokey.http")

READY_SECONDS_MAX: Final = 3.0
OUTBOX_AGE_MAX: Final = timedelta(minutes=15)
_OK: Final = 200
_NOT_FOUND: Final = 404
_SHUTDOWN_SECONDS: Final = 5.0
_PORT_TRIES: Final = 10
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of `/readyz`."""

    name: str
    ok: bool
    says: str


def web_app(
    *,
    bolt: AsyncApp | None,
    gate: Gate | None,
    store: Store,
    metrics: Metrics,
    clock: Callable[[], datetime],
    api: Sequence[web.RouteDef] = (),
) -> web.Application:
    """The application. Without a gate there is no way in for Slack: Socket Mode brings it."""
    app = web.Application(client_max_size=BODY_BYTES_MAX + 1)
    operator = _Operator(store=store, metrics=metrics, clock=clock)
    app.add_routes(
        [
            web.get("/healthz", operator.healthz),
            web.get("/readyz", operator.readyz),
            web.get("/metrics", operator.metrics_page),
            *api,
        ]
    )
    if bolt is not None and gate is not None:
        entrance = _Entrance(bolt=bolt, gate=gate, metrics=metrics)
        app.add_routes([web.post("/slack/events", entrance.handle)])
    return app


async def serve_http(app: web.Application, *, host: str, port: int) -> web.AppRunner:
    """Listen; `runner.addresses` says where. The caller cleans the runner up.

    Port 0 takes a free one below those that the system uses for outgoing connections.

    Raises:
        OSError: the port is taken.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    tries = [port] if port else [free_port() for _ in range(_PORT_TRIES)]
    for last, candidate in enumerate(tries, 1):
        try:
            await web.TCPSite(runner, host, candidate).start()
        except OSError:
            if last == len(tries):
                await runner.cleanup()
                raise
        else:
            break
    return runner


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entrance:
    """Slack's way in."""

    bolt: AsyncApp
    gate: Gate
    metrics: Metrics

    async def handle(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            self.metrics.turned_away("too_large")
            return web.Response(status=401)
        knock = Knock(
            headers={name.lower(): value for name, value in request.headers.items()}, body=body
        )
        if refusal := self.gate.admit(knock, now=time.time()):
            # The word alone: what was sent may be anything, and may be private.
            log.info("A request was turned away: %s.", refusal)
            self.metrics.turned_away(refusal)
            return web.Response(status=status(refusal))
        answer = await self._dispatched(knock)
        if answer.status != _OK:
            self.gate.forget(knock)
        return answer

    async def _dispatched(self, knock: Knock) -> web.Response:
        # Of the headers only this one: the signature does not cover them.
        headers = {"content-type": knock.headers["content-type"]}
        try:
            answer = await self.bolt.async_dispatch(
                AsyncBoltRequest(body=knock.body.decode(), headers=dict(headers))
            )
            if answer.status == _NOT_FOUND:  # no listener takes such a payload
                return web.Response(status=400)
            return await to_aiohttp_response(answer)
        except Exception:
            # Listeners handle their own failures, so this is a body that Bolt cannot read.
            reference = uuid4().hex[:8]
            log.exception("A signed request could not be read (id %s).", reference)
            self.metrics.broke("bolt")
            return web.Response(status=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operator:
    """What an operator's tools ask."""

    store: Store
    metrics: Metrics
    clock: Callable[[], datetime]

    async def healthz(self, _: web.Request) -> web.Response:
        """The process answers: that is all it says."""
        return web.json_response({"ok": True})

    async def readyz(self, _: web.Request) -> web.Response:
        """Whether this process can do its work now; 503 when not, with the reasons."""
        checks = await readiness(self.store, now=self.clock())
        ok = all(check.ok for check in checks)
        body: Mapping[str, Any] = {
            "ok": ok,
            "checks": [
                {"name": check.name, "ok": check.ok, "says": check.says} for check in checks
            ],
        }
        return web.json_response(body, status=_OK if ok else 503)

    async def metrics_page(self, _: web.Request) -> web.Response:
        """Prometheus's text; the numbers of the store are left as they were when it is away."""
        await _briefly(self._read())
        return web.Response(
            body=self.metrics.text(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _read(self) -> None:
        backlog = await outbox_rows.backlog(self.store)
        self.metrics.outbox(waiting=backlog.waiting, oldest_at=backlog.oldest_at, now=self.clock())
        await self.metrics.read(self.store)


async def readiness(store: Store, *, now: datetime) -> list[Check]:
    """Store reachable, schema current, outbox moving."""
    schema = await _briefly(schema_state(store))
    if schema is None:
        return [Check(name="store", ok=False, says="the store cannot be reached")]
    checks = [
        Check(name="store", ok=True, says="reachable"),
        Check(name="schema", ok=schema == "current", says=f"the schema is {schema}"),
    ]
    if schema != "current":
        return checks
    backlog = await _briefly(outbox_rows.backlog(store))
    if backlog is None:
        return [*checks, Check(name="outbox", ok=False, says="the outbox cannot be read")]
    age = now - backlog.oldest_at if backlog.oldest_at else timedelta(0)
    return [
        *checks,
        Check(
            name="outbox",
            ok=age < OUTBOX_AGE_MAX,
            says=f"{backlog.waiting} waiting, the oldest for {int(age.total_seconds())} s",
        ),
    ]


async def _briefly(asking: Awaitable[_Value]) -> _Value | None:
    """What the store answers, or None when it does not within a moment."""
    try:
        async with asyncio.timeout(READY_SECONDS_MAX):
            return await asking
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError):
        return None
