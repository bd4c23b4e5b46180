"""Which policy is in force: the newest row of a table whose rows only our key can sign.

The file is a proposal. It becomes the policy at the first start, at any start under a policy
without four eyes, and otherwise when a request for it was granted under the one before.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import audit
from approvals.compiling import PolicyError
from approvals.history import Glance, glance, would_move
from approvals.plans import sha256
from approvals.policy_file import LoadedPolicy, load_policy, parse_policy
from approvals.records import stamp
from approvals.rules import POLICY_CHANGE, Policy
from approvals.signing import Signature, VoteKeys, key_id
from approvals.spaces import Known
from approvals.store import KEEP_POLICY
from approvals.words import PolicyHash, RefusedError, RequestId, Why
from store.connect import Store

log: Final = logging.getLogger("twokey.policy")

OPERATOR: Final = "operator"
CHAIN: Final = ""  # the audit's chain for what concerns no single database
_AT: Final = TIMESTAMP(timezone=True)

# Whoever puts a policy in force waits for the workers that begin under the one before, and
# they for it: a run never begins under a policy that was no longer in force by then.
_LOCK: Final = sa.text("SELECT pg_advisory_xact_lock(hashtext('twokey policy'), 0)")
_HOLD: Final = sa.text("SELECT pg_advisory_xact_lock_shared(hashtext('twokey policy'), 0)")

_NEWEST: Final = sa.text("""
    SELECT f.id, f.policy_hash, f.at, f.by, f.request_id, f.key_id, f.signature, p.body
      FROM policies_in_force f
      LEFT JOIN policies p ON p.hash = f.policy_hash
     ORDER BY f.id DESC
     LIMIT 1
""")

_NUMBER: Final = sa.text("SELECT nextval(pg_get_serial_sequence('policies_in_force', 'id'))")

_PUT: Final = sa.text("""
    INSERT INTO policies_in_force (id, policy_hash, at, by, request_id, key_id, signature)
    VALUES (:id, :policy_hash, :at, :by, :request_id, :key_id, :signature)
""").bindparams(sa.bindparam("at", type_=_AT), sa.bindparam("request_id", type_=sa.BigInteger()))

_WHO_ASKED: Final = sa.text("""
    SELECT asked_by FROM requests
     WHERE id = :id AND operation = :operation AND state = 'executing'
""")


class DistrustedPolicyError(RefusedError):
    """The newest row is not one of ours. Nothing is decided until somebody has looked."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"The policy in force cannot be trusted: {problem}.",
            next_step="Nothing is decided until whoever runs the bot has looked: twokey doctor.",
            why=Why.SIGNATURE,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The policy that decisions are made under, and how it came to that."""

    id: int
    policy: LoadedPolicy
    at: datetime
    by: str
    request_id: RequestId | None
    key_id: str


class Policies:
    """The policy in force, and the one that the file proposes."""

    def __init__(
        self,
        *,
        store: Store,
        keys: VoteKeys,
        clock: Callable[[], datetime],
        file: Path,
        known: Known | None = None,
    ) -> None:
        """`known`: what there is besides the policy, for its proofs."""
        self.known: Final = known or Known()
        self._store = store
        self._keys = keys
        self._clock = clock
        self._file = file
        self._newest = 0
        self._read: dict[PolicyHash, LoadedPolicy] = {}

    def proposed(self) -> LoadedPolicy:
        """What the file says now.

        Raises:
            PolicyError: it is no policy.
        """
        return load_policy(self._file)

    async def foreseen(self, policy: LoadedPolicy, *, since: datetime, limit: int) -> Glance:
        """What `policy` would have changed of the newest `limit` requests since then."""
        return await glance(self._store, self._keys, policy, since=since, limit=limit)

    async def moved(self, old: Policy, new: Policy, *, limit: int) -> tuple[int, int]:
        """How many open requests would meet another rule, of how many: the newest `limit`."""
        return await would_move(self._store, self._keys, old, new, limit=limit)

    async def in_force(self) -> InForce | None:
        """The policy in force; None before the first start.

        Raises:
            DistrustedPolicyError: the newest row is not ours.
        """
        async with self._store.single() as conn:
            return await self._look(conn)

    async def held(self, conn: AsyncConnection) -> InForce | None:
        """The same, and it stays in force until the caller's transaction has ended.

        Raises:
            DistrustedPolicyError: the newest row is not ours.
        """
        await conn.execute(_HOLD)
        return await self._look(conn)

    async def start(self) -> InForce:
        """What is in force from this start on: by itself the file's, where it may be.

        Raises:
            PolicyError: the file is no policy.
            DistrustedPolicyError: the newest row is not ours.
        """
        file = self.proposed()
        async with self._store.begin() as conn:
            await conn.execute(_LOCK)
            newest = await self._look(conn)
            if newest is not None and newest.policy.hash == file.hash:
                return await self._signed_anew(conn, newest)
            if newest is not None and newest.policy.values.four_eyes:
                log.warning(
                    "The policy file %s (%s) differs from the policy in force (%s), which stays:"
                    " propose the file with /db %s.",
                    self._file, file.hash[:12], newest.policy.hash[:12], POLICY_CHANGE,
                )  # fmt: skip
                return await self._signed_anew(conn, newest)
            return await self._put(conn, file, newest, by=OPERATOR, request_id=None)

    async def put(
        self, policy: LoadedPolicy, *, instead_of: PolicyHash, request_id: RequestId
    ) -> InForce:
        """Put `policy` in force for a request that was granted and runs now; once.

        Raises:
            RefusedError: another policy is in force than the request was granted under, or
                no such request runs.
            DistrustedPolicyError: the newest row is not ours.
        """
        async with self._store.begin() as conn:
            await conn.execute(_LOCK)
            newest = await self._look(conn)
            if newest is not None and newest.request_id == request_id:
                return newest  # it was done before a crash
            if newest is None or newest.policy.hash != instead_of:
                raise RefusedError(
                    "Another policy has come into force since this was asked for.",
                    next_step="Ask again: the plan then compares with the policy of today.",
                    why=Why.STALE_PLAN,
                )
            values = {"id": request_id, "operation": POLICY_CHANGE}
            by = (await conn.execute(_WHO_ASKED, values)).scalar_one_or_none()
            if by is None:
                raise RefusedError(
                    f"Request {request_id} is no change of the policy that runs.",
                    next_step="Ask for it with /db policy-change.",
                    why=Why.NOT_APPROVED,
                )
            return await self._put(conn, policy, newest, by=by, request_id=request_id)

    async def _signed_anew(self, conn: AsyncConnection, newest: InForce) -> InForce:
        """The same policy; after a rotation of the keys with a row of the new key."""
        if newest.key_id == key_id(self._keys.current):
            return newest
        return await self._put(conn, newest.policy, newest, by=OPERATOR, request_id=None)

    async def _look(self, conn: AsyncConnection) -> InForce | None:
        found_row = (await conn.execute(_NEWEST)).mappings().one_or_none()
        row = dict(found_row) if found_row else None
        if (row["id"] if row else 0) < self._newest:
            raise DistrustedPolicyError(f"row {self._newest} is gone from policies_in_force")
        if row is None:
            return None
        signature = Signature(key_id=row["key_id"], value=row["signature"])
        if not self._keys.holds(_signed(row), signature):
            raise DistrustedPolicyError(f"row {row['id']} of policies_in_force is not signed by us")
        found = InForce(
            id=row["id"],
            policy=self._parsed(PolicyHash(row["policy_hash"]), row["body"]),
            at=row["at"],
            by=row["by"],
            request_id=row["request_id"],
            key_id=row["key_id"],
        )
        self._newest = found.id
        return found

    def _parsed(self, name: PolicyHash, body: str | None) -> LoadedPolicy:
        if known := self._read.get(name):
            return known
        if body is None or sha256(body) != name:
            raise DistrustedPolicyError(f"the stored text of {name[:12]} is another one")
        try:
            policy = parse_policy(json.loads(body))
        except PolicyError as error:
            raise DistrustedPolicyError(
                f"this version does not understand {name[:12]}: {error.problem}"
            ) from error
        self._read = {name: policy}
        return policy

    async def _put(
        self,
        conn: AsyncConnection,
        policy: LoadedPolicy,
        before: InForce | None,
        *,
        by: str,
        request_id: RequestId | None,
    ) -> InForce:
        now = self._clock()
        values = {"hash": policy.hash, "body": policy.body, "at": now}
        await conn.execute(KEEP_POLICY, values)
        row: dict[str, Any] = {
            "id": (await conn.execute(_NUMBER)).scalar_one(),
            "policy_hash": policy.hash,
            "at": now,
            "by": by,
            "request_id": request_id,
        }
        made = self._keys.sign(_signed(row))
        await conn.execute(_PUT, {**row, "key_id": made.key_id, "signature": made.value})
        was = before.policy.hash if before else ""
        await audit.append(
            conn, chain=CHAIN, at=now, actor=by, action="policy_in_force",
            request_id=request_id, detail={"before": was, "policy": policy.hash},
        )  # fmt: skip
        log.info("The policy %s is in force, by %s.", policy.hash[:12], by)
        return InForce(
            id=row["id"], policy=policy, at=now, by=by, request_id=request_id, key_id=made.key_id
        )


def _signed(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the signature covers; with the id, so that an old row cannot be put on top again."""
    return {
        "kind": "policy in force",
        "id": row["id"],
        "policy_hash": row["policy_hash"],
        "at": stamp(row["at"]),
        "by": row["by"],
        "request_id": row["request_id"],
    }
