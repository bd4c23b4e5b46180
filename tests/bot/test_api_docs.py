"""The examples of docs/api.md, executed as they stand there."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.api import _ROUTES
from store.connect import Store
from tests.approvals.doors.api import ApiWorld
from tests.approvals.doors.base import ground_on
from tests.bot.test_api import COLOURS, scenario

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
EXAMPLES = [
    example
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for example in re.split(r"\n(?=curl )", block.strip())
]
# Who calls, and what must come of it, in the page's order.
EXPECTED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ana", {"ok": True}),
    ("ana", {"ok": True}),
    ("bo", {}),
    ("bo", {"state": "pending"}),
    ("bo", {"ok": True}),
    ("bo", {"ok": True}),
    ("cy", {"ok": True}),
    ("ana", {"why": "closed"}),  # it was denied the line before
    ("ana", {"why": "closed"}),
    ("ana", {"why": "closed"}),
    ("bo", {"why": "closed"}),
    ("bo", {"why": "closed"}),
    ("bo", {}),
)


@pytest.mark.needs("curl")
@pytest.mark.needs("sh")
async def test_every_example_does_what_the_page_says(store: Store, tmp_path: Path) -> None:
    assert shutil.which("curl")
    assert len(EXAMPLES) == len(EXPECTED)
    async with ground_on(store, tmp_path) as ground:
        world = await ApiWorld.through(ground, scenario(tmp_path), 1)
        assert isinstance(world, ApiWorld)
        assert world.desk
        databases = world.desk.inventory.databases
        orders = replace(next(iter(databases.values())), name="orders")
        inventory = replace(world.desk.inventory, databases={**databases, "orders": orders})
        world.desk = replace(
            world.desk,
            inventory=inventory,
            planner=replace(world.desk.planner, inventory=inventory),
            operations={**world.desk.operations, "backups": replace(COLOURS, name="backups")},
        )
        await world.open()
        shown: dict[str, Any] = {}
        for example, (who, expected) in zip(EXAMPLES, EXPECTED, strict=True):
            said = await run(world, who, example, shown)
            assert expected.items() <= said.items(), (example, said)
            shown = said if "plan_text" in said else shown
        await world.close()


async def run(world: ApiWorld, who: str, example: str, shown: dict[str, Any]) -> dict[str, Any]:
    env = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "TWOKEY_URL": world.url,
        "TWOKEY_TOKEN": await world.token(who),
        "PLAN_HASH": str(shown.get("plan_hash", "")),
        "POLICY_HASH": str(shown.get("policy_hash", "")),
        "NO_PROXY": "127.0.0.1",
    }
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/sh", "-c", example], env=env, capture_output=True, text=True,
        timeout=150, check=True,
    )  # fmt: skip
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_every_endpoint_has_an_example() -> None:
    paths = [
        re.sub(r"\(\?P<id>.*?\)", "1", pattern.pattern)
        for pattern, _ in _ROUTES
        if "[^/]" not in pattern.pattern
    ]
    assert paths
    assert [path for path in paths if f"$TWOKEY_URL{path}" not in PAGE] == []
