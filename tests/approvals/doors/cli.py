"""The command line's door: `twokey approve` and the like as a terminal runs them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from typer.testing import CliRunner

from approvals.memory import verdict_of
from approvals.scenario_file import EventModel
from approvals.words import ExplainedError, RequestId
from bot.cli.main import app
from tests.approvals.doors.api import PATHS, TokenWorld, result_of
from tests.approvals.doors.base import NO_SUCH_REQUEST

VOTES = ("approve", "deny", "break-glass")
REASONED = ("deny", "break-glass", "review")


@dataclass(slots=True, kw_only=True)
class CliWorld(TokenWorld):
    """People at terminals, who have read what `show` prints and say which plan that was."""

    async def at_door(self, event: EventModel, request_id: RequestId) -> str:
        if event.method != "POST":
            return await self._looked(event, request_id)
        if event.do == "request":
            given = ["request", "backup", self._target(event.target), "--reason", event.reason]
        else:
            word = PATHS.get(event.do) or verdict_of(event) or "maybe"
            given = [word, str(request_id), *await self._said(word, event, request_id)]
        # There is no such option: nobody can even try it.
        if event.as_user and self.town.find(event.as_user) != self.town.find(event.by):
            return await self._not_offered([*given, "--as-user", event.as_user], "impersonation")
        if event.set_policy is not None:
            return await self._not_offered([*given, "--set-policy", "x"], "policy")
        if event.do == "vote" and given[0] not in VOTES:
            return await self._not_offered(given, "verdict")
        if event.delivery:
            given += ["--key", f"{self.number}-{event.delivery}"]
        code, out = await self._run(event, [*given, "--json"])
        said = json.loads(out)
        result = result_of(said)
        assert (code == 0) == (result in ("ok", "noop")) or said.get("noop"), (code, said)
        return result

    async def _said(self, word: str, event: EventModel, request_id: RequestId) -> list[str]:
        said = ["--reason", event.reason] if event.reason or word in REASONED else []
        if word not in VOTES:
            return said
        if request_id == NO_SUCH_REQUEST:
            return [*said, "--yes", "--plan-hash", "0" * 64]
        assert self.service
        seen = await self._seen(self.service, event, request_id)
        said += ["--yes", "--plan-hash", seen.plan_hash]
        if word == "break-glass":
            return said
        return [*said, "--policy-hash", seen.policy_hash, "--step", str(seen.step)]

    async def _looked(self, event: EventModel, request_id: RequestId) -> str:
        code, _ = await self._run(event, ["show", str(request_id), "--json"])
        assert code == 0
        return "noop"

    async def _not_offered(self, given: list[str], why: str) -> str:
        code, _ = await self._run(None, given)
        assert code == 2
        return f"no:{why}"

    async def _run(self, event: EventModel | None, given: list[str]) -> tuple[int, str]:
        token = await self.presented(event) if event else "twk_none"
        env = {"TWOKEY_URL": self.url, "TWOKEY_TOKEN": token or "none"}
        result = await asyncio.to_thread(CliRunner().invoke, app, given, env=env)
        if isinstance(result.exception, ExplainedError):
            return 2, result.exception.problem
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        return result.exit_code, result.stdout
