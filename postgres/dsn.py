"""Where a database is, as libpq's programs and asyncpg want to hear it. Pure.

A password is never part of a command line: programs get it in their environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from postgres.errors import PostgresError

_SCHEMES: Final = ("postgres://", "postgresql://")
_PAIR: Final = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|([^\s']*))\s*")
# The words of a connection string and the variables in which libpq looks for the same.
_VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "host": "PGHOST",
        "port": "PGPORT",
        "dbname": "PGDATABASE",
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "passfile": "PGPASSFILE",
        "sslmode": "PGSSLMODE",
        "sslcert": "PGSSLCERT",
        "sslkey": "PGSSLKEY",
        "sslrootcert": "PGSSLROOTCERT",
        "sslcrl": "PGSSLCRL",
        "application_name": "PGAPPNAME",
        "options": "PGOPTIONS",
        "connect_timeout": "PGCONNECT_TIMEOUT",
        "target_session_attrs": "PGTARGETSESSIONATTRS",
    }
)
_FOR_LIBPQ_ALONE: Final = ("connect_timeout",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parsed connection string; `words` are libpq's."""

    words: Mapping[str, str] = field(repr=False)

    @property
    def database(self) -> str:
        """The database's name."""
        return self.words.get("dbname") or self.words.get("user") or "postgres"

    @property
    def place(self) -> str:
        """Host and port, for people."""
        return f"{self.words.get('host', 'localhost')}:{self.words.get('port', '5432')}"

    def url(self, database: str | None = None) -> str:
        """For asyncpg, optionally with another database of the same server."""
        words = {k: v for k, v in self.words.items() if k not in _FOR_LIBPQ_ALONE}
        name = words.pop("dbname", "")
        chosen = quote(database or name or self.database, safe="")
        return f"postgresql:///{chosen}?{urlencode(words, quote_via=quote)}"

    def environ(self, **more: str) -> dict[str, str]:
        """For libpq's programs, the password included; `more` are further words."""
        words = {**self.words, **more}
        return {_VARIABLES[word]: value for word, value in words.items() if value}


def parse_dsn(text: str) -> Target:
    """Understand `postgresql://user@host:port/database?sslmode=...` or `host=... user=...`.

    Raises:
        PostgresError: it cannot be understood, or uses a word that we do not know.
    """
    try:
        words = _from_url(text) if text.startswith(_SCHEMES) else _from_pairs(text)
    except ValueError:
        words = {"?": ""}
    if unknown := sorted(words.keys() - _VARIABLES.keys()):
        raise PostgresError(
            f"A connection string cannot be understood (at {', '.join(unknown)}).",
            next_step="Write it as postgresql://user:password@host:5432/database?sslmode=require.",
        )
    return Target(words=MappingProxyType(words))


def _from_url(text: str) -> dict[str, str]:
    parts = urlsplit(text)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    places = [_place(part) for part in hosts.split(",")] if hosts else []
    words = {
        "host": ",".join(host for host, _ in places),
        "port": ",".join(port for _, port in places),
        "dbname": unquote(parts.path.removeprefix("/")),
        "user": unquote(user),
        "password": unquote(password),
        **dict(parse_qsl(parts.query, strict_parsing=bool(parts.query))),
    }
    return {word: value for word, value in words.items() if value.strip(",")}


def _place(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::(\d*))?", text)
    if not found:
        raise ValueError(text)
    return unquote(found[1] or found[2] or ""), found[3] or ""


def _from_pairs(text: str) -> dict[str, str]:
    words: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _PAIR.match(text, at)
        if not found or found.end() == at:
            raise ValueError(text)
        quoted = found[2]
        words[found[1]] = found[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        at = found.end()
    if not words:
        raise ValueError(text)
    return words
