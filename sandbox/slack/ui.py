"""The page's HTTP API: what one person sees, and what they do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from sandbox.slack.actor import Actor, Delivery
from sandbox.slack.admin import Admin
from sandbox.slack.errors import ApiError, CannotError
from sandbox.slack.forms import Forms
from sandbox.slack.http import parse_object
from sandbox.slack.objects import message_object
from sandbox.slack.platform import Platform
from sandbox.slack.state import page_state
from sandbox.slack.viewstate import VALUE_KEYS
from sandbox.slack.workspace import Json

STATIC: Final = Path(__file__).parent / "static"
NOT_FOUND: Final = 404
BAD_REQUEST: Final = 400
TOO_MANY: Final = 429
LISTENERS_MAX: Final = 50
ADVANCE_SECONDS_MAX: Final = 31 * 86400
Work = Callable[[Json], Awaitable[Json]]


class Ui:
    """Serves the page and does what it asks."""

    def __init__(self, platform: Platform, actor: Actor, forms: Forms, admin: Admin) -> None:
        self._platform = platform
        self._actor = actor
        self._forms = forms
        self._admin = admin
        self.closing = asyncio.Event()
        self._listening = 0

    def routes(self) -> list[web.AbstractRouteDef]:
        """Everything below /ui, and the page itself."""
        posts: dict[str, Work] = {
            "command": self._command,
            "message": self._message,
            "action": self._action,
            "submit": self._submit,
            "close": self._close,
            "home": self._home,
            "dismiss": self._dismiss,
            "options": self._options,
            "shortcut": self._shortcut,
            "advance": self._advance,
        }
        return [
            web.get("/", self._page),
            web.get("/ui/state", self._state),
            web.get("/ui/events", self._events),
            web.get("/ui/wire", self._wire),
            web.get("/ui/file/{file_id}", self._file),
            web.get("/ui/faults", self._faults),
            web.post("/ui/faults", self._add_fault),
            web.delete("/ui/faults", self._clear_faults),
            web.get("/ui/users/{user}/flags", self._flags),
            web.post("/ui/users/{user}/flags", self._set_flags),
            *(web.post(f"/ui/{name}", _doing(work)) for name, work in posts.items()),
            web.static("/static", STATIC),
        ]

    async def _page(self, _request: web.Request) -> web.StreamResponse:
        return web.FileResponse(STATIC / "index.html")

    async def _state(self, request: web.Request) -> web.Response:
        user = request.query.get("user", "")
        if user not in self._platform.workspace.people:
            return _problem(f"There is nobody with the id {user!r}.", NOT_FOUND)
        return web.json_response(page_state(self._platform, user))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._listening >= LISTENERS_MAX:
            return _problem("Too many pages are open.", TOO_MANY)
        self._listening += 1
        try:
            return await self._stream(request)
        finally:
            self._listening -= 1

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "text/event-stream"
        response.headers["Cache-Control"] = "no-store"
        await response.prepare(request)
        version = -1
        try:
            while not self.closing.is_set():
                version = await self._next_version(response, version)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the page was closed, or the stand-in is
        return response

    async def _next_version(self, response: web.StreamResponse, version: int) -> int:
        try:
            async with asyncio.timeout(self._platform.timings.heartbeat_seconds):
                version = await self._platform.workspace.changes.wait(after=version)
            await response.write(f"data: {json.dumps({'version': version})}\n\n".encode())
        except TimeoutError:
            await response.write(b": still here\n\n")
        return version

    async def _wire(self, request: web.Request) -> web.Response:
        try:
            after = int(request.query.get("after", "0"))
        except ValueError:
            return _problem("`after` is the number of an entry.", BAD_REQUEST)
        return web.json_response(self._platform.wire.after(after))

    async def _file(self, request: web.Request) -> web.Response:
        file = self._platform.workspace.files.get(request.match_info["file_id"])
        if file is None:
            return _problem("There is no such file.", NOT_FOUND)
        safe = file.mimetype.startswith("image/") and file.mimetype != "image/svg+xml"
        kind = file.mimetype if safe else "application/octet-stream"
        return web.Response(body=file.data, content_type=kind)

    async def _faults(self, _request: web.Request) -> web.Response:
        return web.json_response(self._platform.faults.as_json())

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            fields = parse_object(await request.read())
            self._platform.faults.add(**fields)
        except (ApiError, ValueError, TypeError) as error:
            return _problem(str(error), BAD_REQUEST)
        self._platform.workspace.changes.bump()
        return web.json_response(self._platform.faults.as_json())

    async def _clear_faults(self, request: web.Request) -> web.Response:
        given = request.query.get("id", "")
        self._platform.faults.clear(int(given) if given.isdecimal() else None)
        self._platform.workspace.changes.bump()
        return web.json_response(self._platform.faults.as_json())

    async def _flags(self, request: web.Request) -> web.Response:
        person = self._platform.workspace.people.get(request.match_info["user"])
        if person is None:
            return _problem("There is no such person.", NOT_FOUND)
        return web.json_response(person.flags())

    async def _set_flags(self, request: web.Request) -> web.Response:
        try:
            flags = parse_object(await request.read())
            person = await self._admin.set_flags(request.match_info["user"], **flags)
        except (ApiError, CannotError) as error:
            return _problem(str(error), BAD_REQUEST)
        return web.json_response(person.flags())

    async def _command(self, body: Json) -> Json:
        return _told(
            await self._actor.command(**_only(body, "user", "channel", "text", "thread_ts"))
        )

    async def _message(self, body: Json) -> Json:
        message = await self._actor.say(**_only(body, "user", "channel", "text", "thread_ts"))
        return {"ok": True, "message": message_object(self._platform.workspace, message)}

    async def _action(self, body: Json) -> Json:
        container = body["container"]
        if not isinstance(container, dict):
            raise CannotError("container is an object.")
        given = {key: body[key] for key in VALUE_KEYS if key in body} or None
        common = {"user": body["user"], "action_id": body["action_id"], "given": given}
        common["block_id"] = body.get("block_id")
        if container.get("type") == "view":
            return _told(await self._actor.click_view(view_id=container["view_id"], **common))
        channel = container.get("channel") or container["channel_id"]
        ts = container.get("ts") or container["message_ts"]
        return _told(await self._actor.click(channel=channel, ts=ts, **common))

    async def _submit(self, body: Json) -> Json:
        values = body.get("values") or {}
        if not isinstance(values, dict) or not all(isinstance(v, dict) for v in values.values()):
            raise CannotError("values are by block_id and action_id.")
        delivery = await self._forms.submit(
            user=body["user"], view_id=body["view_id"], values=values
        )
        return {**_told(delivery), "errors": dict(delivery.errors)}

    async def _close(self, body: Json) -> Json:
        clear = bool(body.get("clear"))
        return _told(
            await self._forms.close(user=body["user"], view_id=body["view_id"], clear=clear)
        )

    async def _shortcut(self, body: Json) -> Json:
        return _told(await self._actor.shortcut(**_only(body, "user", "callback_id")))

    async def _home(self, body: Json) -> Json:
        outcome = await self._actor.open_home(user=body["user"])
        return {"ok": outcome is not None and outcome.error is None}

    async def _options(self, body: Json) -> Json:
        names = ("user", "container", "block_id", "action_id", "value")
        return await self._actor.suggest(**{name: body[name] for name in names})

    async def _advance(self, body: Json) -> Json:
        """Let Slack's clock run ahead: triggers, response URLs and tickets age."""
        seconds = body["seconds"]
        if not isinstance(seconds, int | float) or not 0 < seconds <= ADVANCE_SECONDS_MAX:
            raise CannotError(f"The clock runs ahead by up to {ADVANCE_SECONDS_MAX} seconds.")
        self._platform.ahead_seconds += seconds
        self._platform.workspace.changes.bump()
        return {"ok": True, "ahead_seconds": self._platform.ahead_seconds}

    async def _dismiss(self, body: Json) -> Json:
        await self._admin.dismiss(**_only(body, "user", "channel", "ts"))
        return {"ok": True}


def _doing(work: Work) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            return web.json_response(await work(parse_object(await request.read())))
        except CannotError as error:
            return _problem(str(error), BAD_REQUEST)
        except KeyError as error:
            return _problem(f"{error} is missing.", BAD_REQUEST)
        except (ApiError, TypeError) as error:
            return _problem(f"This is not understood: {error}", BAD_REQUEST)

    return handle


def _told(delivery: Delivery) -> Json:
    return {
        "ok": delivery.ok,
        "error": delivery.error,
        "status": delivery.status,
        "ms": delivery.ms,
    }


def _only(body: Json, *names: str) -> dict[str, Any]:
    """These fields, where they are there; each is text."""
    found = {name: body[name] for name in names if body.get(name) is not None}
    for name, value in found.items():
        if not isinstance(value, str):
            raise CannotError(f"{name} must be text.")
    return found


def _problem(text: str, status: int) -> web.Response:
    return web.json_response({"ok": False, "error": text}, status=status)
