"""The doctor's look at the policy in force, and at what broken glass owes."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.exc import SQLAlchemyError

from approvals.compiling import PolicyError
from approvals.in_force import DistrustedPolicyError, InForce, Policies
from approvals.rules import POLICY_CHANGE
from approvals.sealing import SecretBox
from approvals.signing import VoteKeys
from approvals.words import ExplainedError
from bot.doctor_factors import second_factors
from bot.doctor_schedules import standing_grants
from bot.finding import Finding
from bot.inventory import Inventory
from bot.process import utc_now
from bot.settings import Settings
from bot.storage import vote_keys
from jobs.registry import load_operations
from store.connect import Store

_SHOWN: Final = 12

REVIEWS: Final = sa.text("""
    SELECT count(*) AS owed,
           count(*) FILTER (
               WHERE CAST(detail -> 'glass' ->> 'review_by' AS timestamptz) <= :at) AS overdue,
           coalesce(string_agg(CAST(id AS text), ', ' ORDER BY id) FILTER (
               WHERE CAST(detail -> 'glass' ->> 'review_by' AS timestamptz) <= :at), '') AS which
      FROM requests
     WHERE state = 'needs_review'
""").bindparams(sa.bindparam("at", type_=TIMESTAMP(timezone=True)))


async def examine_policies(settings: Settings, inventory: Inventory, store: Store) -> list[Finding]:
    """What is in force, what the file says, and which reviews are owed."""
    try:
        current, previous = vote_keys(settings)
    except (ExplainedError, OSError):
        return []  # said already
    keys = VoteKeys(current=current, previous=previous)
    policies = Policies(store=store, keys=keys, clock=utc_now, file=inventory.policy)
    try:
        return [
            await in_force(policies),
            *await _schedules(policies, inventory),
            await second_factors(policies, SecretBox(keys), store),
            await reviews(store, now=utc_now()),
        ]
    except (SQLAlchemyError, asyncpg.PostgresError, OSError):
        return []  # the findings about the store say why


async def _schedules(policies: Policies, inventory: Inventory) -> list[Finding]:
    """By the policy in force, or by the file before the first start."""
    try:
        found = await policies.in_force()
        policy = found.policy if found else policies.proposed()
    except (DistrustedPolicyError, PolicyError):
        return []  # said already
    databases = inventory.databases.values()
    return [standing_grants(databases, policy.values, load_operations("commands"))]


async def in_force(policies: Policies) -> Finding:
    """Whether the policy in force is the file's, and ours."""
    name = "policy in force"
    try:
        found = await policies.in_force()
        file = policies.proposed()
    except DistrustedPolicyError as error:
        return Finding(
            name=name, ok=False, says=error.problem,
            fix="Somebody has written to policies_in_force: see who can, and restore the store.",
        )  # fmt: skip
    except PolicyError:
        return Finding(name=name, ok=True, says="the file is no policy, which is said above")
    if found is None:
        return Finding(name=name, ok=True, says="none yet: the first start puts the file in force")
    if found.policy.hash == file.hash:
        return Finding(name=name, ok=True, says=f"{_said(found)}, as the file says")
    fix = (
        f"Propose the file with /db {POLICY_CHANGE}, or put the file back."
        if found.policy.values.four_eyes
        else "Start the bot anew: the file is then in force."
    )
    says = f"{_said(found)}; the file says {file.hash[:_SHOWN]}"
    return Finding(name=name, ok=False, says=says, fix=fix)


async def reviews(store: Store, *, now: datetime) -> Finding:
    """What was run behind broken glass and nobody has reviewed."""
    async with store.begin() as conn:
        row = (await conn.execute(REVIEWS, {"at": now})).one()
    if not row.overdue:
        return Finding(name="reviews", ok=True, says=f"{row.owed} owed, none overdue")
    return Finding(
        name="reviews",
        ok=False,
        says=f"{row.overdue} overdue, of what ran without its votes: request {row.which}.",
        fix="Have each reviewed with /db review: until then who ran it cannot do so again.",
    )


def _said(found: InForce) -> str:
    by = f"request {found.request_id}" if found.request_id else found.by
    return f"{found.policy.hash[:_SHOWN]}, since {found.at:%Y-%m-%d %H:%M} UTC by {by}"
