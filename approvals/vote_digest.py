"""One hash of a stored vote, for the audit: so the audit covers all of its row. Pure.

The vote's signature can be checked only by who has the key; this can be checked by anybody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from approvals.chain import stamp
from approvals.plans import canonical, lasting, sha256


def vote_digest(row: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a row of `votes` but its number."""
    at = row["at"] if isinstance(row["at"], datetime) else datetime.fromisoformat(row["at"])
    fields = {name: value for name, value in row.items() if name != "id"}
    return sha256(canonical({**fields, "at": stamp(at)}))


def with_digests(
    entries: Sequence[Mapping[str, str]], votes: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, str]]:
    """The entries of one decision; the last, which tells of its vote, with the vote's digest."""
    if not entries or not votes:
        return list(entries)
    last = entries[-1]
    detail = {**json.loads(last["detail"]), "vote": vote_digest(votes[-1])}
    return [*entries[:-1], {**last, "detail": lasting(detail)}]
