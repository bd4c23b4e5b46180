"""The ways out of a process: what is logged, told and posted holds no secret."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from slack_sdk.web.async_client import AsyncWebClient

from approvals.signing import VoteKeys
from approvals.words import BadInputError
from bot.blocks import Message
from bot.buttons import Seal
from bot.edge import Gate
from bot.listeners.guard import guarded
from bot.metrics import Metrics
from bot.redact import (
    MARK,
    RedactingFormatter,
    redact,
    remember_secrets,
    shown,
    told_traceback,
    watch_logs,
)
from postgres.errors import PostgresError
from sandbox.slack.server import SlackStandIn
from store import redact as module
from store.connect import connect

CANARY = "c4n4ry/of+logs%1"
DSN = "postgresql://bob:c4n4ry%2Fof%2Blogs%251@db1/orders"


@pytest.fixture(autouse=True)
def knows_one_secret() -> Iterator[None]:
    """The password of one DSN is known, and forgotten afterwards."""
    before, module._known.values = module._known.values, ()
    remember_secrets([SecretStr(DSN), None])
    yield
    module._known.values = before


def test_of_a_dsn_the_password_is_remembered_as_written_and_as_meant() -> None:
    assert "c4n4ry" not in redact(f"said {CANARY} and c4n4ry%2Fof%2Blogs%251")
    assert redact("bob at db1/orders") == "bob at db1/orders"


def test_a_dsn_that_cannot_be_understood_still_gives_its_password() -> None:
    remember_secrets([SecretStr("postgresql://bob:c4n4ry-odd-1@db1:port:x/o?what=1")])
    assert redact("x c4n4ry-odd-1 y") == f"x {MARK} y"


def logged(log: logging.Logger) -> io.StringIO:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter(logging.Formatter("%(name)s: %(message)s")))
    log.addHandler(handler)
    log.propagate = False
    return stream


def test_a_log_line_and_its_traceback_hold_no_secret() -> None:
    log = logging.getLogger("of the test")
    out = logged(log)

    def fail() -> None:
        raise ValueError(f"could not use {DSN}") from KeyError(CANARY)

    try:
        fail()
    except ValueError:
        log.exception("It broke at %s (%r)", DSN, {"password": CANARY})
    said = out.getvalue()
    assert said.startswith("of the test: It broke at postgresql://bob:[redacted]@db1/orders")
    assert "ValueError" in said
    assert "test_redact.py" in said
    assert "c4n4ry" not in said


def test_what_nobody_set_up_is_watched_too(capsys: pytest.CaptureFixture[str]) -> None:
    kept = logging.lastResort.formatter if logging.lastResort else None
    try:
        watch_logs()
        assert logging.lastResort
        assert isinstance(logging.lastResort.formatter, RedactingFormatter)
        record = logging.LogRecord("x", logging.ERROR, "", 0, "at %s", (DSN,), None)
        assert "c4n4ry" not in logging.lastResort.format(record)
    finally:
        if logging.lastResort:
            logging.lastResort.setFormatter(kept)


def test_a_traceback_for_the_operator_has_neither_locals_nor_secrets() -> None:
    def connect_with(dsn: str) -> None:
        raise OSError(f"no way to {dsn}")

    try:
        connect_with(DSN)
    except OSError as error:
        said = told_traceback(error)
    assert "connect_with" in said
    assert "c4n4ry" not in said
    assert "dsn = " not in said


@pytest.mark.parametrize("error", [BadInputError, PostgresError])
async def test_an_error_reaches_a_person_without_the_secret(error: type[BadInputError]) -> None:
    async def fails() -> Message:
        raise error(f"cannot use {DSN}", next_step=f"not {CANARY}")

    message = await guarded("test", fails, metrics=Metrics(), changes=False)
    assert "c4n4ry" not in str(message)
    assert "cannot use postgresql://bob:" in message.text


async def test_an_answer_is_shown_without_the_secret_and_otherwise_as_it_is() -> None:
    clean = Message(text="x", blocks=({"type": "section", "text": "Bob has twk_abc123_XYZdef"},))
    assert shown(clean) is clean

    async def answers() -> Message:
        return Message(text=CANARY, blocks=({"type": "section", "text": {"text": DSN}},))

    message = await guarded("test", answers, metrics=Metrics(), changes=False)
    assert "c4n4ry" not in str(message)


async def test_nothing_is_posted_with_a_secret_in_it(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    await client.chat_postMessage(
        channel="C0DBOPS",
        text=f"see {DSN}",
        blocks=[{"type": "section", "text": {"type": "mrkdwn", "text": f"or {CANARY}"}}],
    )
    [message] = slack.messages("C0DBOPS")[-1:]
    assert "c4n4ry" not in str(message)
    assert MARK in message["text"]


async def test_slack_still_gets_our_token(slack: SlackStandIn, client: AsyncWebClient) -> None:
    remember_secrets([SecretStr(slack.bot_token), SecretStr(slack.app_token)])
    assert (await client.auth_test())["ok"]
    assert (await client.apps_connections_open(app_token=slack.app_token))["ok"]


def test_what_holds_a_key_shows_none() -> None:
    key = CANARY.encode() * 3
    store = connect(SecretStr(DSN))
    things = [VoteKeys(current=key, previous=key), Seal([key]), Gate([CANARY]), store, store.quick]
    for thing in things:
        assert "c4n4ry" not in repr(thing) + str(thing)
    asyncio.run(store.close())


@pytest.mark.parametrize("count", [10, 100])
def test_a_typical_text_costs_little(count: int) -> None:
    """Well below 50 µs where nothing else runs; the limit here is for a busy machine."""
    remember_secrets(SecretStr(f"c4n4ry-number-{number}") for number in range(count))
    text = "Before release 4.2, as agreed with Cleo on Tuesday; the site is quiet then." * 2
    best = min(_seconds(text) for _ in range(7))
    assert best / 1000 < 100e-6


def _seconds(text: str) -> float:
    began = time.process_time()
    for _ in range(1000):
        redact(text)
    return time.process_time() - began
