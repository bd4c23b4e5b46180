"""The Web API: /api/<method>, with rights, limits and faults."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from sandbox.slack import http
from sandbox.slack.call import POST, Call, Method
from sandbox.slack.errors import ApiError
from sandbox.slack.faults import FaultKind
from sandbox.slack.methods import apps, chat, conversations, files, users, views
from sandbox.slack.platform import Platform
from sandbox.slack.sockets import Sockets
from sandbox.slack.workspace import Json

METHODS: Final[Mapping[str, Method]] = {
    **apps.METHODS,
    **chat.METHODS,
    **conversations.METHODS,
    **files.METHODS,
    **users.METHODS,
    **views.METHODS,
}


class WebApi:
    """Every method that the app may call."""

    def __init__(self, platform: Platform, sockets: Sockets) -> None:
        self._platform = platform
        opening = Method(run=lambda _call: {"url": sockets.new_ticket()}, caller="app", tier=1)
        self._methods = {**METHODS, "apps.connections.open": opening}

    def routes(self) -> list[web.RouteDef]:
        """GET and POST, as the SDKs use both."""
        return [
            web.get("/api/{method}", self._handle),
            web.post("/api/{method}", self._handle),
        ]

    async def _handle(self, request: web.Request) -> web.Response:
        started = time.perf_counter()
        name = request.match_info["method"]
        args: dict[str, Any] = {}
        try:
            args = await http.read_args(request)
            response = await self._answer(request, name, args)
        except ApiError as error:
            response = http.answer(error.body(), scopes=",".join(self._platform.manifest.scopes))
        self._record(name, args, response, started)
        return response

    async def _answer(self, request: web.Request, name: str, args: Json) -> web.Response:
        fault = self._platform.faults.take(name, api=True)
        if fault and (broken := await http.instead(request, fault)):
            return broken
        method = self._methods.get(name)
        if method is None:
            raise ApiError("unknown_method", req_method=name)
        self._authenticate(request, method, args)
        if seconds := self._limit(name, method, args):
            return http.rate_limited(seconds)
        body = self._work(method, args)
        if fault and fault.kind is FaultKind.DROP_AFTER:
            return http.drop(request)
        return http.answer({"ok": True, **body}, scopes=",".join(self._platform.manifest.scopes))

    def _work(self, method: Method, args: Json) -> Json:
        call = Call(platform=self._platform, args=args)
        if method.scope:
            call.need(method.scope)
        return method.run(call)

    def _authenticate(self, request: web.Request, method: Method, args: Json) -> None:
        header = request.headers.get("Authorization", "")
        token = header.removeprefix("Bearer ").strip() or args.get("token") or ""
        args.pop("token", None)
        if method.caller == "nobody":
            return
        if not token:
            raise ApiError("not_authed")
        if self._platform.revoked:
            raise ApiError("token_revoked")
        known = {self._platform.bot_token: "bot", self._platform.app_token: "app"}
        if token not in known:
            raise ApiError("invalid_auth")
        if known[token] != method.caller:
            raise ApiError("not_allowed_token_type")

    def _limit(self, name: str, method: Method, args: Json) -> int:
        channel = str(args.get("channel", "")) if method.tier == POST else ""
        return self._platform.limiter.wait_seconds(
            method=name, channel=channel, tier=method.tier, now=self._platform.now()
        )

    def _record(self, name: str, args: Json, response: web.Response, started: float) -> None:
        body = {"args": args, "answer": _shown(response)}
        self._platform.wire.record(
            at=self._platform.now(),
            direction="from_app",
            transport="http",
            kind=name,
            status=0 if response.status == _DROPPED else response.status,
            ms=(time.perf_counter() - started) * 1000,
            summary=_summary(response),
            body=body,
        )
        self._platform.workspace.changes.bump()


_DROPPED: Final = 599


def _shown(response: web.Response) -> str:
    if isinstance(response.body, bytes):
        return response.body.decode("utf-8", "replace")
    return ""


def _summary(response: web.Response) -> str:
    if response.status == _DROPPED:
        return "connection dropped"
    if response.status != http.OK:
        return f"HTTP {response.status}"
    shown = _shown(response)
    if '"ok": true' in shown:
        return "ok"
    return shown.partition('"error": "')[2].partition('"')[0] or "not ok"
