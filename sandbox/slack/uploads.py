"""Bytes of files: in from the app, out to the app with its token."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from aiohttp import web

from sandbox.slack import http
from sandbox.slack.faults import FaultKind
from sandbox.slack.platform import Platform

NOT_FOUND: Final = 404
FORBIDDEN: Final = 403
CONFLICT: Final = 409


class Uploads:
    """The addresses that files.getUploadURLExternal hands out."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def routes(self) -> list[web.RouteDef]:
        """Where bytes come and go."""
        return [
            web.post("/upload/v1/{ticket}", self._receive),
            web.get("/files-pri/{owner}/{tail:.*}", self._send),
        ]

    async def _receive(self, request: web.Request) -> web.Response:
        started = time.perf_counter()
        raw = await request.read()
        response = await self._store(request, raw)
        self._platform.wire.record(
            at=self._platform.now(),
            direction="from_app",
            transport="http",
            kind="upload",
            status=response.status,
            ms=(time.perf_counter() - started) * 1000,
            summary=f"{len(raw)} bytes",
        )
        return response

    async def _store(self, request: web.Request, raw: bytes) -> web.Response:
        fault = self._platform.faults.take("upload")
        if fault and (broken := await http.instead(request, fault)):
            return broken
        ticket = request.match_info["ticket"]
        upload = self._platform.uploads.get(ticket)
        if upload is None:
            return web.Response(status=NOT_FOUND, text="there is no such upload")
        if len(raw) != upload.length:
            text = f"announced were {upload.length} bytes, there came {len(raw)}"
            return web.Response(status=CONFLICT, text=text)
        self._platform.uploads[ticket] = replace(upload, data=raw)
        if fault and fault.kind is FaultKind.DROP_AFTER:
            return http.drop(request)
        return web.Response(text=f"OK - {len(raw)}")

    async def _send(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self._platform.bot_token}":
            return web.Response(status=FORBIDDEN, text="a bearer token is needed")
        file_id = request.match_info["owner"].rpartition("-")[2]
        file = self._platform.workspace.files.get(file_id)
        if file is None:
            return web.Response(status=NOT_FOUND, text="there is no such file")
        return web.Response(body=file.data, content_type=file.mimetype)
