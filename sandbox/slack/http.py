"""Requests as Slack reads them, and answers as a bad day would mangle them."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any, Final, assert_never

from aiohttp import web

from sandbox.slack.errors import ApiError
from sandbox.slack.faults import Fault, FaultKind

OK: Final = 200
HTML: Final = "<!DOCTYPE html><html><body><h1>Slack is down for a moment</h1></body></html>"


async def read_args(request: web.Request) -> dict[str, Any]:
    """Query string, form and JSON body in one; Slack's SDKs use all three.

    Raises:
        ApiError: a JSON body that is none, or no object.
    """
    args: dict[str, Any] = dict(request.query)
    if request.content_type == "application/json":
        body = await request.read()
        if body:
            args |= parse_object(body)
    elif request.can_read_body:
        form = await request.post()
        args |= {key: value for key, value in form.items() if isinstance(value, str)}
    return args


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object; raises `ApiError` as Slack would answer."""
    try:
        parsed = json.loads(body)
    except ValueError:
        raise ApiError("invalid_json") from None
    if not isinstance(parsed, dict):
        raise ApiError("json_not_object")
    return parsed


def answer(body: dict[str, Any], *, status: int = 200, scopes: str = "") -> web.Response:
    """A JSON answer with Slack's headers."""
    response = web.json_response(body, status=status)
    response.headers["x-slack-req-id"] = secrets.token_hex(16)
    if scopes:
        response.headers["x-oauth-scopes"] = scopes
    return response


def rate_limited(seconds: int) -> web.Response:
    """429 with Retry-After in whole seconds."""
    response = answer({"ok": False, "error": "ratelimited"}, status=429)
    response.headers["Retry-After"] = str(seconds)
    return response


async def instead(request: web.Request, fault: Fault) -> web.Response | None:
    """What happens instead of the work, or None when the work is done all the same."""
    response: web.Response | None = None
    match fault.kind:
        case FaultKind.RATE_LIMITED:
            response = rate_limited(fault.retry_after_seconds)
        case FaultKind.SERVER_ERROR:
            response = answer({"ok": False, "error": "internal_error"}, status=fault.status)
        case FaultKind.HTML:
            response = web.Response(text=HTML, content_type="text/html", status=fault.status)
        case FaultKind.ERROR:
            response = answer({"ok": False, "error": fault.error})
        case FaultKind.DROP_BEFORE:
            response = drop(request)
        case FaultKind.ABORT_SOCKET:
            response = drop(request, abort=True)
        case FaultKind.SLOW:
            await asyncio.sleep(fault.seconds)
        case FaultKind.DROP_AFTER | FaultKind.NO_BLOCK:
            pass
        case _:
            assert_never(fault.kind)
    return response


def drop(request: web.Request, *, abort: bool = False) -> web.Response:
    """Close the connection without an answer; status 599 marks it in the log."""
    if request.transport is not None:
        if abort:
            request.transport.abort()
        else:
            request.transport.close()
    return web.Response(status=599)
