"""One Chromium for all tests of this process; a fresh workspace and app for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio

from sandbox.slack.server import SlackStandIn, start_slack
from tests.page.browser import Browser, Tab, browser
from tests.page.desk import Desk, desk

MANIFEST = Path(__file__).parents[2] / "manifest.yml"
Sit = Callable[..., Awaitable[Tab]]


@pytest_asyncio.fixture(loop_scope="session", scope="session", name="chrome")
async def _chrome() -> AsyncIterator[Browser]:
    async with browser() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session", name="slack")
async def _slack() -> AsyncIterator[SlackStandIn]:
    made = await start_slack(manifest=MANIFEST)
    try:
        yield made
    finally:
        await made.close()


@pytest_asyncio.fixture(loop_scope="session", name="app")
async def _app(slack: SlackStandIn) -> AsyncIterator[Desk]:
    async with desk(slack) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session", name="sit")
async def _sit(chrome: Browser, slack: SlackStandIn) -> AsyncIterator[Sit]:
    """Sit somebody down at a tab of their own. No tab may end with an error or look elsewhere."""
    tabs: list[Tab] = []

    async def sit(user: str = "U0ANA", place: str = "C0DBOPS") -> Tab:
        tab = await chrome.open(f"{slack.url}/#{user}/{place}")
        tabs.append(tab)
        await tab.until(
            "document.querySelector('.sitter') && !document.querySelector('#banner:not([hidden])')"
        )
        return tab

    yield sit
    for tab in tabs:
        assert tab.errors == []
        foreign = [u for u in tab.requested if not u.startswith((slack.url, "data:"))]
        assert foreign == []
        await tab.close()


@pytest_asyncio.fixture(loop_scope="session", scope="module", name="looking")
async def _looking(chrome: Browser) -> AsyncIterator[Tab]:
    """A tab that many tests look at and none changes."""
    slack = await start_slack(manifest=MANIFEST)
    try:
        tab = await chrome.open(f"{slack.url}/#U0ANA/C0DBOPS")
        await tab.until("document.querySelector('.sitter')")
        yield tab
        await tab.close()
    finally:
        await slack.close()
