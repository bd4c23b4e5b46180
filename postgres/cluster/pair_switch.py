"""A pair's change of roles: in order (`hand_over`), or after the old primary is gone (`take_over`).

Between the stop and the promotion nobody takes writes. So all that can be done before is done
before, what can wait waits, and a cancellation is held back until somebody takes writes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from postgres.cluster.adapter import Tell
from postgres.cluster.fence import prove_fence
from postgres.cluster.follow import (
    Following,
    Place,
    can_be_met,
    following,
    mirrored,
    slot_of,
)
from postgres.cluster.host import Host
from postgres.cluster.host_hand import hand_on
from postgres.cluster.host_words import Control
from postgres.cluster.pair_steps import Deadline, NodeFacts, Session, session
from postgres.cluster.words import NodeSpec, Outcome, Verdict
from postgres.errors import PostgresError

SIGNAL: Final = "standby.signal"
# Shares of the whole limit: what is left must suffice to take everything back.
_BEFORE_SHARE: Final = 0.4
_STOP_SHARE: Final = 0.5
_STOP_LIMIT: Final = timedelta(seconds=15)  # nobody takes writes meanwhile
_REPLAY_SHARE: Final = 0.6
_END_LIMIT: Final = timedelta(seconds=15)
_TAKE_BACK_LIMIT: Final = timedelta(seconds=30)
_LOOK_EVERY_SECONDS: Final = 0.005
_KNOCK_EVERY_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Who hands over to whom, and by when."""

    leader: NodeSpec
    candidate: NodeSpec
    host: Host  # the leader's
    deadline: Deadline
    tell: Tell

    def place(self, node: NodeSpec) -> Place:
        """Where the inventory says that a node is."""
        return Place.of(node.target.words)

    def to_follow(self, leader: NodeFacts, candidate: NodeFacts) -> Following:
        """How the old primary will follow the new one."""
        return following(
            self.leader.name,
            own=leader.conninfo,
            peer=candidate.conninfo,
            primary=self.place(self.candidate),
            itself=self.place(self.leader),
            uses_slots=bool(candidate.slot or leader.slot),
        )


async def prepare(move: Move) -> None:
    """All that can be done while the leader still takes writes. It stays right if nobody goes on.

    Raises:
        PostgresError: it cannot be done. Nothing has changed but settings that do nothing yet.
    """
    limit = move.deadline.part(_BEFORE_SHARE)
    async with session(move.leader) as old, session(move.candidate) as new:
        before, after = await old.facts(), await new.facts()
        host = await move.host.look()
        if before.pid not in {each.pid for each in host.servers}:
            raise PostgresError(
                f"The server that answers as {move.leader.name} does not run where its `host` "
                "leads to.",
                next_step="Correct `host.via` and `host.data` of the node in the inventory: "
                "another server would be stopped.",
            )
        plan = move.to_follow(before, after)
        await new.create_slot(plan.slot)
        await old.follow(plan)
        await keep_sync(move, new, before.sync_names, after.sync_names)
        await move.tell(f"Checkpoint on {move.leader.name}.")
        await old.checkpoint(limit)


async def keep_sync(move: Move, new: Session, before: str, after: str) -> None:
    """No commit may wait on the new primary for somebody who cannot come.

    A setting that the old primary can meet stays: commits then wait until it is back.
    """
    if not can_be_met(after, move.leader.name):
        wanted = mirrored(before or after, old=move.candidate.name, new=move.leader.name)
        await new.set("synchronous_standby_names", wanted)
        await new.reload()


async def hand_over(move: Move) -> Verdict:
    """Stop the old primary in order, and promote the candidate when it has everything.

    Takes itself back, and says so, as long as nobody was told to promote.
    """
    async with session(move.candidate) as new, hand_on(move.host) as hand:
        try:
            limit = min(move.deadline.part(_STOP_SHARE), _STOP_LIMIT)
            control = await hand.stop(limit=limit)
        except PostgresError as error:
            return unknown(move, f"{move.leader.name} was told to stop: {error.problem}")
        if control is None:
            return await take_back(move, f"{move.leader.name} did not stop in time")
        return await go_on(move, new, control, hand.mark_standby)


async def go_on(
    move: Move, new: Session, control: Control, mark: Callable[[], Awaitable[None]]
) -> Verdict:
    """The leader has stopped: promote the candidate if it has everything, else take it back.

    `mark`: has the leader's folder say that it is a standby's.
    """
    if not control.was_primary:
        return await take_back(move, f"{move.leader.name} ended as {control.state!r}")
    try:
        has_all = await has_replayed(move, new, control.checkpoint)
    except PostgresError as error:
        return await take_back(move, error.problem.rstrip("."))
    if not has_all:
        why = f"{move.candidate.name} did not get the last of {move.leader.name}'s writes in time"
        return await take_back(move, why)
    try:
        # From here on the old primary comes back as a standby alone, whoever starts it.
        await mark()
    except PostgresError as error:
        return await take_back(move, error.problem.rstrip("."))
    return await promote(move, new)


async def promote(move: Move, new: Session) -> Verdict:
    """Tell the candidate to promote, and wait until it is a primary.

    From the moment on in which it was told, the old primary is never started as one.
    """
    try:
        if not await new.is_primary():
            await new.promote()
        while not await new.is_primary():
            if not move.deadline.left:
                return unknown(move, f"{move.candidate.name} was told to promote and has not yet")
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
    except PostgresError as error:
        if not await _is_primary_soon(move, move.candidate):
            return unknown(move, error.problem.rstrip("."))
    return Verdict(outcome=Outcome.DONE, primary=move.candidate.name, seconds=move.deadline.passed)


async def take_back(move: Move, why: str) -> Verdict:
    """Nobody was promoted: the old primary is started again as what it was."""
    await move.tell(f"{why}: starting {move.leader.name} again.")
    try:
        if await move.host.stop("immediate", limit=_END_LIMIT) is None:
            return unknown(move, f"{why}, and it cannot be ended")
        await move.host.remove(SIGNAL)
        await move.host.start("primary")
    except PostgresError as error:
        return unknown(move, f"{why}; starting it again failed: {error.problem.rstrip('.')}")
    if not await _is_primary_soon(move, move.leader, _TAKE_BACK_LIMIT):
        words = await move.host.last_words()
        return unknown(move, f"{why}; it was started again and does not answer. {words}".strip())
    return Verdict(
        outcome=Outcome.NOTHING,
        primary=move.leader.name,
        seconds=move.deadline.passed,
        said=f"{why}; {move.leader.name} was started again and takes writes",
        next_step=f"See {move.candidate.name}'s log and /db replication, then ask again.",
    )


async def fence(move: Move) -> None:
    """Prove that the old primary is gone, and see to it that it comes back as a standby alone.

    Raises:
        PostgresError: there is no proof. Nothing has changed.
    """
    await move.tell(f"Proving that {move.leader.name} is gone.")
    proof = await prove_fence(move.leader)
    if proof.is_proven:
        had = proof.comes_back_as_standby
        await move.host.mark_standby()
        # Somebody may have started it between the two looks; whoever does so now gets a standby.
        proof = await prove_fence(move.leader)
        if not proof.is_proven and not had:
            await move.host.remove(SIGNAL)
    if not proof.is_proven:
        raise PostgresError(
            f"{move.leader.name} is not fenced: {proof.why}. Nobody was promoted.",
            next_step=proof.next_step,
        )


async def take_over(move: Move) -> Verdict:
    """Promote the candidate of a fenced primary: what it has not received is lost.

    Raises:
        PostgresError: it was refused before anything happened.
    """
    async with session(move.candidate) as new:
        facts = await new.facts()
        slot = slot_of(move.leader.name) if facts.slot else ""
        note = ""
        await new.create_slot(slot)
        if facts.sync_names:
            # Its commits would wait for a standby that is gone, for ever.
            await new.set("synchronous_standby_names", "")
            await new.reload()
            note = (
                f" Commits on {move.candidate.name} wait for no standby until "
                f"{move.leader.name} is back."
            )
        verdict = await promote(move, new)
    if verdict.outcome is not Outcome.DONE:
        return verdict
    return Verdict(
        outcome=verdict.outcome,
        primary=verdict.primary,
        seconds=verdict.seconds,
        next_step=f"Bring {move.leader.name} back as a standby of {move.candidate.name}.{note}",
    )


async def has_replayed(move: Move, new: Session, lsn: int) -> bool:
    """Wait until the candidate has replayed the record that begins there; False: it has not."""
    while not await new.has_replayed(lsn):
        if not move.deadline.part(_REPLAY_SHARE):
            return False
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    return True


async def _is_primary_soon(move: Move, node: NodeSpec, limit: timedelta | None = None) -> bool:
    """Whether it answers as a primary in time: over new connections, as applications would."""
    wait = Deadline(limit) if limit else move.deadline
    while True:
        try:
            async with session(node, timedelta(seconds=1)) as conn:
                if await conn.is_primary():
                    return True
        except PostgresError:  # not up yet
            pass
        if not wait.left:
            return False
        await asyncio.sleep(_KNOCK_EVERY_SECONDS)


def unknown(move: Move, said: str) -> Verdict:
    """Nobody can tell who leads, and why."""
    return Verdict(
        outcome=Outcome.UNKNOWN,
        seconds=move.deadline.passed,
        said=said,
        next_step=f"Start nothing by hand before you know who leads: see /db replication. "
        f"{move.candidate.name} may still become the primary, and {move.leader.name} may come "
        "back as its standby alone. Ask for the same once more: it goes on where they stand.",
    )
