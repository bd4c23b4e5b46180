"""The engine beside the simple model: the same history, and the first thing that differs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from approvals.memory import MemoryWorld, loaded
from approvals.scenario_file import EPOCH, EventModel, ExpectedModel, PersonModel, Scenario
from approvals.scenarios import MakeWorld, World
from tests.approvals.histories import history
from tests.approvals.simple_model import SimpleModel

TICK = {"do": "tick"}


async def first_difference(
    seeds: Iterable[int], make: MakeWorld = MemoryWorld.of, *, length: int = 25
) -> str | None:
    """Where the two part ways, as a sentence; None when they agree on everything."""
    for seed in seeds:
        policy, events = history(seed, length=length)
        found = await _differ(policy, events, make)
        if found is not None:
            return f"history {seed}: {found}"
    return None


async def _differ(
    policy: dict[str, Any], events: list[dict[str, Any]], make: MakeWorld
) -> str | None:
    scenario = _scenario(policy)
    if loaded(scenario.policy) is None:
        return "its policy is no policy"
    world, model = await make(scenario), SimpleModel(policy)
    for number, event in enumerate(events):
        expected = model.play(event)
        came = await _play(world, event)
        await _play(world, {"t": event["t"], **TICK})  # time passes for everybody
        if expected != came:
            return f"event {number} ({event}): {came}, not {expected}"
        if wrong := await _standing(world, model):
            return f"after event {number} ({event}): {wrong}"
    return None


async def _standing(world: World, model: SimpleModel) -> str | None:
    report = await world.report()
    states = {name: str(state) for name, state in report.states.items()}
    if states != model.states():
        return f"{states}, not {model.states()}"
    if report.executions_count != model.executions:
        return f"{report.executions_count} runs, not {model.executions}"
    for name, state in states.items():
        votes = sorted(report.voters.get(name, ()))
        if state in ("pending", "approved") and votes != model.votes(name):
            return f"{name} has the votes {votes}, not {model.votes(name)}"
    return None


async def _play(world: World, event: dict[str, Any]) -> str:
    at = EPOCH + timedelta(seconds=event["t"])
    return await world.play(EventModel.model_validate(event), at)


def _scenario(policy: dict[str, Any]) -> Scenario:
    people = {name: PersonModel.model_validate(entry) for name, entry in policy["people"].items()}
    return Scenario(
        id="history",
        source="",
        policy={name: value for name, value in policy.items() if name != "people"},
        people=people,
        events=(),
        expected=ExpectedModel(),
    )
