"""How a backup is taken: what an operator chose, apart from what is backed up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

Compression = Literal["auto", "zstd", "gzip", "none"]

COUNTING_LIMIT: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a backup is taken.

    `workers`: threads that compress, or processes that dump. `rate_max_bytes`: so many bytes
    per second may leave the server; they are counted after its compression. `recipient`: an age
    key to encrypt for. Rows are counted for as long as `counting_limit`; tables that are left
    over are compared with nothing later.
    """

    compression: Compression = "auto"
    workers: int = 4
    rate_max_bytes: int | None = None
    recipient: str | None = None
    counting_limit: timedelta = COUNTING_LIMIT
