"""Which hosts a store may be on, and on which of them it is just now. Pure.

Two of them may take writes at once: an old primary that was parted from the others does not
know that another was promoted. Each promotion begins a timeline of a higher number, so the
newest timeline is the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

PORT: Final = 5432
# Which of `target_session_attrs` lead to a server that takes writes.
TAKES_WRITES: Final = ("primary", "read-write")
# Who has not answered by then does not make the others wait.
OTHERS_SECONDS_MAX: Final = 1.0


class SplitStoreError(ConnectionError):
    """Several hosts take writes, and none of them is the newer one: nobody may write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A place where a server may listen; `name` is a folder for a socket."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a host says of itself. `timeline` 0: it takes no writes; `system` '': it is not told."""

    host: Host
    timeline: int
    system: str


def hosts_of(dsn: str) -> tuple[Host, ...]:
    """The hosts that a DSN lists, in its order; () when it lists none.

    Raises:
        ValueError: hosts and ports do not match, or a port is no number.
    """
    parts = urlsplit(dsn)
    words = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    _, _, listed = parts.netloc.rpartition("@")
    ports = words.get("port", "").split(",")
    names = listed.split(",") if listed else []
    names = names or [name for name in words.get("host", "").split(",") if name]
    if len(ports) == 1:
        ports = ports * len(names)
    if len(ports) != len(names):
        raise ValueError(f"there are {len(names)} hosts and {len(ports)} ports")
    return tuple(_host(name, port) for name, port in zip(names, ports, strict=True))


def objection(dsn: str) -> str:
    """Why a store's DSN cannot be used, with what to write instead; '' for nothing.

    A server that is asked for by name may be a standby. One host is taken as it is.
    """
    try:
        hosts = hosts_of(dsn)
    except ValueError as error:
        return f"its hosts cannot be understood ({error})"
    if len(hosts) <= 1:
        return ""
    wanted = parse_qs(urlsplit(dsn).query).get("target_session_attrs", ["any"])[-1]
    if wanted in TAKES_WRITES:
        return ""
    return (
        f"it lists {len(hosts)} hosts and target_session_attrs={wanted}, so that Twokey could be"
        " led to a standby. Add target_session_attrs=primary, as in"
        " postgresql://twokey@h1:5432,h2:5432/twokey?target_session_attrs=primary"
    )


def choose(
    found: Sequence[Seen], *, silent: int, waited: float, newest: int, system: str
) -> Seen | None:
    """The host that the store is on, of those that have answered; None: not known yet.

    `silent`: hosts that have said nothing in `waited` seconds. `newest`, `system`: the newest
    timeline and the cluster that were ever connected to, 0 and '' for none: whatever is older
    was left behind.

    Raises:
        SplitStoreError: two of them are equally new, or of different clusters.
    """
    primaries = [each for each in found if each.timeline]
    systems = {each.system for each in primaries if each.system} | ({system} if system else set())
    places = " and ".join(str(each.host) for each in primaries)
    if len(systems) > 1:
        raise SplitStoreError(
            f"What {places} would have us write to is not one cluster (system identifiers"
            f" {', '.join(sorted(systems))})"
        )
    best = max((each.timeline for each in primaries), default=0)
    if not best or best < newest or (silent and waited < OTHERS_SECONDS_MAX):
        return None
    chosen = [each for each in primaries if each.timeline == best]
    if len(chosen) > 1:
        raise SplitStoreError(f"{places} take writes on the same timeline, {best}")
    return chosen[0]


def _host(text: str, port: str) -> Host:
    name, own = text, ""
    if text.startswith("["):
        name, _, own = text[1:].partition("]")
        own = own.removeprefix(":")
    elif not text.startswith("/"):
        name, _, own = text.partition(":")
    return Host(name=unquote(name) or "localhost", port=int(port or own or PORT))
