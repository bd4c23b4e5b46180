"""How a run ended, from what its body did and why it was stopped. Pure but for an id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from pydantic import JsonValue, TypeAdapter

from jobs.away import StoreAwayError
from jobs.operation import Answer
from jobs.pulse import Interrupt, Leash
from jobs.runs import FencedError, RunState
from jobs.steps import AttentionError, StuckError, texts, unknown_outcome

ANSWER: Final = TypeAdapter(Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The run has an end, or stops for a person."""

    state: RunState
    summary: str
    outcome: Mapping[str, JsonValue]
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Another worker resumes it."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Another worker has it already; nothing of ours counts."""


Conclusion: TypeAlias = Ended | GiveBack | Silence


def problem(state: RunState, said: str, next_step: str) -> Ended:
    """An end that is a problem, with its next step."""
    return Ended(state=state, summary=said, outcome={"problem": said, "next_step": next_step})


def answered(answer: Answer) -> Ended:
    """The end of a run that did what it should."""
    return Ended(
        state=RunState.DONE,
        summary=answer.title,
        outcome={"answer": ANSWER.dump_python(answer, mode="json")},
        numbers=answer.numbers,
    )


def stopped(answer: Answer, by: str) -> Ended:
    """The end of a run that a person stopped, and that came to it in order."""
    said = f"Cancelled by {by}."
    shown = replace(answer, lines=(said, *answer.lines))
    return Ended(
        state=RunState.CANCELLED,
        summary=f"{said} {answer.title}",
        outcome={
            "problem": said,
            "next_step": "Read what it brought to an end; ask again when it is wanted.",
            "answer": ANSWER.dump_python(shown, mode="json"),
        },
        numbers=answer.numbers,
    )


def conclude(
    result: Answer | BaseException, *, leash: Leash, in_doubt: frozenset[str], bug_id: str
) -> Conclusion:
    """What to store about a body that ended with `result`.

    What the body managed to finish counts, also after it was told to stop. `in_doubt` are
    its `once` steps without an outcome; `bug_id` names the traceback in the log.
    """
    if isinstance(result, Answer):
        return stopped(result, leash.cancelled_by) if result.is_stopped else answered(result)
    if isinstance(result, FencedError) or leash.reason is Interrupt.FENCED:
        return Silence()
    if _can_resume(result, leash):
        return GiveBack()
    if in_doubt and not isinstance(result, AttentionError):
        result = unknown_outcome(min(in_doubt), run_id=leash.claim.run_id)
    return _trouble(result, leash, bug_id)


def _can_resume(result: BaseException, leash: Leash) -> bool:
    """Whether nothing is wrong with the run itself, and no body of it is still at work."""
    match leash.reason:
        case Interrupt.STOPPING:
            return True  # this process ends, and a stuck body with it
        case Interrupt.LOCK_LOST:
            return not isinstance(result, StuckError)
        case _:
            return isinstance(result, StoreAwayError)


def _trouble(result: BaseException, leash: Leash, bug_id: str) -> Ended:
    if isinstance(result, AttentionError):
        return problem(RunState.NEEDS_ATTENTION, result.problem, result.next_step)
    if leash.reason is Interrupt.CANCELLED:
        return problem(
            RunState.CANCELLED,
            f"Cancelled by {leash.cancelled_by}.",
            "What was finished before stays; ask again when it is wanted.",
        )
    if said := texts(result):
        return problem(RunState.FAILED, *said)
    return problem(
        RunState.FAILED,
        f"Something broke in the operation itself (id {bug_id}).",
        f"Give the id {bug_id} to the operator, who finds it in the worker's log.",
    )


def is_bug(result: Answer | BaseException, leash: Leash) -> bool:
    """Whether this deserves a traceback in the log."""
    return not (
        isinstance(result, Answer | FencedError | StoreAwayError)
        or leash.reason is not None
        or texts(result) is not None
    )
