"""Personal tokens for the doors beside Slack: `twk_<id>_<secret>`, shown once, kept as a hash.

A token proves an account, and nothing more: who is behind it, and whether they may act, is
looked up anew each time it is used.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from pydantic import SecretStr

from approvals import audit
from approvals.records import stamp
from approvals.signing import VoteKeys, key_id
from approvals.tally import fit
from approvals.words import BadInputError, Person, PersonId, RefusedError, Why
from store.connect import Store

LIFETIME: Final = timedelta(hours=8)
LIFETIME_MIN: Final = timedelta(minutes=1)
LIFETIME_MAX: Final = timedelta(days=7)
LIVE_MAX: Final = 5
NAME_CHARS_MAX: Final = 40
TOKEN_CHARS: Final = 81
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
# One spelling: nothing that merely looks like a token reaches the store.
_TOKEN: Final = re.compile(r"twk_([0-9a-f]{12})_([0-9a-f]{64})", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{12}", re.ASCII)
_NAME: Final = re.compile(r"[\w .@-]*")
_PURPOSE: Final = b"twokey token v1"
_NOTHING: Final = f"{'0' * 12}.{'0' * 64}"
# The last use is for its owner to see, not worth a write per call.
_USED_EVERY: Final = timedelta(minutes=1)
_KEPT_AFTER_END: Final = timedelta(days=1)

# Issuing is counted per person, so two at once must wait for each other.
LOCK_PERSON: Final = sa.text(
    "SELECT pg_advisory_xact_lock(hashtextextended('twokey tokens ' || :person, 0))"
)

COUNT_LIVE: Final = sa.text("""
    SELECT count(*) FROM tokens
     WHERE person = :person AND revoked_at IS NULL AND expires_at > :now
""")

INSERT_TOKEN: Final = sa.text("""
    INSERT INTO tokens (id, person, slack, name, hash, created_at, expires_at)
    VALUES (:id, :person, :slack, :name, :hash, :created_at, :expires_at)
        ON CONFLICT (id) DO NOTHING
 RETURNING id
""")

FIND_TOKEN: Final = sa.text("""
    SELECT id, person, slack, name, hash, created_at, expires_at, used_at, revoked_at
      FROM tokens
     WHERE id = :id
""")

LIST_TOKENS: Final = sa.text("""
    SELECT id, person, slack, name, hash, created_at, expires_at, used_at, revoked_at
      FROM tokens
     WHERE person = :person AND revoked_at IS NULL AND expires_at > :now
     ORDER BY created_at, id
""")

NOTE_USE: Final = sa.text("UPDATE tokens SET used_at = :now WHERE id = :id")

REVOKE_TOKEN: Final = sa.text("""
    UPDATE tokens SET revoked_at = :now
     WHERE id = :id AND person = :person AND revoked_at IS NULL AND expires_at > :now
 RETURNING id
""")

FORGET_TOKENS: Final = sa.text("""
    DELETE FROM tokens
     WHERE id IN (SELECT id FROM tokens WHERE expires_at < :before
                   ORDER BY expires_at LIMIT :rows FOR UPDATE SKIP LOCKED)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as its owner may see it: everything but the secret."""

    id: str
    person: PersonId
    slack: str
    name: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A new token. `secret` is None when this delivery was answered before: shown once is once."""

    token: Token
    secret: SecretStr | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Issues, knows and revokes tokens. Safe to use from many tasks and hosts."""

    store: Store
    keys: VoteKeys
    clock: Callable[[], datetime]
    lifetime: timedelta = LIFETIME

    async def issue(
        self, person: Person, *, lifetime: timedelta | None, name: str, delivery: str
    ) -> Issued:
        """A new token of somebody who stands before us with their Slack account.

        Raises:
            RefusedError: they may not act, or have as many tokens as one may have.
            BadInputError: the lifetime or the name cannot be.
        """
        if not fit(person) or not person.slack:
            raise RefusedError(
                "Only a full, confirmed account of this workspace gets a token.",
                next_step="Ask a colleague who has one.",
                why=Why.IDENTITY,
            )
        token = self._new(person, lifetime or self.lifetime, name, delivery)
        secret = secrets.token_hex(_SECRET_BYTES)
        values = {
            **_fields(token),
            "hash": _mac(self.keys.current, token, secret),
        }
        async with self.store.begin() as conn:
            await conn.execute(LOCK_PERSON, {"person": person.id})
            known = (await conn.execute(FIND_TOKEN, {"id": token.id})).mappings().one_or_none()
            if known is not None:
                return Issued(token=_token(known), secret=None)
            now = token.created_at
            live = await conn.scalar(COUNT_LIVE, {"person": person.id, "now": now})
            if live >= LIVE_MAX:
                raise _too_many()
            await conn.execute(INSERT_TOKEN, values)
            await audit.append(
                conn, chain="", at=now, actor=person.id, action="issue_token",
                detail={"token": token.id, "name": name, "expires_at": stamp(token.expires_at)},
            )  # fmt: skip
        return Issued(token=token, secret=SecretStr(f"twk_{token.id}_{secret}"))

    async def owner(self, text: str) -> Token | None:
        """The token that somebody presents, or None when it is none of ours that still holds.

        Whether it is unknown, forged, revoked or has run out is not told apart.
        """
        parts = parts_of(text)
        if parts is None:
            return None
        token_id, secret = parts
        now = self.clock()
        async with self.store.single() as conn:
            row = (await conn.execute(FIND_TOKEN, {"id": token_id})).mappings().one_or_none()
            token = _token(row or _no_row(token_id))
            # Compared also when there is no such token, so that the time taken tells nothing.
            holds = self._holds(token, secret, row["hash"] if row else _NOTHING)
            if row is None or not holds or row["revoked_at"] or token.expires_at <= now:
                return None
            if token.used_at is None or now - token.used_at >= _USED_EVERY:
                await conn.execute(NOTE_USE, {"id": token.id, "now": now})
        return token

    async def of(self, person: Person) -> Sequence[Token]:
        """Somebody's live tokens, oldest first."""
        async with self.store.single() as conn:
            rows = await conn.execute(LIST_TOKENS, {"person": person.id, "now": self.clock()})
            return [_token(row) for row in rows.mappings()]

    async def revoke(self, person: Person, token_id: str) -> bool:
        """End one of somebody's own tokens; False when they have no such live one."""
        if not _ID.fullmatch(token_id):
            return False
        now = self.clock()
        values = {"id": token_id, "person": person.id, "now": now}
        async with self.store.begin() as conn:
            if (await conn.execute(REVOKE_TOKEN, values)).one_or_none() is None:
                return False
            await audit.append(
                conn, chain="", at=now, actor=person.id, action="revoke_token",
                detail={"token": token_id},
            )  # fmt: skip
        return True

    async def forget(self, *, rows_max: int = 500) -> int:
        """Delete what ran out a while ago, so many at most; how many that were."""
        before = self.clock() - _KEPT_AFTER_END
        async with self.store.single() as conn:
            gone = await conn.execute(FORGET_TOKENS, {"before": before, "rows": rows_max})
            return gone.rowcount

    def _new(self, person: Person, lifetime: timedelta, name: str, delivery: str) -> Token:
        if not LIFETIME_MIN <= lifetime <= LIFETIME_MAX:
            raise BadInputError(
                f"A token lives between a minute and {LIFETIME_MAX.days} days.",
                next_step="Say it in hours, like this: /db token 8",
            )
        if len(name) > NAME_CHARS_MAX or not _NAME.fullmatch(name):
            raise BadInputError(
                f"A token's name has at most {NAME_CHARS_MAX} letters, digits, spaces, . @ and -.",
                next_step="Name what will use it, like this: /db token 8 laptop",
            )
        # Sealed as it is stored: to the microsecond.
        now = self.clock().astimezone(UTC)
        return Token(
            id=self._id(person, delivery),
            person=person.id,
            slack=person.slack,
            name=name,
            created_at=now,
            expires_at=now + lifetime,
        )

    def _id(self, person: Person, delivery: str) -> str:
        """The same for the same delivery; it is public, and says nothing about the secret."""
        if not delivery:
            return secrets.token_hex(_ID_BYTES)
        key = _key(self.keys.current)
        text = f"id\n{person.id}\n{delivery}".encode()
        return hmac.new(key, text, hashlib.sha256).hexdigest()[: 2 * _ID_BYTES]

    def _holds(self, token: Token, secret: str, stored: str) -> bool:
        known = [key for key in (self.keys.current, self.keys.previous) if key is not None]
        # Every key is tried, so that the time taken does not say which one fits.
        fits = [
            hmac.compare_digest(_mac(key, token, secret).encode(), stored.encode()) for key in known
        ]
        return any(fits)


def parts_of(text: str) -> tuple[str, str] | None:
    """Id and secret of what looks like a token; a token has one spelling. Pure."""
    found = _TOKEN.fullmatch(text) if len(text) == TOKEN_CHARS else None
    return (found[1], found[2]) if found else None


def _mac(key: bytes, token: Token, secret: str) -> str:
    """Covers whose it is and how long it lives: a row that is edited opens nothing."""
    lines = (token.id, token.person, token.slack, stamp(token.expires_at), secret)
    made = hmac.new(_key(key), "\n".join(lines).encode(), hashlib.sha256).hexdigest()
    return f"{key_id(key)}.{made}"


def _key(key: bytes) -> bytes:
    # Derived, so that no token's hash can be passed off as a vote's signature.
    return hmac.new(key, _PURPOSE, hashlib.sha256).digest()


def _fields(token: Token) -> dict[str, object]:
    return {
        "id": token.id,
        "person": token.person,
        "slack": token.slack,
        "name": token.name,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
    }


def _token(row: Mapping[str, Any] | sa.RowMapping) -> Token:
    return Token(
        id=row["id"],
        person=PersonId(row["person"]),
        slack=row["slack"],
        name=row["name"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
    )


def _no_row(token_id: str) -> Mapping[str, Any]:
    long_ago = datetime(1970, 1, 1, tzinfo=UTC)
    return {
        "id": token_id, "person": "", "slack": "", "name": "",
        "created_at": long_ago, "expires_at": long_ago, "used_at": None,
    }  # fmt: skip


def _too_many() -> RefusedError:
    return RefusedError(
        f"You have {LIVE_MAX} tokens that still live, which is as many as one may have.",
        next_step="/db tokens lists them; /db token revoke <id> ends one.",
        why=Why.DUPLICATE,
    )
