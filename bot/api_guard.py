"""Who calls the API: the account that a token proves, as the directory knows it now."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from approvals.events import Manner
from approvals.machine import inadmissible
from approvals.tally import fit
from approvals.tokens import Token
from approvals.words import Door, Person, RefusedError, Why
from bot.deciding import Caller
from bot.desk import Desk

FAILURES_MAX: Final = 30
FAILURES_PER_SECOND: Final = 0.5
_KEYS_MAX: Final = 10_000
_SCHEME: Final = "bearer"
_NETWORK_BITS: Final = 64


class LimitedError(RefusedError):
    """Too many calls that failed; `seconds` until the next is looked at."""

    def __init__(self, seconds: int) -> None:
        super().__init__(
            "Too many calls in a row were refused.",
            next_step=f"Wait {seconds} s, and mend what is wrong with them.",
            why=Why.LOCKED,
        )
        self.seconds = seconds


@dataclass(slots=True)
class Failures:
    """Counts failures by key, each of which is forgiven after a while. Bounded in size."""

    clock: Callable[[], float] = time.monotonic
    failures_max: int = FAILURES_MAX
    forgiven_per_second: float = FAILURES_PER_SECOND
    _counts: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def check(self, key: str) -> None:
        """Let a key pass that has not failed too often.

        Raises:
            LimitedError: it has.
        """
        count = self._now(key)
        if count >= self.failures_max:
            excess = count - self.failures_max + 1
            raise LimitedError(max(1, round(excess / self.forgiven_per_second)))

    def add(self, key: str) -> None:
        """A failure."""
        count = min(self._now(key) + 1, self.failures_max + 1.0)
        self._counts[key] = (count, self.clock())
        self._counts.move_to_end(key)
        while len(self._counts) > _KEYS_MAX:
            self._counts.popitem(last=False)

    def _now(self, key: str) -> float:
        count, at = self._counts.get(key, (0.0, 0.0))
        return max(0.0, count - (self.clock() - at) * self.forgiven_per_second)


@dataclass(slots=True, kw_only=True)
class Guard:
    """Turns a bearer token into a caller, or into a refusal."""

    desk: Desk
    failures: Failures = field(default_factory=Failures)
    # Tokens that were good a while ago, as digests: who works already is not locked out by
    # somebody else who guesses from the same address, such as a proxy's.
    _good: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    async def token(self, authorization: str | None, address: str | None) -> Token:
        """The token that was presented, if it is a good one.

        Raises:
            LimitedError: too many bad ones came from there.
            RefusedError: there is none, or it is none of ours that still holds.
        """
        place = f"address {network(address)}"
        text = _bearer(authorization)
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        if digest not in self._good:
            self.failures.check(place)
        found = await self.desk.tokens.owner(text) if text else None
        if found is None:
            self._good.pop(digest, None)
            self.failures.add(place)
            raise RefusedError(
                "The token is missing, unknown, revoked or has run out.",
                next_step="Make one with /db token in Slack; send it as Authorization: Bearer.",
                why=Why.SIGNATURE,
            )
        self.failures.check(f"token {found.id}")
        self._good[digest] = None
        self._good.move_to_end(digest)
        while len(self._good) > _KEYS_MAX:
            self._good.popitem(last=False)
        return found

    async def caller(self, token: Token, *, door: Door, delivery: str) -> Caller:
        """Whoever stands behind a token's account now.

        Raises:
            RefusedError: the account may not act, belongs to somebody else by now, or
                nobody can be identified at the moment.
        """
        team, _, user = token.slack.partition("/")
        person = await self.desk.person(team, user)
        if person.id != token.person:
            raise RefusedError(
                "The account that this token was made for belongs to somebody else now.",
                next_step="Make a new one with /db token in Slack.",
                why=Why.IDENTITY,
            )
        return Caller(person=person, door=door, delivery=delivery)

    def failed(self, token: Token) -> None:
        """A call with this token was refused or was none."""
        self.failures.add(f"token {token.id}")


def admit(person: Person, *, as_user: str | None, set_policy: object) -> None:
    """Let a payload pass that does not reach beyond its sender.

    Raises:
        RefusedError: it names somebody else, or tries to change the rules with it.
    """
    manner = Manner(as_person=as_user, sets_policy=set_policy is not None)
    if refusal := inadmissible(person, manner, may_act=fit(person)):
        raise RefusedError(refusal.problem, next_step=refusal.next_step, why=refusal.why)


def network(address: str | None) -> str:
    """What counts as one place: an address, or the network of one that has many."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _NETWORK_BITS), strict=False))
    return str(found)


def _bearer(authorization: str | None) -> str:
    scheme, _, text = (authorization or "").partition(" ")
    return text.strip() if scheme.lower() == _SCHEME else ""
