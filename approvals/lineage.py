"""Which request came out of which: asked again, or to undo what one has done. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, JsonValue

from approvals.machine import FINAL
from approvals.words import RefusedError, RequestId, State, Why

FOLLOWERS_MAX: Final = 20


class OriginKind(StrEnum):
    """Why a request was made out of another one."""

    AGAIN = "again"
    UNDO = "undo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The request that a new one comes from."""

    request_id: RequestId
    kind: OriginKind


class Follower(BaseModel):
    """A request that came out of this one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: OriginKind
    id: int


# An undo that came to nothing may be asked for again; one that runs or is done may not.
_CAME_TO_NOTHING: Final = frozenset(
    {State.DENIED, State.CANCELLED, State.EXPIRED, State.REFUSED, State.FAILED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """The former request, locked."""

    id: int
    state: State
    database: str
    channel: str
    followers: tuple[Follower, ...]


def objection(former: Former, kind: OriginKind, states: Mapping[int, State]) -> RefusedError | None:
    """Why nothing may come out of `former` now, or None. `states`: of what came so far. Pure."""
    ended = former.state in FINAL
    if kind is OriginKind.UNDO and former.state is not State.DONE:
        return RefusedError(
            f"Request {former.id} is {_shown(former.state)}, so there is nothing to undo.",
            next_step="Only what is done can be undone.",
            why=Why.CLOSED,
        )
    if not ended:
        return RefusedError(
            f"Request {former.id} is {_shown(former.state)}, so it need not be asked again.",
            next_step="Its card says what it waits for.",
            why=Why.DUPLICATE,
        )
    blocking = _open_follower(states) if kind is OriginKind.AGAIN else _undoing(states)
    if blocking is None:
        return None
    what = "was asked again" if kind is OriginKind.AGAIN else "is being undone, or was,"
    return RefusedError(
        f"Request {former.id} {what} as request {blocking} already.",
        next_step=f"See /db show {blocking}.",
        why=Why.DUPLICATE,
    )


def _open_follower(states: Mapping[int, State]) -> int | None:
    return next((number for number, state in states.items() if state not in FINAL), None)


def _undoing(states: Mapping[int, State]) -> int | None:
    return next((n for n, state in states.items() if state not in _CAME_TO_NOTHING), None)


def audited(origin: Origin | None) -> Mapping[str, JsonValue]:
    """What the audit entry of the new request says of the former one."""
    return {} if origin is None else {str(origin.kind): int(origin.request_id)}


def kept(origin: Origin | None) -> Mapping[str, Any]:
    """What the new request remembers of the former one, as fields of its `Detail`."""
    match origin:
        case None:
            return {}
        case Origin(kind=OriginKind.AGAIN):
            return {"again": int(origin.request_id)}
        case Origin(kind=OriginKind.UNDO):
            return {"undo_of": int(origin.request_id)}
        case _:
            raise TypeError(origin)


def latest(followers: Sequence[Follower], kind: OriginKind) -> int | None:
    """The newest request of this kind that came out of one."""
    return next((each.id for each in reversed(followers) if each.kind is kind), None)


def _shown(state: State) -> str:
    return str(state).replace("_", " ")
