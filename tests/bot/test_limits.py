"""Whatever an operator sets, a worker has let go before another takes over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bot.limits import limits_of
from bot.settings import Settings


@pytest.mark.parametrize("seconds", [2, 3, 60, 3600])
def test_a_worker_lets_go_before_it_counts_as_lost(seconds: int) -> None:
    lost = timedelta(seconds=seconds)
    limits = limits_of(Settings.model_validate({"worker_lost_after": lost}))
    assert limits.stale == lost
    assert limits.lock_grace + limits.cleanup < lost
    assert limits.heartbeat * 2 <= lost


def test_a_busy_worker_is_not_taken_for_a_lost_one() -> None:
    with pytest.raises(ValueError, match="2s or longer"):
        Settings.model_validate({"worker_lost_after": "1s"})
