"""The scenario files once more, played through the service on a real PostgreSQL."""

from __future__ import annotations

from approvals.scenario_file import Scenario
from approvals.scenarios import World, play
from store.connect import Store
from tests.approvals.support import StoreWorld
from tests.approvals.test_scenarios import scenarios


async def test_every_scenario_ends_the_same_when_played_through_the_store(store: Store) -> None:
    async def make(scenario: Scenario) -> World:
        return StoreWorld.on(store, scenario)

    wrong = {
        scenario.id: result.mismatches
        for scenario in scenarios()
        if (result := await play(scenario, make)).mismatches
    }
    assert wrong == {}
