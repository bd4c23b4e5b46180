"""The scenario files, played through the deciding code in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from approvals.memory import MemoryWorld
from approvals.scenario_file import Scenario, ScenarioError, read_scenarios
from approvals.scenarios import play

FILES = sorted((Path(__file__).parent / "scenarios").glob("*.*"))


def scenarios() -> list[Scenario]:
    found: list[Scenario] = []
    for path in FILES:
        for scenario in read_scenarios(path):
            if isinstance(scenario, ScenarioError):
                raise scenario
            found.append(scenario)
    return found


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.id)
async def test_a_scenario_ends_as_it_says(scenario: Scenario) -> None:
    result = await play(scenario, MemoryWorld.of)
    assert result.mismatches == ()
