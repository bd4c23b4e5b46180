"""Playing scenarios: each through every order of what happens together, against its expectation."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from approvals.memory import MemoryWorld, Report
from approvals.scenario_file import (
    EventModel,
    ExpectedModel,
    Scenario,
    ScenarioError,
    read_scenarios,
)
from approvals.words import State

ANY: Final = "*"
DEFAULT_REQUEST: Final = "r1"

Result = str | list[str]


class World(Protocol):
    """Somewhere that scenarios can be played: in memory, or in our store."""

    async def play(self, event: EventModel, at: datetime) -> str:
        """What comes of an event: `ok`, `noop` or `no:<why>`."""
        ...

    async def report(self) -> Report:
        """How things stand."""
        ...


MakeWorld = Callable[[Scenario], Awaitable[World]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioResult:
    """What came of a scenario. `invalid`: it could not be played, `mismatches` say why."""

    id: str
    ok: bool
    state: str | Mapping[str, str]
    results: tuple[Result, ...]
    executions_count: int
    voters: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    mismatches: tuple[str, ...]
    invalid: bool = False

    def as_json(self) -> dict[str, Any]:
        """The result as `twokey policy test --json` prints it."""
        return {
            "id": self.id,
            "ok": self.ok,
            "state": self.state if isinstance(self.state, str) else dict(self.state),
            "results": list(self.results),
            "executions_count": self.executions_count,
            "voters": [list(vote) for vote in self.voters],
            "notes": list(self.notes),
            "mismatches": list(self.mismatches),
        }


def run_files(paths: Sequence[Path]) -> list[ScenarioResult]:
    """Play all scenarios of all files in memory. Never raises for what a file says."""
    return asyncio.run(_run_all(paths))


def exit_status(results: Sequence[ScenarioResult]) -> int:
    """0: all as expected; 1: one is not; 2: something was no valid scenario."""
    if any(result.invalid for result in results):
        return 2
    return 0 if all(result.ok for result in results) else 1


async def play(scenario: Scenario, make: MakeWorld) -> ScenarioResult:
    """Play a scenario in new worlds, one for each order of what happens together."""
    first: ScenarioResult | None = None
    mismatches: list[str] = []
    for events in _orders(scenario.events):
        world = await make(scenario)
        results = await _played(scenario, events, world)
        result = _judged(scenario, results, await world.report())
        first = first or result
        mismatches += [line for line in result.mismatches if line not in mismatches]
    if first is None:
        raise AssertionError(scenario.id)  # there is always one order
    return ScenarioResult(
        id=first.id,
        ok=not mismatches,
        state=first.state,
        results=first.results,
        executions_count=first.executions_count,
        voters=first.voters,
        notes=first.notes,
        mismatches=tuple(mismatches),
    )


async def _run_all(paths: Sequence[Path]) -> list[ScenarioResult]:
    found: list[ScenarioResult] = []
    for path in paths:
        try:
            scenarios = read_scenarios(path)
        except ScenarioError as error:
            found.append(_invalid(str(path), error))
            continue
        for number, scenario in enumerate(scenarios):
            if isinstance(scenario, ScenarioError):
                found.append(_invalid(f"{path.name}[{number}]", scenario))
            else:
                found.append(await play(scenario, MemoryWorld.of))
    return found


def _invalid(name: str, error: ScenarioError) -> ScenarioResult:
    return ScenarioResult(
        id=name,
        ok=False,
        state="",
        results=(),
        executions_count=0,
        voters=(),
        notes=(),
        mismatches=(f"{error.problem} {error.next_step}",),
        invalid=True,
    )


def _orders(events: Sequence[EventModel]) -> Iterator[tuple[EventModel, ...]]:
    """The events in every order in which those that happen together can come."""
    choices = [
        [
            event.model_copy(update={"events": order})
            for order in itertools.permutations(event.events)
        ]
        if event.do == "together"
        else [event]
        for event in events
    ]
    yield from itertools.product(*choices)


async def _played(scenario: Scenario, events: Sequence[EventModel], world: World) -> list[Result]:
    results: list[Result] = []
    for event in events:
        at = scenario.at(event)
        if event.do == "together":
            results.append([await world.play(inner, at) for inner in event.events])
        else:
            results.append(await world.play(event, at))
    return results


def _judged(scenario: Scenario, results: Sequence[Result], report: Report) -> ScenarioResult:
    labels = sorted(report.states)
    main = DEFAULT_REQUEST if DEFAULT_REQUEST in labels or not labels else labels[0]
    states = {label: str(state) for label, state in report.states.items()}
    voters = report.voters.get(main, ())
    mismatches = tuple(_mismatches(scenario.expected, results, report, main))
    return ScenarioResult(
        id=scenario.id,
        ok=not mismatches,
        state=states.get(main, "") if len(labels) < 2 else states,  # noqa: PLR2004
        results=tuple(results),
        executions_count=report.executions_count,
        voters=voters,
        notes=report.notes,
        mismatches=mismatches,
    )


def _mismatches(
    expected: ExpectedModel, results: Sequence[Result], report: Report, main: str
) -> Iterator[str]:
    for label, allowed in _allowed_states(expected, main):
        state = report.states.get(label)
        if state not in allowed:
            names = " or ".join(sorted(allowed))
            yield f"{label} is {state or 'not there'}, expected {names}"
    if expected.results is not None:
        yield from _unlike(expected.results, results)
    count = expected.executions_count
    if count is not None and count != report.executions_count:
        yield f"executed {report.executions_count} times, expected {count}"
    if expected.voters is not None:
        wanted = sorted((who.casefold(), verdict) for who, verdict in expected.voters)
        actual = sorted((who.casefold(), verdict) for who, verdict in report.voters.get(main, ()))
        if wanted != actual:
            yield f"the voters are {actual}, expected {wanted}"
    for note in expected.notes or ():
        if note not in report.notes:
            yield f"no note {note!r} was sent, only {list(report.notes)}"


def _allowed_states(expected: ExpectedModel, main: str) -> Iterator[tuple[str, tuple[State, ...]]]:
    match expected.state:
        case State() as state:
            yield main, (state,)
        case Mapping() as states:
            yield from ((label, (state,)) for label, state in states.items())
        case None:
            pass
    match expected.state_in:
        case tuple() as allowed:
            yield main, allowed
        case Mapping() as by_label:
            yield from by_label.items()
        case None:
            pass


def _unlike(expected: Sequence[str | tuple[str, ...]], results: Sequence[Result]) -> Iterator[str]:
    if len(expected) != len(results):
        yield f"{len(results)} events had a result, expected {len(expected)}"
    for number, (wanted, actual) in enumerate(zip(expected, results, strict=False)):
        if not _alike(wanted, actual):
            yield f"event {number} gave {actual}, expected {wanted}"


def _alike(wanted: str | tuple[str, ...], actual: Result) -> bool:
    if isinstance(wanted, str):
        return wanted in (ANY, actual)
    if isinstance(actual, str) or len(wanted) != len(actual):
        return False
    missing = Counter(name for name in wanted if name != ANY) - Counter(actual)
    return not missing
