"""The story of the README, played as the demo plays it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.cli.tour import play, story
from bot.cli.world import demo_world
from tests.conftest import open_to_all


@pytest.mark.timeout(480)
async def test_the_tour_ends_well_and_tells_each_step(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    told: list[str] = []
    async with demo_world(tmp_path / "demo", port=0, by_clock=False) as world:
        assert await play(world, told.append) == 0, "\n".join(told)
        steps = len(story(world))
    assert sum("✓" in line for line in told) == steps


@pytest.mark.timeout(120)
async def test_a_second_demo_in_one_folder_is_told_that_one_runs(tmp_path: Path) -> None:
    from approvals.words import BadInputError

    open_to_all(tmp_path)
    async with demo_world(tmp_path / "demo", port=0):
        with pytest.raises(BadInputError, match="already"):
            async with demo_world(tmp_path / "demo", port=0):
                pytest.fail("two demos run in one folder")
