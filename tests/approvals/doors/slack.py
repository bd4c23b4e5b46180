"""Slack's door: signed commands, buttons and modals, over HTTP into the real Bolt app."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlencode

from approvals.memory import verdict_of
from approvals.scenario_file import EventModel
from approvals.words import PlanHash, PolicyHash, RequestId
from bot.app import bolt_app
from bot.background import Background
from bot.buttons import Purpose
from bot.desk import Desk
from bot.edge import sign
from bot.process import Identity
from bot.views.deny import BLOCK_ID
from bot.views.deny import CALLBACK_ID as DENY_REASON
from bot.windows import Windows
from tests.approvals.doors.base import NO_SUCH_REQUEST, SECRET, TEAM, DoorWorld, user_of

FORM: Final = "application/x-www-form-urlencoded"
COUNTED: Final = ("twokey_decisions_total", "twokey_refusals_total")
_numbers = itertools.count(1)


@dataclass(slots=True)
class Client:
    """What the bot calls of Slack: windows that it opens, and words to one person."""

    token: str = "xoxb-doors"
    base_url: str = "http://127.0.0.1:9/"
    proxy: str | None = None
    opened: list[Mapping[str, Any]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    async def views_open(self, *, trigger_id: str, view: Mapping[str, Any]) -> Any:
        self.opened.append(view)
        return SimpleNamespace(data={"ok": True, "view": {"id": "V1", "hash": "1"}})

    async def chat_postEphemeral(self, *, text: str, **_: Any) -> Any:  # noqa: N802 - Slack's name
        self.told.append(text)
        return SimpleNamespace(data={"ok": True})


@dataclass(slots=True, kw_only=True)
class SlackWorld(DoorWorld):
    """People type `/db`, press the buttons of cards that they have seen, and send modals."""

    client: Client = field(default_factory=Client)
    background: Background = field(default_factory=lambda: Background(limit=timedelta(seconds=5)))

    def bolt(self, desk: Desk) -> Any:
        return bolt_app(
            replace(desk, windows=Windows(client=self.client)),  # type: ignore[arg-type]
            identity=Identity(team=TEAM, bot_id="B1", bot_user="U1"),
            client=self.client,  # type: ignore[arg-type]
            session=self.ground.session,
            background=self.background,
        )

    async def at_door(self, event: EventModel, request_id: RequestId) -> str:  # noqa: PLR0911
        match event.do:
            case "request":
                reason = f" reason={json.dumps(event.reason)}" if event.reason else ""
                return await self._type(event, f"backup {self._target(event.target)}{reason}")
            case "cancel":
                return await self._type(event, f"cancel {request_id}")
            case "break_glass":
                return await self._type(event, f"break-glass {request_id} {event.reason}")
            case "review":
                return await self._type(event, f"review {request_id} {event.reason}")
            case "withdraw_vote":
                return await self._type(event, f"withdraw {request_id}")
        if request_id == NO_SUCH_REQUEST:
            return "no:closed"  # where there is no request there is no card with buttons
        word = verdict_of(event)
        purpose = Purpose.DENY if word == "deny" else Purpose.APPROVE
        value = await self._button(event, request_id, purpose)
        if word == "deny":
            return await self._deny(event, value)
        return await self._press(event, word or "maybe", value)

    async def _button(self, event: EventModel, request_id: RequestId, purpose: Purpose) -> str:
        """The value of the button on the card that the person has before them."""
        assert self.desk
        record = await self.desk.cards.record(request_id)
        current = self.desk.cards.shown(record, purpose)
        seen = PlanHash(self._hash(event.seen, record.database)) if event.seen else None
        is_old = seen is not None and seen != record.plan_hash
        shown = replace(
            current,
            plan_hash=seen or current.plan_hash,
            card_hash="0" * 16 if is_old else current.card_hash,
            step=current.step if event.seen_step is None else event.seen_step,
        )
        value = self.desk.seal.close(shown)
        if event.set_policy is None:
            return value
        # All that a button says of the rules is sealed in it.
        forged = self.desk.seal.close(replace(shown, policy_hash=PolicyHash("0" * 64)))
        return f"{forged.partition('.')[0]}.{value.partition('.')[2]}"

    async def _deny(self, event: EventModel, value: str) -> str:
        """Press Deny, and send the modal that it opens."""
        count = len(self.client.opened)
        result = await self._press(event, "deny", value)
        if len(self.client.opened) == count:
            return result
        view = self.client.opened[-1]
        assert view["callback_id"] == DENY_REASON
        number = event.delivery or next(_numbers)
        payload = {
            "type": "view_submission",
            "team": {"id": TEAM},
            "user": {"id": user_of(event.by or ""), "team_id": TEAM},
            "view": {
                "id": f"V{number}",
                "hash": "1",
                "type": "modal",
                "callback_id": DENY_REASON,
                "private_metadata": view["private_metadata"],
                "state": {"values": {BLOCK_ID: {"text": {"value": event.reason or None}}}},
            },
        }
        return await self._send(event, {"payload": json.dumps(payload)})

    async def _press(self, event: EventModel, action: str, value: str) -> str:
        stamp = next(_numbers)
        payload = {
            "type": "block_actions",
            "team": {"id": TEAM},
            "user": {"id": user_of(event.by or ""), "team_id": TEAM},
            "channel": {"id": f"C{self.number}"},
            "trigger_id": f"t{self.number}.{event.delivery or stamp}",
            "actions": [
                {
                    "type": "button", "block_id": "decide", "action_id": action, "value": value,
                    "action_ts": str(stamp),
                }
            ],
        }  # fmt: skip
        return await self._send(event, {"payload": json.dumps(payload)})

    async def _type(self, event: EventModel, text: str) -> str:
        stamp = next(_numbers)
        form = {
            "command": "/db", "text": text, "team_id": TEAM, "user_id": user_of(event.by or ""),
            "channel_id": f"C{self.number}", "token": str(stamp),
            "trigger_id": f"t{self.number}.{event.delivery or stamp}",
        }  # fmt: skip
        return await self._send(event, form)

    async def _send(self, event: EventModel, form: Mapping[str, str]) -> str:
        """Over HTTP, signed as Slack signs unless the scenario has it otherwise."""
        body = urlencode(form).encode()
        names_another = event.as_user and self.town.find(event.as_user) != self.town.find(event.by)
        sent = body
        if names_another:
            # Slack says who it is within what it signs: naming somebody else breaks that.
            ours, theirs = user_of(event.by or ""), user_of(event.as_user or "")
            sent = body.replace(ours.encode(), theirs.encode())
        before = self._counts()
        async with self.ground.session.request(
            event.method, f"{self.url}/slack/events", headers=self._headers(event, body), data=sent
        ) as answer:
            status = answer.status
        await self.background.drain()
        if status == 405:
            return "noop"
        if status == 401:
            return "no:impersonation" if names_another else "no:signature"
        assert status == 200, status
        news = [name for name, count in self._counts().items() if count != before.get(name)]
        if not news:
            return "window"  # opened, and nothing decided yet
        [result] = news
        if result == "no:input" and form.get("text", "").endswith(f" {NO_SUCH_REQUEST}"):
            return "no:closed"
        if result == "no:signature" and event.set_policy is not None:
            return "no:policy"
        return result

    def _headers(self, event: EventModel, body: bytes) -> dict[str, str]:
        now = int(time.time())
        at = now - 600 if event.signature == "old" else now
        signed = b"another request" if event.signature == "other_request" else body
        value = sign(
            "another secret" if event.signature == "bad" else SECRET, timestamp=at, body=signed
        )
        headers = {"Content-Type": FORM, "X-Slack-Request-Timestamp": str(at)}
        return headers if event.signature == "missing" else headers | {"X-Slack-Signature": value}

    def _counts(self) -> dict[str, float]:
        """What was decided or refused so far, by result."""
        assert self.desk
        counts: dict[str, float] = {}
        for family in self.desk.metrics.registry.collect():
            for sample in family.samples:
                if sample.name in COUNTED:
                    word = sample.labels.get("result") or f"no:{sample.labels['why']}"
                    result = word if word in ("ok", "noop") or ":" in word else f"no:{word}"
                    counts[result] = counts.get(result, 0) + sample.value
        return counts
