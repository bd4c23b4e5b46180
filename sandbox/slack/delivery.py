"""How Slack reaches the app: signed HTTP or Socket Mode, with a deadline and retries."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import uuid
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp

from sandbox.slack.bounded import Background
from sandbox.slack.faults import FaultKind
from sandbox.slack.manifest import EVENT_SCOPES
from sandbox.slack.platform import Platform
from sandbox.slack.signing import sign
from sandbox.slack.sockets import Sockets
from sandbox.slack.workspace import Json

TIMED_OUT: Final = "operation_timeout"
FAILED: Final = "dispatch_failed"
BODY_BYTES_MAX: Final = 1_000_000
CONNECTIONS_MAX: Final = 1000
_MESSAGE_EVENTS: Final = {
    "channel": "message.channels",
    "group": "message.groups",
    "im": "message.im",
}


class Kind(StrEnum):
    """What is delivered; the names are those of Socket Mode."""

    COMMAND = "slash_commands"
    INTERACTIVE = "interactive"
    EVENT = "events_api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one delivery. `error` is Slack's word for a failure; None: acknowledged."""

    status: int  # the HTTP status, 200 for an ack in Socket Mode, 0 for none
    ms: float
    body: Any = None  # parsed JSON, text, or None
    error: str | None = None
    reason: str = ""  # why an event is sent again
    retry_refused: bool = False


class Dispatcher:
    """Delivers to the app, by HTTP where a request URL is set, else over its sockets."""

    def __init__(self, platform: Platform, sockets: Sockets) -> None:
        self._platform = platform
        self._sockets = sockets
        self._session: aiohttp.ClientSession | None = None
        self._background = Background()
        self._last: tuple[Kind, Json, str] | None = None

    async def close(self) -> None:
        """Give up pending retries and close the connections."""
        await self._background.close()
        if self._session is not None:
            await self._session.close()

    async def send(
        self, kind: Kind, payload: Json, *, summary: str, retry: int = 0, reason: str = ""
    ) -> Outcome:
        """Deliver once and wait for the ack, at most until the deadline."""
        started = time.perf_counter()
        self._last = (kind, payload, summary)
        socket = self._platform.request_url is None
        outcome = await self._try(kind, payload, retry, reason)
        ms = (time.perf_counter() - started) * 1000
        self._platform.wire.record(
            at=self._platform.now(),
            direction="to_app",
            transport="socket" if socket else "http",
            kind=kind.value,
            status=outcome.status,
            ms=ms,
            retry=retry,
            summary=f"{summary}: {outcome.error or 'ok'}",
            body={"payload": payload, "answer": outcome.body},
        )
        self._platform.workspace.changes.bump()
        return replace(outcome, ms=round(ms, 1))

    async def _try(self, kind: Kind, payload: Json, retry: int, reason: str) -> Outcome:
        """One attempt, with the deadline, and with the faults that were asked for."""
        socket = self._platform.request_url is None
        late = Outcome(
            status=0, ms=0, error=TIMED_OUT, reason="timeout" if socket else "http_timeout"
        )
        failed = Outcome(status=0, ms=0, error=FAILED, reason="connection_failed")
        fault = self._platform.faults.take("delivery")
        if fault and fault.kind is not FaultKind.DROP_AFTER:
            return failed
        try:
            async with asyncio.timeout(self._platform.timings.ack_seconds):
                send = self._over_socket if socket else self._over_http
                outcome = await send(kind, payload, retry, reason)
        except TimeoutError:
            return late
        except (ConnectionError, aiohttp.ClientError, OSError):
            return failed
        return late if fault else outcome

    async def _over_socket(self, kind: Kind, payload: Json, retry: int, reason: str) -> Outcome:
        envelope: Json = {
            "envelope_id": str(uuid.uuid4()),
            "type": kind.value,
            "payload": payload,
            "accepts_response_payload": kind is not Kind.EVENT,
        }
        if kind is Kind.EVENT:
            envelope |= {"retry_attempt": retry, "retry_reason": reason}
        body = await self._sockets.send(envelope)
        if isinstance(body, dict) and set(body) == {"text"} and isinstance(body["text"], str):
            body = body["text"]
        return Outcome(status=200, ms=0, body=body)

    async def _over_http(self, kind: Kind, payload: Json, retry: int, reason: str) -> Outcome:
        headers, body = encode(kind, payload)
        if retry:
            headers |= {"X-Slack-Retry-Num": str(retry), "X-Slack-Retry-Reason": reason}
        return await self.post(body, headers)

    async def post(self, body: bytes, headers: dict[str, str]) -> Outcome:
        """POST a signed body to the app's request URL."""
        if self._session is None:
            # trust_env stays off: a proxy has no business between two programs on one machine.
            # A connection per delivery: one that was kept open would break with the app's restart.
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar()
            )
        signed = sign(
            self._platform.signing_secret, body, timestamp=int(self._platform.clock().timestamp())
        )
        url = self._platform.request_url or ""
        async with self._session.post(
            url, data=body, headers={**headers, **signed}, allow_redirects=False
        ) as response:
            parsed = _parse(await _read(response), response.content_type)
            failed = not 200 <= response.status < 300  # noqa: PLR2004
            return Outcome(
                status=response.status,
                ms=0,
                body=parsed,
                error=FAILED if failed else None,
                reason="http_error" if failed else "",
                retry_refused=response.headers.get("X-Slack-No-Retry") == "1",
            )

    async def again(self) -> Outcome:
        """Deliver the last thing that was delivered once more, signed anew.

        A network can do that; an app must not act twice.
        """
        if self._last is None:
            raise LookupError("Nothing has been delivered yet.")
        kind, payload, summary = self._last
        return await self.send(kind, payload, summary=f"again: {summary}")

    async def verify(self) -> bool:
        """Whether the request URL answers Slack's `url_verification` with its challenge."""
        challenge = secrets.token_hex(12)
        body: Json = {"token": "stand-in", "challenge": challenge, "type": "url_verification"}
        outcome = await self.send(Kind.EVENT, body, summary="url_verification")
        answer = outcome.body
        got = answer.get("challenge") if isinstance(answer, dict) else answer
        return outcome.error is None and got == challenge

    async def emit(self, event: Json) -> Outcome | None:
        """Tell the app about an event, if it has subscribed to it.

        The first attempt is waited for; retries happen in the background.
        """
        if not self._subscribed(event):
            return None
        if scope := EVENT_SCOPES[_subscription(event)]:
            self._platform.scopes_used.add(scope)
        body = self._event_body(event)
        outcome = await self.send(Kind.EVENT, body, summary=event["type"])
        if outcome.error and not outcome.retry_refused:
            self._background.start(self._retry(body, outcome))
        return outcome

    async def _retry(self, body: Json, outcome: Outcome) -> None:
        for number, seconds in enumerate(self._platform.timings.event_retry_seconds, start=1):
            await asyncio.sleep(seconds)
            outcome = await self.send(
                Kind.EVENT,
                body,
                summary=body["event"]["type"],
                retry=number,
                reason=outcome.reason,
            )
            if not outcome.error or outcome.retry_refused:
                return

    def _subscribed(self, event: Json) -> bool:
        return _subscription(event) in self._platform.manifest.events

    def _event_body(self, event: Json) -> Json:
        workspace = self._platform.workspace
        return {
            "token": "stand-in",
            "team_id": workspace.team_id,
            "api_app_id": workspace.app.id,
            "event": event,
            "type": "event_callback",
            "event_id": workspace.next_id("Ev"),
            "event_time": int(self._platform.now()),
            "authorizations": [
                {
                    "enterprise_id": None,
                    "team_id": workspace.team_id,
                    "user_id": workspace.app.user,
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
            "is_ext_shared_channel": False,
        }


def _subscription(event: Json) -> str:
    """The name under which the manifest subscribes to this event."""
    name = str(event["type"])
    return _MESSAGE_EVENTS[event["channel_type"]] if name == "message" else name


def encode(kind: Kind, payload: Json) -> tuple[dict[str, str], bytes]:
    """Headers and body as Slack sends them over HTTP."""
    if kind is Kind.EVENT:
        return {"Content-Type": "application/json"}, json.dumps(payload).encode()
    fields = payload if kind is Kind.COMMAND else {"payload": json.dumps(payload)}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return form, urlencode(fields).encode()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    raw = b""
    while len(raw) < BODY_BYTES_MAX and (chunk := await response.content.readany()):
        raw += chunk
    return raw


def _parse(raw: bytes, content_type: str) -> Any:
    if not raw:
        return None
    if content_type == "application/json":
        try:
            return json.loads(raw)
        except ValueError:
            pass
    return raw.decode("utf-8", "replace")
