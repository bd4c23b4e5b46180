"""May this cluster change its primary now, and to whom? Pure: over what was seen, and limits.

What must hold comes from measured accidents. A fast shutdown waits for every walsender, so one
frozen standby holds up the switch of all (not only the candidate counts). An agent calls a
switchover a success whose candidate still has to replay a backlog. `replay_lag` is as old as the
standby's last answer, so bytes, the age of the answer and the standby's own view count together.
"""

from __future__ import annotations

from collections.abc import Iterator

from postgres.cluster.candidates import STREAMING, SYNC, bytes_behind, closest, sender_of
from postgres.cluster.checks import Check, Limits, Preflight, replays
from postgres.cluster.judge_standbys import reply_age
from postgres.cluster.preflight_agent import of_agent
from postgres.cluster.words import ClusterSeen, NodeSeen, Role, Sender
from postgres.sizes import pretty_bytes


def switch_preflight(seen: ClusterSeen, limits: Limits, *, candidate: str = "") -> Preflight:
    """Before a planned switchover: everything is there and close together. Pure.

    `candidate` '': the synchronous standby, else one of the primary's region, else the closest.
    """
    primary = seen.primary
    if primary is None:
        return Preflight(leader="", candidate=candidate, checks=(_one_primary(seen),))
    chosen = candidate or closest(seen, primary)
    checks = (
        _one_primary(seen),
        *_all_there(seen, primary),
        *_of_candidate(seen, primary, chosen, limits),
        *_of_senders(seen, primary, limits),
        *of_agent(seen, primary, chosen),
        *_at_work(primary, limits),
        _slots(primary),
        _region(seen, primary, chosen),
    )
    return Preflight(leader=primary.name, candidate=chosen, checks=checks)


def _one_primary(seen: ClusterSeen) -> Check:
    names = [each.name for each in seen.writable]
    match names:
        case [name]:
            found, step = f"{name} alone takes writes.", ""
        case []:
            found = "No node takes writes."
            step = "Find out why with /db replication; a forced failover is for a lost primary."
        case _:
            found = f"{' and '.join(names)} both take writes: a split brain."
            step = (
                "Stop the applications and change nothing else: whatever is written to the wrong"
                " one will be lost. /db replication shows timelines and positions."
            )
    return Check(name="One primary", is_met=len(names) == 1, found=found, next_step=step)


def _all_there(seen: ClusterSeen, primary: NodeSeen) -> Iterator[Check]:
    away = [f"{each.name} ({each.problem})" for each in seen.nodes if not each.is_reached]
    yield Check(
        name="All nodes answer",
        is_met=not away,
        found=f"Not: {', '.join(away)}." if away else f"All {len(seen.nodes)} do.",
        next_step="Bring it back, or take it out of the inventory's `cluster.nodes`.",
    )
    strangers = [
        each.name
        for each in seen.nodes
        if each.is_reached and each.system_identifier != primary.system_identifier
    ]
    yield Check(
        name="One cluster",
        is_met=not strangers,
        found=f"{', '.join(strangers)}: another cluster's data."
        if strangers
        else f"All have the system identifier {primary.system_identifier}.",
        next_step="Mend the node's DSN in the inventory, or rebuild the node from this primary.",
    )
    others = [
        f"{each.name} is on {each.timeline}"
        for each in seen.nodes
        if each.is_reached and each.timeline != primary.timeline
    ]
    yield Check(
        name="One timeline",
        is_met=not others,
        found=f"{primary.name} is on {primary.timeline}, {', '.join(others)}."
        if others
        else f"All are on timeline {primary.timeline}.",
        next_step="A standby on another timeline does not follow: rejoin it first.",
    )
    versions = {each.version for each in seen.nodes if each.is_reached}
    yield Check(
        name="One version",
        is_met=len(versions) < 2,  # noqa: PLR2004 - one
        found=f"Versions differ: {', '.join(map(str, sorted(versions)))}."
        if len(versions) > 1
        else "All run the same release.",
        next_step="Minor releases may differ while updating; what the new primary writes, older"
        " standbys must understand.",
        warns=True,
    )


def _of_candidate(
    seen: ClusterSeen, primary: NodeSeen, candidate: str, limits: Limits
) -> Iterator[Check]:
    node = seen.node(candidate)
    problem = _why_no_candidate(node, primary, candidate)
    yield Check(
        name="Candidate",
        is_met=not problem,
        found=problem or f"{candidate} is a standby.",
        next_step="Name a standby of this cluster: /db replication lists them.",
    )
    if problem or node is None:
        return
    yield replays(node)
    sender = sender_of(primary, candidate)
    streams = sender is not None and sender.state == STREAMING
    yield Check(
        name="Candidate streams",
        is_met=streams,
        found=f"{candidate} streams."
        if streams
        else f"{candidate}: {sender.state if sender else 'the primary has no connection of it'}.",
        next_step="Wait until it has caught up, or see its log for why it does not connect.",
    )
    if sender is not None:
        yield _within_bytes(sender, limits, "Candidate's lag in bytes")
    yield _seconds_behind(node, sender, limits)
    if seen.agent is None and primary.sync_names and sender is not None:
        is_sync = sender.sync_state in SYNC
        yield Check(
            name="Candidate is synchronous",
            is_met=is_sync,
            found=f"{candidate} is {sender.sync_state}.",
            next_step="Choose the synchronous standby, or wait until this one is.",
        )


def _why_no_candidate(node: NodeSeen | None, primary: NodeSeen, name: str) -> str:
    if not name:
        return "There is no standby that could take over."
    if node is None:
        return f"There is no node called {name}."
    if node.name == primary.name:
        return f"{name} is the primary already."
    if not node.is_reached:
        return f"{name} does not answer: {node.problem}."
    if node.role is not Role.STANDBY:
        return f"{name} is no standby."
    return ""


def _of_senders(seen: ClusterSeen, primary: NodeSeen, limits: Limits) -> Iterator[Check]:
    """A fast shutdown waits for all of them, so each can hold up the switch."""
    ages = [(each.name, reply_age(each, primary, seen.node(each.name))) for each in primary.senders]
    frozen = [
        f"{name} ({'never' if age is None else f'{age:.0f} s ago'})"
        for name, age in ages
        if age is None or age > limits.reply_age.total_seconds()
    ]
    yield Check(
        name="Standbys answer the primary",
        is_met=not frozen,
        found=f"Last answer: {', '.join(frozen)}." if frozen else "All have, just now.",
        next_step="A shutdown waits for every walsender: mend or disconnect it first.",
    )
    # Who archives WAL (pg_receivewal) replays nothing, and says only at a segment's end that it
    # has flushed.
    known = {each.name for each in seen.nodes}
    late = [
        f"{each.name} ({pretty_bytes(each.flush_behind or 0)})"
        for each in primary.senders
        if (each.name in known or each.replay_behind is not None)
        and (each.flush_behind is None or each.flush_behind > limits.lag_bytes)
    ]
    yield Check(
        name="Nobody holds up the shutdown",
        is_met=not late,
        found=f"Behind: {', '.join(late)}." if late else "All standbys have what was written.",
        next_step="Wait until it has caught up; the primary must send it everything first.",
    )
    named = {each.name for each in primary.senders}
    missing = [
        each.name
        for each in seen.nodes
        if each.is_reached and each.role is Role.STANDBY and each.name not in named
    ]
    yield Check(
        name="Every standby streams",
        is_met=not missing,
        found=f"Not connected to {primary.name}: {', '.join(missing)}."
        if missing
        else "Every standby does.",
        next_step="See its log; after the switch it would have to be rebuilt. Its"
        " application_name must be its name in the inventory.",
    )


def _within_bytes(sender: Sender, limits: Limits, name: str) -> Check:
    worst = bytes_behind(sender)
    return Check(
        name=name,
        is_met=worst is not None and worst <= limits.lag_bytes,
        found=f"{sender.name} is {pretty_bytes(worst)} behind (limit"
        f" {pretty_bytes(limits.lag_bytes)})."
        if worst is not None
        else f"Nobody can tell how far {sender.name} is behind.",
        next_step="Wait until it has received and replayed the rest.",
        passes=True,
    )


def _seconds_behind(node: NodeSeen, sender: Sender | None, limits: Limits) -> Check:
    """While it is behind at all, the age of what it replayed last is its lag."""
    is_behind = sender is None or sender.replay_behind is None or sender.replay_behind > 0
    age = node.replay_age if is_behind else 0.0
    return Check(
        name="Candidate's lag in time",
        is_met=age is not None and age <= limits.lag.total_seconds(),
        found=f"{age:.1f} s (limit {limits.lag.total_seconds():.0f} s)."
        if age is not None
        else "Nobody can tell.",
        next_step="Wait until it has caught up.",
        passes=True,
    )


def _at_work(primary: NodeSeen, limits: Limits) -> Iterator[Check]:
    yield Check(
        name="No base backup",
        is_met=primary.base_backups == 0,
        found=f"{primary.base_backups} run on {primary.name}."
        if primary.base_backups
        else "None runs.",
        next_step="Wait for its end: it would fail.",
    )
    age, most = primary.oldest_transaction, limits.transaction_age.total_seconds()
    yield Check(
        name="No long transaction",
        is_met=age is None or age <= most,
        found=f"The oldest is {age or 0.0:.0f} s old (limit {most:.0f} s).",
        next_step="It would be lost: wait, or see /db locks for whose it is.",
    )
    yield Check(
        name="No prepared transaction",
        is_met=primary.prepared_transactions == 0,
        found=f"{primary.prepared_transactions} wait for their second phase.",
        next_step="Let their coordinator finish them first (pg_prepared_xacts).",
    )


def _slots(primary: NodeSeen) -> Check:
    logical = [each.name for each in primary.slots if each.kind == "logical"]
    return Check(
        name="No logical slots",
        is_met=not logical,
        found=f"Stay behind on the old primary: {', '.join(logical)}."
        if logical
        else "There are none.",
        next_step="Subscribers must be led over by hand, unless slots are synchronised (17).",
        warns=True,
    )


def _region(seen: ClusterSeen, primary: NodeSeen, candidate: str) -> Check:
    node = seen.node(candidate)
    other = node.region if node else ""
    is_far = bool(other and primary.region and other != primary.region)
    return Check(
        name="Same region",
        is_met=not is_far,
        found=f"From {primary.region} to {other}."
        if is_far
        else f"{other or 'No region is named'}.",
        next_step="Applications of the old region will write across regions.",
        warns=True,
    )
