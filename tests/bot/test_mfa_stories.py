"""A second factor through Slack: told in a direct message alone, confirmed, removed, reset."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from approvals.second_factors import code_at, counter_at
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.care_world import CHANNEL, CareWorld, care_world
from tests.bot.views.cards import texts
from tests.conftest import Target


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[CareWorld]:
    async with care_world(slack, store, tmp_path, target.dsn) as made:
        yield made


async def say(world: CareWorld, text: str, user: str = "U0BEN") -> str:
    typed = await world.slack.command(user, CHANNEL, f"/db mfa {text}".strip())
    assert typed.ok
    return str(typed.ephemerals[0]["text"])


def secret_in(messages: list[dict[str, Any]]) -> SecretStr:
    """The secret in the newest direct message."""
    found = re.search(r"secret=([A-Z2-7]+)", texts(messages[-1]["blocks"]))
    assert found
    return SecretStr(found[1])


def code(secret: SecretStr, *, ahead: int = 0) -> str:
    return code_at(secret, counter_at(datetime.now(UTC)) + ahead)


async def test_it_is_set_up_by_a_direct_message_that_goes_away(
    world: CareWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert "have no second factor" in await say(world, "")
    assert "direct message" in await say(world, "enroll")
    secret = secret_in(world.slack.direct("U0BEN"))
    assert secret.get_secret_value()[:4] in texts(world.slack.direct("U0BEN")[-1]["blocks"])
    assert "waits for its first code" in await say(world, "status")
    assert "not the code" in await say(world, f"confirm {code(secret, ahead=50)}")
    assert "counts from now on" in await say(world, f"confirm {code(secret)}")
    assert world.slack.direct("U0BEN") == []
    assert "counts since" in await say(world, "status")
    await _is_nowhere(world, secret.get_secret_value(), caplog.text)


async def _is_nowhere(world: CareWorld, secret: str, logged: str) -> None:
    assert secret not in logged
    async with world.store.begin() as conn:
        names = await conn.execute(
            sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        )
        for name in list(names.scalars()):
            rows = await conn.execute(sa.text(f'SELECT t::text FROM "{name}" t'))
            assert not any(secret in row for row in rows.scalars()), name


async def test_nobody_else_sees_the_secret(world: CareWorld) -> None:
    await say(world, "enroll")
    secret = secret_in(world.slack.direct("U0BEN")).get_secret_value()
    for user in ("U0ANA", "U0CLEO"):
        assert world.slack.direct(user) == []
    assert not any(secret in texts(m.get("blocks", [])) for m in world.slack.messages(CHANNEL))
    assert not any(secret in str(m) for m in world.slack.ephemerals("U0BEN"))


async def test_a_secret_that_slack_did_not_take_is_none(world: CareWorld) -> None:
    world.slack.faults.add(method="chat.postMessage", kind="500", times=1)
    assert "could not be sent" in await say(world, "enroll")
    assert await world.rows("SELECT 1 FROM second_factors") == []


async def test_a_new_one_needs_the_old_one(world: CareWorld) -> None:
    await world.enrol("U0BEN", "ben@acme.example")
    assert "second factor already" in await say(world, "enroll")
    assert world.slack.direct("U0BEN") == []
    assert "direct message" in await say(world, f"enroll {world.code('U0BEN')}")


async def test_removing_it_needs_a_code(world: CareWorld) -> None:
    await world.enrol("U0BEN", "ben@acme.example")
    assert "needs a code" in await say(world, "remove")
    assert "not the code" in await say(world, f"remove {world.code('U0BEN', steps=77)}")
    assert "is removed" in await say(world, f"remove {world.code('U0BEN')}")
    assert "have no second factor" in await say(world, "status")


async def test_after_five_wrong_codes_its_person_is_told(world: CareWorld) -> None:
    await world.enrol("U0BEN", "ben@acme.example")
    for _ in range(5):
        said = await say(world, f"remove {world.code('U0BEN', steps=77)}")
    assert "Too many wrong codes" in said
    await world.slack.wait_for(
        lambda: any("wrong codes" in m["text"] for m in world.slack.direct("U0BEN")), seconds=30
    )


async def test_what_is_not_understood_says_what_is(world: CareWorld) -> None:
    assert "enroll" in await say(world, "frobnicate")
    assert "guest" in await say(world, "enroll", user="U0GUS")
