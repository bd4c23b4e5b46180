"""Storing what was asked for: the request, its plan and policy, and what is told of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from approvals import origins
from approvals import store as sql
from approvals.bookkeeping import Book, answer_of, answered, audit_detail, messages, refused
from approvals.calls import Ask, Decision
from approvals.cases import Case, gates_of
from approvals.events import Asked, Outcome
from approvals.lineage import Origin, audited
from approvals.plans import plan_body, plan_hash
from approvals.policy_file import LoadedPolicy
from approvals.rules import Rule
from approvals.sentences import said
from approvals.shelf import Shelf
from approvals.words import PersonId, RequestId, RunId, State
from store.connect import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequests:
    """Stores new requests. Remembers which policies it has stored."""

    store: Store
    shelf: Shelf
    _kept: set[str] = field(default_factory=set)

    async def keep_policy(self, policy: LoadedPolicy, now: datetime) -> None:
        """Store the policy whole, once, before anything refers to it."""
        if policy.hash in self._kept:
            return
        values = {"hash": policy.hash, "body": policy.body, "at": now}
        async with self.store.begin() as conn:
            await conn.execute(sql.KEEP_POLICY, values)
        self._kept.add(policy.hash)

    async def insert(
        self,
        book: Book,
        ask: Ask,
        event: Asked,
        case: Case,
        outcome: Outcome,
        rule: Rule | None,
        now: datetime,
    ) -> Decision:
        """Store a request that was decided about, with all that belongs to it."""
        subject = f"{ask.operation} {ask.database}"
        delivery = delivery_key(ask.delivery or uuid.uuid4().hex, ask.by.id, subject, "Asked")
        first = _first_answer(outcome)
        values = {
            **case.saved(),
            "delivery": delivery,
            "answer": answer_of(first),
            "at": now,
            "gates": gates_of(rule),
            "messages": messages(case, outcome),
            "actor": ask.by.id,
            "action": "ask",
            "audit": sql.audit_entry(
                "", "", {**audit_detail(event, None, outcome), **audited(ask.origin)}
            )["detail"],
        }
        stored, run = await self._stored(book, case, values, now, ask.origin)
        if stored is None:
            return await self._asked_before(delivery)
        record = book.record(stored, run)
        if outcome.refusal:
            return refused(outcome.refusal, record)
        problem, next_step = said(event, record, noop=False)
        return replace(first, request=record, problem=problem, next_step=next_step)

    async def _stored(
        self,
        book: Book,
        case: Case,
        values: Mapping[str, Any],
        now: datetime,
        origin: Origin | None,
    ) -> tuple[Case | None, tuple[RunId | None, str | None]]:
        """The new case with its number, and its run; None for a delivery that came before.

        One statement is all, unless nobody needs to agree and the run is queued with it.
        By itself it holds the chain's lock for no longer than the server needs.
        """
        if case.row["state"] != State.APPROVED and origin is None:
            rows = await self.store.rows(sql.INSERT_REQUEST_ALONE, values)
            return case.numbered(rows[0]["id"]) if rows else None, (None, None)
        async with self.store.begin() as conn:
            former = await origins.lock(conn, origin) if origin else None
            row = (await conn.execute(sql.INSERT_REQUEST, values)).one_or_none()
            if row is None:
                return None, (None, None)
            stored = case.numbered(row.id)
            if stored.row["state"] == State.APPROVED:
                stored = stored.sealed(book.keys)
                await conn.execute(sql.SEAL, {"id": row.id, "detail": stored.saved()["detail"]})
            if origin and former:
                actor = values["actor"]
                await origins.follow(conn, former, origin, row.id, actor=actor, at=now)
            return stored, await book.enqueued(conn, None, stored, now)

    async def _asked_before(self, delivery: str) -> Decision:
        async with self.store.single() as conn:
            request_id, answer = await sql.delivered(conn, delivery)
            records = await self.shelf.read(conn, [request_id])
        return answered(answer, next(iter(records), None))


def asked_of(ask: Ask) -> tuple[str, Asked]:
    """The text of the plan that is asked for, and what is to be decided about it."""
    body = plan_body(ask.plan, operation=ask.operation, database=ask.database, params=ask.params)
    event = Asked(
        by=ask.by,
        request_id=RequestId(0),
        target=ask.database,
        plan_hash=plan_hash(body),
        attributes={**ask.attributes, "operation": ask.operation, "database": ask.database},
        reason=ask.reason,
        ttl=ask.ttl,
        beneficiary=ask.beneficiary,
        electorate=ask.electorate,
    )
    return body, event


def delivery_key(delivery: str, person: PersonId, subject: str, action: str) -> str:
    """A delivery is the same one only for the same person doing the same thing."""
    return f"{delivery}|{action}|{subject}|{person}" if delivery else ""


def _first_answer(outcome: Outcome) -> Decision:
    """The answer as a redelivery will get it, which knows the request by its record."""
    if outcome.refusal:
        return refused(outcome.refusal)
    text = "The request was stored before."
    return Decision(ok=True, noop=False, why=None, problem=text, next_step="", request=None)
