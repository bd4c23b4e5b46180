"""Charts as PNG, for workspaces that do not draw them.

matplotlib is imported when the first picture is drawn: it takes half a second and 30 MB. Its
`Figure` is used without pyplot, so that threads share nothing and nothing is kept.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

from jobs.operation import Chart

DRAWING_MAX: Final = timedelta(seconds=15)  # the first one imports matplotlib and finds fonts
PICTURE_BYTES_MAX: Final = 2_000_000
_CANNOT_DRAW: Final = (
    ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, OSError, ImportError,
)  # fmt: skip
# One at a time in this process, so that pictures leave processor time to everything else.
_DRAWER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="twokey-pictures")


class PictureError(Exception):
    """A picture could not be drawn in time, or is too large to be sent."""


def render(chart: Chart) -> bytes:
    """A chart as PNG, some 1600 pixels wide."""
    from bot.picture_page import chart_page  # noqa: PLC0415 - heavy, see above

    return chart_page(chart)


async def drawn(chart: Chart) -> bytes:
    """The PNG, drawn in a thread, one at a time in this process.

    Raises:
        PictureError: it took longer than `DRAWING_MAX`, is too large, or cannot be drawn.
    """
    try:
        async with asyncio.timeout(DRAWING_MAX.total_seconds()):
            png = await asyncio.get_running_loop().run_in_executor(_DRAWER, _draw, chart)
    except TimeoutError:
        raise PictureError(f"not drawn within {DRAWING_MAX}") from None
    if len(png) > PICTURE_BYTES_MAX:
        raise PictureError(f"{len(png)} bytes are too many")
    return png


def _draw(chart: Chart) -> bytes:
    try:
        return render(chart)
    except _CANNOT_DRAW as error:
        # Whoever wanted the picture has words instead: a chart must not hold a message up.
        raise PictureError(f"{type(error).__name__}: {error}") from error
