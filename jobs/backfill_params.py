"""What names a backfill, in the words of whoever asks for it or for its trial."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from jobs.hints import Multiline
from postgres.migrate.backfill.spec import RANGES_MAX
from postgres.migrate.backfill_terms import TEXT_CHARS_MAX


class BackfillParams(BaseModel, extra="forbid"):
    """Which rows of which table get what, and in how many parts."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    table: str = Field(
        min_length=1,
        max_length=200,
        description="The table with its schema",
        examples=["public.users"],
    )
    set: Annotated[str, Multiline()] = Field(
        min_length=1,
        max_length=TEXT_CHARS_MAX,
        description="What each row gets, as after SET",
        examples=["first_name = split_part(name, ' ', 1)"],
    )
    where: Annotated[str, Multiline()] = Field(
        default="",
        max_length=TEXT_CHARS_MAX,
        description="Only rows for which this holds; empty: all of them",
        examples=["first_name IS NULL"],
    )
    ranges: int | None = Field(
        default=None,
        ge=1,
        le=RANGES_MAX,
        description="How many parts of the table are worked on side by side",
    )
