"""Calls to Patroni's REST API that go wrong, against a server that fails on demand."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from postgres.cluster.patroni_rest import NoAnswerError, PatroniRest
from postgres.cluster.words import NodeSpec
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.ports import free_port
from tests.postgres.cluster.patroni_faults import (
    Reply,
    faulty,
    hangs,
    hangs_up,
    says,
    says_endlessly,
    says_half,
)

SOON = timedelta(seconds=0.3)
LATER = timedelta(seconds=30)
PASSWORD = "pass:wörd"


def node(rest: str) -> NodeSpec:
    return NodeSpec(name="pg1", target=parse_dsn("postgresql://u@127.0.0.1:1/x"), rest=rest)


@pytest.fixture
async def rest() -> AsyncIterator[PatroniRest]:
    made = PatroniRest(user="bot", password=SecretStr(PASSWORD))
    try:
        yield made
    finally:
        await made.close()


async def test_an_answer_comes_with_its_status_its_text_and_its_clock(rest: PatroniRest) -> None:
    async with faulty({"GET /patroni": says("hello", 503)}) as server:
        found = await rest.get(node(server.base), "/patroni", limit=LATER)
    assert (found.status, found.text) == (503, "hello")
    assert found.at is not None


async def test_a_base_address_may_end_in_a_slash(rest: PatroniRest) -> None:
    async with faulty({"GET /cluster": says("{}")}) as server:
        assert (await rest.get(node(f"{server.base}/"), "/cluster", limit=LATER)).status == 200


async def test_questions_carry_no_credentials_and_changes_do(rest: PatroniRest) -> None:
    async with faulty({"GET /cluster": says("{}"), "POST /switchover": says("ok")}) as server:
        await rest.get(node(server.base), "/cluster", limit=LATER)
        await rest.post(node(server.base), "/switchover", {"leader": "a"}, limit=LATER)
    asked, changed = server.calls
    assert asked.authorization == ""
    word = base64.b64encode(f"bot:{PASSWORD}".encode()).decode()
    assert changed.authorization == f"Basic {word}"
    assert changed.body == {"leader": "a"}


async def test_a_redirect_takes_no_credentials_along(rest: PatroniRest) -> None:
    async with faulty({}) as other:
        away = says("", 307, {"Location": f"{other.base}/switchover"})
        async with faulty({"POST /switchover": away}) as server:
            found = await rest.post(node(server.base), "/switchover", {"a": "b"}, limit=LATER)
        assert found.status == 307
        assert other.calls == []


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (hangs, "no answer in time"),
        (hangs_up, "it hung up before its answer ended"),
        (says_half, "it hung up before its answer ended"),
        (says_endlessly, "its answer is longer than 4000000 bytes"),
    ],
)
async def test_a_change_without_a_whole_answer_may_be_at_work(
    rest: PatroniRest, reply: Reply, why: str
) -> None:
    async with faulty({"POST /switchover": reply}) as server:
        limit = SOON if reply is hangs else LATER
        with pytest.raises(NoAnswerError) as caught:
            await rest.post(node(server.base), "/switchover", {"a": "b"}, limit=limit)
    assert caught.value.why == why
    assert caught.value.was_sent
    assert len(server.calls) == 1


async def test_a_change_never_reached_a_port_where_nobody_listens(rest: PatroniRest) -> None:
    with pytest.raises(NoAnswerError) as caught:
        nobody = node(f"http://127.0.0.1:{free_port()}")
        await rest.post(nobody, "/switchover", {"a": "b"}, limit=LATER)
    assert not caught.value.was_sent
    assert "Patroni on pg1 does not answer: " in caught.value.problem
    assert "refused" in caught.value.why
    assert "See whether Patroni runs on pg1" in caught.value.next_step


@pytest.mark.parametrize("rest_address", ["", "pg1:8008", "ftp://pg1", "http://", "http://[::1"])
async def test_an_address_that_is_none_is_told_as_such(
    rest: PatroniRest, rest_address: str
) -> None:
    with pytest.raises(NoAnswerError) as caught:
        await rest.post(node(rest_address), "/switchover", {"a": "b"}, limit=LATER)
    assert not caught.value.was_sent
    assert "http://10.0.0.1:8008" in caught.value.next_step


async def test_tls_to_a_server_that_speaks_none_never_reached_it(rest: PatroniRest) -> None:
    async with faulty({}) as server:
        plain = node(server.base.replace("http:", "https:"))
        with pytest.raises(NoAnswerError) as caught:
            await rest.post(plain, "/switchover", {"a": "b"}, limit=LATER)
        assert not caught.value.was_sent
        assert server.calls == []


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_a_certificate_authority_that_cannot_be_read_is_named(
    tmp_path: Path, text: str | None
) -> None:
    ca = tmp_path / "ca.pem"
    if text:
        ca.write_text(text)
    rest = PatroniRest(ca=ca)
    with pytest.raises(PostgresError, match=r"ca\.pem"):
        await rest.get(node("https://127.0.0.1:1"), "/cluster", limit=LATER)


async def test_without_a_password_nothing_is_sent_of_a_user() -> None:
    rest = PatroniRest(user="bot")
    async with faulty({"POST /switchover": says("no auth header received", 401)}) as server:
        found = await rest.post(node(server.base), "/switchover", {"a": "b"}, limit=LATER)
    await rest.close()
    assert found.status == 401
    assert server.calls[0].authorization == ""
