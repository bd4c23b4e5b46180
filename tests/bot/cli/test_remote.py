"""`twokey request`, `approve` and the like, against the API over real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from approvals.words import ExplainedError
from bot.cli.main import app
from bot.cli.plain import document, line, lines
from bot.cli.quoting import joined
from bot.cli.remote_http import is_overheard
from bot.command_text import words
from store.connect import Store
from tests.approvals.doors.api import ApiWorld
from tests.approvals.doors.base import ground_on
from tests.bot.test_api import scenario

EVIL = "drop\x1b[2J\x1b]0;owned\x07 \u202egnp.exe\u200b\r\nPlan   0000"


@pytest.fixture
async def world(store: Store, tmp_path: Path) -> AsyncIterator[ApiWorld]:
    async with ground_on(store, tmp_path) as ground:
        made = await ApiWorld.through(ground, scenario(tmp_path), 1)
        assert isinstance(made, ApiWorld)
        yield made
        await made.close()


async def twokey(world: ApiWorld, who: str, *given: str, typed: str = "") -> Result:
    env = {"TWOKEY_URL": world.url, "TWOKEY_TOKEN": await world.token(who)}
    return await asyncio.to_thread(CliRunner().invoke, app, list(given), env=env, input=typed)


async def asked(world: ApiWorld, *more: str) -> dict[str, Any]:
    result = await twokey(world, "ana", "request", "backup", "w1_db1", "--json", *more)
    assert result.exit_code == 0, result.output
    said: dict[str, Any] = json.loads(result.stdout)["request"]
    return said


async def test_asking_reading_agreeing_and_taking_back(world: ApiWorld) -> None:
    request = await asked(world, "--reason", "before the release")
    number = str(request["id"])
    listed = await twokey(world, "bo", "requests", "--waiting", "me")
    assert f"{number}  pending" in listed.stdout
    shown = await twokey(world, "bo", "show", number)
    assert "before the release" in shown.stdout
    assert request["plan_hash"] in shown.stdout
    agreed = await twokey(world, "bo", "approve", number, typed="y\n")
    assert agreed.exit_code == 0
    assert "1. Do it" in agreed.stdout
    assert "Missing: 1 more of dba" in agreed.stdout
    back = await twokey(world, "bo", "withdraw", number)
    assert "Missing: 2 more of dba" in back.stdout
    denied = await twokey(world, "cy", "deny", number, "--reason", "no", typed="y\n")
    assert (denied.exit_code, (await record(world, number))["state"]) == (0, "denied")


async def record(world: ApiWorld, number: str) -> dict[str, Any]:
    shown = await twokey(world, "bo", "show", number, "--json")
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


@pytest.mark.parametrize("typed", ["", "n\n", "yes please\n", "\n"])
async def test_without_a_yes_nothing_is_sent(world: ApiWorld, typed: str) -> None:
    request = await asked(world)
    result = await twokey(world, "bo", "approve", str(request["id"]), typed=typed)
    assert result.exit_code == 1
    assert (await record(world, str(request["id"])))["votes"] == []


@pytest.mark.parametrize("given", [["--yes"], ["--plan-hash", "0" * 64], ["--json"]])
async def test_a_script_must_say_what_was_read(world: ApiWorld, given: list[str]) -> None:
    request = await asked(world)
    result = await twokey(world, "bo", "approve", str(request["id"]), *given)
    assert isinstance(result.exception, ExplainedError)
    assert (await record(world, str(request["id"])))["votes"] == []


async def test_a_script_that_read_another_plan_is_refused(world: ApiWorld) -> None:
    request = await asked(world)
    number = str(request["id"])
    old = await twokey(world, "bo", "approve", number, "--yes", "--plan-hash", "0" * 64)
    assert old.exit_code == 1
    right = await twokey(
        world, "bo", "approve", number, "--yes", "--plan-hash", request["plan_hash"]
    )
    assert right.exit_code == 0


async def test_the_same_refusals_as_everywhere(world: ApiWorld) -> None:
    request = await asked(world)
    own = await twokey(world, "ana", "approve", str(request["id"]), typed="y\n")
    assert own.exit_code == 1
    assert "→" in own.stderr
    nothing = await twokey(world, "ana", "request", "backup", "nowhere")
    assert nothing.exit_code == 2
    missing = await twokey(world, "ana", "show", "999")
    assert missing.exit_code == 2


async def test_nobody_acts_on_another_persons_terminal(world: ApiWorld) -> None:
    world.title = EVIL
    request = await asked(world, "--reason", "\u2067reason")
    for given in (
        ["show", str(request["id"])],
        ["requests"],
        ["show", str(request["id"]), "--json"],
    ):
        result = await twokey(world, "bo", *given)
        assert result.exit_code == 0, result.output
        for char in "\x1b\x07\u202e\u200b\r\u2067":
            assert char not in result.stdout
        assert "\nPlan   0000" not in result.stdout


@pytest.mark.parametrize("make", [line, lambda text: "".join(lines(text)), lambda t: document([t])])
def test_what_is_printed_is_plain(make: Any) -> None:
    every = "".join(map(chr, [*range(32), *range(127, 160), 0x202E, 0x2066, 0x200B, 0xFEFF]))
    printed = make(every).replace("\n", "")
    assert printed.isprintable(), [char for char in printed if not char.isprintable()]


@pytest.mark.parametrize(
    "given",
    [["backup", "orders"], ["a b", 'c"d', "e\\f", "g'h", "", "<&>", "i=j k"], ["--to", "x y"]],
)
def test_words_arrive_as_they_were_typed(given: list[str]) -> None:
    assert (
        words(joined(given).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
        == given
    )


async def test_a_token_in_a_file_is_ones_own(world: ApiWorld, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(await world.token("bo") + "\n")
    env = {"TWOKEY_URL": world.url}
    given = ["requests", "--token-file", str(file)]
    file.chmod(0o644)
    result = await asyncio.to_thread(CliRunner().invoke, app, given, env=env)
    assert isinstance(result.exception, ExplainedError)
    assert "can be read by others" in result.exception.problem
    file.chmod(0o600)
    result = await asyncio.to_thread(CliRunner().invoke, app, given, env=env)
    assert (result.exit_code, result.stdout) == (0, "There are none.\n")


@pytest.mark.parametrize(
    ("url", "overheard"),
    [
        ("https://twokey.example", False),
        ("http://127.0.0.1:1", False),
        ("http://[::1]:1", False),
        ("http://localhost:1", False),
        ("http://twokey.example", True),
        ("http://10.0.0.1", True),
        ("http://localhost.example", True),
    ],
)
def test_a_token_in_the_clear_is_warned_of(url: str, *, overheard: bool) -> None:
    assert is_overheard(url) is overheard


class _Liar(BaseHTTPRequestHandler):
    """Says what it likes; remembers what it was sent."""

    answer: bytes = b"{}"
    status = 200
    seen: list[str] = []  # noqa: RUF012 - of this one test

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_response(self.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    do_POST = do_GET  # noqa: N815 - the server's name for it

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Nothing."""


@pytest.fixture
def liar() -> Iterator[str]:
    with socketserver.TCPServer(("127.0.0.1", 0), _Liar) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(timeout=30)


async def test_a_plan_that_does_not_fit_its_hash_is_not_agreed_to(
    world: ApiWorld, liar: str
) -> None:
    request = await asked(world)
    shown = await record(world, str(request["id"]))
    shown["plan"] = {**shown["plan"], "steps": ["Nothing bad"]}
    _Liar.answer, _Liar.status, _Liar.seen = json.dumps(shown).encode(), 200, []
    env = {"TWOKEY_URL": liar, "TWOKEY_TOKEN": "twk_x"}
    result = await asyncio.to_thread(
        CliRunner().invoke, app, ["approve", "1"], env=env, input="y\n"
    )
    assert isinstance(result.exception, ExplainedError)
    assert "does not fit its own hash" in result.exception.problem
    assert _Liar.seen == ["/api/requests/1"]


@pytest.mark.parametrize(
    ("status", "answer"), [(302, b"{}"), (200, b"<html>"), (502, b"oops"), (200, b"[]")]
)
async def test_no_redirect_is_followed_and_nonsense_is_told(
    liar: str, status: int, answer: bytes
) -> None:
    _Liar.answer, _Liar.status, _Liar.seen = answer, status, []
    env = {"TWOKEY_URL": liar, "TWOKEY_TOKEN": "twk_x"}
    await asyncio.to_thread(CliRunner().invoke, app, ["requests"], env=env)
    assert _Liar.seen == ["/api/requests"]


async def test_as_a_program_of_its_own(world: ApiWorld) -> None:
    request = await asked(world)

    async def run(who: str, *given: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if "TWOKEY" not in name}
        env = {**clean, "TWOKEY_URL": world.url, "TWOKEY_TOKEN": await world.token(who)}
        program = [sys.executable, "-c", "from bot.cli.main import main; main()", *given]
        return await asyncio.to_thread(
            subprocess.run, program, env=env, input=typed, capture_output=True, text=True,
            timeout=150, check=False, cwd=Path(__file__).parents[3],
        )  # fmt: skip

    agreed = await run("bo", "approve", str(request["id"]), typed="y\n")
    assert (agreed.returncode, agreed.stderr) == (0, "")
    own = await run(
        "ana", "approve", str(request["id"]), "--yes", "--plan-hash", request["plan_hash"]
    )
    assert own.returncode == 1
    wrong = await run("cy", "approve", str(request["id"]), "--yes")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
    nowhere = await run("cy", "approve", "x")
    assert nowhere.returncode == 2
