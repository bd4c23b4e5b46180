"""`/db token` and `/db tokens`, through the whole of Twokey beside a Slack."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.world import CHANNEL, World, running
from tests.conftest import Target

TOKEN = re.compile(r"twk_[0-9a-f]{12}_[0-9a-f]{64}")


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[World]:
    async with running(slack, store, tmp_path, target.dsn, http=True, worker=False) as made:
        yield made


def texts(slack: SlackStandIn, user: str) -> str:
    return "\n".join(str(message) for message in slack.ephemerals(user))


async def told(world: World, user: str, text: str) -> str:
    before = len(world.slack.ephemerals(user))
    await world.slack.command(user, CHANNEL, text)

    def new() -> str | None:
        messages = world.slack.ephemerals(user)
        return str(messages[-1]) if len(messages) > before else None

    said = await world.slack.wait_for(new, seconds=30)
    assert said is not None
    return said


async def listed(world: World, token: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"{world.url}/api/requests", headers={"Authorization": f"Bearer {token}"}
        ) as answer,
    ):
        return answer.status, await answer.json()


async def test_a_token_is_made_used_listed_and_revoked(world: World) -> None:
    said = await told(world, "U0BEN", "/db token 4 laptop")
    [token] = set(TOKEN.findall(said))
    assert (await listed(world, token))[0] == 200
    about = await told(world, "U0BEN", "/db tokens")
    assert "laptop" in about
    assert token[4:16] in about
    assert token not in about
    assert token[4:16] not in await told(world, "U0ANA", "/db tokens")
    assert "no token of this id" in await told(world, "U0ANA", f"/db token revoke {token[4:16]}")
    assert "revoked" in await told(world, "U0BEN", f"/db token revoke {token[4:16]}")
    assert (await listed(world, token))[0] == 401
    # Nobody else has seen it, and nothing of it stands in a channel.
    assert token not in texts(world.slack, "U0ANA")
    assert token not in str(world.slack.messages(CHANNEL))


async def test_who_gets_none_is_told_why(world: World) -> None:
    for user, text, says in (
        ("U0GUS", "/db token", "guest"),
        ("U0UNA", "/db token", "confirmed e-mail"),
        ("U0BEN", "/db token 0", "1 to 168 hours"),
        ("U0BEN", "/db token 169", "1 to 168 hours"),
        ("U0BEN", "/db token 999999999", "1 to 168 hours"),
        ("U0BEN", "/db token revoke", "needs the id"),
        ("U0BEN", "/db token revoke a b", "needs the id"),
        ("U0BEN", "/db tokens all", "does not understand"),
    ):
        said = await told(world, user, text)
        assert says in said, text
        assert not TOKEN.search(said)


async def test_nobody_gets_one_while_the_directory_is_down(world: World) -> None:
    world.slack.faults.add(method="users.info", kind="500", times=10)
    said = await told(world, "U0BEN", "/db token")
    assert "directory" in said
    assert not TOKEN.search(said)


async def test_a_token_dies_when_its_owner_is_deactivated(world: World) -> None:
    [token] = set(TOKEN.findall(await told(world, "U0BEN", "/db token")))
    assert (await listed(world, token))[0] == 200
    await world.slack.set_flags("U0BEN", deactivated=True)
    status, said = await listed(world, token)  # nothing is cached here: people_cache is 0
    assert (status, said["why"]) == (403, "identity")
