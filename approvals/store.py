"""The SQL of requests: few statements, each for one caller, always through `approvals.service`.

A decision is three: lock the row, read what must be read after the lock, save it all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.plans import lasting
from approvals.words import RequestId
from store.quick import Statement
from store.redact import redact_json

_JSON: Final = JSONB()
_TEXTS: Final = ARRAY(sa.Text())
_AT: Final = TIMESTAMP(timezone=True)

KEEP_POLICY: Final = sa.text("""
    INSERT INTO policies (hash, body, at) VALUES (:hash, :body, :at) ON CONFLICT DO NOTHING
""")

GET_POLICY: Final = sa.text("SELECT body FROM policies WHERE hash = :hash")

# One statement, so that an acknowledged request costs one round trip. A delivery that
# came before inserts nothing and returns no row. `messages` and `entries` are arrays, as
# there may be none of the first.
INSERT_REQUEST: Final = sa.text("""
    WITH fresh AS (
        INSERT INTO deliveries (id, at, request_id, answer)
        SELECT :delivery, :at, nextval(pg_get_serial_sequence('requests', 'id')), :answer
            ON CONFLICT (id) DO NOTHING
     RETURNING request_id AS id
    ), asked AS (
        INSERT INTO requests (
               id, state, version, operation, database, asked_by, asked_by_slack, authors, door,
               reason, params, plan, plan_hash, policy_hash, attributes, rule, step, asked_at,
               expires_at, approved_at, approval_expires_at, not_before, ended_at, detail, channel)
        SELECT id, :state, 1, :operation, :database, :asked_by, :asked_by_slack, :authors, :door,
               :reason, :params, :plan, :plan_hash, :policy_hash, :attributes, :rule, :step,
               :asked_at, :expires_at, :approved_at, :approval_expires_at, :not_before, :ended_at,
               :detail, :channel
          FROM fresh
     RETURNING id
    ), gated AS (
        INSERT INTO gates (request_id, position, id, approve, deny)
        SELECT asked.id, g.position, g.id, g.approve, g.deny
          FROM asked, jsonb_to_recordset(:gates)
               AS g(position integer, id text, approve integer, deny integer)
    ), posted AS (
        INSERT INTO outbox (topic, request_id, channel, payload, created_at, due_at)
        SELECT m.topic, asked.id, m.channel, m.payload, :at, :at
          FROM asked, jsonb_to_recordset(:messages)
               AS m(topic text, channel text, payload jsonb)
    )
    SELECT asked.id, pg_notify('twokey_outbox', ''), a.seq
      FROM asked,
           LATERAL audit_append(
               :database, :at, :actor, :action, asked.id, :database, :audit) AS a
""").bindparams(
    sa.bindparam("answer", type_=_JSON),
    sa.bindparam("authors", type_=_TEXTS),
    sa.bindparam("params", type_=_JSON),
    sa.bindparam("attributes", type_=_JSON),
    sa.bindparam("detail", type_=_JSON),
    sa.bindparam("gates", type_=_JSON),
    sa.bindparam("messages", type_=_JSON),
    sa.bindparam("at", type_=_AT),
    sa.bindparam("asked_at", type_=_AT),
    sa.bindparam("expires_at", type_=_AT),
    sa.bindparam("approved_at", type_=_AT),
    sa.bindparam("approval_expires_at", type_=_AT),
    sa.bindparam("not_before", type_=_AT),
    sa.bindparam("ended_at", type_=_AT),
    sa.bindparam("database", type_=sa.Text()),
    sa.bindparam("delivery", type_=sa.Text()),
    *(
        sa.bindparam(name, type_=sa.Text())
        for name in (
            *("state", "operation", "asked_by", "asked_by_slack", "door", "reason", "plan"),
            *("plan_hash", "policy_hash", "rule", "channel", "actor", "action", "audit"),
        )
    ),
    sa.bindparam("step", type_=sa.Integer()),
)

INSERT_REQUEST_ALONE: Final = Statement(INSERT_REQUEST)

LOCK_REQUEST: Final = sa.text("SELECT * FROM requests WHERE id = :id FOR UPDATE")

# After the lock, in a statement of its own: READ COMMITTED shows a statement what was
# committed when it began, so one that waited for the lock would count old votes.
READ_AFTER_LOCK: Final = sa.text("""
    SELECT (SELECT coalesce(jsonb_agg(to_jsonb(v) ORDER BY v.id), '[]')
              FROM votes v
             WHERE v.request_id = :id AND v.plan_hash = :plan_hash AND v.id > :void_before
           ) AS votes,
           (SELECT d.answer FROM deliveries d WHERE d.id = :delivery) AS answer,
           EXISTS (SELECT FROM requests r
                    WHERE r.database = :database AND r.database <> ''
                      AND r.state = 'executing' AND r.id <> :id
                      AND r.attributes ->> 'beside' IS DISTINCT FROM 'yes')
           AND (SELECT me.attributes ->> 'beside' IS DISTINCT FROM 'yes'
                  FROM requests me WHERE me.id = :id) AS target_busy,
           (SELECT coalesce(jsonb_agg(r.detail -> 'glass' ->> 'by'), '[]')
              FROM requests r
             WHERE r.state = 'needs_review'
               AND CAST(r.detail -> 'glass' ->> 'review_by' AS timestamptz) <= :at) AS debtors,
           (SELECT count(*) FROM requests r
             WHERE r.state = 'needs_review'
                OR (r.state = 'executing' AND r.detail -> 'glass' <> 'null')) AS unreviewed,
           (SELECT coalesce(jsonb_agg(to_jsonb(d) ORDER BY d.id), '[]')
              FROM delegations d
             WHERE d.ends_at > :asked_at
               AND (d.stand_in = :actor
                    OR d.stand_in IN (SELECT v.person FROM votes v WHERE v.request_id = :id))
           ) AS delegations
""").bindparams(
    sa.bindparam("at", type_=_AT),
    sa.bindparam("asked_at", type_=_AT),
    sa.bindparam("actor", type_=sa.Text()),
)

# Two grants for one database never both find it free: the second waits here, then looks.
# The inner query has locked its row before the outer one calls the function for it.
LOCK_REQUEST_AND_TARGET: Final = sa.text("""
    SELECT r.*,
           (SELECT pg_advisory_xact_lock(hashtext('twokey'), hashtext(r.database))
             WHERE r.database <> '') AS target_lock
      FROM (SELECT * FROM requests WHERE id = :id FOR UPDATE) AS r
""")

# The votes alone, for who has locked the request and decides nothing.
VOTES: Final = sa.text("""
    SELECT coalesce(jsonb_agg(to_jsonb(v) ORDER BY v.id), '[]')
      FROM votes v
     WHERE v.request_id = :id AND v.plan_hash = :plan_hash AND v.id > :void_before
""")

# A request that was granted as it was asked got its number when it was inserted.
SEAL: Final = sa.text("UPDATE requests SET detail = :detail WHERE id = :id").bindparams(
    sa.bindparam("detail", type_=_JSON)
)

# How many runs wait for their review counts for all of them at once: one glass at a time.
LOCK_GLASS: Final = sa.text("SELECT pg_advisory_xact_lock(hashtext('twokey glass'), 0)")

SAVE_REQUEST: Final = sa.text("""
    WITH saved AS (
        UPDATE requests
           SET state = :state, version = version + 1, authors = :authors, plan = :plan,
               plan_hash = :plan_hash, policy_hash = :policy_hash, attributes = :attributes,
               rule = :rule, step = :step, approved_at = :approved_at,
               approval_expires_at = :approval_expires_at, ended_at = :ended_at,
               detail = :detail
         WHERE id = :id AND version = :version
     RETURNING id, database
    ), cast_now AS (
        INSERT INTO votes (request_id, plan_hash, policy_hash, step, person, slack, groups,
                           verdict, reason, door, at, key_id, signature)
        SELECT saved.id, v.plan_hash, v.policy_hash, v.step, v.person, v.slack, v.groups,
               v.verdict, v.reason, v.door, v.at, v.key_id, v.signature
          FROM saved, jsonb_to_recordset(:votes)
               AS v(plan_hash text, policy_hash text, step integer, person text, slack text,
                    groups text[], verdict text, reason text, door text, at timestamptz,
                    key_id text, signature text)
    ), posted AS (
        INSERT INTO outbox (topic, request_id, channel, payload, created_at, due_at)
        SELECT m.topic, saved.id, m.channel, m.payload, :at, :at
          FROM saved, jsonb_to_recordset(:messages)
               AS m(topic text, channel text, payload jsonb)
    ), answered AS (
        INSERT INTO deliveries (id, at, request_id, answer)
        SELECT :delivery, :at, saved.id, :answer FROM saved WHERE :delivery <> ''
            ON CONFLICT (id) DO NOTHING
    )
    SELECT saved.id, pg_notify('twokey_outbox', ''),
           (SELECT count(a.seq)
              FROM jsonb_to_recordset(:entries) AS e(actor text, action text, detail text),
                   LATERAL audit_append(saved.database, :at, e.actor, e.action, saved.id,
                                        saved.database, e.detail) AS a) AS entries
      FROM saved
""").bindparams(
    sa.bindparam("authors", type_=_TEXTS),
    sa.bindparam("attributes", type_=_JSON),
    sa.bindparam("detail", type_=_JSON),
    sa.bindparam("votes", type_=_JSON),
    sa.bindparam("messages", type_=_JSON),
    sa.bindparam("entries", type_=_JSON),
    sa.bindparam("answer", type_=_JSON),
    sa.bindparam("at", type_=_AT),
    sa.bindparam("approved_at", type_=_AT),
    sa.bindparam("approval_expires_at", type_=_AT),
    sa.bindparam("ended_at", type_=_AT),
    sa.bindparam("delivery", type_=sa.Text()),
)

# A refusal that changes nothing: remembered for a redelivery, and in the audit.
SAVE_ANSWER: Final = sa.text("""
    WITH answered AS (
        INSERT INTO deliveries (id, at, request_id, answer)
        SELECT :delivery, :at, :id, :answer WHERE :delivery <> ''
            ON CONFLICT (id) DO NOTHING
    )
    SELECT count(a.seq)
      FROM jsonb_to_recordset(:entries) AS e(actor text, action text, detail text),
           LATERAL audit_append(:database, :at, e.actor, e.action, :id, :database, e.detail) AS a
""").bindparams(
    sa.bindparam("answer", type_=_JSON),
    sa.bindparam("entries", type_=_JSON),
    sa.bindparam("at", type_=_AT),
    sa.bindparam("id", type_=sa.BigInteger()),
    sa.bindparam("delivery", type_=sa.Text()),
    sa.bindparam("database", type_=sa.Text()),
)

ANSWERED: Final = sa.text("SELECT request_id, answer FROM deliveries WHERE id = :delivery")

READ_REQUESTS: Final = sa.text("""
    SELECT r.*, u.id AS run_id, u.state AS run_state, u.paused_by, u.paused_at,
           u.cancel_by AS stopped_by, p.body AS policy_body,
           (SELECT coalesce(jsonb_agg(to_jsonb(v) ORDER BY v.id), '[]')
              FROM votes v
             WHERE v.request_id = r.id AND v.plan_hash = r.plan_hash
               AND v.id > CAST(coalesce(r.detail ->> 'void_before', '0') AS bigint)) AS votes
      FROM requests r
      LEFT JOIN runs u     ON u.request_id = r.id
      LEFT JOIN policies p ON p.hash = r.policy_hash AND p.hash <> :policy_hash
     WHERE r.id = ANY(:ids)
     ORDER BY r.id DESC
""").bindparams(sa.bindparam("ids", type_=ARRAY(sa.BigInteger())))

RECENT: Final = sa.text("""
    SELECT id FROM requests WHERE database = :database ORDER BY id DESC LIMIT :limit
""")
RECENT_ANYWHERE: Final = sa.text("SELECT id FROM requests ORDER BY id DESC LIMIT :limit")
RECENT_OPEN: Final = sa.text("""
    SELECT id FROM requests
     WHERE state IN ('pending', 'approved', 'executing', 'needs_review')
       AND (CAST(:database AS text) IS NULL OR database = :database)
     ORDER BY id DESC LIMIT :limit
""")

# Whoever is locked is being decided about at this moment: the next sweep sees them.
DUE: Final = sa.text("""
    SELECT id FROM requests
     WHERE state IN ('pending', 'approved', 'needs_review')
       AND (CAST(detail ->> 'look_at' AS timestamptz) <= :at
            OR (policy_hash <> :policy_hash AND state <> 'needs_review')
            OR detail ->> 'key_id' <> :key_id)
     ORDER BY expires_at
     LIMIT :limit
""").bindparams(sa.bindparam("at", type_=_AT))

FORGET_DELIVERIES: Final = sa.text("DELETE FROM deliveries WHERE at < :before").bindparams(
    sa.bindparam("before", type_=_AT)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was read after the lock."""

    row: Mapping[str, Any]
    votes: Sequence[Mapping[str, Any]]
    answer: Mapping[str, Any] | None
    target_busy: bool
    debtors: Sequence[str]
    unreviewed: int
    delegations: Sequence[Mapping[str, Any]]


async def lock(
    conn: AsyncConnection,
    request_id: RequestId,
    *,
    delivery: str,
    at: datetime,
    actor: str = "",
    lock_target: bool = False,
) -> Evidence | None:
    """Lock a request and read what its decisions need; None when there is none.

    `actor`: who acts, and may stand in for somebody.
    """
    statement = LOCK_REQUEST_AND_TARGET if lock_target else LOCK_REQUEST
    locked = (await conn.execute(statement, {"id": request_id})).mappings().one_or_none()
    if locked is None:
        return None
    row = {name: value for name, value in locked.items() if name != "target_lock"}
    found = await conn.execute(
        READ_AFTER_LOCK,
        {
            "id": request_id,
            "plan_hash": row["plan_hash"],
            "void_before": row["detail"].get("void_before", 0),
            "delivery": delivery,
            "database": row["database"],
            "at": at,
            "asked_at": row["asked_at"],
            "actor": actor,
        },
    )
    return Evidence(row=row, **found.mappings().one())


async def delivered(conn: AsyncConnection, delivery: str) -> tuple[int, Mapping[str, Any]]:
    """What was answered to a delivery that came before: the request and the answer."""
    row = (await conn.execute(ANSWERED, {"delivery": delivery})).one()
    return row.request_id, row.answer


def audit_entry(actor: str, action: str, detail: Mapping[str, Any]) -> Mapping[str, str]:
    """An element of `entries`."""
    return {"actor": actor, "action": action, "detail": lasting(redact_json(detail))}
