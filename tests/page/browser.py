"""A headless Chromium, driven over its DevTools protocol with aiohttp's WebSocket.

Only what the page's tests need: open tabs, evaluate, wait, press keys, click, take pictures.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)
START_SECONDS: Final = 60
CALL_SECONDS: Final = 60
WAIT_SECONDS: Final = 30
MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
KEYS: Final[Mapping[str, int]] = {
    "Enter": 13,
    "Escape": 27,
    "Tab": 9,
    "ArrowUp": 38,
    "ArrowDown": 40,
    "Home": 36,
    "End": 35,
}


def chromium() -> str | None:
    """The program's path, or None where it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class PageError(AssertionError):
    """An expression threw, or what was waited for did not come."""


@dataclass(slots=True)
class Browser:
    """The connection to one Chromium; closing it ends the program."""

    socket: aiohttp.ClientWebSocketResponse
    ids: int = 0
    waiting: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    tabs: dict[str, Tab] = field(default_factory=dict)

    async def call(self, method: str, params: Any = None, session: str = "") -> dict[str, Any]:
        """One command and its result."""
        self.ids += 1
        message = {"id": self.ids, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        future = asyncio.get_running_loop().create_future()
        self.waiting[self.ids] = future
        await self.socket.send_str(json.dumps(message))
        async with asyncio.timeout(CALL_SECONDS):
            answer = await future
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    async def listen(self) -> None:
        """Hand answers to those who wait, and events to their tabs, until the socket ends."""
        async for message in self.socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            data = json.loads(message.data)
            if future := self.waiting.pop(data.get("id", 0), None):
                future.set_result(data)
            elif tab := self.tabs.get(data.get("sessionId", "")):
                tab.hear(data["method"], data["params"])

    async def open(self, url: str, *, width: int = 1440, height: int = 900) -> Tab:
        """A new tab at `url`, in a profile of its own: it shares nothing with other tabs."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        made = await self.call(
            "Target.createTarget", {"url": "about:blank", "browserContextId": context}
        )
        attached = await self.call(
            "Target.attachToTarget", {"targetId": made["targetId"], "flatten": True}
        )
        tab = Tab(browser=self, session=attached["sessionId"], context=context)
        self.tabs[tab.session] = tab
        for domain in ("Page", "Runtime", "Network", "Log"):
            await tab.call(f"{domain}.enable")
        await tab.size(width, height)
        await tab.go(url)
        return tab


@dataclass(slots=True)
class Tab:
    """One page."""

    browser: Browser
    session: str
    context: str
    errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def hear(self, method: str, params: Mapping[str, Any]) -> None:
        """Remember what tests ask about: errors, and which addresses were asked for."""
        match method:
            case "Runtime.exceptionThrown":
                detail = params["exceptionDetails"]
                self.errors.append(str(detail.get("exception", detail).get("description", detail)))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])

    async def call(self, method: str, params: Any = None) -> dict[str, Any]:
        """One command to this tab."""
        return await self.browser.call(method, params, self.session)

    async def close(self) -> None:
        """Close the tab and forget its profile; a second time is no error."""
        if self.browser.tabs.pop(self.session, None) is None:
            return
        await self.browser.call("Target.disposeBrowserContext", {"browserContextId": self.context})

    async def go(self, url: str) -> None:
        """Load `url`."""
        await self.call("Page.navigate", {"url": url})

    async def size(self, width: int, height: int) -> None:
        """The window's inner size in CSS pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    async def dark(self, *, on: bool) -> None:
        """What the person prefers."""
        value = "dark" if on else "light"
        features = [{"name": "prefers-color-scheme", "value": value}]
        await self.call("Emulation.setEmulatedMedia", {"features": features})

    async def eval(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        params = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        result = await self.call("Runtime.evaluate", params | {"userGesture": True})
        if "exceptionDetails" in result:
            detail = result["exceptionDetails"]
            raise PageError(str(detail.get("exception", detail).get("description", detail)))
        return result["result"].get("value")

    async def until(self, expression: str, *, seconds: float = WAIT_SECONDS) -> Any:
        """Wait inside the page, frame by frame, until the expression is true; its value."""
        script = f"""new Promise((resolve, reject) => {{
            const end = performance.now() + {seconds * 1000};
            const look = () => {{
                let value = null;
                try {{ value = ({expression}); }} catch (error) {{ value = null; }}
                if (value) resolve(value);
                else if (performance.now() > end) reject(new Error('not in time'));
                else setTimeout(look, 25);
            }};
            look();
        }})"""
        try:
            return await self.eval(script)
        except PageError as error:
            seen = await self.eval("document.body.innerText.slice(0, 3000)")
            raise PageError(f"{expression}\n{error}\nthe page says:\n{seen}") from None

    async def shows(self, text: str, *, within: str = "body") -> None:
        """Wait until `text` can be read within the element."""
        wanted, where = json.dumps(text), json.dumps(within)
        await self.until(f"document.querySelector({where})?.innerText.includes({wanted})")

    async def click(self, selector: str, *, text: str = "") -> None:
        """Click with the mouse in the middle of the last visible match, once it is there."""
        wanted = f"{json.dumps(selector)}, {json.dumps(text)}"
        script = f"""((selector, text) => {{
            const all = [...document.querySelectorAll(selector)].filter(
                (e) => e.checkVisibility() && e.textContent.includes(text));
            const found = all[all.length - 1];
            if (!found) return null;
            found.scrollIntoView({{block: 'nearest', behavior: 'instant'}});
            const at = found.getBoundingClientRect();
            return [at.left + at.width / 2, at.top + at.height / 2];
        }})({wanted})"""
        x, y = await self.until(script)
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent",
                {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1},
            )

    async def type(self, text: str, *, into: str = "") -> None:
        """Type into the focused element, or into the last match of a selector."""
        if into:
            await self.click(into)
        await self.call("Input.insertText", {"text": text})

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key that is named in `KEYS`."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        common["modifiers"] = 8 if shift else 0
        down = common | {"type": "keyDown"} | ({"text": "\r"} if key == "Enter" else {})
        await self.call("Input.dispatchKeyEvent", down)
        await self.call("Input.dispatchKeyEvent", common | {"type": "keyUp"})

    async def picture(self, path: Path) -> None:
        """Save what the tab shows as PNG."""
        shot = await self.call("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A fresh Chromium with an empty profile; it is gone afterwards, whatever happened."""
    program = chromium()
    if program is None:
        raise FileNotFoundError("chromium is not installed; apt-get install chromium brings it")
    with tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
            *FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with _connected(Path(profile), process) as connection:
                yield connection
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await _ended(process)


@asynccontextmanager
async def _connected(profile: Path, process: asyncio.subprocess.Process) -> AsyncIterator[Browser]:
    url = await _address(profile / "DevToolsActivePort", process)
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.ws_connect(url, max_msg_size=MESSAGE_BYTES_MAX, autoping=True) as socket,
    ):
        connection = Browser(socket=socket)
        listener = asyncio.create_task(connection.listen())
        try:
            yield connection
        finally:
            with suppress(PageError, TimeoutError, ConnectionError):
                await connection.call("Browser.close")
            listener.cancel()
            with suppress(asyncio.CancelledError):
                await listener


async def _address(file: Path, process: asyncio.subprocess.Process) -> str:
    """Chromium writes its port and path into this file once it listens."""
    async with asyncio.timeout(START_SECONDS):
        while not file.exists() or "\n" not in file.read_text():
            if process.returncode is not None:
                raise RuntimeError(f"Chromium ended with {process.returncode} while starting.")
            await asyncio.sleep(0.05)
    port, path = file.read_text().splitlines()[:2]
    return f"ws://127.0.0.1:{port}{path}"


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(30):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    # Helpers that outlive it would still write into the profile. The group is Chromium's own.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
