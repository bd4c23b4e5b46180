"""The schema that the recovery of one table makes in its database. Pure."""

from __future__ import annotations


def schema_of(request_id: int) -> str:
    """Its name: of this request, and of no other."""
    return f"restored_{request_id}"


def comment_of(request_id: int) -> str:
    """Its comment, by which we know it again as ours."""
    return f"Made by Twokey for request {request_id}: one recovered table"
