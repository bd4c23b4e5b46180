"""What became of a change of roles that Patroni was asked for. Pure.

Patroni's own answer ends nothing but a refusal: "status unknown" (503) often succeeds later,
"Successfully switched over" (200) comes while the promotion is still going on, and a lost answer
says nothing. What counts is which servers take writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from postgres.cluster.patroni_words import Answer, Overview
from postgres.cluster.words import NodeSeen, Outcome, Verdict
from postgres.errors import PostgresError

_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_UNMET: Final = 412
_REDIRECTS: Final = 300
_SERVER_ERRORS: Final = 500
_YES: Final = "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A change of roles. `is_forced`: the leader is taken for gone."""

    leader: str
    candidate: str
    is_forced: bool = False

    @property
    def path(self) -> str:
        """What is called."""
        return "/failover" if self.is_forced else "/switchover"

    @property
    def noun(self) -> str:
        """For people."""
        return "failover" if self.is_forced else "switchover"

    @property
    def body(self) -> Mapping[str, str]:
        """What is asked. With a leader, newer versions take a failover for a switchover."""
        asked = {"candidate": self.candidate}
        return asked if self.is_forced else {"leader": self.leader} | asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What Patroni answered so far. `lost`: why no answer will come; None and '': not yet."""

    answer: Answer | None = None
    lost: str = ""

    @property
    def said(self) -> str:
        """In words."""
        if self.answer is None:
            return self.lost
        return self.answer.said or f"HTTP {self.answer.status}"

    @property
    def has_failed(self) -> bool:
        """Whether Patroni has given it up for good, as opposed to: does not know."""
        answer = self.answer
        return bool(
            answer and answer.status >= _SERVER_ERRORS and answer.said.lower().endswith(" failed")
        )

    @property
    def is_refused(self) -> bool:
        """Whether it was turned down before anything happened."""
        return bool(self.answer and _REDIRECTS <= self.answer.status < _SERVER_ERRORS)


def writable(seen: Sequence[NodeSeen]) -> tuple[NodeSeen, ...]:
    """The servers that take writes."""
    return tuple(each for each in seen if each.is_writable)


def may_begin(seen: Sequence[NodeSeen], move: Move) -> PostgresError | None:
    """Why the servers themselves speak against it, or None: also where it has been done."""
    now = writable(seen)
    names = ", ".join(each.name for each in now)
    if len(now) > 1:
        return PostgresError(
            f"More than one server takes writes: {names}.",
            next_step="Keep applications away from all but one of them, and find out which holds "
            "the data that counts, before any change of roles.",
        )
    if move.is_forced:
        if names == move.leader:
            return PostgresError(
                f"{move.leader} still takes writes, so there is nothing to force.",
                next_step="Ask for a switchover: it loses nothing.",
            )
        return None
    if names not in {move.leader, move.candidate}:
        return PostgresError(
            f"{move.leader} takes no writes"
            + (f", {names} does." if names else ", and no other server does."),
            next_step=f"Switch over from {names}." if names else "See `/db replication` first.",
        )
    return None


def refusal(
    asked: Asked, move: Move, overview: Overview, settings: Mapping[str, str]
) -> PostgresError:
    """The error for an answer that turned the request down.

    `overview`, `settings`: as they were right before, the settings as they are in force.
    """
    status = asked.answer.status if asked.answer else 0
    match status:
        case int() if status == _UNAUTHORIZED:
            return _unknown_login()
        case int() if status == _FORBIDDEN:
            return PostgresError(
                f"Patroni lets this machine change nothing: {asked.said} (403).",
                next_step="Add the worker to restapi.allowlist, or give it a client certificate.",
            )
        case int() if status == _UNMET:
            return _unmet(asked, move, overview, settings)
    return PostgresError(
        f"Patroni refused the {move.noun}: {asked.said} ({status}).",
        next_step="See whether the node's `rest` address leads to Patroni, and what its log says.",
    )


def _unknown_login() -> PostgresError:
    return PostgresError(
        "Patroni does not know this user and password (401).",
        next_step="Set the cluster's user and password in the inventory to those of "
        "restapi.authentication in Patroni's configuration.",
    )


def reinitialize_refused(node: str, answer: Answer) -> PostgresError:
    """The error for a copy that a node's Patroni does not begin."""
    if answer.status == _UNAUTHORIZED:
        return _unknown_login()
    return PostgresError(
        f"Patroni on {node} does not copy it anew: {answer.said} ({answer.status}).",
        next_step="It needs a leader and must not be in maintenance mode; another copy may be at"
        " work already.",
    )


def _unmet(
    asked: Asked, move: Move, overview: Overview, settings: Mapping[str, str]
) -> PostgresError:
    said = asked.said
    holder = overview.leader or "nobody"
    if "leader name does not match" in said:
        why = f"the leader is {holder}, not {move.leader}"
        return _refused(move, said, why, "Look again: the roles have changed since.")
    if "candidate does not exist" in said:
        why = f"{move.candidate} is no member, or its agent has been away for too long"
        return _refused(
            move,
            said,
            why,
            f"Start Patroni on {move.candidate}; the inventory's names must be "
            "Patroni's member names.",
        )
    if "sync_standby" in said or "synchronous" in said:
        sync = [m.name for m in overview.members if m.role in {"sync_standby", "quorum_standby"}]
        why = f"only a synchronous standby may take over: {', '.join(sync) or 'none is there'}"
        return _refused(
            move,
            said,
            why,
            f"Choose {sync[0]}." if sync else "Wait until a standby is synchronous.",
        )
    return _refused(move, said, *_no_good(move, overview, settings))


def _no_good(move: Move, overview: Overview, settings: Mapping[str, str]) -> tuple[str, str]:
    """Why Patroni finds no good candidate: patroni/ha.py, failover_limitation."""
    name = move.candidate
    member = overview.member(name)
    if member is None:
        return f"{name} is no member", f"Start Patroni on {name}."
    if member.tags.get("nofailover", "").lower() == _YES:
        return f"{name} is tagged nofailover", "Choose another, or take the tag out."
    if member.state not in {"running", "streaming"}:
        return f"{name} is {member.state or 'in no known state'}", f"Wait until {name} streams."
    most = settings.get("maximum_lag_on_failover", "")
    if member.lag is None or (most.isdigit() and member.lag > int(most)):
        lag = "an unknown number of" if member.lag is None else str(member.lag)
        return (
            f"{name} is {lag} bytes behind, and maximum_lag_on_failover is {most or 'unknown'}",
            "Wait until it has caught up.",
        )
    return (
        f"agents may not reach {name}'s REST API, its watchdog may fail, or its timeline is older",
        f"See Patroni's log on {move.leader or name} and on {name}.",
    )


def _refused(move: Move, said: str, why: str, next_step: str) -> PostgresError:
    return PostgresError(f"Patroni refused the {move.noun} ({said}): {why}.", next_step=next_step)


def verdict(
    seen: Sequence[NodeSeen], move: Move, asked: Asked, *, seconds: float
) -> Verdict | None:
    """The end, or None while it may still come. `seen`: looked at after `asked` was known."""
    now = writable(seen)
    if len(now) != 1:
        return None
    primary = now[0]
    found = Verdict(
        outcome=Outcome.DONE,
        primary=primary.name,
        timeline=primary.timeline,
        seconds=seconds,
        said=asked.said,
        next_step=_after(seen, move, primary.name),
    )
    if primary.name != move.leader:
        return found
    if asked.has_failed:
        return replace(found, outcome=Outcome.NOTHING, next_step=_before_again(seen, move))
    return None


def _before_again(seen: Sequence[NodeSeen], move: Move) -> str:
    name = move.candidate
    if any(each.name == name and not each.is_reached for each in seen):
        return f"{name} does not answer: bring it back, or ask for another candidate."
    return (
        f"See how far {name} is behind and what Patroni's log on {move.leader} says, then ask "
        "again."
    )


def _after(seen: Sequence[NodeSeen], move: Move, primary: str) -> str:
    steps: list[str] = []
    if primary != move.candidate:
        steps.append(
            f"{primary} took over instead of {move.candidate}: switch once more if it must "
            f"be {move.candidate}."
        )
    away = any(each.name == move.leader and not each.is_reached for each in seen)
    if move.is_forced and away:
        steps.append(
            f"{move.leader} does not answer: keep applications away from it until it "
            f"follows {primary}."
        )
    return " ".join(steps)


def unknown(seen: Sequence[NodeSeen], move: Move, asked: Asked, *, seconds: float) -> Verdict:
    """The verdict when the time is over."""
    now = [each.name for each in writable(seen)]
    match now:
        case []:
            step = (
                "No server takes writes. See Patroni's logs and its DCS; a frozen standby holds up "
                f"the old primary's shutdown, and {move.leader} may still be stopping."
            )
        case [only]:
            step = (
                f"{only} takes writes, but Patroni may still carry the {move.noun} out: do nothing "
                "before it says that it failed, or the roles have changed."
            )
        case _:
            step = (
                f"{' and '.join(now)} both take writes: keep applications away from all but one, "
                "and compare their timelines."
            )
    return Verdict(
        outcome=Outcome.UNKNOWN,
        primary=now[0] if len(now) == 1 else "",
        seconds=seconds,
        said=asked.said,
        next_step=step,
    )
