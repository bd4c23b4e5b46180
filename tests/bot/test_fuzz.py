"""Whatever is sent with a valid signature: no 500, no traceback, no half-done change."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import aiohttp
import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals.compiling import PolicyError
from approvals.policy_file import parse_policy, read_document
from approvals.words import BadInputError, ExplainedError
from bot.command_text import parse, words
from bot.edge import sign
from bot.inventory import parse_inventory
from postgres.server import Server
from sandbox.slack import delivery
from sandbox.slack.server import start_slack
from store.connect import connect
from tests.bot.conftest import MANIFEST
from tests.bot.world import CHANNEL, INVENTORY, OPERATIONS, POLICY, World, running

T = TypeVar("T")
EXAMPLES = 1500 if os.environ.get("STRESS") == "full" else 120
FORM = "application/x-www-form-urlencoded"

# What is half done: a request without its audit entry, card or gates; a vote or a run that
# nobody entered; an answer without its request.
HALF_DONE = """
    SELECT 'a request without its entry' FROM requests r
     WHERE NOT EXISTS (SELECT FROM audit_log a WHERE a.request_id = r.id AND a.action = 'ask')
    UNION ALL
    SELECT 'a request without its card' FROM requests r
     WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.request_id = r.id)
    UNION ALL
    SELECT 'an entry without its request' FROM audit_log a
     WHERE a.action = 'ask' AND NOT EXISTS (SELECT FROM requests r WHERE r.id = a.request_id)
    UNION ALL
    SELECT 'votes: ' || (SELECT count(*) FROM votes) || ', entries: ' || n
      FROM (SELECT count(*) AS n FROM audit_log
             WHERE action IN ('vote', 'withdraw_vote') AND detail ->> 'result' = 'ok') AS e
     WHERE n <> (SELECT count(*) FROM votes)
    UNION ALL
    SELECT 'a run that nobody granted' FROM runs u JOIN requests r ON r.id = u.request_id
     WHERE r.state IN ('denied', 'refused')
    UNION ALL
    SELECT 'an approved request without its run' FROM requests r
     WHERE r.state = 'approved' AND NOT EXISTS (SELECT FROM runs u WHERE u.request_id = r.id)
"""


class Bugs(logging.Handler):
    """Errors that the process logged: each would be somebody's "id ...".

    That a payload could not be read is none: nobody pressed anything that sends one.
    """

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.getMessage().startswith("A payload could not be read"):
            self.seen.append(self.format(record)[-1500:])


class Hall:
    """A running Twokey in a loop of its own, and the payloads that Slack sends it."""

    def __init__(self, server: Server, template: str) -> None:
        self.bugs = Bugs()
        self.payloads: list[tuple[str, dict[str, Any]]] = []
        self._server, self._template = server, template
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        logging.getLogger().addHandler(self.bugs)
        self._open: asyncio.Event = self.run(_event())
        self._ended = asyncio.run_coroutine_threadsafe(self._live(), self._loop)
        self.run(self._opened())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._ended.result(60)
        logging.getLogger().removeHandler(self.bugs)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _opened(self) -> None:
        opening = asyncio.create_task(self._open.wait())
        ended = asyncio.wrap_future(self._ended)
        waiting: set[asyncio.Future[Any]] = {opening, ended}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()

    async def _live(self) -> None:
        name = f"fuzz_{os.getpid()}"
        admin = await asyncpg.connect(self._server.dsn("postgres"))
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        await admin.execute(f"CREATE DATABASE {name}_target")
        store = connect(self._server.dsn(name))
        self.store_dsn = self._server.dsn(name)
        slack = await start_slack(manifest=MANIFEST)
        try:
            with tempfile.TemporaryDirectory() as home:
                target = self._server.dsn(f"{name}_target")
                async with (
                    running(slack, store, Path(home), target, http=True, worker=False) as world,
                    aiohttp.ClientSession() as session,
                ):
                    self.world, self.session = world, session
                    await self._record(world)
                    self._open.set()
                    await self._stop.wait()
        finally:
            await slack.close()
            await store.close()
            for each in (name, f"{name}_target"):
                await admin.execute(f"DROP DATABASE {each} WITH (FORCE)")
            await admin.close()

    async def _record(self, world: World) -> None:
        """One of each payload, as they come when somebody uses it."""
        encode = delivery.encode

        def recording(kind: Any, payload: dict[str, Any]) -> Any:
            self.payloads.append((str(kind), json.loads(json.dumps(payload))))
            return encode(kind, payload)

        delivery.encode = recording
        try:
            slack = world.slack
            await slack.command("U0ANA", CHANNEL, "/db paint orders red 2")
            card = await world.card("Waiting")
            for action in ("details", "deny", "approve"):
                await slack.click("U0BEN", CHANNEL, card["ts"], action)
            view = next(v for v in slack.views("U0BEN") if v["callback_id"] == "deny_reason")
            await slack.submit("U0BEN", view["id"], {"reason": {"text": "not today"}})
            await slack.command("U0ANA", CHANNEL, "/db paint orders blue")
            await slack.open_home("U0ANA")
            await slack.command("U0ANA", CHANNEL, "/db requests")
            card = await world.card("Waiting")
            await slack.click("U0CLEO", CHANNEL, card["ts"], "approve")
        finally:
            delivery.encode = encode

    async def send(self, body: bytes, kind: str) -> tuple[int, str]:
        now = int(time.time())
        headers = {
            "Content-Type": kind,
            "X-Slack-Request-Timestamp": str(now),
            "X-Slack-Signature": sign(self.world.slack.signing_secret, timestamp=now, body=body),
        }
        url = f"{self.world.url}/slack/events"
        async with asyncio.timeout(30):
            answer = await self.session.post(url, data=body, headers=headers)
            return answer.status, await answer.text()

    async def half_done(self) -> list[str]:
        conn = await asyncpg.connect(self.store_dsn)
        try:
            return [row[0] for row in await conn.fetch(HALF_DONE)]
        finally:
            await conn.close()

    def survives(self, body: bytes, kind: str) -> None:
        """Send it, and see that nobody gets a 500, a traceback or half a change."""
        self.bugs.seen.clear()
        status, text = self.run(self.send(body, kind))
        assert status < 500, (status, text[:300], body[:2000])
        assert "Traceback" not in text
        assert self.bugs.seen == [], body[:3000]
        assert self.run(self.half_done()) == [], body[:2000]


async def _event() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture(scope="module")
def hall(server: Server, template: str) -> Iterator[Hall]:
    with Hall(server, template) as made:
        yield made


FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES < 1000,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture,
                           HealthCheck.large_base_example, HealthCheck.data_too_large],
)  # fmt: skip

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, -1, 2**63, 2**70, 1e308, "", " ", "\x00", "a\x00b", "\ud800", "\u202e", "*",
         "<!channel>", [], {}, [[]], {"": None}, "A" * 30_000, "🙂" * 3000, "T0OTHER", "U0DEE",
         "U0HAL",
         "U0NOBODY", "approve", "deny_reason", "view_submission", "block_actions", "ssl_check"]
    ),
    st.text(max_size=40),
    st.integers(),
    st.recursive(st.none() | st.text(max_size=4),
                 lambda inner: st.lists(inner, max_size=3)
                 | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=12),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a payload."""
    inner = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any, *, drop: bool) -> Any:
    """A payload with something else, or nothing, at one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and drop:
        del copy[path[0]]
    else:
        copy[path[0]] = replaced(value[path[0]], path[1:], new, drop=drop)
    return copy


def explained(error: ExplainedError) -> None:
    """A problem and a next step, and nothing of ours that broke."""
    assert error.problem
    assert error.next_step
    assert "Traceback" not in error.problem


@st.composite
def mutated(draw: st.DrawFn, payload: dict[str, Any]) -> Any:
    """A payload with up to three places changed."""
    value: Any = payload
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(places(value)))
        drop = bool(where) and draw(st.booleans())
        value = replaced(value, where, draw(ODD), drop=drop)
    return value


def body_of(kind: str, value: Any) -> tuple[bytes, str]:
    """A payload in the form in which its kind is sent; what cannot be is sent as JSON."""
    if "command" in kind.lower() and isinstance(value, dict):
        fields = {str(name): each for name, each in value.items()}
        return urlencode(fields, errors="surrogatepass").encode("utf-8", "surrogatepass"), FORM
    text = json.dumps(value)
    if "event" in kind.lower():
        return text.encode(), "application/json"
    return urlencode({"payload": text}).encode(), FORM


@FUZZ
@given(data=st.data())
def test_payloads_with_something_else_in_them(hall: Hall, data: st.DataObject) -> None:
    kind, payload = data.draw(st.sampled_from(hall.payloads))
    hall.survives(*body_of(kind, data.draw(mutated(payload))))


@FUZZ
@given(data=st.data())
def test_bodies_that_are_cut_doubled_or_in_another_dress(hall: Hall, data: st.DataObject) -> None:
    kind, payload = data.draw(st.sampled_from(hall.payloads))
    body, dress = body_of(kind, payload)
    cut = data.draw(st.integers(0, len(body)))
    middle = data.draw(st.binary(max_size=8) | st.sampled_from(
        [b"", body[cut : cut + 60], b"%FF%FE", b"\xff\xfe", b"&payload=%7B%7D", b"[" * 5000, b"%00"]
    ))  # fmt: skip
    rest = data.draw(st.sampled_from([body[cut:], body[cut + 3 :], b""]))
    dress = data.draw(
        st.sampled_from([dress, dress, FORM, "application/json", "text/plain", f"{FORM};charset=x"])
    )
    hall.survives(body[:cut] + middle + rest, dress)


@FUZZ
@given(text=st.text(max_size=200) | st.sampled_from(["help", "requests", "show 1", "cancel 1"]))
def test_whatever_is_typed(hall: Hall, text: str) -> None:
    payload = next(p for kind, p in hall.payloads if "command" in kind.lower())
    typed = {**payload, "text": text.encode("utf-8", "replace").decode()}
    hall.survives(urlencode(typed).encode(), FORM)


@FUZZ
@given(
    name=st.sampled_from([*OPERATIONS, "", "nothing"]),
    text=st.text(max_size=120)
    | st.lists(st.sampled_from(["orders", "red", "9", "--coats", "coats=9", "=", "--", "--=", '"',
                                "reason=", "'", "\\", "\x00", "“red”"]), max_size=8).map(" ".join),
)  # fmt: skip
def test_the_parser_says_what_is_wrong(name: str, text: str) -> None:
    try:
        parse(name, words(text), OPERATIONS)
    except BadInputError as error:
        explained(error)


def changed_text(draw: st.DrawFn, text: str) -> str:
    """A file with some of its text replaced."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 30))
        odd = st.sampled_from(
            ["", ":", "- ", "{", "[", "&a ", "*a", "!!python/object:os.system ", "\t", "null",
             "1e999", "0", "-1", "\x00", "<<: ", "? ", "| ", "0x10", "2026-02-30",
             "'", '"', "\u2028",
             "99999d"]
        )  # fmt: skip
        text = text[:start] + draw(odd | st.text(max_size=5)) + text[end:]
    return text


files = st.composite(changed_text)


@FUZZ
@given(text=files(POLICY))
def test_a_policy_file_is_understood_or_refused_in_a_sentence(text: str) -> None:
    try:
        parse_policy(read_document(text, name="policy.yml"))
    except PolicyError as error:
        explained(error)


POLICY_DATA: Any = {
    "groups": {"dba": "S0DBA"},
    "delegations": [{"from": "a@x.example", "to": "b@x.example", "from_t": 0, "to_t": 9}],
    "rules": [
        {"name": "one", "when": {"operation": ["backup"], "size": {"gt": 5}}, "ordered": True,
         "gates": [{"id": "dba", "groups": ["dba"], "users": ["a@x.example"], "approve": 2,
                    "deny": 1, "escalate_after": "1h", "escalate_groups": ["boss"]},
                   {"id": "b", "groups": ["dba"]}],
         "require": {"any": ["dba", {"all": ["b", "dba"]}]}, "expires_after": "1d",
         "windows": [[0, 9]], "freeze": [[3, 4]], "not_before": 3, "max_reason": 9,
         "break_glass": {"groups": ["dba"], "reviewers": ["dba"], "review_within": "1d"}},
        {"fallback": True, "gates": []},
    ],
}  # fmt: skip


@FUZZ
@given(data=mutated(POLICY_DATA))
def test_a_policy_of_any_shape_is_understood_or_refused_in_a_sentence(data: Any) -> None:
    try:
        parse_policy(data)
    except PolicyError as error:
        explained(error)


@FUZZ
@given(text=files(INVENTORY % "postgresql://u:p@127.0.0.1:5432/orders"))
def test_an_inventory_is_understood_or_refused_in_a_sentence(text: str) -> None:
    try:
        parse_inventory(text, path=Path("/nonexistent/twokey.yml"), environ={})
    except ExplainedError as error:
        explained(error)
