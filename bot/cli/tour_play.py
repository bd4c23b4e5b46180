"""How a tour is played: somebody types or presses, and what they see is waited for and checked."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg

from bot.cli.demo_inventory import CHANNEL
from bot.cli.world import World
from sandbox.slack.actor import Delivery

ANA, BEN, CLEO, DORA, OLE, GUS, EVE = (
    "U0ANA", "U0BEN", "U0CLEO", "U0DORA", "U0OLE", "U0GUS", "U0EVE",
)  # fmt: skip
DESK: Final = "C0DBOPS"
SECONDS_MAX: Final = 30.0
RUN_SECONDS_MAX: Final = 180.0
_PAGES_MAX: Final = 50
_SQL_SECONDS_MAX: Final = 60

Json = Mapping[str, Any]
Say = Callable[[str], None]


class TourError(Exception):
    """A step did not do what it should."""


@dataclass(kw_only=True)
class Tour:
    """Where the story stands."""

    world: World
    say: Say
    steps: int = 0
    notes: dict[str, Any] = field(default_factory=dict)  # what later steps build on

    async def ask(self, user: str, text: str) -> str:
        """Type a command; what the person alone is told."""
        delivery = await self.world.slack.command(user, DESK, text)
        return self._told(user, delivery)

    async def press(self, user: str, request: int, button: str) -> str:
        """Press a button of a request's card; what the person alone is told, if anything."""
        before = len(self.world.slack.ephemerals(user))
        channel, card = await self._placed(request)
        delivery = await self.world.slack.click(user, channel, card["ts"], button)
        if delivery.error:
            raise TourError(f"Slack showed {user}: {delivery.error}")
        if button in {"deny", "details"}:
            await self.world.slack.wait_for(lambda: self.world.slack.views(user), SECONDS_MAX)
            return ""
        told = await self.world.slack.wait_for(
            lambda: self.world.slack.ephemerals(user)[before:], SECONDS_MAX
        )
        return texts(told)

    async def read(self, user: str, request: int) -> int:
        """Open every page of a request's details; how many there were."""
        slack = self.world.slack
        await self.press(user, request, "details")
        pages, view = 1, slack.views(user)[-1]
        while "page_next" in json.dumps(view["blocks"]) and pages < _PAGES_MAX:
            turned = await slack.click_view(user, view["id"], "page_next")
            if turned.error:
                raise TourError(f"Slack showed {user}: {turned.error}")
            pages, view = pages + 1, slack.views(user)[-1]
        await slack.close_view(user, view["id"])
        return pages

    async def approve_by_name(self, user: str, request: int, name: str) -> None:
        """Approve where the rule wants the database's name typed."""
        slack = self.world.slack
        channel, card = await self._placed(request)
        await slack.click(user, channel, card["ts"], "approve")
        view = await slack.wait_for(lambda: self._window(user, "typed"), SECONDS_MAX)
        sent = await slack.submit(user, view["id"], {"typed": {"text": name}})
        if not sent.ok:
            raise TourError(f"The name was not taken: {sent.error or sent.errors}")

    async def undo(self, user: str, request: int, reason: str) -> None:
        """Press the card's undo, and say why."""
        slack = self.world.slack
        channel, card = await self._placed(request)
        await slack.click(user, channel, card["ts"], "undo")
        view = await slack.wait_for(lambda: self._window(user, "reason"), SECONDS_MAX)
        sent = await slack.submit(user, view["id"], {"reason": {"text": reason}})
        if not sent.ok:
            raise TourError(f"The undo was not taken: {sent.error or sent.errors}")

    async def late(self, command: str, says: str) -> str:
        """Have Ana ask for what may take longer than Slack waits; what came of it."""
        await self.ask(ANA, command)

        def found() -> str | None:
            text = text_of(self.world.slack.ephemerals(ANA)[-1])
            return text if says in text else None

        return await self.world.slack.wait_for(found, RUN_SECONDS_MAX)

    async def connected(self, application: str) -> Any:
        """A connection to the database `orders`."""
        dsn = next(cluster.dsn for cluster in self.world.clusters if cluster.name == "orders")
        return await asyncpg.connect(
            dsn,
            timeout=_SQL_SECONDS_MAX,
            command_timeout=_SQL_SECONDS_MAX,
            server_settings={"application_name": application},
        )

    async def value(self, query: str) -> Any:
        """One value out of the database `orders`."""
        conn = await self.connected("tour")
        try:
            return await conn.fetchval(query)
        finally:
            await conn.close()

    def _window(self, user: str, block: str) -> Json | None:
        """The front window, once it has an input of this name."""
        views = self.world.slack.views(user)
        found = [b for b in (views[-1]["blocks"] if views else []) if b["block_id"] == block]
        return views[-1] if found else None

    async def card(self, request: int, *, says: str = "", seconds: float = SECONDS_MAX) -> Json:
        """A request's card, once its text has `says` in it."""
        return (await self._placed(request, says=says, seconds=seconds))[1]

    async def thread(self, request: int, says: str, *, seconds: float = RUN_SECONDS_MAX) -> str:
        """A message in the card's thread with `says` in it."""
        channel, card = await self._placed(request)

        def found() -> str | None:
            for message in self.world.slack.messages(channel):
                is_reply = message.get("thread_ts") == card["ts"] != message["ts"]
                if is_reply and says in text_of(message):
                    return text_of(message)
            return None

        return await self.world.slack.wait_for(found, seconds)

    async def _placed(
        self, request: int, *, says: str = "", seconds: float = SECONDS_MAX
    ) -> tuple[str, Json]:
        return await self.world.slack.wait_for(lambda: self._card(request, says), seconds)

    def _card(self, request: int, says: str) -> tuple[str, Json] | None:
        for channel in (CHANNEL, DESK):
            # The newest: the card of a request that is to be undone names the undoing one too.
            for message in reversed(self.world.slack.messages(channel)):
                is_card = message.get("thread_ts", message["ts"]) == message["ts"]
                if is_card and f"#{request}" in text_of(message) and says in text_of(message):
                    return channel, message
        return None

    def _told(self, user: str, delivery: Delivery) -> str:
        if delivery.error:
            raise TourError(f"Slack showed {user}: {delivery.error}")
        return texts(self.world.slack.ephemerals(user)[-1:])


def number_in(told: str) -> int:
    """Which request was stored.

    Raises:
        TourError: none was.
    """
    found = re.search(r"Request \*?#?(\d+)", told)
    if found is None:
        raise TourError(f"No request was stored: {told}")
    return int(found[1])


async def command_line(*words: str, environ: Mapping[str, str]) -> tuple[int, str]:
    """Exit status and output of `twokey <words>` in a process of its own, knowing only `environ`.

    Raises:
        TourError: it took too long.
    """
    program = Path(sys.executable).with_name("twokey")
    process = await asyncio.create_subprocess_exec(
        program,
        *words,
        env={"PATH": os.environ.get("PATH", ""), **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS_MAX):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise TourError(f"twokey {' '.join(words)} took too long.") from None
    return process.returncode or 0, said.decode(errors="replace")


def expect(text: str, part: str) -> str:
    """`text`, which must have `part` in it.

    Raises:
        TourError: it has not.
    """
    if part not in text:
        raise TourError(f"Expected {part!r} in: {text}")
    return text


def quoted(who: str, text: str) -> list[str]:
    """What somebody was told, as lines of a transcript."""
    lines = [line for line in text.splitlines() if line.strip()]
    return [f"{who}: {lines[0]}", *(f"    {line}" for line in lines[1:])] if lines else []


def texts(messages: Sequence[Json]) -> str:
    return "\n".join(text_of(message) for message in messages)


def text_of(message: Json) -> str:
    """All text of a message, blocks included, as a reader sees it."""
    found: list[str] = []
    _collect(message.get("blocks") or [], found)
    return "\n".join([message.get("text", ""), *found]) if not found else "\n".join(found)


def _collect(node: Any, found: list[str]) -> None:
    if isinstance(node, list):
        for part in node:
            _collect(part, found)
    elif isinstance(node, dict):
        if node.get("type") == "table":
            found.extend(_row(row) for row in node.get("rows", []))
            return
        if isinstance(node.get("text"), str):
            found.append(node["text"])
        for key, part in node.items():
            if key != "text" or not isinstance(part, str):
                _collect(part, found)


def _row(cells: Sequence[Any]) -> str:
    return "  |  ".join(json.dumps(_cell(cell), ensure_ascii=False).strip('"') for cell in cells)


def _cell(cell: Any) -> str:
    found: list[str] = []
    _collect(cell, found)
    return " ".join(found)
