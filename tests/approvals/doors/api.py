"""The API's door: real HTTP with real tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from approvals.memory import verdict_of
from approvals.scenario_file import EventModel
from approvals.words import Person, PersonId, RequestId
from tests.approvals.doors.base import NO_SUCH_REQUEST, TEAM, DoorWorld, user_of

# What each decision is called, and whether it must say what was seen.
PATHS = {
    "cancel": "cancel", "withdraw_vote": "withdraw", "break_glass": "break-glass",
    "review": "review",
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class TokenWorld(DoorWorld):
    """People have tokens, which they were given while their accounts were in order."""

    tokens: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    async def token(self, name: str) -> str:
        """Somebody's token; a new one when the old one has run out."""
        user = user_of(name)
        known = self.tokens.get(user)
        if known is None or known[1] <= self.clock():
            assert self.desk
            issued = await self.desk.tokens.issue(
                self._as_they_were(name, user), lifetime=None, name="", delivery=""
            )
            assert issued.secret
            known = (issued.secret.get_secret_value(), issued.token.expires_at)
            self.tokens[user] = known
        return known[0]

    async def presented(self, event: EventModel) -> str | None:
        """What stands where the token belongs."""
        token = await self.token(event.by or "")
        match event.signature:
            case "missing":
                return None
            case "bad":
                return token[:-1] + ("0" if token[-1] != "0" else "1")
            case "old":
                return await self._revoked(event.by or "")
            case "other_request":
                return token[:17] + (await self.token("somebody else"))[17:]
            case _:
                return token

    async def _revoked(self, name: str) -> str:
        assert self.desk
        person = self._as_they_were(name, user_of(name))
        issued = await self.desk.tokens.issue(
            person, lifetime=timedelta(hours=1), name="", delivery=""
        )
        assert issued.secret
        assert await self.desk.tokens.revoke(person, issued.token.id)
        return issued.secret.get_secret_value()

    def _as_they_were(self, name: str, user: str) -> Person:
        key = name.strip().casefold()
        found = self.town.find(name) or Person(id=PersonId(key), name=name)
        return replace(found, flags=frozenset(), slack_team=TEAM, slack_user=user)


@dataclass(slots=True, kw_only=True)
class ApiWorld(TokenWorld):
    """Programs that call the API."""

    sent: dict[tuple[object, ...], Mapping[str, Any]] = field(default_factory=dict)

    async def at_door(self, event: EventModel, request_id: RequestId) -> str:
        path, body = "/api/requests", dict(self._extra(event))
        if event.do == "request":
            body |= {"command": f"backup {self._target(event.target)}", "reason": event.reason}
        else:
            action = PATHS.get(event.do) or verdict_of(event) or "maybe"
            path = f"{path}/{request_id}/{action}"
            body |= {**await self._seen_body(event, request_id), "reason": event.reason}
        # Whoever sends something again sends the same again.
        call = (event.delivery, event.by, path)
        body = dict(self.sent.setdefault(call, body)) if event.delivery else body
        return await self._call(event, path, body)

    async def _call(self, event: EventModel, path: str, body: Mapping[str, Any]) -> str:
        token = await self.presented(event)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if event.delivery:
            headers["Idempotency-Key"] = f"{self.number}-{event.delivery}"
        async with self.ground.session.request(
            event.method, f"{self.url}{path}", headers=headers, json=body
        ) as answer:
            said = await answer.json()
            assert answer.status < 500 or said["why"] == "directory", said
            if answer.status == 405:
                return "noop"
        return result_of(said)

    async def _seen_body(self, event: EventModel, request_id: RequestId) -> Mapping[str, Any]:
        if request_id == NO_SUCH_REQUEST:
            return {"plan_hash": "0" * 64, "policy_hash": "0" * 64, "step": 0}
        assert self.service
        seen = await self._seen(self.service, event, request_id)
        return {"plan_hash": seen.plan_hash, "policy_hash": seen.policy_hash, "step": seen.step}

    def _extra(self, event: EventModel) -> Mapping[str, Any]:
        extra = {"as_user": event.as_user, "set_policy": event.set_policy}
        return {name: value for name, value in extra.items() if value is not None}


def result_of(said: Mapping[str, Any]) -> str:
    """An answer as scenarios write it."""
    if said.get("noop"):
        return "noop"
    return "ok" if said.get("ok") else f"no:{said['why']}"
