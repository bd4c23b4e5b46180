"""What a request's card says to an approver, as one hash. Pure.

Votes, progress and state do not change it; whatever else is read before a decision does.
A vote names the hash that its voter saw, and it is computed again behind the request's lock.
"""

from __future__ import annotations

from typing import Final

from approvals.plans import canonical, sha256
from approvals.records import RequestRecord

_CHARS: Final = 16


def shown_hash(record: RequestRecord) -> str:
    """The hash of what the card of this request shows now."""
    shown = {
        "id": record.id,
        "operation": record.operation,
        "database": record.database,
        "asked_by": [record.asked_by, record.asked_by_slack],
        "reason": record.reason,
        "plan": record.plan_hash,
        "rule": record.rule,
        "gates": [[gate.id, gate.who, gate.approve] for gate in record.gates],
        "any_gate": record.any_gate,
        "care": sorted(record.care),
    }
    return sha256(canonical(shown))[:_CHARS]
