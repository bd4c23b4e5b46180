"""Slack's request signature. Pure."""

from __future__ import annotations

import hashlib
import hmac


def sign(secret: str, body: bytes, *, timestamp: int) -> dict[str, str]:
    """The two headers that prove that Slack has sent this body at this time."""
    text = b"v0:" + str(timestamp).encode() + b":" + body
    mac = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": str(timestamp), "X-Slack-Signature": f"v0={mac}"}
