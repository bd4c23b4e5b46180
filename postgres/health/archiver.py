"""For how long archiving has been failing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def archive_failing(
    row: Mapping[str, Any], *, at: float, earlier: float | None
) -> tuple[float | None, float | None]:
    """Seconds of failing (None: nothing is archived here), and since when (None: it does not).

    PostgreSQL tells the last success and the last failure alone. The last success is no measure:
    a server at rest has had none for hours when one segment fails. So what counts is when a look
    first saw it failing, `earlier`; the first look takes the failure that it sees.
    """
    if row["mode"] == "off":
        return None, None
    if not row["is_failing"]:
        return 0.0, None
    since = earlier if earlier is not None else at - (row["failed_age_s"] or 0.0)
    if row["ok_age_s"] is not None:
        since = max(since, at - row["ok_age_s"])
    return max(at - since, 0.0), since
