"""What people are told about a session of a server: who it is, what it does. Pure.

The texts of statements are shown without literals, of utility statements only the first words.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from jobs.text import span_text
from postgres.health.blocking import Backend
from postgres.health.statement_text import shown

CHARS_MAX: Final = 90
_NAME_CHARS_MAX: Final = 40
_OTHER_LOCKS: Final = {
    "transactionid": "a row",
    "tuple": "a row",
    "virtualxid": "a transaction",
    "advisory": "an advisory lock",
    "relation": "a relation",
}


def name_of(backend: Backend) -> str:
    """How it is called: `4711`, or `prepared 'gid'`."""
    return f"prepared {_short(str(backend.key))}" if backend.is_prepared else str(backend.key)


def who(backend: Backend) -> str:
    """Its user, with application and address where they are known: `app (web, 10.0.0.3)`."""
    known = [_short(each) for each in (backend.application, backend.client) if each]
    user = _short(backend.user) or backend.backend_type
    return f"{user} ({', '.join(known)})" if known else user


def doing(backend: Backend, *, chars_max: int = CHARS_MAX) -> str:
    """What it is at, and for how long."""
    if backend.is_prepared:
        return "prepared, and neither committed nor rolled back"
    if backend.is_hidden:
        return "not visible to our user (GRANT pg_monitor)"
    if backend.is_against_wraparound:
        return "autovacuum to prevent wraparound: it does not give way, and must not be ended"
    text = shown(backend.query, chars_max=chars_max)
    if backend.state == "active":
        return f"runs {text or backend.backend_type}{_for(backend, backend.query_start)}"
    if backend.state:
        last = f", last: {text}" if text else ""
        return f"{backend.state}{_for(backend, backend.state_change)}{last}"
    return backend.backend_type


def lock_of(backend: Backend) -> str:
    """What it waits for: `ShareLock on public.orders`."""
    if not backend.mode:
        return "-"
    what = backend.relation or _OTHER_LOCKS.get(backend.locktype, backend.locktype)
    row = " (row)" if backend.relation and backend.locktype in {"transactionid", "tuple"} else ""
    return f"{backend.mode} on {what}{row}"


def transaction_text(backend: Backend) -> str:
    """How long its transaction has been open."""
    age = backend.transaction_age
    return "-" if age is None else span_text(age)


def _for(backend: Backend, since: datetime | None) -> str:
    return "" if since is None else f" for {span_text(backend.seen_at - since)}"


def _short(text: str) -> str:
    return text if len(text) <= _NAME_CHARS_MAX else f"{text[: _NAME_CHARS_MAX - 1]}…"
