"""Whether what is stored of a request is what we stored, and which part of it is not.

Whoever can write to our tables and has no key can stop a request and cannot start one. The
seal covers the row and which votes count; each vote has a signature of its own; and what the
audit tells has happened cannot happen once more, whatever an older copy of the row says.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import audit
from approvals import store as sql
from approvals.calls import Decision
from approvals.cases import Case
from approvals.events import Cause
from approvals.refusals import Refusal, refuse
from approvals.running import distrusted
from approvals.sentences import shown
from approvals.signing import VoteKeys
from approvals.words import RequestId, State, Why

# A row can be put back to what it was; to hide it, whoever does so must also take the
# entry from the audit, which then no longer verifies.
HAPPENED: Final = sa.text("""
    SELECT EXISTS (SELECT
                     FROM audit_log
                    WHERE request_id = :id
                      AND action = :action
                      AND detail ->> 'result' = 'ok')
""")


class _Book(Protocol):
    @property
    def keys(self) -> VoteKeys: ...
    @property
    def clock(self) -> Callable[[], datetime]: ...


def mistrust(case: Case, keys: VoteKeys) -> Cause | None:
    """Why this is not to be believed, or None when all of it is ours.

    A key that was taken out too early is told apart from a forgery: of votes under it only
    the votes are void, as the seal still says that nobody else touched the request.
    """
    if case.is_ours(keys):
        return None
    if not keys.knows(case.detail.key_id):
        return Cause.UNKNOWN_KEY
    if case.is_sealed(keys) and all(vote.is_signed or vote.is_lapsed for vote in case.votes):
        return Cause.LAPSED_VOTES
    return Cause.FORGED


async def happened(conn: AsyncConnection, request_id: RequestId, action: str) -> bool:
    """Whether the audit tells that this was done to the request."""
    values = {"id": request_id, "action": action}
    return bool((await conn.execute(HAPPENED, values)).scalar_one())


async def goes_on(conn: AsyncConnection, request_id: RequestId, book: _Book) -> Refusal | None:
    """Why a run that says it was begun may not go on, or None: its request is at work.

    A run's row is nobody's word: whoever writes one can make it look begun.
    """
    refusal = await _not_at_work(conn, request_id, book.keys)
    if refusal is not None:
        await audit.append(
            conn, chain="", at=book.clock(), actor="twokey", action="resume",
            request_id=request_id, detail={"result": f"no:{refusal.why}"},
        )  # fmt: skip
    return refusal


async def _not_at_work(
    conn: AsyncConnection, request_id: RequestId, keys: VoteKeys
) -> Refusal | None:
    locked = (await conn.execute(sql.LOCK_REQUEST, {"id": request_id})).mappings().one_or_none()
    if locked is None:
        return refuse(Why.CLOSED, problem=f"There is no request {request_id}.")
    void_before = locked["detail"].get("void_before", 0)
    values = {"id": request_id, "plan_hash": locked["plan_hash"], "void_before": void_before}
    votes = (await conn.execute(sql.VOTES, values)).scalar_one()
    case = Case.of(dict(locked), votes, keys)
    if case.row["state"] != State.EXECUTING or not case.detail.begun:
        state = shown(State(case.row["state"]))
        problem = f"Request {request_id} is {state}, so a run of it has nothing to go on with."
        return refuse(Why.NOT_APPROVED, request_id, problem=problem)
    if not case.is_ours(keys) or await happened(conn, request_id, "finish"):
        return distrusted(case.request)
    return None


def told(refusal: Refusal | None) -> Decision:
    """A check as a decision: ok where there was nothing to refuse."""
    return Decision(
        ok=refusal is None,
        noop=False,
        why=refusal.why if refusal else None,
        problem=refusal.problem if refusal else "",
        next_step=refusal.next_step if refusal else "",
        request=None,
    )
