"""Plans as text: one canonical form, and its hash. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from approvals.words import PlanHash

# What was asked for stands in the hashed text beside the plan: whoever agrees to a plan
# agrees to these parameters on this database, whatever a row may say later.
CALL: Final = "call"
# What people agree to they must be able to read, page by page.
PLAN_BYTES_MAX: Final = 1_000_000
_ENCODER: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical(value: object) -> str:
    """JSON in the one form that is hashed: sorted keys, no spaces, characters as they are.

    Raises:
        ValueError: `value` holds a number that is not finite.
        TypeError: `value` holds something that JSON cannot.
    """
    return _ENCODER.encode(value)


def lasting(detail: Mapping[str, Any]) -> str:
    """The canonical text of what the store keeps as jsonb, and must give back as it was.

    Raises:
        TypeError: a number has a point, which jsonb may write in another way, or a key is no
            text; or it is nothing that JSON can.
    """
    _hold(detail)
    return canonical(detail)


def _hold(value: object) -> None:
    if isinstance(value, float):
        raise TypeError(f"{value!r} may come back in another form: keep it as text")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is no text")
            _hold(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _hold(item)


def sha256(text: str) -> str:
    """SHA-256 of the UTF-8 text, in lower-case hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def plan_hash(body: str) -> PlanHash:
    """The hash of a plan's canonical text."""
    return PlanHash(sha256(body))


def plan_body(
    plan: Mapping[str, Any], *, operation: str, database: str, params: Mapping[str, Any]
) -> str:
    """The text that people agree to: the plan, and the call that it answers."""
    call = {"database": database, "operation": operation, "params": params}
    return canonical({**plan, CALL: call})


def plan_of(body: str) -> Mapping[str, Any]:
    """The plan in a stored text, without the call."""
    plan: dict[str, Any] = json.loads(body)
    plan.pop(CALL, None)
    return plan


def call_of(body: str) -> Mapping[str, Any]:
    """The call in a stored text: operation, database, params."""
    call: Mapping[str, Any] = json.loads(body).get(CALL, {})
    return call
