"""What the app says without the Web API: in an ack, or to a response_url."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from sandbox.slack import http
from sandbox.slack.errors import ApiError
from sandbox.slack.faults import FaultKind
from sandbox.slack.methods.chat import TEXT_CHARS_MAX, checked_blocks
from sandbox.slack.platform import HOOK_USES, Hook, Platform
from sandbox.slack.workspace import SLACKBOT, Json, Message

NOT_FOUND: Final = 404
BAD_REQUEST: Final = 400


class Replies:
    """Turns such answers into messages."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def routes(self) -> list[web.RouteDef]:
        """Where response_urls point to."""
        return [web.post("/commands/{team}/{app}/{token}", self._handle)]

    def acknowledged(self, body: Any, *, user: str, channel: str) -> None:
        """Show what stands in the ack of a slash command.

        Raises:
            ApiError: Slack could not draw it.
        """
        reply = {"text": body} if isinstance(body, str) else body
        if isinstance(reply, dict) and (reply.get("text") or reply.get("blocks")):
            self._say(reply, user=user, channel=channel)

    def slackbot(self, text: str, *, user: str, channel: str) -> Message:
        """A line that only this person sees, from Slack itself."""
        ts = self._platform.next_ts()
        message = Message(channel=channel, ts=ts, user=SLACKBOT, text=text, only_for=user)
        return self._platform.workspace.put(message)

    async def _handle(self, request: web.Request) -> web.Response:
        started = time.perf_counter()
        raw = await request.read()
        response = await self._answer(request, raw)
        self._platform.wire.record(
            at=self._platform.now(),
            direction="from_app",
            transport="http",
            kind="response_url",
            status=response.status,
            ms=(time.perf_counter() - started) * 1000,
            summary=response.text or "",
            body=raw.decode("utf-8", "replace"),
        )
        return response

    async def _answer(self, request: web.Request, raw: bytes) -> web.Response:
        fault = self._platform.faults.take("response_url")
        if fault and (broken := await http.instead(request, fault)):
            return broken
        try:
            self._use(request.match_info["token"], http.parse_object(raw))
        except ApiError as error:
            gone = error.code in {"used_url", "expired_url"}
            return http.answer(error.body(), status=NOT_FOUND if gone else BAD_REQUEST)
        if fault and fault.kind is FaultKind.DROP_AFTER:
            return http.drop(request)
        return http.answer({"ok": True})

    def _use(self, token: str, reply: Json) -> None:
        hooks = self._platform.hooks
        hook = hooks.get(token)
        if hook is None or self._platform.now() > hook.expires:
            raise ApiError("expired_url")
        if hook.uses >= HOOK_USES:
            raise ApiError("used_url")
        self._apply(hook, reply)
        hooks[token] = replace(hook, uses=hook.uses + 1)

    def _apply(self, hook: Hook, reply: Json) -> None:
        original = self._original(hook)
        if reply.get("delete_original"):
            if original is not None:
                self._platform.workspace.drop(original)
            return
        if reply.get("replace_original") and original is not None:
            content = _content(reply, self._platform)
            edited = None if original.only_for else self._platform.next_ts()
            self._platform.workspace.put(replace(original, edited=edited, **content))
            return
        self._say(reply, user=hook.user, channel=hook.channel)

    def _original(self, hook: Hook) -> Message | None:
        if hook.original is None:
            return None
        found = self._platform.workspace.find(hook.channel, hook.original, viewer=hook.user)
        return found if found and found.user == self._platform.workspace.app.user else None

    def _say(self, reply: Json, *, user: str, channel: str) -> Message:
        content = _content(reply, self._platform)
        public = reply.get("response_type") == "in_channel"
        message = Message(
            channel=channel,
            ts=self._platform.next_ts(),
            user=self._platform.workspace.app.user,
            thread_ts=reply.get("thread_ts"),
            only_for=None if public else user,
            **content,
        )
        return self._platform.workspace.put(message)


def _content(reply: Json, platform: Platform) -> Json:
    text = reply.get("text") or ""
    blocks = reply.get("blocks") or []
    if isinstance(blocks, str):
        try:
            blocks = json.loads(blocks)
        except ValueError:
            raise ApiError("invalid_blocks") from None
    if not text and not blocks and not reply.get("attachments"):
        raise ApiError("no_text")
    if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX:
        raise ApiError("invalid_payload")
    return {
        "text": text,
        "blocks": tuple(checked_blocks(blocks, platform)),
        "attachments": tuple(reply.get("attachments") or ()),
    }
