"""The column `detail` of a request, as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict, JsonValue

from approvals.events import NoteKind
from approvals.lineage import Follower
from approvals.words import Why


class GlassDetail(BaseModel):
    """`approvals.events.Glass` as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    at: datetime
    reason: str
    review_within_seconds: int
    review_by: datetime | None = None
    reminded_at: datetime | None = None


class Ending(BaseModel):
    """Who or what ended a request, or turned it back, and what was said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str = ""
    why: Why | None = None
    text: str = ""
    next_step: str = ""


class Detail(BaseModel):
    """The column `detail`: what decisions need and nobody selects by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requesters: tuple[str, ...] = ()
    begun: bool = False
    void_before: int = 0  # votes up to this id are a record only
    told: tuple[NoteKind, ...] = ()
    look_at: datetime | None = None
    glass: GlassDetail | None = None
    review: Ending | None = None
    ending: Ending | None = None
    numbers: Mapping[str, JsonValue] = {}
    again: int = 0  # the request that this one repeats
    undo_of: int = 0  # the request that this one undoes
    followers: tuple[Follower, ...] = ()  # what came out of this one
    key_id: str = ""
    seal: str = ""
