"""How a standby of a pair is told whom to follow: its conninfo and its slot. Pure.

The credentials are those that a standby of this pair uses already, never the bot's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from postgres.dsn import parse_dsn
from postgres.errors import PostgresError

_WORD: Final = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))\s*")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:-]+")
_SLOT_CHARS_MAX: Final = 63  # NAMEDATALEN - 1
_NAME: Final = re.compile(r'"((?:[^"]|"")*)"|([A-Za-z_][A-Za-z0-9_$-]*|\*)')
_COUNTED: Final = re.compile(r"\s*(?:(?:FIRST|ANY)\s+)?\d+\s*\(", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server listens, as libpq names it: a host or a folder of sockets, and a port."""

    host: str
    port: str

    @classmethod
    def of(cls, words: Mapping[str, str]) -> Place:
        """The place that a connection string names."""
        return cls(host=words.get("host", ""), port=words.get("port") or "5432")


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """What a standby is configured with. `slot` '': it follows without one."""

    conninfo: str
    slot: str

    @property
    def settings(self) -> Mapping[str, str]:
        """The server's settings."""
        return MappingProxyType({"primary_conninfo": self.conninfo, "primary_slot_name": self.slot})


def following(
    name: str, *, own: str, peer: str, primary: Place, itself: Place, uses_slots: bool
) -> Following:
    """How node `name` follows the one at `primary`.

    `own`: the conninfo that the node has from an earlier life, which may be empty; `peer`: that
    with which the other node followed this one; `primary`, `itself`: as the inventory says. Nodes
    may know one another by other addresses than we do: the peer's conninfo shows that, and then
    the node's own says where the other is.

    Raises:
        PostgresError: neither has a conninfo that can be understood.
    """
    mine, theirs = words_of(own), words_of(peer)
    base = dict(mine or theirs)
    if not base:
        raise PostgresError(
            f"Nobody knows with which user {name} may follow: no node has a primary_conninfo.",
            next_step="Set primary_conninfo on one of the two (it does nothing on a primary), "
            "with user, password file and the other's address.",
        )
    hidden = bool(mine and theirs) and Place.of(theirs) not in {itself, Place.of(mine)}
    if not hidden or Place.of(mine) == itself:
        base.pop("hostaddr", None)
        base |= {"host": primary.host, "port": primary.port}
    base["application_name"] = name
    return Following(
        conninfo=conninfo_of({word: value for word, value in base.items() if value}),
        slot=slot_of(name) if uses_slots else "",
    )


def slot_of(name: str) -> str:
    """The slot of a node: names of slots have small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9_]", "_", name.lower())[:_SLOT_CHARS_MAX]


def words_of(conninfo: str) -> Mapping[str, str]:
    """A conninfo's words, whatever libpq calls them; none for an empty one.

    Raises:
        PostgresError: it cannot be understood.
    """
    if conninfo.startswith(("postgres://", "postgresql://")):
        return parse_dsn(conninfo).words
    words: dict[str, str] = {}
    at, text = 0, conninfo.strip()
    while at < len(text):
        found = _WORD.match(text, at)
        if not found or found.end() == at:
            raise PostgresError(
                "A node's primary_conninfo cannot be understood.",
                next_step="Write it as host=... port=... user=... passfile=..., as pg_basebackup "
                "-R does.",
            )
        quoted = found[2]
        words[found[1]] = re.sub(r"\\(.)", r"\1", found[3] if quoted is None else quoted)
        at = found.end()
    return words


def conninfo_of(words: Mapping[str, str]) -> str:
    """The text of a conninfo."""
    return " ".join(f"{word}={_quoted(value)}" for word, value in words.items())


def without_password(words: Mapping[str, str]) -> tuple[Mapping[str, str], str]:
    """The words that may stand on a command line, and a password file's text ('' without one)."""
    password = words.get("password", "")
    open_words = {word: value for word, value in words.items() if word != "password"}
    if not password:
        return open_words, ""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    return open_words, f"*:*:*:*:{escaped}\n"


def sync_names(setting: str) -> tuple[str, ...]:
    """The standbys that synchronous_standby_names lists; '*' is anybody."""
    listed = _COUNTED.sub("", setting)
    return tuple(
        (found[1].replace('""', '"') if found[1] is not None else found[2]).lower()
        for found in _NAME.finditer(listed)
    )


def can_be_met(setting: str, by: str) -> bool:
    """Whether a commit on a primary with this setting returns when only `by` follows."""
    counted = re.match(r"\s*(?:(?:FIRST|ANY)\s+)?(\d+)\s*\(", setting, re.IGNORECASE)
    if counted and int(counted[1]) > 1:
        return False
    names = sync_names(setting)
    return not names or bool({"*", by.lower()} & set(names))


def mirrored(setting: str, *, old: str, new: str) -> str:
    """The other side's synchronous_standby_names: what waited for `old` waits for `new`."""
    return "" if not sync_names(setting) else _swapped(setting, old, new)


def _swapped(setting: str, old: str, new: str) -> str:
    if "*" in sync_names(setting):
        return setting
    if {new.lower(), old.lower()} <= set(sync_names(setting)):
        return setting  # written for both sides
    return '"' + new.replace('"', '""') + '"'


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
