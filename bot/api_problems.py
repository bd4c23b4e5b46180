"""What went wrong with a call of the API: its status, and what its caller is told. Pure."""

from __future__ import annotations

from typing import Any, Final

from approvals.words import BadInputError, ExplainedError, RefusedError
from bot.api_answers import STATUS, problem
from bot.api_bodies import MalformedError
from bot.api_guard import LimitedError
from bot.planning import StillLookingError
from bot.turns import NoTurnError
from jobs.away import is_away
from postgres.errors import PostgresError


class HttpError(ExplainedError):
    """A call that HTTP itself has a status for."""

    def __init__(
        self, status: int, why: str, problem: str, next_step: str, *, allow: str = ""
    ) -> None:
        super().__init__(problem, next_step=next_step)
        self.status = status
        self.why = why
        self.allow = allow


def explained(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status and the body for whatever went wrong; 500 for what is a bug."""
    match error:
        case HttpError():
            said = (error.status, error.why)
        case LimitedError():
            said = (429, "limit")
        case RefusedError():
            said = (STATUS[error.why], str(error.why))
        case MalformedError():
            said = (400, "input")
        case BadInputError():
            said = (422, "input")
        case PostgresError() | StillLookingError():
            said = (503, "database")
        case ExplainedError():
            said = (422, "plan")
        case NoTurnError() | TimeoutError():
            late = isinstance(error, TimeoutError)
            return 503, problem("timeout", *_TOO_LONG) if late else problem("busy", *_NO_TURN)
        case _ if is_away(error):
            return 503, (problem("store", *_AWAY))
        case _:
            return 500, {"why": "broken"}
    return said[0], (problem(said[1], error.problem, error.next_step))


_TOO_LONG: Final = (
    "This took too long to be finished. Whether it was stored is not certain.",
    "Send it again with the same Idempotency-Key, or look with GET /api/requests.",
)
_NO_TURN: Final = (
    "So much is asked of Twokey right now that this was not begun. Nothing was changed.",
    "Send it again in a few seconds.",
)
_AWAY: Final = (
    "Twokey's own database does not answer. Whether this was stored is not certain.",
    "Send it again in a minute, with the same Idempotency-Key.",
)
