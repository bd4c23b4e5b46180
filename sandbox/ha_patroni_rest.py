"""Asking a sandbox's agents: as plain as can be, so that it checks the adapter and is not it."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from typing import Any, Final

import aiohttp

_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)


class PatroniRest:
    """One agent's REST API. A session per call: nothing is kept between event loops."""

    def __init__(self, base: str, user: str, password: str) -> None:
        self._base = base
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}"}

    async def get(self, path: str) -> Any:
        """What it answers, whatever the status; None where it does not answer in JSON."""
        return (await self.send("GET", path))[1]

    async def send(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON; (0, None) where nobody answers."""
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT, headers=self._headers) as session,
                session.request(method, self._base + path, json=body) as response,
            ):
                return response.status, await _json(response)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, None


def members_of(seen: Mapping[str, Any] | None) -> dict[str, str]:
    """The members and their states, as an agent lists them."""
    return {each["name"]: each.get("state", "") for each in (seen or {}).get("members", ())}


def is_healthy(seen: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether all members run on one timeline, one leads, and nothing is paused or scheduled."""
    members = seen.get("members", ())
    leaders = [each for each in members if each.get("role") == "leader"]
    return (
        {each["name"] for each in members} == set(names)
        and len(leaders) == 1
        and all(each.get("state") in {"running", "streaming"} for each in members)
        and len({each.get("timeline") for each in members}) == 1
        and not seen.get("pause")
        and not seen.get("scheduled_switchover")
    )


async def _json(response: aiohttp.ClientResponse) -> Any:
    try:
        return await response.json(content_type=None)
    except ValueError:  # an agent answers some faults in HTML
        return None
