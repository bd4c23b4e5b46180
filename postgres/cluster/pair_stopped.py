"""A switchover that an earlier life left in the middle: gone on with, or taken back.

The old primary's `standby.signal` tells: without it nobody was told to promote.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from postgres.cluster.host import Host
from postgres.cluster.pair_steps import session
from postgres.cluster.pair_switch import Move, go_on, has_replayed, promote, take_back, unknown
from postgres.cluster.words import Verdict
from postgres.errors import PostgresError

_REPLAY_SHARE: Final = 0.6
_LOOK_EVERY_SECONDS: Final = 0.05
_REACH_LIMIT: Final = timedelta(seconds=3)


async def go_on_stopped(move: Move) -> Verdict:
    """The leader has ended and the candidate is no primary that answers.

    Raises:
        PostgresError: the leader crashed: that is no switchover.
    """
    host, control = await move.host.look(), await move.host.control()
    if not control.is_shut_down:
        raise PostgresError(
            f"{move.leader.name} is gone and did not end in order ({control.state}).",
            next_step=f"Start it again, or ask for a failover to {move.candidate.name}.",
        )
    try:
        async with session(move.candidate, _REACH_LIMIT) as new:
            if not host.has_standby_signal:
                return await go_on(move, new, control, move.host.mark_standby)
            # It may have been told already: there is no way back.
            if await has_replayed(move, new, control.checkpoint):
                return await promote(move, new)
            why = f"{move.candidate.name} lacks the last of its writes"
    except PostgresError as error:
        why = error.problem.rstrip(".")
    if host.has_standby_signal or not await _is_standby_for_sure(move):
        return unknown(move, f"{move.leader.name} has ended, and {why}")
    return await take_back(move, why)


async def promote_over_standby(move: Move) -> Verdict:
    """The leader runs as a standby already: nobody takes writes, and nothing was lost so far."""
    async with session(move.leader) as old, session(move.candidate) as new:
        while (await new.replayed()) < (await old.replayed()):
            if not move.deadline.part(_REPLAY_SHARE):
                return unknown(move, f"{move.leader.name} has more than {move.candidate.name}")
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        return await promote(move, new)


async def _is_standby_for_sure(move: Move) -> bool:
    """Whether the candidate, which does not answer, was never promoted: its own machine says."""
    try:
        return (await Host(move.candidate).look()).has_standby_signal
    except PostgresError:
        return False
