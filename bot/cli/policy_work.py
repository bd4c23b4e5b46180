"""What `twokey policy check` and `twokey policy backtest` do: proofs, and the past replayed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from approvals.backtest import Replayed, Summary, replay
from approvals.counting import count_text
from approvals.history import pasts
from approvals.policy_file import LoadedPolicy
from approvals.proof import Holds, Proof
from approvals.proofs import prove, remarks
from approvals.signing import VoteKeys
from bot.cli.output import say
from bot.electorate import members
from bot.inventory import Inventory
from bot.policies import known
from bot.settings import Settings
from bot.storage import open_store, vote_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A policy with its proofs, and what is odd about it besides."""

    policy: LoadedPolicy
    proofs: Sequence[Proof]
    remarks: Sequence[str]

    @property
    def is_fine(self) -> bool:
        """Whether no promise is broken."""
        return not any(proof.is_broken for proof in self.proofs)

    @property
    def lines(self) -> Sequence[str]:
        """All of it for people."""
        broken = sum(proof.is_broken for proof in self.proofs)
        open_ = sum(proof.holds is Holds.NOT_PROVEN for proof in self.proofs)
        word = f"{count_text(broken, 'promise')} broken" if broken else "Fine"
        more = f", {open_} not proven" if open_ else ""
        rules = f"{count_text(len(self.policy.values.rules), 'rule')}, hash {self.policy.hash[:12]}"
        return [
            *(line for proof in self.proofs for line in proof.lines),
            *(f"note {line}" for line in self.remarks),
            f"{word}{more}: {rules}.",
        ]

    def as_json(self) -> Mapping[str, Any]:
        """All of it for scripts."""
        return {
            "ok": self.is_fine,
            "hash": self.policy.hash,
            "rules": [rule.name for rule in self.policy.values.rules],
            "proofs": [proof.as_json() for proof in self.proofs],
            "remarks": list(self.remarks),
        }


async def checks(policy: LoadedPolicy, settings: Settings, inventory: Inventory | None) -> Checked:
    """Every proof, with the people of today's groups where Slack can be asked."""
    groups = {**(inventory.groups if inventory else {}), **policy.values.groups}
    people, why = await members(settings, groups)
    proofs = prove(
        policy.values,
        known(inventory),
        people=people,
        why_nobody=f"Not proven: it was not asked who is in the groups, as {why}.",
    )
    return Checked(policy=policy, proofs=proofs, remarks=remarks(policy.values, list(groups)))


async def backtested(
    policy: LoadedPolicy, settings: Settings, *, since: datetime | None, as_json: bool
) -> Summary:
    """Print each stored request that would have been different, then the numbers."""
    current, previous = vote_keys(settings)
    keys = VoteKeys(current=current, previous=previous)
    summary = Summary.empty()
    told = _Told(as_json=as_json)
    async with open_store(settings, os.environ) as store, store.begin() as conn:
        async for past in pasts(conn, keys, since=since):
            replayed = replay(past, policy)
            summary.add(past, replayed)
            told.one(replayed)
    told.end(summary)
    return summary


class _Told:
    """Prints as it goes: nothing is kept, however long the past is."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._before = '{"requests": ['

    def one(self, replayed: Replayed) -> None:
        """One request; for people only if it would have been different."""
        if self._as_json:
            say(f"{self._before}{json.dumps(replayed.as_json(), default=str)}")
            self._before = ","
        elif replayed.is_change:
            say(replayed.text)

    def end(self, summary: Summary) -> None:
        """The numbers."""
        if self._as_json:
            start = self._before if self._before != "," else ""
            say(f'{start}], "summary": {json.dumps(summary.as_json())}}}')
            return
        for line in summary.lines:
            say(line)
