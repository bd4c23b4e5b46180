"""What a look at something found. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `fix` says what to do when it is not `ok`."""

    name: str
    ok: bool
    says: str
    fix: str = ""
