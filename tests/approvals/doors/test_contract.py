"""Every scenario through every door: the door makes no difference."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from approvals.scenario_file import Scenario
from approvals.scenarios import World, play
from store.connect import Store
from tests.approvals.doors.api import ApiWorld
from tests.approvals.doors.base import DoorWorld, ground_on
from tests.approvals.doors.cli import CliWorld
from tests.approvals.doors.slack import SlackWorld
from tests.approvals.test_scenarios import scenarios

# So that two processes share the work of a door; each part has a store of its own.
PARTS = 3
DOORS: dict[str, type[DoorWorld]] = {"slack": SlackWorld, "api": ApiWorld, "cli": CliWorld}


@pytest.mark.timeout(170)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("door", DOORS)
async def test_every_scenario_ends_the_same_through_this_door(
    door: str, part: int, store: Store, tmp_path: Path
) -> None:
    numbers = itertools.count(1)
    wrong: dict[str, tuple[str, ...]] = {}
    async with ground_on(store, tmp_path) as ground:
        made: list[DoorWorld] = []

        async def make(scenario: Scenario) -> World:
            while made:
                await made.pop().close()
            made.append(await DOORS[door].through(ground, scenario, next(numbers)))
            return made[0]

        try:
            for scenario in scenarios()[part::PARTS]:
                result = await play(scenario, make)
                if result.mismatches:
                    wrong[scenario.id] = result.mismatches
        finally:
            while made:
                await made.pop().close()
    assert wrong == {}
