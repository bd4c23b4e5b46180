"""What Patroni's REST API says, read. Pure.

Written for 3.0 and 4.1: a key that a version leaves out is None, an unknown role or state is
kept as it is. Sources: patroni/api.py and cluster_as_json in patroni/utils.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from postgres.cluster.words import Member, Promotion

SAID_CHARS_MAX: Final = 300
_MEMBERS_MAX: Final = 200
_HISTORY_MAX: Final = 1000
_HISTORY_WIDTH: Final = 3  # timeline, LSN, reason; then the time and the new leader, since 2.0
_DEPTH_MAX: Final = 6
# patroni/config.py, __DEFAULT_CONFIG.
_DEFAULTS: Final = MappingProxyType({"ttl": 30, "loop_wait": 10, "retry_timeout": 10})
# Since 3.2.0 smaller ones are stored as they were asked for, yet not used
# (patroni/config.py, _validate_and_adjust_timeouts). 3.0 uses what is stored.
_CLAMPS_SINCE: Final = (3, 2)
_SMALLEST: Final = MappingProxyType({"ttl": 20, "loop_wait": 1, "retry_timeout": 3})
ASKED: Final = "asked."
_LEADS: Final = frozenset({"master", "primary"})
_PAGE_MESSAGE: Final = re.compile(r"<p>\s*Message:\s*(.*?)\s*</p>", re.DOTALL | re.IGNORECASE)
_TAG: Final = re.compile(r"<[^>]*>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a REST call got back. `at`: the clock of the host that answered, where it said it."""

    status: int
    text: str
    at: datetime | None = None

    @property
    def said(self) -> str:
        """Its words in one line, without the page around them."""
        page = _PAGE_MESSAGE.search(self.text)
        plain = page[1] if page else _TAG.sub(" ", self.text)
        line = " ".join("".join(c if c.isprintable() else " " for c in plain).split())
        return line[:SAID_CHARS_MAX]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """GET /cluster: the DCS as one of the agents has just read it."""

    members: tuple[Member, ...]
    is_paused: bool = False
    scheduled: str = ""
    pending_restart: tuple[str, ...] = ()

    @property
    def leader(self) -> str:
        """Who holds the leader key; '' for nobody."""
        leads = {"leader", "standby_leader"}
        return next((each.name for each in self.members if each.role in leads), "")

    def member(self, name: str) -> Member | None:
        """The member of this name."""
        return next((each for each in self.members if each.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """GET /patroni: an agent of itself. `dcs_age`: s since it last spoke with the DCS."""

    member: Member
    version: tuple[int, ...] = ()
    dcs_age: float | None = None
    is_paused: bool = False
    is_failsafe_active: bool = False
    is_pending_restart: bool = False


def overview(text: str) -> Overview:
    """GET /cluster.

    Raises:
        ValueError: this is no such answer, or half of one.
    """
    told = _object(text)
    members = _list(told.get("members"))[:_MEMBERS_MAX]
    found = tuple(_member(_mapping(each)) for each in members)
    return Overview(
        members=found,
        is_paused=told.get("pause") is True,
        scheduled=_scheduled(told.get("scheduled_switchover")),
        pending_restart=tuple(
            each.name
            for each, said in zip(found, members, strict=True)
            if said.get("pending_restart")
        ),
    )


def _member(told: Mapping[str, Any]) -> Member:
    name = told.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("a member without a name")
    return Member(
        name=name,
        role=_text(told.get("role")),
        state=_text(told.get("state")),
        timeline=_whole(told.get("timeline")),
        lag=_whole(told.get("lag")),  # "unknown" while it does not run
        tags=_flat(told.get("tags") or {}),
    )


def _scheduled(told: object) -> str:
    if not isinstance(told, Mapping):
        return ""
    words = [f"switchover at {_text(told.get('at')) or 'an unknown time'}"]
    words += [f"{word} {told[word]}" for word in ("from", "to") if told.get(word)]
    return " ".join(words)


def agent(name: str, answer: Answer) -> Agent:
    """GET /patroni of the node `name`.

    Raises:
        ValueError: this is no such answer, or half of one.
    """
    told = _object(answer.text)
    if "state" not in told:
        raise ValueError("no state")
    return Agent(
        member=Member(
            name=name,
            role=_role(told),
            state=_text(told.get("state")),
            timeline=_whole(told.get("timeline")),
            tags=_flat(told.get("tags") or {}),
        ),
        version=version(_text(_mapping(told.get("patroni") or {}).get("version"))),
        dcs_age=_age(told.get("dcs_last_seen"), answer.at),
        is_paused=told.get("pause") is True,
        is_failsafe_active=told.get("failsafe_mode_is_active") is True,
        is_pending_restart=bool(told.get("pending_restart")),
    )


def _role(told: Mapping[str, Any]) -> str:
    """As GET /cluster words it: a primary holds the key, or takes itself for its holder."""
    role = _text(told.get("role"))
    if role in _LEADS:
        return "leader"
    for word in ("sync_standby", "quorum_standby"):
        if told.get(word):
            return word
    return role


def _age(seen: object, at: datetime | None) -> float | None:
    """Both of the same host's clock, so that a skew against ours does not count."""
    if at is None or not isinstance(seen, int | float) or not seen:
        return None
    return max(0.0, at.timestamp() - seen)


def version(text: str) -> tuple[int, ...]:
    """`4.1.5` as numbers; (): unknown."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def configuration(text: str) -> Mapping[str, str]:
    """GET /config, flat: `postgresql.parameters.max_connections` to `100`.

    Raises:
        ValueError: this is no such answer, or half of one.
    """
    return _flat(_object(text))


def in_force(stored: Mapping[str, str], running: tuple[int, ...]) -> Mapping[str, str]:
    """What agents of this version go by: names to texts, without the parameters of PostgreSQL.

    A time that differs from what is stored has that beside it: `ttl` 20 and `asked.ttl` 5.
    """
    kept = {name: value for name, value in stored.items() if "." not in name}
    asked = {name: _whole_text(stored.get(name), default) for name, default in _DEFAULTS.items()}
    used = clamped(asked) if running >= _CLAMPS_SINCE else asked
    differ = {f"{ASKED}{name}": str(asked[name]) for name in asked if asked[name] != used[name]}
    return MappingProxyType(kept | {name: str(used[name]) for name in used} | differ)


def clamped(asked: Mapping[str, int]) -> Mapping[str, int]:
    """Patroni's own rule: the smallest values, then loop_wait + 2 * retry_timeout <= ttl."""
    wait, retry, ttl = (
        max(asked[name], _SMALLEST[name]) for name in ("loop_wait", "retry_timeout", "ttl")
    )
    least = _SMALLEST["loop_wait"]
    if least + 2 * retry > ttl:
        wait, retry = least, (ttl - least) // 2
    elif wait + 2 * retry > ttl:
        wait = ttl - 2 * retry
    return {"ttl": ttl, "loop_wait": wait, "retry_timeout": retry}


def history(text: str) -> tuple[Promotion, ...]:
    """GET /history: oldest first, the newest thousand.

    Raises:
        ValueError: this is no such answer, or half of one.
    """
    lines = _list(_loaded(text))[-_HISTORY_MAX:]
    return tuple(sorted((_promotion(_list(line)) for line in lines), key=lambda p: p.timeline))


def _promotion(line: Sequence[Any]) -> Promotion:
    if len(line) < _HISTORY_WIDTH:
        raise ValueError("a line of the history is too short")
    timeline, lsn = _whole(line[0]), _whole(line[1])
    if timeline is None or lsn is None:
        raise ValueError("a line of the history without its timeline")
    when, leader = [*line[_HISTORY_WIDTH:], None, None][:2]
    return Promotion(
        timeline=timeline,
        lsn=lsn,
        reason=_text(line[2])[:SAID_CHARS_MAX],
        at=datetime.fromisoformat(when) if isinstance(when, str) else None,
        leader=_text(leader),
    )


def _loaded(text: str) -> object:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(text: str) -> Mapping[str, Any]:
    return _mapping(_loaded(text))


def _mapping(found: object) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004  (what was sent is wrong, not our types)
    return found


def _list(found: object) -> list[Any]:
    if not isinstance(found, list):
        raise ValueError("no list")  # noqa: TRY004
    return found


def _text(found: object) -> str:
    return found if isinstance(found, str) else ""


def _whole(found: object) -> int | None:
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _whole_text(found: str | None, default: int) -> int:
    try:
        return int(float(found)) if found else default
    except ValueError:
        return default


def _flat(found: object) -> Mapping[str, str]:
    return MappingProxyType(dict(sorted(_leaves(found, "", 0)))) if found else MappingProxyType({})


def _leaves(found: object, name: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(found, dict) and found and depth < _DEPTH_MAX:
        for key, value in found.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(found, str):
        yield name, found
    else:  # true, 20, ["a"]: as JSON has them
        yield name, json.dumps(found, sort_keys=True)
