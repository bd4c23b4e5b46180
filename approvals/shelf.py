"""Reading requests for people: with their votes, their run, and the policy they are under."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import store as sql
from approvals.cases import Case
from approvals.compiling import PolicyError
from approvals.policy_file import LoadedPolicy, parse_policy
from approvals.records import RequestRecord, to_record
from approvals.rules import Policy
from approvals.signing import VoteKeys
from approvals.words import RunId

_POLICIES_MAX: Final = 64


class Shelf:
    """Reads requests. Remembers the policies that it has seen."""

    def __init__(self, *, keys: VoteKeys, policy: LoadedPolicy) -> None:
        self._keys = keys
        self._policy = policy
        self._policies: dict[str, Policy] = {policy.hash: policy.values}

    def use(self, policy: LoadedPolicy) -> None:
        """Read under this policy from now on."""
        self._policy = policy
        self._remember(policy.hash, policy.values)

    async def read(self, conn: AsyncConnection, ids: Sequence[int]) -> list[RequestRecord]:
        """These requests, the newest first."""
        if not ids:
            return []
        values = {"ids": list(ids), "policy_hash": self._policy.hash}
        rows = (await conn.execute(sql.READ_REQUESTS, values)).mappings().all()
        found: list[RequestRecord] = []
        for each in rows:
            row = dict(each)
            case = Case.of(row, row["votes"], self._keys)
            policy = self._policy_of(row["policy_hash"], row["policy_body"])
            run = (RunId(row["run_id"]) if row["run_id"] else None, row["run_state"])
            record = to_record(row, case.detail, case.votes, policy, run)
            if row["paused_by"]:
                by, at = row["paused_by"], row["paused_at"]
                record = replace(record, paused_by=by, paused_at=at)
            if row["stopped_by"]:
                record = replace(record, stopped_by=row["stopped_by"])
            found.append(record)
        return found

    async def recent(
        self, conn: AsyncConnection, *, database: str | None, open_only: bool, limit: int
    ) -> list[RequestRecord]:
        """The newest requests, of one database or of all."""
        values: dict[str, Any] = {"limit": limit}
        if database is not None or open_only:
            values["database"] = database
        query = sql.RECENT if database is not None else sql.RECENT_ANYWHERE
        found = await conn.execute(sql.RECENT_OPEN if open_only else query, values)
        return await self.read(conn, list(found.scalars()))

    def _policy_of(self, name: str, body: str | None) -> Policy | None:
        """The policy that a request is under, which may be one from before."""
        if name not in self._policies and body is not None:
            try:
                found = parse_policy(json.loads(body))
            except (PolicyError, ValueError):
                return None  # stored by a version of ours that understood it
            if found.hash != name:
                return None  # somebody else's body under the name of ours
            self._remember(name, found.values)
        return self._policies.get(name)

    def _remember(self, name: str, policy: Policy) -> None:
        if len(self._policies) >= _POLICIES_MAX:
            self._policies = {self._policy.hash: self._policy.values}
        self._policies[name] = policy
