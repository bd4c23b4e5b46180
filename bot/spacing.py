"""A distance in time between two messages of one channel, as Slack wants it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

_PACED_CHANNELS_MAX: Final = 10_000


@dataclass(slots=True)
class Spacing:
    """Keeps a distance in time between two messages of one channel."""

    between: timedelta
    _free_at: dict[str, float] = field(default_factory=dict)

    async def wait(self, channel: str) -> None:
        """Return when the next message may go to `channel`."""
        now = asyncio.get_running_loop().time()
        if len(self._free_at) >= _PACED_CHANNELS_MAX:
            self._free_at = {name: at for name, at in self._free_at.items() if at > now}
        turn = max(now, self._free_at.get(channel, now))
        self._free_at[channel] = turn + self.between.total_seconds()
        await asyncio.sleep(turn - now)
