"""A node comes back as a standby: it follows, or is rewound first, or is copied anew.

`standby.signal` stands in its folder before any start, so it never takes a write. Whether it
has diverged it finds out itself, as a standby that has recovered what is its own: its position
is beyond where the primary's history left its timeline. Only then is it rewound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from postgres.account import make_private, server_account
from postgres.cluster import host_scripts
from postgres.cluster import rewind_scripts as scripts
from postgres.cluster.adapter import Tell
from postgres.cluster.follow import (
    Following,
    Place,
    conninfo_of,
    following,
    mirrored,
    without_password,
    words_of,
)
from postgres.cluster.host import Host
from postgres.cluster.host_words import HostSeen, setting_in, with_settings
from postgres.cluster.pair_steps import Deadline, follows, fork_of, session
from postgres.cluster.words import ClusterSeen, NodeSeen, NodeSpec, Promotion, Role
from postgres.errors import PostgresError
from postgres.sizes import pretty_bytes

AUTO: Final = "postgresql.auto.conf"
_LOOK_EVERY_SECONDS: Final = 0.1
_STOP_LIMIT: Final = timedelta(seconds=30)
# Beyond this the folder lies on a disk that is full or dead.
_FILES_LIMIT: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """A node that is to follow `primary`. `look` asks both servers."""

    node: NodeSpec
    primary: NodeSpec
    host: Host  # the node's
    look: Callable[[], Awaitable[ClusterSeen]]
    deadline: Deadline
    tell: Tell


async def bring_back(back: Return) -> None:
    """Have the node follow, and wait until it streams. Done already: nothing happens.

    Raises:
        PostgresError: it does not follow; says what to do.
    """
    seen = await back.look()
    if why := follows(seen, back.node.name, back.primary.name):
        await back.tell(f"{back.node.name} comes back as a standby of {back.primary.name}.")
        host = await back.host.look()
        _check_roles(back, seen)
        if not _is_standby(back, seen):
            _check_folder(back, host)
        plan, history = await _plan(back)
        await _begin(back, plan, host)
        if await _wait(back, history):
            await _rewind(back, plan)
            if why := await _wait(back, history):
                raise await _does_not_follow(back, why)
    await tidy(back)


async def rebuild(back: Return) -> None:
    """Copy the node anew from the primary into a folder beside its own, and swap the two.

    The old folder goes when the new one streams. Needs as much room again as the primary has.

    Raises:
        PostgresError: it failed; says what stands.
    """
    _check_roles(back, await back.look())
    await _end(back)
    await back.host.ask(scripts.CLEAR, as_owner=False, limit=_FILES_LIMIT)
    plan, history = await _plan(back)
    await back.tell(f"Copying {back.primary.name} for {back.node.name}.")
    await _keep(back)
    await _make_beside(back, "twokey-new")
    source, password = without_password(words_of(plan.conninfo))
    done = await back.host.attempt(
        scripts.COPY,
        back.host.programs,
        conninfo_of(source),
        plan.slot,
        limit=back.deadline.left,
        stdin=password,
    )
    if done.code:
        await back.host.ask(scripts.CLEAR, as_owner=False, limit=_FILES_LIMIT)
        raise PostgresError(
            f"{back.node.name} could not be copied: {done.last_words.rstrip('.')}. Its old folder "
            "stands as it was.",
            next_step="Mend what it names (room on the disk, the replication user, tablespaces "
            "that exist already), then rebuild it once more.",
        )
    await back.host.ask(scripts.SWAP, as_owner=False, limit=_FILES_LIMIT)
    await _configure(back, plan)
    await back.host.start("standby")
    if why := await _wait(back, history):
        raise await _does_not_follow(back, why)
    await tidy(back)


async def tidy(back: Return) -> None:
    """What is left of the earlier roles goes: the stale slot, a changed setting, our copies."""
    async with session(back.primary) as above, session(back.node) as own:
        facts, mine = await above.facts(), await own.facts()
        await own.drop_slot(facts.slot)
        await above.restore_sync_names(
            mirrored(mine.sync_names, old=back.primary.name, new=back.node.name)
        )
    await back.host.ask(scripts.DROP_KEPT, as_owner=False, limit=_FILES_LIMIT)


async def _plan(back: Return) -> tuple[Following, tuple[Promotion, ...]]:
    """How it will follow, and the primary's history. The slot is there from here on."""
    conf = await back.host.read(AUTO)
    async with session(back.primary) as conn:
        facts = await conn.facts()
        history = await conn.histories()
        plan = following(
            back.node.name,
            own=setting_in(conf, "primary_conninfo"),
            peer=facts.conninfo,
            primary=Place.of(back.primary.target.words),
            itself=Place.of(back.node.target.words),
            uses_slots=bool(facts.slot or setting_in(conf, "primary_slot_name")),
        )
        await conn.create_slot(plan.slot)
    return plan, history


def _check_roles(back: Return, seen: ClusterSeen) -> None:
    """Refuse where nobody can be followed, or who should follow leads.

    Raises:
        PostgresError: says which.
    """
    own, above = seen.node(back.node.name), seen.node(back.primary.name)
    if above is None or above.role is not Role.PRIMARY:
        raise PostgresError(
            f"{back.primary.name} is no primary that answers, so nobody can follow it.",
            next_step="Look at /db replication for who leads.",
        )
    if own is not None and own.role is Role.PRIMARY:
        raise PostgresError(
            f"{back.node.name} is a primary itself, so it was left alone.",
            next_step=f"What it has accepted since {back.primary.name} was promoted is lost when "
            "it comes back: save that first, stop it, then try again.",
        )


def _is_standby(back: Return, seen: ClusterSeen) -> bool:
    own = seen.node(back.node.name)
    return own is not None and own.role is Role.STANDBY


async def _begin(back: Return, plan: Following, host: HostSeen) -> None:
    """Have it run as a standby with this plan, whatever it does now."""
    if _is_standby(back, await back.look()):
        async with session(back.node) as conn:
            await conn.follow(plan)
        return
    if host.is_alive:  # a standby that has not come up yet, perhaps because of its settings
        await _configure(back, plan)
        await back.host.ask(host_scripts.RELOAD)
        return
    await back.host.ask(scripts.PUT_BACK, limit=_FILES_LIMIT)  # where a rewind ended just before
    await back.host.mark_standby()
    await _configure(back, plan)
    await back.host.start("standby")


async def _wait(back: Return, history: tuple[Promotion, ...]) -> str:
    """Wait until it streams: ''. Else why it never will, as it has what the primary has not.

    Raises:
        PostgresError: the time is over, or it has ended.
    """
    checks = 0
    while True:
        seen = await back.look()
        why = follows(seen, back.node.name, back.primary.name)
        own, above = seen.node(back.node.name), seen.node(back.primary.name)
        if not why:
            return ""
        if own and above and (beyond := diverged(own, above, history)):
            return f"it has {pretty_bytes(beyond)} that {back.primary.name} never had"
        checks += 1
        if own and not own.is_reached and checks % 10 == 0:
            host = await back.host.look()
            if not host.is_alive:
                raise await _does_not_follow(back, "its server has ended")
        if not back.deadline.left:
            raise await _does_not_follow(back, why)
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def _rewind(back: Return, plan: Following) -> None:
    """Undo what the primary never had.

    Raises:
        PostgresError: it cannot be done, and nothing has changed; or it ended half-way, and the
            folder is no server any more.
    """
    name = back.node.name
    await back.tell(f"Rewinding {name}: it has what {back.primary.name} never had.")
    control = await back.host.stop("fast", limit=_STOP_LIMIT)
    if control is None or not control.is_shut_down:
        raise _to_rebuild(back, f"{name} could not be stopped in order, so it was not rewound")
    if not control.can_rewind:
        raise _to_rebuild(
            back, f"{name} cannot be rewound: it has neither data checksums nor wal_log_hints"
        )
    async with session(back.primary) as conn:
        # Until then its control file speaks of the timeline before.
        await conn.checkpoint(back.deadline.left)
    await _keep(back)
    for mode in ("try", "do"):
        source, password = _source(back, plan)
        done = await back.host.attempt(
            scripts.REWIND,
            back.host.programs,
            conninfo_of(source),
            mode,
            limit=max(back.deadline.left, _STOP_LIMIT),
            stdin=password,
        )
        if done.code and mode == "try":
            raise _to_rebuild(
                back, f"{name} cannot be rewound, and was not changed: {done.last_words}"
            )
        if done.code:
            raise _half(back, f"Rewinding {name} failed half-way: {done.last_words}")
    await _configure(back, plan)
    await back.host.start("standby")


def _source(back: Return, plan: Following) -> tuple[Mapping[str, str], str]:
    """The new primary as pg_rewind reaches it: at the place of replication, as our own user."""
    login = back.primary.target.words
    ours = {word: login[word] for word in ("user", "password", "sslmode") if word in login}
    place = Place.of(words_of(plan.conninfo))
    words = {"host": place.host, "port": place.port, "dbname": back.primary.target.database}
    return without_password(words | ours)


async def _keep(back: Return) -> None:
    """Our own copy of the configuration, beside the data folder."""
    await _make_beside(back, "twokey-kept")
    await back.host.ask(scripts.KEEP, limit=_FILES_LIMIT)


async def _make_beside(back: Return, ending: str) -> None:
    """A folder beside the data folder. Here we may have to make it for the server's account."""
    if back.host.is_local:
        await asyncio.to_thread(_make_private, Path(back.host.data), ending)


def _make_private(data: Path, ending: str) -> None:
    real = data.resolve()
    make_private(real.with_name(f"{real.name}.{ending}"), server_account())


async def _configure(back: Return, plan: Following) -> None:
    """Write whom it follows; it must not change its settings itself meanwhile."""
    conf = await back.host.read(AUTO)
    wanted = with_settings(conf, plan.settings)
    if wanted != conf:
        await back.host.write(AUTO, wanted)


async def _end(back: Return) -> None:
    """Stop a standby whose folder is to be replaced; the folder may be broken, or gone.

    Raises:
        PostgresError: it is none that we may stop, or does not end.
    """
    host = await back.host.look()
    _check_processes(back, host)
    if host.is_alive and await back.host.stop("fast", limit=_STOP_LIMIT) is None:
        raise PostgresError(
            f"{back.node.name} does not stop, so its folder was left alone.",
            next_step="Stop it by hand, then rebuild it.",
        )


def _check_folder(back: Return, host: HostSeen) -> None:
    """Refuse what must not be started.

    Raises:
        PostgresError: it is half rewound, somebody works in it, or its server lives as who knows.
    """
    _check_processes(back, host)
    if host.is_half:
        raise _half(back, f"{back.node.name}'s folder was half rewound")
    if not host.exists or not host.version:
        raise _half(back, f"{back.host.data} is no data folder of PostgreSQL")


def _check_processes(back: Return, host: HostSeen) -> None:
    name = back.node.name
    if host.tools:
        raise PostgresError(
            f"Process {host.tools[0]} is still working in {name}'s folder.",
            next_step="Wait until it has ended, or end it; then try again.",
        )
    if not host.sees_processes or (host.exists and not host.is_owner):
        raise PostgresError(
            f"The account that `host.via` of {name} leads to does not own {back.host.data}.",
            next_step="Let it lead to the server's account, on the machine itself.",
        )
    if host.is_frozen or (host.is_alive and not host.has_standby_signal):
        pids = " ".join(str(each.pid) for each in host.servers)
        raise PostgresError(
            f"{name}'s server lives and does not answer, so it was left alone.",
            next_step=f"Find out why. If nobody needs what it has, end it (kill -9 {pids}).",
        )


def _half(back: Return, problem: str) -> PostgresError:
    return PostgresError(
        f"{problem.rstrip('.')}. It is not a server any more and is never started.",
        next_step=f"Rebuild {back.node.name}: a fresh base backup of {back.primary.name} replaces "
        "its folder.",
    )


def _to_rebuild(back: Return, problem: str) -> PostgresError:
    return PostgresError(
        f"{problem.rstrip('.')}.",
        next_step=f"Mend that and try again, or rebuild {back.node.name}: a fresh base backup of "
        f"{back.primary.name} replaces its folder.",
    )


async def _does_not_follow(back: Return, why: str) -> PostgresError:
    said = await back.host.last_words()
    words = f" Its log ends with: {said.rstrip('.')}." if said else ""
    return PostgresError(
        f"{back.node.name} does not follow {back.primary.name}: {why}.{words}",
        next_step=f"Read its log. If WAL that it needs is gone from {back.primary.name}, rebuild "
        "it from a base backup.",
    )


def diverged(own: NodeSeen, above: NodeSeen, history: tuple[Promotion, ...]) -> int:
    """How many bytes a standby has that are no part of the primary's history; 0 for none."""
    if own.role is not Role.STANDBY or own.timeline is None or above.timeline is None:
        return 0
    if own.timeline == above.timeline:
        return 0
    fork, position = fork_of(history, own.timeline), own.position or 0
    if fork is None:  # a timeline of its own
        return max(position, 1)
    return max(position - fork, 0)
